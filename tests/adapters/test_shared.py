"""Windows of entities that cross partitions: one contract for the worker that is alone and for those that share a Redis."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.adapters import shared_redis
from streamapp.adapters.shared_memory import MemoryShared
from streamapp.adapters.shared_redis import RedisShared
from streamapp.core.cascade import Degraded
from streamapp.core.events import Flag
from tests.shared_line import SERVING, Event, Worker, brute, causes, features

Windows = MemoryShared | RedisShared
WARMING = Degraded("redis", "redis_warming")
OPEN = Callable[[str], Windows]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def windows(request: pytest.FixtureRequest) -> OPEN:
    """Opens the shared windows of one worker in a namespace."""
    if request.param == "memory":
        return lambda namespace: MemoryShared(SERVING.shared)
    address = request.getfixturevalue("redis_address")
    return lambda namespace: RedisShared(SERVING.shared, f"redis://{address}/0", namespace, deadline_ms=1000)


def run(test: Callable[..., Awaitable[Any]], open_windows: OPEN, workers: int = 1) -> Any:
    """Runs a test with so many workers in a namespace of their own, and ends their connections."""
    namespace = f"t{uuid.uuid4().hex}"

    async def between() -> Any:
        opened = [open_windows(namespace) for _ in range(workers)]
        try:
            return await test(*(Worker(one) for one in opened))
        finally:
            for one in opened:
                await one.close()

    return asyncio.run(between())


def assert_equal(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for event_id, row in expected.items():
        assert found[event_id] == pytest.approx(row, rel=1e-12), event_id


def stream(draws: Sequence[tuple[int, int, str | None, str | None, int]]) -> list[Event]:
    times = itertools.accumulate((draw[0] for draw in draws), initial=1_700_000_000_000)
    return [Event(time, *draw[1:]) for time, draw in zip(itertools.islice(times, 1, None), draws, strict=True)]


streams = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 4_000), st.integers(1, 60_000)),
        st.integers(0, 5),
        st.sampled_from(["t1", "t2", None]),
        st.sampled_from(["1.1.1.1", "é", None]),
        st.integers(0, 10_000),
    ),
    max_size=40,
).map(stream)
cuts = st.lists(st.integers(1, 9), min_size=1, max_size=40)


def batches(events: Sequence[Event], sizes: Sequence[int]) -> list[Sequence[Event]]:
    edges = [0, *itertools.takewhile(lambda edge: edge < len(events), itertools.accumulate(itertools.cycle(sizes))), len(events)]
    return [events[low:high] for low, high in itertools.pairwise(edges)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams, cuts)
def test_a_replay_in_order_of_event_time_is_exact(windows: OPEN, events: list[Event], sizes: list[int]) -> None:
    """However it is cut, spread over partitions, and kept in flight (nothing is acknowledged before the end of every third batch)."""

    async def replay(worker: Worker) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        waiting = []
        for number, batch in enumerate(batches(events, sizes)):
            outcome = await worker.decide(batch)
            found |= features(outcome)
            waiting.append(outcome)
            if number % 3 == 2:
                for one in waiting:
                    await worker.windows.write(one.shared)
                waiting.clear()
        return found

    assert_equal(run(replay, windows), brute(events))


@pytest.mark.redis
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams, cuts, st.lists(st.integers(0, 2), min_size=1, max_size=20))
def test_workers_see_all_that_others_acknowledged(redis_address: str, events: list[Event], sizes: list[int], turns: list[int]) -> None:
    """Batches in order of event time, each decided by another of three workers and acknowledged before the next is read."""

    async def alternate(*workers: Worker) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for batch, turn in zip(batches(events, sizes), itertools.cycle(turns), strict=False):
            found |= features(await workers[turn].run(batch))
        return found

    opened = lambda namespace: RedisShared(SERVING.shared, f"redis://{redis_address}/0", namespace, 1000)  # noqa: E731
    assert_equal(run(alternate, opened, 3), brute(events))


def payments(count: int, first: int = 0, terminal: str | None = "t") -> list[Event]:
    return [Event(1_000_000 + 10 * (first + i), first + i, terminal, "9.9.9.9", 100) for i in range(count)]


def test_micro_batches_in_flight_count_at_once(windows: OPEN) -> None:
    async def fly(worker: Worker) -> None:
        await worker.decide(payments(3))
        found = features(await worker.decide(payments(1, 3)))
        assert found[payments(1, 3)[0].event_id]["terminal_10s_count"] == 4

    run(fly, windows)


def test_a_copy_moves_nothing_and_an_absent_entity_says_so(windows: OPEN) -> None:
    async def repeat(worker: Worker) -> None:
        await worker.run([*payments(2), *payments(2)])
        outcome = await worker.run([*payments(1, 2), *payments(1, 3, terminal=None)])
        first, second = features(outcome).values()
        assert (first["terminal_10s_count"], first["terminal_id_windows_missing"]) == (3, 0)
        assert (second["terminal_10s_count"], second["terminal_id_windows_missing"], second["ip_1m_count"]) == (0, 1, 4)

    run(repeat, windows)


def test_a_late_row_is_answered_and_told_to_nobody(windows: OPEN) -> None:
    async def late(worker: Worker) -> None:
        await worker.run([Event(10_000_000, 0, "t", None, 100)])
        outcome = await worker.run([Event(1_000_000, 2, "t", None, 100)])
        assert outcome.plan.flags[0] & Flag.LATE and not outcome.shared

    run(late, windows)


@pytest.mark.redis
def test_what_another_has_in_flight_is_seen_once_it_is_acknowledged(redis_address: str) -> None:
    async def two(one: Worker, other: Worker) -> None:
        outcome = await one.decide(payments(2))
        before = features(await other.run(payments(1, 2)))
        await one.windows.write(outcome.shared)
        after = features(await other.run(payments(1, 3)))
        assert [row["terminal_10s_count"] for row in (*before.values(), *after.values())] == [1, 4]

    run(two, lambda namespace: RedisShared(SERVING.shared, f"redis://{redis_address}/0", namespace, 1000), 2)


@pytest.mark.redis
def test_an_event_that_comes_back_after_a_crash_counts_once(redis_address: str) -> None:
    """The first worker dies between telling the others and its journal; the second decides the same events again, from an older state."""

    async def again(dead: Worker, heir: Worker, third: Worker) -> None:
        await dead.run(payments(3))
        repeated = await heir.run(payments(3))
        assert not repeated.shared
        assert sorted(row["terminal_10s_count"] for row in features(repeated).values()) == [1, 2, 3]
        assert [row["terminal_10s_count"] for row in features(await third.run(payments(1, 3))).values()] == [4]

    run(again, lambda namespace: RedisShared(SERVING.shared, f"redis://{redis_address}/0", namespace, 1000), 3)


@pytest.mark.redis
def test_long_lists_lose_what_is_dead_and_nothing_else(redis_address: str) -> None:
    """3,000 payments at one terminal: the list is cut on the way, a worker that comes late and one that read all along agree."""

    async def long(writer: Worker, follower: Worker, newcomer: Worker) -> None:
        events = [Event(1_000_000 + 100 * i, i, "t", "9.9.9.9", 100) for i in range(3_000)]
        for low in range(0, 2_900, 100):
            await writer.run(events[low : low + 100])
            if low % 500 == 0:
                await follower.run([Event(1_000_001 + 100 * (low + 99), 10_000 + low, "t", None, 100)])
        last = [await worker.decide([events[2_999]]) for worker in (follower, newcomer)]
        rows = [next(iter(features(outcome).values())) for outcome in last]
        assert rows[0] == rows[1]
        assert rows[0]["terminal_10s_count"] == 1 + sum(events[2_999].time - 10_000 < one.time for one in events[:2_900])

    run(long, lambda namespace: RedisShared(SERVING.shared, f"redis://{redis_address}/0", namespace, 1000), 3)


@pytest.mark.redis
def test_a_redis_met_for_the_first_time_is_warming_for_its_longest_window(redis_address: str) -> None:
    async def warm(worker: Worker) -> None:
        assert (await worker.run(payments(1))).degraded[0] == WARMING
        assert (await worker.run([Event(1_000_000 + SERVING.shared.keep_ms - 1, 2, "t", None, 100)])).degraded[0] == WARMING
        assert (await worker.run([Event(1_000_000 + SERVING.shared.keep_ms, 4, "t", None, 100)])).degraded[0].component == "model"

    run(warm, lambda namespace: RedisShared(SERVING.shared, f"redis://{redis_address}/0", namespace, 1000))


@pytest.mark.redis
def test_a_worker_that_missed_a_part_of_the_log_reads_anew(redis_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log keeps two pieces of 2,000 bytes; what the follower knew, what it missed and what it holds itself is counted once."""
    monkeypatch.setattr(shared_redis, "LOG_BYTES_MAX", 2_000)

    async def miss(writer: Worker, follower: Worker) -> None:
        counts = []
        for number in range(200):
            who = follower if number % 40 == 0 else writer
            counts.append(next(iter(features(await who.run(payments(1, number))).values()))["terminal_10s_count"])
        assert counts == [number + 1 for number in range(200)]

    run(miss, lambda namespace: RedisShared(SERVING.shared, f"redis://{redis_address}/0", namespace, 1000), 2)


@pytest.mark.redis
def test_a_newcomer_says_that_it_is_loading_until_it_has_read_what_was_asked(redis_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(writer: Worker, newcomer: Worker) -> None:
        events = [Event(1_000_000 + 10 * i, i, f"t{i % 50}", None, 100) for i in range(1_000)]
        await writer.run(events)
        monkeypatch.setattr(shared_redis, "READ_BYTES_MAX", 10_000)
        told = []
        for number in range(10):
            again = [Event(1_020_000 + 100 * number + i, i, f"t{i}", None, 100) for i in range(50)]
            outcome = await newcomer.run(again)
            told += causes(outcome)
            assert len(outcome.route) == 50
        assert told[0] == "loading" and told[-1] == "redis_warming" and told == sorted(told)

    run(load, lambda namespace: RedisShared(SERVING.shared, f"redis://{redis_address}/0", namespace, 1000), 2)
