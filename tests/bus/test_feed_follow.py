"""What is fed lies where Kafka's own partitioner puts it and is read back whole, in order, with where it lay."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from aiokafka.partitioner import murmur2

from streamapp.bus.feed import feeder
from streamapp.bus.follow import Record, follower
from streamapp.bus.topics import Topics, create_topics
from streamapp.core.errors import BusError


async def read(address: str, topic: str, count: int) -> list[Record]:
    found: list[Record] = []
    async with follower(address, [topic], fetch_wait_ms=10) as records:
        while len(found) < count:
            found += await records.poll(100)
    return found


async def test_records_are_read_back_at_the_places_that_were_acknowledged(embedded: str, namespace: str) -> None:
    topic = f"{namespace}.events.v1"
    keys = [f"user-{number % 17}".encode() for number in range(500)]
    values = [b"%d" % number for number in range(500)]
    async with feeder(embedded, topic) as events:
        first = await events.send(keys[:200], values[:200])
        second = await events.send(keys[200:], values[200:])
    places = [*zip(first.partition, first.offset, strict=True), *zip(second.partition, second.offset, strict=True)]
    found = {(record.partition, record.offset): (record.key, record.value) for record in await read(embedded, topic, 500)}
    assert len(found) == 500
    assert [found[place] for place in places] == [*zip(keys, values, strict=True)]


async def test_keys_lie_where_the_java_client_would_put_them(embedded: str, namespace: str) -> None:
    keys = [f"{number}".encode() for number in range(300)]
    async with feeder(embedded, f"{namespace}.events.v1") as events:
        places = await events.send(keys, keys)
        assert places.partition.tolist() == [(murmur2(key) & 0x7FFFFFFF) % events.partitions for key in keys]


async def test_records_without_a_key_or_a_value_are_sent_as_they_are(embedded: str, namespace: str) -> None:
    topic = f"{namespace}.events.v1"
    async with feeder(embedded, topic) as events:
        places = await events.send([None, b"k", None, None, None], [b"a", None, b"c", b"d", b"e"])
        assert len(set(places.partition[[0, 2, 3, 4]].tolist())) == events.partitions, "they take turns"
    found = await read(embedded, topic, 5)
    assert {(record.key, record.value) for record in found} == {(None, b"a"), (b"k", None), (None, b"c"), (None, b"d"), (None, b"e")}


@pytest.mark.parametrize("kind", ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def test_reading_begins_at_a_time_also_where_the_broker_knows_none(kind: str, request: pytest.FixtureRequest, namespace: str) -> None:
    address = request.getfixturevalue(kind)
    topics = Topics(namespace)
    if kind == "kafka":
        await create_topics(address, topics, partitions=4)
    async with feeder(address, topics.events) as events:
        await events.send([None] * 8, [b"before"] * 8)
        await asyncio.sleep(0.05)
        middle_ms = time.time_ns() // 1_000_000
        await events.send([None] * 8, [b"behind"] * 8)
    for since_ms, wanted in ((-5, 16), (0, 16), (1, 16), (middle_ms - 3_600_000, 16), (middle_ms, 8), (middle_ms + 3_600_000, 0)):
        async with follower(address, [topics.events], since_ms=since_ms, fetch_wait_ms=10) as records:
            ends, found = await records.ends(), list[Record]()
            while await records.left(ends):
                found += await records.poll(50)
        assert len(found) == wanted and (wanted == 16 or {one.value for one in found} <= {b"behind"})


async def test_no_broker_is_one_sentence_with_its_fix() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(BusError, match="no broker answers") as refused:
        async with feeder(address, "t"):
            pass
    assert "--bootstrap" in refused.value.fix
    with pytest.raises(BusError, match="no broker answers"):
        async with follower(address, ["t"]):
            pass
