"""What the transport's tests stand on: records in, an app with one agent, what the agent saw, what the group is told."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamapp.bus.app import StreamApp, build_app, source_topic
from streamapp.bus.transport import Batch

PARTITIONS = 4
SESSION = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"}
Agent = Callable[[Batch], Awaitable[None]]


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 25.0) -> None:
    """Waits for a condition; fails by name."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen: {what}"
        await asyncio.sleep(0.01)


async def produce(address: str, topic: str, count: int, start: int = 0, **fields: Any) -> None:
    """Appends records numbered from `start`, round robin over the partitions, in order within each."""
    producer = AIOKafkaProducer(bootstrap_servers=address, linger_ms=2)
    await producer.start()
    try:
        await producer.partitions_for(topic)
        sent = [
            await producer.send(topic, b"%d" % number, partition=number % PARTITIONS, **fields) for number in range(start, start + count)
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def committed(address: str, group: str, topic: str) -> list[int | None]:
    """Gives what the group has, per partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(parts)
        return [await consumer.committed(part) for part in parts]
    finally:
        await consumer.stop()


async def create_topic(address: str, topic: str) -> None:
    """Creates `topic` with 4 partitions on a real Kafka."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()


@asynccontextmanager
async def running(address: str, group: str, topic: str, agent: Agent, **options: Any) -> AsyncIterator[StreamApp]:
    """Runs an app with one agent on batches of `topic`."""
    app = build_app(group, address, kafka=SESSION, **options)

    @app.agent(source_topic(app, topic))
    async def line(stream: Any) -> None:
        async for batch in stream:
            await agent(batch)

    await app.start()
    try:
        yield app
    finally:
        await app.stop()


class Seen:
    """Collects what was delivered and acks it, unless told to keep it."""

    def __init__(self, *, keep: bool = False) -> None:
        self.batches: list[Batch] = []
        self.values: list[int] = []
        self.offsets: dict[int, list[int]] = defaultdict(list)
        self.keep = keep

    async def __call__(self, batch: Batch) -> None:
        self.batches.append(batch)
        for segment in batch.segments:
            self.values += map(int, segment.values)
            self.offsets[segment.partition] += segment.offsets.tolist()
        if not self.keep:
            batch.ack()
