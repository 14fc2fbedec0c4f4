"""Events into a topic as any Kafka client would put them: keyed, placed by Kafka's own hash, acknowledged by all replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streamapp.bus.columns import Message, fill
from streamapp.bus.topics import BATCH_BYTES_MAX
from streamapp.bus.unreachable import unreachable
from streamapp.core.errors import BusError
from streamapp.core.murmur2 import partition_of

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where n records went, in the order they were given."""

    partition: Int64
    offset: Int64


class Feeder:
    """Writes to one topic; records of one key keep their order."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self.partitions = partitions
        self._producer, self._topic = producer, topic
        self._next_unkeyed = 0

    async def send(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Places:
        """Sends n records and waits until the broker has acknowledged every one; gives where they lie. Raises BusError."""
        now_ms = time.time_ns() // 1_000_000
        partition = self._place(keys)
        offset = np.full(len(keys), -1, np.int64)
        pending: list[tuple[Int64, asyncio.Future[Any]]] = []
        try:
            for number in range(self.partitions):
                rows = np.flatnonzero(partition == number)
                messages: list[Message] = [(keys[row], values[row], []) for row in rows.tolist()]
                at = 0
                for batch in fill(messages, BATCH_BYTES_MAX, now_ms):
                    took = batch.record_count()
                    pending.append((rows[at : at + took], await self._producer.send_batch(batch, self._topic, partition=number)))
                    at += took
            for rows, acknowledged in pending:
                offset[rows] = (await acknowledged).offset + np.arange(rows.size)
        except KafkaError as refused:
            raise BusError(
                f"the broker does not take events into {self._topic}: {refused!r}", "check it with `streamapp doctor`"
            ) from refused
        return Places(partition, offset)

    def _place(self, keys: Sequence[bytes | None]) -> Int64:
        partition = partition_of([key or b"" for key in keys], self.partitions)
        for row, key in enumerate(keys):
            if key is None:  # no key, no order to keep: one partition after the other
                partition[row] = self._next_unkeyed = (self._next_unkeyed + 1) % self.partitions
        return partition


@asynccontextmanager
async def feeder(
    bootstrap: str, topic: str, client: Mapping[str, Any] | None = None, *, in_one_order: bool = False
) -> AsyncIterator[Feeder]:
    """Takes HOST:PORT, the topic and aiokafka client arguments; gives a connected Feeder. Raises BusError when no broker answers.

    `in_one_order` puts everything into the first partition, however many there are.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, retry_backoff_ms=20, **(client or {}))
    try:
        await producer.start()
    except (KafkaError, OSError) as failed:
        await producer.stop()
        raise await unreachable(bootstrap, client, failed) from failed
    try:
        try:
            partitions = 1 if in_one_order else len(await producer.partitions_for(topic))
        except KafkaError as failed:
            fix = "create it with `streamapp topics create`"
            raise BusError(f"the broker at {bootstrap} does not tell of topic {topic}: {failed!r}", fix) from failed
        yield Feeder(producer, topic, partitions)
    finally:
        await producer.stop()
