"""Topics read whole, outside of any group: what a person or a check looks at, without taking records from anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from streamapp.bus.unreachable import unreachable
from streamapp.core.errors import BusError


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes | None]


class Follower:
    """Reads all partitions of its topics, in offset order per partition."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def poll(self, wait_ms: int, most: int | None = None) -> list[Record]:
        """Gives what has come, `most` records of it, waiting at most `wait_ms` for the first record. Raises BusError."""
        try:
            found = await self._consumer.getmany(timeout_ms=wait_ms, max_records=most)
        except KafkaError as failed:
            raise _unread(failed) from failed
        return [
            Record(message.topic, message.partition, message.offset, message.timestamp, message.key, message.value, dict(message.headers))
            for messages in found.values()
            for message in messages
        ]

    async def ends(self, before_ms: int | None = None) -> Mapping[Any, int]:
        """Gives the next offset of every partition as it is now; nothing where the broker knows no such topic. Raises BusError.

        With `before_ms`: the offset of the first record of that time (epoch ms) or later, where there is one.
        """
        assigned = self._consumer.assignment()
        try:
            ends = dict(await self._consumer.end_offsets(assigned)) if assigned else {}
            if before_ms is None or not ends:
                return ends
            later = await self._consumer.offsets_for_times(dict.fromkeys(assigned, before_ms))
        except KafkaError as failed:
            raise _unread(failed) from failed
        return {place: end if later[place] is None else min(end, later[place].offset) for place, end in ends.items()}

    async def behind(self, ends: Mapping[Any, int]) -> Mapping[Any, int]:
        """Gives how many offsets there are before each of `ends`. Raises BusError."""
        try:
            return {place: max(0, end - await self._consumer.position(place)) for place, end in ends.items()}
        except KafkaError as failed:
            raise _unread(failed) from failed

    async def left(self, ends: Mapping[Any, int]) -> int:
        """Gives how many offsets there are before `ends`. Raises BusError."""
        return sum((await self.behind(ends)).values())


def _unread(failed: KafkaError) -> BusError:
    return BusError(f"reading failed: {failed!r}", "check it with `streamapp doctor`")


@asynccontextmanager
async def follower(
    bootstrap: str,
    topics: Sequence[str],
    client: Mapping[str, Any] | None = None,
    *,
    from_end: bool = False,
    since_ms: int | None = None,
    fetch_wait_ms: int = 100,
) -> AsyncIterator[Follower]:
    """Takes HOST:PORT, topics and aiokafka client arguments; gives a connected Follower. Raises BusError when no broker answers.

    It begins with the first record, or at the end, or with the first one of epoch ms `since_ms` or later.
    """
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        auto_offset_reset="latest" if from_end else "earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=fetch_wait_ms,
        max_poll_records=5_000,
        isolation_level="read_committed",
        retry_backoff_ms=20,
        **(client or {}),
    )
    try:
        await consumer.start()
        if since_ms is not None:
            await _seek(consumer, since_ms)
    except UnknownTopicOrPartitionError as unknown:
        await consumer.stop()
        raise BusError(
            f"the broker knows no topic {' or '.join(topics)}", "create it with `streamapp topics create`, or check --namespace"
        ) from unknown
    except (KafkaError, OSError) as failed:
        await consumer.stop()
        raise await unreachable(bootstrap, client, failed) from failed
    try:
        yield Follower(consumer)
    finally:
        await consumer.stop()


async def _seek(consumer: AIOKafkaConsumer, since_ms: int) -> None:
    found = await consumer.offsets_for_times(dict.fromkeys(consumer.assignment(), since_ms))
    for partition, place in found.items():
        if place is None:
            await consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, place.offset)
