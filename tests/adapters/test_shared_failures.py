"""A real Redis that is killed, hangs, is slow, holds other things or comes back empty: every event is decided, and the cause is named."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from streamapp.adapters.shared_redis import RedisShared
from streamapp.core.outcome import Outcome
from tests.redis_server import DEADLINE_S, Server
from tests.shared_line import SERVING, Event, Worker, causes, features

pytestmark = pytest.mark.redis


@pytest.fixture
async def worker(server: Server) -> AsyncIterator[Worker]:
    windows = RedisShared(SERVING.shared, f"redis://127.0.0.1:{server.port}/0", "t", deadline_ms=50)
    yield Worker(windows)
    await windows.close()


class Payments:
    """One payment a call at terminal `t`, 10 ms apart."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> list[Event]:
        self.count += 1
        return [Event(1_000_000 + 10 * self.count, self.count, "t", None, 100)]


async def until_known(worker: Worker, payments: Payments) -> Outcome:
    """Goes on deciding until the windows are known again; gives that outcome."""
    give_up = time.monotonic() + DEADLINE_S
    while True:
        outcome = await worker.run(payments.next())
        if not row_of(outcome)["terminal_id_windows_missing"]:
            return outcome
        assert time.monotonic() < give_up, f"windows stay missing: {causes(outcome)}"
        await asyncio.sleep(0.01)


def row_of(outcome: Outcome) -> dict[str, float]:
    (row,) = features(outcome).values()
    return row


def assert_missing(outcome: Outcome) -> None:
    """The verdict is there, its shared windows are not, and say so."""
    assert len(outcome.route) == 1
    row = row_of(outcome)
    assert (row["terminal_10s_count"], row["terminal_id_windows_missing"], row["ip_windows_missing"]) == (0, 1, 1)


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_a_redis_that_is_gone_costs_one_deadline_and_every_verdict_says_so(server: Server, worker: Worker, way: str) -> None:
    payments = Payments()
    assert causes(await worker.run(payments.next())) == ["redis_warming"]
    server.send(signal.SIGKILL if way == "killed" else signal.SIGSTOP)
    told = []
    for _ in range(200):
        outcome = await worker.run(payments.next())
        assert_missing(outcome)
        told += causes(outcome)
    assert told == ["refused" if way == "killed" else "timeout"] + 199 * ["open"]
    if way == "hung":
        server.send(signal.SIGCONT)
        outcome = await until_known(worker, payments)
        assert causes(outcome) == ["redis_warming"]
        assert row_of(outcome)["terminal_10s_count"] == payments.count


async def test_what_was_acknowledged_during_an_outage_reaches_the_others(server: Server, worker: Worker) -> None:
    payments = Payments()
    await worker.run(payments.next())
    server.send(signal.SIGSTOP)
    for _ in range(20):
        await worker.run(payments.next())
    server.send(signal.SIGCONT)
    await until_known(worker, payments)
    other = RedisShared(SERVING.shared, f"redis://127.0.0.1:{server.port}/0", "t", deadline_ms=50)
    outcome = await until_known(Worker(other), payments)
    await other.close()
    assert row_of(outcome)["terminal_10s_count"] == payments.count


async def test_a_redis_that_came_back_empty_is_warming_and_forgets_no_event_of_this_worker(server: Server, worker: Worker) -> None:
    payments = Payments()
    await worker.run(payments.next())
    later = SERVING.shared.keep_ms
    assert causes(await worker.run([Event(1_000_000 + later + 10, 2, "t", None, 100)])) == []
    server.send(signal.SIGKILL)
    assert_missing(await worker.run([Event(1_000_000 + later + 20, 3, "t", None, 100)]))
    server.start()
    give_up = time.monotonic() + DEADLINE_S
    number = 4
    while True:
        outcome = await worker.run([Event(1_000_000 + later + 10 * number, number, "t", None, 100)])
        if not row_of(outcome)["terminal_id_windows_missing"]:
            break
        assert time.monotonic() < give_up
        number += 1
        await asyncio.sleep(0.01)
    assert causes(outcome) == ["redis_warming"]
    assert row_of(outcome)["terminal_10s_count"] == number - 1
    assert causes(await worker.run([Event(1_000_000 + 2 * later + 10 * number, 0, "t", None, 100)])) == []


async def test_a_redis_slower_than_the_deadline_is_left_alone(server: Server, worker: Worker) -> None:
    payments = Payments()
    await worker.run(payments.next())
    with Redis(port=server.port) as client:
        client.client_pause(500, all=True)
    outcome = await worker.run(payments.next())
    assert_missing(outcome)
    assert causes(outcome) == ["timeout"]
    assert causes(await worker.run(payments.next())) == ["open"]
    assert row_of(await until_known(worker, payments))["terminal_10s_count"] == payments.count


@pytest.mark.parametrize("what", ["list", "text"])
async def test_keys_that_hold_other_things_are_named_and_take_nothing_else_down(server: Server, worker: Worker, what: str) -> None:
    payments = Payments()
    await worker.run(payments.next())
    with Redis(port=server.port) as client:
        (key,) = (key for key in client.keys("t:shared:terminal_id:*") if b":log" not in key)
        client.delete(key)
        if what == "list":
            client.rpush(key, "x")
        else:
            client.set(key, b"something that is no list of entries")
    windows = RedisShared(SERVING.shared, f"redis://127.0.0.1:{server.port}/0", "t", deadline_ms=50)
    newcomer = Worker(windows)
    for _ in range(2):
        outcome = await newcomer.run(payments.next())
        assert_missing(outcome)
        assert causes(outcome) == ["wrong_type"]
    outcome = await newcomer.run([Event(1_000_500, 77, "another", None, 100)])
    assert causes(outcome) == ["redis_warming"]
    assert row_of(outcome)["terminal_10s_count"] == 1
    await windows.close()


async def test_a_redis_that_is_full_is_read_and_named(server: Server, worker: Worker) -> None:
    payments = Payments()
    await worker.run(payments.next())
    with Redis(port=server.port) as client:
        client.config_set("maxmemory", "1")
        await worker.run(payments.next())
        outcome = await worker.run(payments.next())
        assert causes(outcome) == ["redis_warming", "not_written"]
        assert row_of(outcome)["terminal_10s_count"] == 3
        client.config_set("maxmemory", "0")
    await worker.run(payments.next())
    assert causes(await worker.run(payments.next())) == ["redis_warming"]
