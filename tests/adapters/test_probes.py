"""Probes over a real socket, and what live and ready mean, with a clock moved by hand."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from streamapp.adapters.metrics import CONTENT_TYPE, Metrics
from streamapp.adapters.probes import Health, Pages, Probes


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock, stuck_s=10.0)


@pytest.fixture
def pages(health: Health) -> Pages:
    return Pages(health, Metrics("messages", "1").exposition, CONTENT_TYPE)


def test_live_fails_when_the_loop_is_stuck(health: Health, clock: Clock, pages: Pages) -> None:
    assert pages.get("/healthz/live").status == 200
    clock.now += 10.1
    answer = pages.get("/healthz/live")
    assert answer.status == 503 and b"has not turned for 10.1 s" in answer.body
    health.turned()
    assert pages.get("/healthz/live").status == 200


def test_live_fails_when_records_are_held_and_none_is_acknowledged(health: Health, clock: Clock, pages: Pages) -> None:
    clock.now += 60
    health.turned()
    # Nothing to do for a minute is no fault, and the first record afterwards starts the wait anew.
    assert pages.get("/healthz/live").status == 200
    health.holds(5)
    assert pages.get("/healthz/live").status == 200
    clock.now += 9
    health.holds(8)
    clock.now += 2
    health.turned()
    answer = pages.get("/healthz/live")
    assert answer.status == 503 and b"8 records are in flight" in answer.body
    health.settled(in_flight=3)
    assert pages.get("/healthz/live").status == 200


def test_ready_waits_for_assignment_and_loading(health: Health, pages: Pages) -> None:
    assert pages.get("/healthz/ready").body == b"no partitions are assigned\n"
    health.assigned, health.loading = True, {"state of partition 3": 0.42}
    answer = pages.get("/healthz/ready")
    assert (answer.status, answer.body) == (503, b"state of partition 3 is loaded to 42%\n")
    health.loading["state of partition 3"] = 1.0
    assert pages.get("/healthz/ready").status == 200
    health.draining = True
    assert pages.get("/healthz/ready").status == 503 and pages.get("/healthz/live").status == 200


def test_detail_says_everything_in_json(health: Health, clock: Clock, pages: Pages) -> None:
    health.assigned = True
    health.detail = lambda: {"assignment": [0, 2], "lag": {0: {"records": 5, "seconds": 0.5}}, "versions": {"release": "r1"}}
    clock.now += 1.5
    answer = pages.get("/healthz/detail")
    detail = orjson.loads(answer.body)
    assert detail["live"] and detail["ready"] and detail["why"] == [] and detail["last_batch_age_s"] == 1.5
    assert detail["assignment"] == [0, 2] and detail["lag"]["0"]["records"] == 5


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if not request.endswith(b"\r\n\r\n"):
        writer.write_eof()
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    if not head:
        return 0, {}, b""
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


async def test_pages_over_a_socket(health: Health, pages: Pages) -> None:
    async with Probes(pages, health, "127.0.0.1", 0) as probes:
        status, headers, body = await ask(probes.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4") and b"streamapp_events_total 0.0" in body
        assert int(headers["Content-Length"]) == len(body)
        assert (await ask(probes.port, b"GET /healthz/live?x=1 HTTP/1.1\r\n\r\n"))[0] == 200
        assert (await ask(probes.port, b"GET /table/users HTTP/1.1\r\n\r\n"))[0] == 404
        assert (await ask(probes.port, b"POST /metrics HTTP/1.1\r\n\r\n"))[0] == 405
        assert (await ask(probes.port, b"\xff\xfe nonsense\r\n\r\n"))[0] == 400
        assert (await ask(probes.port, b"GET /" + b"a" * 20_000 + b"\r\n\r\n"))[0] in (0, 400)
        assert (await ask(probes.port, b"GET /metr"))[0] == 0
        # After all that it still answers.
        assert (await ask(probes.port, b"GET /healthz/detail HTTP/1.1\r\n\r\n"))[0] == 200


async def test_a_page_that_breaks_says_so_and_the_next_is_served(health: Health) -> None:
    def broken() -> bytes:
        raise RuntimeError("no figures")

    async with Probes(Pages(health, broken, CONTENT_TYPE), health, "127.0.0.1", 0) as probes:
        status, _, body = await ask(probes.port, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert status == 500 and b"no figures" in body
        assert (await ask(probes.port, b"GET /healthz/live HTTP/1.1\r\n\r\n"))[0] == 200


async def test_the_beat_keeps_a_running_loop_alive(health: Health, clock: Clock, pages: Pages) -> None:
    async with Probes(pages, health, "127.0.0.1", 0, beat_s=0.0):
        clock.now += 60
        for _ in range(10):
            await asyncio.sleep(0)
        assert not health.stuck()
    clock.now += 60
    assert health.stuck()
