"""A way to Redis that can be broken: it refuses, hangs, is slow, answers with errors or with rubbish, and can be mended again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MODES = ("pass", "refuse", "hang", "slow", "error", "rubbish")
CHUNK = 1 << 16


class Way:
    """Listens on a port of its own and hands on to a real Redis what comes, the way `mode` says."""

    def __init__(self, host: str, port: int, slow_s: float) -> None:
        self._host, self._port, self._slow_s = host, port, slow_s
        self._mode = "pass"
        self._mended = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens; on the port it had before, if it had one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more and cuts every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.close()

    async def set(self, mode: str) -> None:
        """Breaks or mends it."""
        before, self._mode = self._mode, mode
        if mode == "refuse":
            await self.stop()
        elif before == "refuse":
            await self.start()
        if mode == "hang":
            self._mended.clear()
        else:
            self._mended.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            their_reader, their_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        self._open |= {writer, their_writer}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, their_writer, writer))
                both.create_task(self._carry(their_reader, writer, None))
        except* (OSError, asyncio.CancelledError, RuntimeError):
            pass
        finally:
            for one in (writer, their_writer):
                self._open.discard(one)
                one.close()

    async def _carry(self, source: asyncio.StreamReader, goal: asyncio.StreamWriter, back: asyncio.StreamWriter | None) -> None:
        """Hands on in one direction; `back` is the asker, where what comes is a question."""
        while data := await source.read(CHUNK):
            if self._mode == "hang":
                await self._mended.wait()
            if back is not None and self._mode in ("error", "rubbish"):
                back.write(b"-ERR it is broken\r\n" if self._mode == "error" else b"\x00\xff HTTP/1.1 418\r\n\r\n")
                continue
            if back is not None and self._mode == "slow":
                await asyncio.sleep(self._slow_s)
            goal.write(data)
        goal.close()


@asynccontextmanager
async def way_to(address: str, slow_s: float) -> AsyncIterator[Way]:
    """Gives an open way to the Redis at HOST:PORT."""
    host, port = address.split(":")
    way = Way(host, int(port), slow_s)
    await way.start()
    try:
        yield way
    finally:
        with contextlib.suppress(OSError):
            await way.stop()
