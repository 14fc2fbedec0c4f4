"""The batch transport on the embedded broker: what an agent sees, what the group is told, and what a rebalance leaves."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import faust
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError
from faust.exceptions import ImproperlyConfigured

from streamapp.bus.app import StreamApp, build_app, source_topic
from streamapp.bus.transport import Batch, Batches, BatchLimits, Partition, Transport, register
from streamapp.core.errors import BusError
from tests.bus.transport_ground import PARTITIONS, Seen, committed, create_topic, produce, running, until

_groups = itertools.count()


@pytest.fixture
def group(namespace: str) -> str:
    return f"{namespace}-{next(_groups)}"


@pytest.fixture
def topic(namespace: str) -> str:
    return f"{namespace}.events.v1"


async def test_every_record_comes_once_in_order_and_a_stop_leaves_nothing_uncommitted(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 4000)
    seen = Seen()
    async with running(embedded, group, topic, seen, limits=BatchLimits(batch_max=512)) as app:
        await until(lambda: len(seen.values) >= 4000, "4000 records")
        await produce(embedded, topic, 40, start=4000)
        await until(lambda: len(seen.values) >= 4040, "40 more records")
        lag = app.batches.lag(int(time.time() * 1000))
    assert sorted(seen.values) == list(range(4040))
    assert all(offsets == list(range(1010)) for offsets in seen.offsets.values())
    assert max(map(len, seen.batches)) <= 512
    assert max(len(batch.segments) for batch in seen.batches) == PARTITIONS, "one batch carries all partitions"
    assert app.left_behind == 0
    assert await committed(embedded, group, topic) == [1010] * PARTITIONS
    assert lag == {Partition(topic, number): (0, 0.0) for number in range(PARTITIONS)}


async def test_records_arrive_as_they_were_sent(embedded: str, group: str, topic: str) -> None:
    sent_ms = 1_700_000_000_123
    await produce(embedded, topic, 4, key=b"\x00k", headers=[("traceparent", b"00-ab"), ("empty", b"")], timestamp_ms=sent_ms)
    producer = AIOKafkaProducer(bootstrap_servers=embedded)
    await producer.start()
    await producer.send_and_wait(topic, None, key=b"t", partition=0)
    await producer.send_and_wait(topic, b'{"not": "decoded"', partition=0)
    await producer.stop()
    got: list[Batch] = []

    async def agent(batch: Batch) -> None:
        got.append(batch)
        batch.ack()

    async with running(embedded, group, topic, agent) as app:
        await until(lambda: sum(map(len, got)) >= 6, "6 records")
        generation = app.batches.generation
    first = [segment for batch in got for segment in batch.segments if segment.partition == 0]
    assert [value for segment in first for value in segment.values] == [b"0", None, b'{"not": "decoded"']
    assert [key for segment in first for key in segment.keys] == [b"\x00k", b"t", None]
    head = first[0]
    assert list(head.headers[0]) == [("traceparent", b"00-ab"), ("empty", b"")]
    assert head.timestamps[0] == sent_ms
    assert head.offsets.dtype == head.timestamps.dtype == np.int64
    assert head.topic == topic
    assert head.generation == generation > 0


async def test_the_lowest_unacked_start_caps_the_commit(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 400)
    seen = Seen(keep=True)
    async with running(embedded, group, topic, seen, limits=BatchLimits(batch_max=200, in_flight_batches_max=2)) as app:
        await until(lambda: len(seen.batches) == 2, "two batches in flight")
        first, second = seen.batches
        assert second.ack() == len(second)
        assert await app.batches.commit_acked()
        assert await committed(embedded, group, topic) == [None] * PARTITIONS, "the later batch must not carry the commit over the earlier"
        place = next(place for place, segment in enumerate(first.segments) if segment.partition == 2)
        assert first.ack(place) == len(first.segments[place])
        assert first.ack(place) == 0, "an ack counts once"
        await app.batches.commit_acked()
        reached = 50 + (50 if any(segment.partition == 2 for segment in second.segments) else 0)
        assert await committed(embedded, group, topic) == [None, None, reached, None]
        first.ack()
    assert app.left_behind == 0


async def test_polling_pauses_at_the_bounds_in_flight(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 2000)
    seen = Seen(keep=True)
    limits = BatchLimits(batch_max=100, in_flight_batches_max=8, in_flight_records_max=250)
    async with running(embedded, group, topic, seen, limits=limits) as app:
        acks = app.batches.acks
        await until(lambda: acks.records_in_flight == 250, "a full flight")
        await asyncio.sleep(0.3)  # time in which a transport without bound would deliver the rest
        assert len(seen.values) == 250
        done = 0
        while len(seen.values) < 2000:
            seen.batches[done].ack()
            done += 1
            assert acks.records_in_flight <= 250
            # Room for less than an eighth of a batch is not taken while there is a backlog.
            await until(lambda: acks.records_in_flight > 250 - 100 / 8 or len(seen.values) == 2000, "the flight to fill again")
        for batch in seen.batches[done:]:
            batch.ack()
    assert sorted(seen.values) == list(range(2000))
    assert app.left_behind == 0


async def test_a_rebalance_fences_what_is_in_flight_and_loses_nothing(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 800)
    seen = Seen(keep=True)
    limits = BatchLimits(batch_max=200, in_flight_batches_max=2, revoke_wait_ms=50)
    async with running(embedded, group, topic, seen, limits=limits) as app:
        await until(lambda: len(seen.batches) == 2, "batches in flight")
        done, held = list(seen.batches)
        done.ack()
        generation = app.batches.generation
        assert all(held.owned(place) for place in range(len(held.segments)))
        seen.keep = False
        app.batches.client.kafka._coordinator.request_rejoin()
        await until(lambda: app.batches.generation > generation, "the next generation")
        assert not any(held.owned(place) for place in range(len(held.segments)))
        assert held.only_owned().segments == ()
        assert held.ack() == 0, "an ack from before the rebalance changes nothing"
        fenced = {int(value) for segment in held.segments for value in segment.values}
        await until(lambda: all(seen.values.count(value) == 2 for value in fenced), "what was not acked, again")
        await until(lambda: len(set(seen.values)) == 800, "all records")
    acked = {int(value) for segment in done.segments for value in segment.values}
    assert all(seen.values.count(value) == 1 for value in acked), "what was acked was committed in time"
    assert app.left_behind == 0
    assert await committed(embedded, group, topic) == [200] * PARTITIONS


@pytest.mark.kafka
async def test_two_workers_share_the_partitions_and_one_leaves(kafka: str, group: str, topic: str) -> None:
    await create_topic(kafka, topic)
    await produce(kafka, topic, 8000)
    seen = [Seen(), Seen()]
    limits = BatchLimits(batch_max=200)
    async with running(kafka, group, topic, seen[0], limits=limits) as first:
        await until(lambda: len(seen[0].values) >= 1000, "the first worker at work")
        async with running(kafka, group, topic, seen[1], limits=limits) as second:
            await until(lambda: len(second.batches.partitions()) == len(first.batches.partitions()) == 2, "halves")
            assert not set(second.batches.partitions()) & set(first.batches.partitions())
            await produce(kafka, topic, 4000, start=8000)
            await until(lambda: len({*seen[0].values, *seen[1].values}) == 12000, "all records")
        assert second.left_behind == 0
        await until(lambda: len(first.batches.partitions()) == PARTITIONS, "the first worker takes over")
        await produce(kafka, topic, 400, start=12000)
        await until(lambda: len({*seen[0].values, *seen[1].values}) == 12400, "the rest")
    assert sorted([*seen[0].values, *seen[1].values]) == list(range(12400)), "in an orderly rebalance nothing comes twice"
    assert await committed(kafka, group, topic) == [3100] * PARTITIONS


async def test_a_membership_that_fails_for_good_stops_the_worker(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 4)
    seen = Seen()
    async with running(embedded, group, topic, seen) as app:
        await until(lambda: len(seen.values) == 4, "4 records")
        app.batches.client.kafka._coordinator._pending_exception = GroupAuthorizationFailedError(group)
        await until(lambda: app.crashed, "the crash")
        assert "group membership failed" in str(app.crash_reason)


async def test_a_stale_heartbeat_holds_the_batch_until_the_group_is_heard_of_again(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 40)
    seen = Seen(keep=True)
    async with running(embedded, group, topic, seen, limits=BatchLimits(batch_max=40)) as app:
        await until(lambda: len(seen.values) == 40, "40 records")
        batch, client = seen.batches[0], app.batches.client
        client.last_contact = time.monotonic() - 7  # as after SIGSTOP: same generation, session over
        assert client.generation == batch.segments[0].generation
        assert not any(batch.owned(place) for place in range(len(batch.segments)))
        assert batch.only_owned() is not batch
        async with asyncio.timeout(25):
            await batch.heard()  # the group never missed us, so the next heartbeat is accepted
        assert batch.only_owned() is batch
        assert sum(batch.ack() for batch in seen.batches) == 40
    assert sorted(seen.values) == list(range(40)), "nothing is fetched again"
    assert app.left_behind == 0
    assert await committed(embedded, group, topic) == [10] * PARTITIONS


async def test_a_batch_whose_session_is_over_is_let_go_by_the_rebalance(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 40)
    seen = Seen(keep=True)
    async with running(embedded, group, topic, seen, limits=BatchLimits(batch_max=40, revoke_wait_ms=50)) as app:
        await until(lambda: len(seen.values) == 40, "40 records")
        batch, client = seen.batches[0], app.batches.client
        client.last_contact = time.monotonic() - 7
        seen.keep = False
        client.kafka._coordinator.reset_generation()  # as the coordinator's answer to who is no member any more
        async with asyncio.timeout(25):
            await batch.heard()
        emptied = batch.only_owned()
        assert emptied is not batch and emptied.segments == ()
        client.last_contact = time.monotonic() - 7  # also before the next session begins
        assert emptied.only_owned() is emptied
        await until(lambda: len(seen.values) == 80, "the records again")
    assert app.left_behind == 0


class Loader:
    """A listener that releases each partition at an offset of its own, when told."""

    def __init__(self) -> None:
        self.app: StreamApp | None = None
        self.go = asyncio.Event()
        self.assigned: list[frozenset[Partition]] = []
        self.revoked: list[frozenset[Partition]] = []

    async def on_assigned(self, generation: int, partitions: frozenset[Partition]) -> None:
        self.assigned.append(partitions)
        await self.go.wait()
        assert self.app is not None
        for source in partitions:
            self.app.batches.release(source, 3 if source.partition == 1 else None)

    async def on_revoked(self, generation: int, partitions: frozenset[Partition]) -> None:
        self.revoked.append(partitions)


async def test_partitions_are_held_until_their_state_is_loaded(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 40)
    seen, loader = Seen(), Loader()
    async with running(embedded, group, topic, seen, listener=loader) as app:
        loader.app = app
        await until(lambda: bool(loader.assigned), "the assignment")
        await asyncio.sleep(0.3)  # time in which a transport without hold would deliver
        assert seen.values == []
        assert len(app.batches.partitions()) == PARTITIONS
        loader.go.set()
        await until(lambda: len(seen.values) == 37, "the released records")
        assert seen.offsets[1] == list(range(3, 10))
        assert seen.offsets[0] == list(range(10))
        source = Partition(topic, 0)
        seen.keep = True
        await produce(embedded, topic, 4, start=40)
        await until(lambda: len(seen.values) == 41, "records in flight")
        app.batches.hold(source)
        app.batches.release(source)
        await until(lambda: seen.offsets[0].count(10) == 2, "the un-acked record again after hold and release")
        for batch in seen.batches:
            batch.ack()
        with pytest.raises(BusError, match="not held"):
            app.batches.release(source)
    assert loader.assigned == [frozenset(Partition(topic, number) for number in range(PARTITIONS))]
    assert app.left_behind == 0
    assert await committed(embedded, group, topic) == [11] * PARTITIONS


class Asking(Loader):
    """One whose broker takes a while to answer what was asked before the load was given up."""

    def __init__(self) -> None:
        super().__init__()
        self.answered_in: list[int] = []

    async def on_assigned(self, generation: int, partitions: frozenset[Partition]) -> None:
        try:
            await super().on_assigned(generation, partitions)
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)
            assert self.app is not None
            self.answered_in.append(self.app.batches.generation)
            raise


async def test_a_stop_leaves_the_group_when_what_a_load_has_asked_is_answered(embedded: str, group: str, topic: str) -> None:
    # The next owner asks then; an answer to us that came later would fence it.
    seen, loader = Seen(), Asking()
    async with running(embedded, group, topic, seen, listener=loader) as app:
        loader.app = app
        await until(lambda: bool(loader.assigned), "the assignment")
    (generation,) = loader.answered_in
    assert generation >= 0 and app.left_behind == 0 and seen.values == []


async def test_a_drain_ends_in_time_and_counts_what_it_leaves(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 40)
    seen = Seen(keep=True)
    async with running(embedded, group, topic, seen) as app:
        await until(lambda: len(seen.values) == 40, "40 records")
        began = time.monotonic()
        assert await app.batches.drain(timeout_s=0.3) == 40
        assert time.monotonic() - began < 5
        await produce(embedded, topic, 4, start=40)
        await asyncio.sleep(0.3)  # time in which a transport that did not stop would deliver
        assert len(seen.values) == 40, "a draining worker fetches nothing more"
        for batch in seen.batches:
            batch.ack()
        assert await app.batches.drain(timeout_s=5) == 0
    assert await committed(embedded, group, topic) == [10] * PARTITIONS


async def test_a_log_that_does_not_continue_stops_the_worker(embedded: str, group: str, topic: str) -> None:
    await produce(embedded, topic, 40)
    seen = Seen()
    async with running(embedded, group, topic, seen) as app:
        await until(lambda: len(seen.values) == 40, "40 records")
        # What aiokafka does when retention overtook the position and the reset policy is `earliest`.
        app.batches.client.kafka.seek(TopicPartition(topic, 0), 2)
        await until(lambda: app.crashed, "the crash")
        assert isinstance(app.crash_reason, BusError)
        assert "continues at offset 2, not at 10" in str(app.crash_reason)
    assert len(seen.values) == 40


async def test_a_plain_faust_app_reaches_the_transport_by_url_and_keeps_the_stock_path_beside_it(
    embedded: str, group: str, topic: str, namespace: str, embedded_faust: dict[str, Any]
) -> None:
    register()
    app = faust.App(group, broker=f"streamapp://{embedded}", **embedded_faust)
    app._create_directories = lambda: None  # type: ignore[method-assign]
    plain = f"{namespace}.plain.v1"
    seen, events = Seen(), []

    @app.agent(app.topic(topic, schema=Batches()))
    async def batched(stream: Any) -> None:
        async for batch in stream:
            await seen(batch)

    @app.agent(app.topic(plain, value_type=str, value_serializer="raw"))
    async def single(stream: Any) -> None:
        async for value in stream:
            events.append(value)  # noqa: PERF401  # the stream never ends

    assert isinstance(app.transport, Transport)
    await produce(embedded, topic, 40)
    await produce(embedded, plain, 8)
    await app.start()
    try:
        await until(lambda: len(seen.values) == 40 and len(events) == 8, "both kinds")
    finally:
        await app.stop()
    assert await committed(embedded, group, topic) == [10] * PARTITIONS
    assert await committed(embedded, group, plain) == [2] * PARTITIONS


async def _indices(app: StreamApp) -> None:
    for agent in app.agents.values():
        app.topics.add(agent.channel)
    await app.topics._update_indices()


async def test_a_batched_topic_has_one_agent_without_concurrency() -> None:
    async def agent(stream: Any) -> None:
        async for _ in stream:
            pass

    app = build_app("x", "127.0.0.1:1")
    app.agent(source_topic(app, "events"), concurrency=2)(agent)
    with pytest.raises(ImproperlyConfigured, match="concurrency 2"):
        await _indices(app)

    app = build_app("x", "127.0.0.1:1")
    app.topics.add(source_topic(app, "events"))
    app.topics.add(source_topic(app, "events"))
    with pytest.raises(ImproperlyConfigured, match="2 subscribers"):
        await app.topics._update_indices()

    app = build_app("x", "127.0.0.1:1")
    app.topics.add(source_topic(app, "events"))
    app.topics.add(app.topic("events"))
    with pytest.raises(ImproperlyConfigured, match="with and without"):
        await app.topics._update_indices()
