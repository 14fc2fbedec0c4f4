"""Exactly once: what is not committed is not seen, a former owner is fenced, and a kill or a stop leaves each verdict once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streamapp.bus.columns import Carrier, fill
from streamapp.bus.topics import Topics, create_topics
from streamapp.bus.transactions import ExactlyOnce
from streamapp.cli.children import Children
from streamapp.core.errors import BusError, InvariantBroken
from streamapp.core.events import Segment
from streamapp.core.texts import Texts
from tests.bus.test_kill import (
    DEADLINE_S,
    SESSION,
    events,
    feed,
    joined,
    pipeline,
    read_decisions,
    start,
    verify,
)
from tests.bus.test_kill import (
    test_a_worker_killed_at_a_numbered_step_loses_and_repeats_nothing as killed_at,
)

__all__ = ["pipeline"]  # a fixture


@asynccontextmanager
async def exactly_once(broker: str, topics: Topics, transaction_ms: int = 20) -> AsyncIterator[ExactlyOnce]:
    written = (*topics.outputs(), topics.state)
    one = ExactlyOnce(broker, {}, topics.ns, written, events=topics.events, state=topics.state, transaction_ms=transaction_ms)
    try:
        yield one
    finally:
        await one.close()


@pytest.fixture
async def topics(kafka: str, namespace: str) -> Topics:
    made = Topics(namespace)
    await create_topics(kafka, made, partitions=2)
    return made


async def values(broker: str, topic: str, partition: int, isolation: str = "read_committed") -> list[bytes | None]:
    """Gives all that a consumer of that isolation sees now."""
    place = TopicPartition(topic, partition)
    async with AIOKafkaConsumer(bootstrap_servers=broker, isolation_level=isolation, enable_auto_commit=False) as consumer:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end, found = (await consumer.end_offsets([place]))[place], []
        while await consumer.position(place) < end:
            found += [one.value for one in (await consumer.getmany(place, timeout_ms=20)).get(place, [])]
    return found


def packed(values: Sequence[bytes]) -> list[object]:
    n = len(values)
    segment = Segment("t", 0, 1, np.arange(n), np.zeros(n, np.int64), [b"k"] * n, [b""] * n, [()] * n)
    carrier = Carrier((segment,), np.zeros(n, np.int32), np.arange(n, dtype=np.int32), transactional=True)
    return [batch for *_, batch in carrier.batches(Texts.of(list(values)), np.zeros(n, np.int8), 1, 10_000, 1)]


def built(*values: bytes) -> list[object]:
    return fill([(None, value, []) for value in values], 10_000, 1, transactional=True)


@pytest.mark.kafka
async def test_what_is_not_committed_is_not_seen_whichever_way_it_was_written(kafka: str, topics: Topics) -> None:
    async with exactly_once(kafka, topics) as one:
        await one.own(0)
        effects = one.enter()
        (batch,), (letter,) = packed([b"a", b"b"]), built(b"c")
        await asyncio.gather(effects.enqueue(batch, topics.approve, 0), effects.enqueue(letter, topics.dead_letters, 0))
    for topic, sent in ((topics.approve, [b"a", b"b"]), (topics.dead_letters, [b"c"])):
        assert await values(kafka, topic, 0) == []
        assert await values(kafka, topic, 0, "read_uncommitted") == sent


async def test_a_round_counts_when_each_of_its_micro_batches_has_left_and_the_next_one_follows(embedded: str, namespace: str) -> None:
    topics = Topics(namespace)
    async with exactly_once(embedded, topics, transaction_ms=0) as one:
        for partition in (0, 1):
            await one.own(partition)
        first, second = one.enter(), one.enter()
        assert first is second
        await asyncio.gather(first.enqueue(packed([b"1"])[0], topics.approve, 0), second.enqueue(packed([b"2"])[0], topics.approve, 1))
        third = one.enter()
        waits = third.enqueue(packed([b"3"])[0], topics.approve, 0)
        assert third is not first and one.oldest() is first
        counted = asyncio.ensure_future(one.leave(1))
        aside = one.aside()
        assert aside is third and aside.leave() is not None
        await asyncio.sleep(0)
        assert not counted.done() and not waits.done() and one.oldest() is second
        assert await one.leave(1) == await counted == frozenset()
        await waits
        assert await one.leave(1) == frozenset()
        with pytest.raises(InvariantBroken, match="partition 2"):
            one.enter().enqueue(packed([b"4"])[0], topics.approve, 2)


async def test_a_load_that_is_given_up_ends_when_the_broker_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    # A rebalance waits for it: an initialisation that the broker sees after the next owner's would fence that one.
    asked, answer = asyncio.Event(), asyncio.Event()

    async def initialised(self: ExactlyOnce, partition: int) -> object:
        asked.set()
        await answer.wait()
        raise BusError("nobody wants it", "nothing to do")

    monkeypatch.setattr(ExactlyOnce, "_initialised", initialised)
    async with exactly_once("127.0.0.1:1", Topics("given-up")) as one:
        loading = asyncio.create_task(one.own(0))
        await asked.wait()
        loading.cancel()
        await asyncio.wait({loading}, timeout=0.05)
        assert not loading.done()
        answer.set()
        with pytest.raises(asyncio.CancelledError):
            await loading


@pytest.mark.kafka
async def test_a_former_owner_cannot_commit_and_what_it_sent_is_aborted(kafka: str, topics: Topics) -> None:
    async with exactly_once(kafka, topics) as owner, exactly_once(kafka, topics) as first, exactly_once(kafka, topics) as second:
        for surprised, former in ((True, first), (False, second)):
            await former.own(0)
            await former.own(1)
            effects = former.enter()
            for partition in (0, 1):
                await effects.enqueue(packed([b"former"])[0], topics.approve, partition)
                await effects.enqueue(built(b"former")[0], topics.state, partition)
            await owner.own(0)
            await owner.enter().enqueue(packed([b"owner"])[0], topics.approve, 0)
            assert await owner.leave(1) == frozenset()
            if surprised:
                with pytest.raises(BusError, match="another worker has its partition by now"):
                    await former.leave(1)
                with pytest.raises(BusError, match="another worker has its partition by now"):
                    former.enter()  # nothing counts after it: whoever waits for nothing is told, too
                continue
            former.give_up(0)
            assert await former.leave(1) == {0}
    assert await values(kafka, topics.approve, 0) == [b"owner", b"owner"]
    assert await values(kafka, topics.state, 0) == []
    assert await values(kafka, topics.approve, 1) == [b"former", b"former"]


@pytest.mark.parametrize("step", ["logged:2"])
async def test_on_the_embedded_broker_the_worker_that_follows_repeats_nothing(
    embedded: str, namespace: str, pipeline: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMAPP_DELIVERY", "exactly_once")
    await killed_at(embedded, namespace, pipeline, step)


@pytest.mark.kafka
async def test_killed_between_commit_and_ack_nothing_is_repeated(
    kafka: str, namespace: str, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_topics(kafka, Topics(namespace), partitions=4)
    monkeypatch.setenv("STREAMAPP_DELIVERY", "exactly_once")
    await killed_at(kafka, namespace, pipeline, "counted:2")


@pytest.mark.kafka
async def test_a_worker_that_was_stopped_past_its_session_shows_nothing_of_what_it_had_open(
    kafka: str, namespace: str, pipeline: str
) -> None:
    topics = Topics(namespace)
    await create_topics(kafka, topics, partitions=4)
    delivery = {"STREAMAPP_DELIVERY": "exactly_once", "STREAMAPP_TRANSACTION_MS": "10000"}  # longer than looking at four partitions takes
    given = [events(400, 400 * part, seed=part) for part in range(3)]
    with Children() as children:
        zombie = start(children, kafka, namespace, pipeline, **delivery)
        places = await feed(kafka, topics, given[0])
        give_up = time.monotonic() + DEADLINE_S
        while not any([await values(kafka, topics.decisions, number, "read_uncommitted") for number in range(4)]):
            assert zombie.running and time.monotonic() < give_up, zombie.last_words()
        os.kill(zombie.process.pid, signal.SIGSTOP)
        try:
            seen = [len(await values(kafka, topics.decisions, number)) for number in range(4)]
            assert not any(seen), "the transaction was committed before the worker was stopped"
            owner = start(children, kafka, namespace, pipeline, **SESSION, STREAMAPP_DELIVERY="exactly_once")
            places = joined(places, await feed(kafka, topics, given[1]))
            await read_decisions(kafka, topics, places, [owner])
        finally:
            woke = len(zombie.lines)
            os.kill(zombie.process.pid, signal.SIGCONT)
        places = joined(places, await feed(kafka, topics, given[2]))
        give_up = time.monotonic() + DEADLINE_S
        while zombie.running and not any("goes on at offset" in line for line in zombie.lines[woke:]):
            assert time.monotonic() < give_up, zombie.last_words()
            await asyncio.sleep(0.05)
        found = await read_decisions(kafka, topics, places, [owner])
        verify(found, given[0] + given[1] + given[2], places)
    sent = sum([len(await values(kafka, topics.decisions, number, "read_uncommitted")) for number in range(4)])
    assert sent > len(places.offset), "the worker that was stopped had sent nothing: this showed nothing"


@pytest.mark.kafka
async def test_an_event_that_its_producer_aborted_is_not_decided(kafka: str, namespace: str, pipeline: str) -> None:
    topics = Topics(namespace)
    await create_topics(kafka, topics, partitions=1)
    first, aborted, last = events(3, 0, seed=5)
    async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{namespace}-upstream") as producer:
        for event, ends in (
            (first, producer.commit_transaction),
            (aborted, producer.abort_transaction),
            (last, producer.commit_transaction),
        ):
            await producer.begin_transaction()
            await producer.send_and_wait(topics.events, json.dumps(event).encode(), key=event["user_id"].encode())
            await ends()
    with Children() as children:
        worker = start(children, kafka, namespace, pipeline)
        give_up = time.monotonic() + DEADLINE_S
        while len(decided := await values(kafka, topics.decisions, 0)) < 2:
            assert worker.running and time.monotonic() < give_up, worker.last_words()
        assert worker.stop(12) == 0, worker.last_words()
    assert [json.loads(one or b"")["event_id"] for one in decided] == [first["event_id"], last["event_id"]]
