"""One small HTTP port for those who watch: /metrics, and three answers to "how are you?"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson

#: A request line and headers longer than this are nobody we know.
_REQUEST_BYTES_MAX = 8192
_REQUEST_TIMEOUT_S = 5.0
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class Health:
    """What the worker says about itself; the probes only read it.

    `live` is false when the loop has not turned for `stuck_s`, or the line has held records for so long without acknowledging any:
    restarting helps then. `ready` is false until partitions are assigned and loaded: restarting would not help.
    """

    def __init__(self, clock: Callable[[], float], stuck_s: float = 30.0) -> None:
        """`clock` gives seconds and never goes back."""
        self._clock, self.stuck_s = clock, stuck_s
        self._turned_s = self._settled_s = clock()
        self.in_flight = 0
        self.assigned = False
        self.loading: dict[str, float] = {}  #  what is being loaded: share done, 1.0 is loaded
        self.draining = False
        self.detail: Callable[[], Mapping[str, Any]] = dict  # assignment, lag, versions, degraded

    def turned(self) -> None:
        """The event loop runs."""
        self._turned_s = self._clock()

    def settled(self, in_flight: int) -> None:
        """A micro-batch was acknowledged (or there is none); `in_flight` records are still on their way."""
        self._settled_s, self.in_flight = self._clock(), in_flight

    def holds(self, in_flight: int) -> None:
        """So many records are between read and acknowledgement now; waiting begins when there were none before."""
        if not in_flight or not self.in_flight:
            self._settled_s = self._clock()
        self.in_flight = in_flight

    def stuck(self) -> list[str]:
        """Gives why the worker is not live; nothing when it is."""
        now = self._clock()
        loop_s, batch_s = now - self._turned_s, now - self._settled_s
        why = [f"the event loop has not turned for {loop_s:.1f} s"] if loop_s > self.stuck_s else []
        if self.in_flight and batch_s > self.stuck_s:
            why.append(f"{self.in_flight} records are in flight and none was acknowledged for {batch_s:.1f} s")
        return why

    def unready(self) -> list[str]:
        """Gives why the worker is not ready; nothing when it is."""
        why = [] if self.assigned else ["no partitions are assigned"]
        why += [f"{what} is loaded to {share:.0%}" for what, share in self.loading.items() if share < 1.0]
        return why + ["the worker drains"] * self.draining

    def report(self) -> dict[str, Any]:
        """Gives what GET /healthz/detail answers."""
        stuck, unready = self.stuck(), self.unready()
        return {
            "live": not stuck, "ready": not unready, "why": stuck + unready, "in_flight_records": self.in_flight,
            "last_batch_age_s": round(self._clock() - self._settled_s, 3), "loading": dict(self.loading), **self.detail(),
        }  # fmt: skip


class Answer(NamedTuple):
    """An HTTP answer without its transport."""

    status: int
    content_type: str
    body: bytes


class Pages:
    """Every page by path, without a socket: what `Probes` serves, and what tests ask."""

    def __init__(self, health: Health, exposition: Callable[[], bytes], exposition_type: str) -> None:
        self._health, self._exposition, self._exposition_type = health, exposition, exposition_type

    def get(self, path: str) -> Answer:
        """Takes a path without its query; gives the page. What is wrong stands in the body, one reason a line."""
        if path == "/metrics":
            return Answer(200, self._exposition_type, self._exposition())
        if path == "/healthz/live":
            return _verdict(self._health.stuck(), "live")
        if path == "/healthz/ready":
            return _verdict(self._health.unready(), "ready")
        if path == "/healthz/detail":
            return Answer(200, JSON, orjson.dumps(self._health.report(), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
        return Answer(404, TEXT, b"/metrics /healthz/live /healthz/ready /healthz/detail\n")


def _verdict(why: list[str], well: str) -> Answer:
    return Answer(503, TEXT, "\n".join([*why, ""]).encode()) if why else Answer(200, TEXT, f"{well}\n".encode())


class Probes:
    """Serves `Pages` over HTTP/1.1, one request per connection; `async with` starts and stops it.

    It runs on the worker's own loop: when that loop is stuck nobody answers, which a liveness probe counts as failed too.
    """

    def __init__(self, pages: Pages, health: Health, host: str, port: int, beat_s: float = 1.0) -> None:
        """`port` 0 takes one that is free; `self.port` then names it."""
        self._pages, self._health, self._host, self.port, self._beat_s = pages, health, host, port, beat_s
        self._server: asyncio.Server | None = None
        self._beat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=_REQUEST_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        self._beat = asyncio.create_task(self._turn())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _turn(self) -> None:
        while True:
            self._health.turned()
            await asyncio.sleep(self._beat_s)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                answer = await self._answer(reader)
                head = (
                    f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nContent-Type: {answer.content_type}\r\n"
                    f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + answer.body)
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # who asked went away, or never finished asking
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        except (ValueError, asyncio.LimitOverrunError):
            return Answer(400, TEXT, b"not an HTTP request\n")
        if method != "GET":
            return Answer(405, TEXT, b"GET only\n")
        try:
            return self._pages.get(target.partition("?")[0])
        except Exception as broken:  # noqa: BLE001 - whoever watches must be told, and the line must not stop for a page
            return Answer(500, TEXT, f"{broken!r}\n".encode())
