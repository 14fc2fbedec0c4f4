"""Requests that go past aiokafka's queues: byte for byte what aiokafka writes, read as it reads; and each record once, whatever happens."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from random import Random
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.protocol import fetch, produce
from hypothesis import given, settings
from hypothesis import strategies as some

from streamapp.bus import direct
from streamapp.bus.columns import fill
from streamapp.bus.direct import Posted
from streamapp.bus.embedded import EmbeddedBroker
from streamapp.bus.fetching import asked, told
from streamapp.bus.follow import follower
from streamapp.bus.producer import IN_FLIGHT_MAX, Producer, _Produce, producing

DEADLINE_S = 30
INT32, INT64 = some.integers(0, 2**31 - 1), some.integers(-1, 2**63 - 1)
NAMES = some.sampled_from(["a", "events.v1", "ü"])


def by_topic(partition: some.SearchStrategy[Any]) -> some.SearchStrategy[Any]:
    return some.dictionaries(NAMES, some.lists(partition, min_size=1, max_size=3, unique_by=lambda one: one[0]), max_size=2)


@settings(max_examples=40, deadline=None)
@given(by_topic(some.tuples(INT32, some.binary(max_size=40))), INT32)
def test_a_produce_request_is_aiokafka_s(topics: dict[str, list[tuple[int, bytes]]], timeout_ms: int) -> None:
    theirs = produce.ProduceRequest_v8(transactional_id=None, required_acks=-1, timeout=timeout_ms, topics=list(topics.items()))
    assert b"".join(direct.body(None, -1, timeout_ms, list(topics.items()))) == theirs.encode()


def test_a_queued_request_is_written_as_aiokafka_writes_its_own() -> None:
    topics = [("events.v1", [(0, memoryview(b"batch")), (3, b"another")])]
    written = []
    for kind in (_Produce, produce.ProduceRequest):
        request = kind(None, -1, 1000, topics).prepare({produce.ProduceRequest.API_KEY: (3, 8)})
        message = request.build_request_header(correlation_id=7, client_id="us").encode() + request.encode()
        written.append(struct.pack(">i", len(message)) + message)
    assert written[0] == written[1]


@settings(max_examples=80, deadline=None)
@given(some.data(), some.sampled_from([3, 5, 8]))
def test_an_answer_to_it_is_read_as_aiokafka_reads_it(data: some.DataObject, version: int) -> None:
    refused = some.lists(some.tuples(INT32, some.none() | some.text(max_size=5)), max_size=2)
    tail = {3: some.tuples(INT64), 5: some.tuples(INT64, INT64), 8: some.tuples(INT64, INT64, refused, some.none() | some.text(max_size=9))}
    one = some.tuples(INT32, some.integers(0, 90), INT64)
    topics = data.draw(by_topic(some.builds(lambda head, rest: (*head, *rest), one, tail[version])))
    answer = next(kind for kind in produce.ProduceResponse_v0.__base__.__subclasses__() if kind.__name__ == f"ProduceResponse_v{version}")
    written = answer(topics=list(topics.items()), throttle_time_ms=0).encode()
    assert direct.results(version, written) == {(topic, one[0]): one[1:3] for topic, found in topics.items() for one in found}


@settings(max_examples=40, deadline=None)
@given(by_topic(some.tuples(INT32, INT64, INT32)), INT32, INT32)
def test_a_fetch_is_aiokafka_s(topics: dict[str, list[tuple[int, int, int]]], wait_ms: int, size: int) -> None:
    wanted = list(topics.items())
    assert asked(wait_ms, 1, size, 1, wanted) == fetch.FetchRequest_v4(-1, wait_ms, 1, size, 1, wanted).encode()


@settings(max_examples=80, deadline=None)
@given(by_topic(some.tuples(INT32, some.integers(0, 90), INT64, INT64, some.lists(some.tuples(INT64, INT64), max_size=2), some.binary())))
def test_an_answer_to_it_says_what_aiokafka_reads(topics: dict[str, list[Any]]) -> None:
    written = fetch.FetchResponse_v4(throttle_time_ms=3, topics=list(topics.items())).encode()
    theirs, ours = fetch.FetchResponse_v4.decode(BytesIO(written)), told(BytesIO(written))
    assert ours.API_VERSION == theirs.API_VERSION and ours.topics == theirs.topics
    assert ours.size == sum(len(one[-1]) for found in topics.values() for one in found)


def parcels(topic: str, value: bytes, partitions: Sequence[int]) -> list[direct.Parcel]:
    return [(batch, topic, partition) for partition in partitions for batch in fill([(None, value, [])], 4 << 20, 0)]


async def values(address: str, topic: str, count: int) -> dict[int, list[bytes | None]]:
    found: dict[int, list[bytes | None]] = {}
    async with follower(address, [topic], fetch_wait_ms=10) as records:
        while sum(map(len, found.values())) < count:
            for one in await records.poll(100):
                found.setdefault(one.partition, []).append(one.value)
    return found


async def connected(producer: Producer, topic: str) -> Any:
    """Gives the producer's connection once requests go past its queue."""
    await producer.know([topic])
    assert await producer.enqueue_all([]) == []
    await producer.enqueue_all(parcels(topic, b"first", [0]))
    return producer.client._conns[producer.client.cluster.leader_for_partition(TopicPartition(topic, 0)), ConnectionGroup.DEFAULT]


async def test_what_is_enqueued_while_a_request_is_on_its_way_comes_behind_it(embedded: str, namespace: str) -> None:
    async with asyncio.timeout(DEADLINE_S), producing(embedded, {}) as producer:
        await connected(producer, namespace)
        answers = [producer.enqueue_all(parcels(namespace, b"%d" % number, [0, 1, 0])) for number in range(4)]
        assert len(producer._posted) == 1
        offsets = [list(await one) for one in answers]
        assert [one[0] for one in offsets] == [1, 3, 5, 7] and [one[1] for one in offsets] == [0, 1, 2, 3]
    found = await values(embedded, namespace, 13)
    assert found == {0: [b"first", *(b"%d" % number for number in (0, 0, 1, 1, 2, 2, 3, 3))], 1: [b"0", b"1", b"2", b"3"]}


async def test_of_a_partition_so_many_batches_are_on_their_way_as_the_broker_remembers(embedded: str, namespace: str) -> None:
    async with asyncio.timeout(DEADLINE_S), producing(embedded, {}) as producer:
        await connected(producer, namespace)
        known = [producer.enqueue_all(parcels(namespace, b"%d" % number, [0])) for number in range(9)]
        new = [producer.enqueue_all(parcels(namespace, b"%d" % number, [1])) for number in range(3)]
        # where the broker has no number of ours yet, it would take the second batch without the first
        assert len(producer._posted) == IN_FLIGHT_MAX + 1
        assert [one[0] for one in await asyncio.gather(*known, *new)] == [*range(1, 10), *range(3)]
    found = await values(embedded, namespace, 13)
    assert found == {0: [b"first", *(b"%d" % number for number in range(9))], 1: [b"0", b"1", b"2"]}


async def test_what_queued_behind_them_is_written_as_they_are_answered(embedded: str, namespace: str) -> None:
    async with asyncio.timeout(DEADLINE_S), producing(embedded, {}) as producer:
        await connected(producer, namespace)
        answers = [producer.enqueue_all(parcels(namespace, b"%d" % number, [0])) for number in range(IN_FLIGHT_MAX)]
        (one,) = parcels(namespace, b"queued", [0])
        queued, behind = producer.enqueue(*one), producer.enqueue_all(parcels(namespace, b"behind", [0]))
        await asyncio.gather(*answers[:1])
        assert (await queued).offset == IN_FLIGHT_MAX + 1 and list(await behind) == [IN_FLIGHT_MAX + 2]
        answers = [producer.enqueue_all(parcels(namespace, b"again", [0])) for _ in range(2)]
        assert len(producer._posted) == 2, "nothing is left in the queue"
        await asyncio.gather(*answers)


@pytest.fixture
async def created(kafka: str, namespace: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(namespace, 2, 1)])
    finally:
        await admin.close()
    return namespace


@pytest.mark.kafka
async def test_what_was_on_its_way_when_the_connection_broke_is_there_once(kafka: str, created: str) -> None:
    async with asyncio.timeout(DEADLINE_S), producing(kafka, {}) as producer:
        connection = await connected(producer, created)
        lost, behind = (producer.enqueue_all(parcels(created, value, [0])) for value in (b"lost", b"behind"))
        connection.close()
        assert not producer._posted and len(producer._message_accumulator._batches) == 1
        await asyncio.gather(lost, behind)
        await producer.enqueue_all(parcels(created, b"last", [0]))
    assert await values(kafka, created, 4) == {0: [b"first", b"lost", b"behind", b"last"]}


NOT_LEADER, OUT_OF_ORDER = 6, 45


def refused(posted: Posted, errors: Mapping[TopicPartition, int]) -> BytesIO:
    """Gives the answer (version 3, as the request says) that refuses what `errors` names."""
    topics: dict[str, list[tuple[int, int, int, int]]] = {}
    for one in posted.sent:
        topics.setdefault(one.place.topic, []).append((one.place.partition, errors[one.place], -1, -1))
    posted._version = 3
    return BytesIO(produce.ProduceResponse_v3(topics=list(topics.items()), throttle_time_ms=0).encode())


def of_outputs(producer: Producer) -> list[AIOKafkaConnection]:
    return [one for (_, group), one in producer.client._conns.items() if group == ConnectionGroup.DEFAULT]


@pytest.mark.kafka
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_refused_or_lost_each_record_is_there_once_and_in_order(kafka: str, created: str, seed: int) -> None:
    random, sent, most = Random(seed), list[asyncio.Future[Any]](), 0
    async with asyncio.timeout(DEADLINE_S), producing(kafka, {}) as producer:
        await connected(producer, created)
        await producer.enqueue_all(parcels(created, b"first", [1]))
        for number in range(200):
            sent.append(producer.enqueue_all(parcels(created, b"%d" % number, random.sample([0, 1], random.randint(1, 2)))))
            chance = random.random()
            (connection,) = filter(AIOKafkaConnection.connected, of_outputs(producer))
            most = max(most, len(producer._posted))
            if chance < 0.03:
                connection.close()  # what is on its way is taken, or is not
            elif chance < 0.1:  # refused, the first as by a broker that leads no longer, those behind it for the missing one
                first = set[TopicPartition]()
                for posted in list(producer._posted):
                    errors = {one.place: OUT_OF_ORDER if one.place in first else NOT_LEADER for one in posted.sent}
                    first.update(errors)
                    posted.set_result(refused(posted, errors))
            if random.random() < 0.5:
                await asyncio.sleep(random.choice([0, 0.001, 0.01]))
            while not any(map(AIOKafkaConnection.connected, of_outputs(producer))):
                await sent[-1]
        offsets = [await one for one in sent]
    assert most > 2
    found = await values(kafka, created, 2 + sum(map(len, offsets)))
    for partition in (0, 1):
        told = [int(value or b"") for value in found[partition][1:]]
        assert told == sorted(set(told)), "each once, in order"


@pytest.mark.kafka
async def test_a_refused_batch_fails_and_its_neighbour_is_written(kafka: str, created: str) -> None:
    async with asyncio.timeout(DEADLINE_S), producing(kafka, {}) as producer:
        await connected(producer, created)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.enqueue_all([*parcels(created, b"x" * (3 << 20), [0]), *parcels(created, b"beside", [1])])
    assert await values(kafka, created, 2) == {0: [b"first"], 1: [b"beside"]}


async def test_what_nobody_answers_in_time_fails(namespace: str) -> None:
    with EmbeddedBroker() as broker:
        async with asyncio.timeout(DEADLINE_S), producing(broker.address, {"request.timeout.ms": "1000"}) as producer:
            await connected(producer, namespace)
            broker.close()
            with pytest.raises(KafkaTimeoutError, match="not acknowledged it within 1 s"):
                await producer.enqueue_all(parcels(namespace, b"x", [0, 1]))
            with pytest.raises(KafkaTimeoutError):
                producer.enqueue_all(parcels(namespace, b"x", [0]))
