"""Requests that go past aiokafka's queues: byte for byte what aiokafka writes, read as it reads; and each record once, whatever happens."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.protocol import fetch, produce
from hypothesis import given, settings
from hypothesis import strategies as some

from streamapp.bus import direct
from streamapp.bus.columns import fill
from streamapp.bus.embedded import EmbeddedBroker
from streamapp.bus.fetching import asked, told
from streamapp.bus.follow import follower
from streamapp.bus.producer import Producer, _Produce, producing

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
        assert producer._posted == set() and len(producer._repeating) == 1
        await asyncio.gather(lost, behind)
        await producer.enqueue_all(parcels(created, b"last", [0]))
    assert await values(kafka, created, 4) == {0: [b"first", b"lost", b"behind", b"last"]}


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
