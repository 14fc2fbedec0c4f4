"""Topics read whole, outside of any group: what a person or a check looks at, without taking records from anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from streamapp.bus.caught_up import CaughtUp
from streamapp.bus.disconnect import disconnect
from streamapp.bus.unreachable import unreachable
from streamapp.core.errors import BusError

#: A topic that was just created is known after some milliseconds, or seconds where the machine is busy.
UNKNOWN_S = 10.0
_APPENDED = 1  # aiokafka's word for the broker's time
_DELETE_RECORDS = 21  # a request that every Kafka knows, and the embedded broker does not


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
    appended: bool = True  # the time is the broker's; else the producer's, as without message.timestamp.type=LogAppendTime


class _Consumer(AIOKafkaConsumer):
    """aiokafka's, which would wait for an unknown topic as long as for an answer: 40 s."""

    async def _wait_topics(self) -> None:
        try:
            async with asyncio.timeout(UNKNOWN_S):
                await super()._wait_topics()
        except TimeoutError:
            raise UnknownTopicOrPartitionError from None


class Follower:
    """Reads all partitions of its topics, in offset order per partition."""

    def __init__(self, consumer: AIOKafkaConsumer, since_ms: int | None = None) -> None:
        """`since_ms`: records from before are passed over."""
        self._consumer, self._since_ms = consumer, since_ms

    async def poll(self, wait_ms: int, most: int | None = None) -> list[Record]:
        """Gives what has come, `most` records of it, waiting at most `wait_ms` for the first record. Raises BusError."""
        try:
            found = await self._consumer.getmany(timeout_ms=wait_ms, max_records=most)
        except KafkaError as failed:
            raise _unread(failed) from failed
        return [
            Record(
                one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, dict(one.headers), one.timestamp_type == _APPENDED
            )
            for messages in found.values()
            for one in messages
            if self._since_ms is None or one.timestamp >= self._since_ms
        ]

    async def ends(self, before_ms: int | None = None) -> Mapping[Any, int]:
        """Gives the next offset of every partition as it is now; nothing where the broker knows no such topic. Raises BusError.

        With `before_ms`: the offset of the first record of that time (epoch ms) or later, where there is one, and the broker knows times.
        """
        assigned = self._consumer.assignment()
        try:
            ends = dict(await self._consumer.end_offsets(assigned)) if assigned else {}
            if before_ms is None or not ends or not knows_times(self._consumer):
                return ends
            later = await self._consumer.offsets_for_times(dict.fromkeys(assigned, max(0, before_ms)))
        except KafkaError as failed:
            raise _unread(failed) from failed
        return {place: end if later[place] is None else min(end, later[place].offset) for place, end in ends.items()}

    def caught_up(self) -> CaughtUp:
        """Gives what watches whether all of the topics is read, which it is now."""
        return CaughtUp(self._consumer)

    async def behind(self, ends: Mapping[Any, int]) -> Mapping[Any, int]:
        """Gives how many offsets there are before each of `ends`. Raises BusError."""
        try:
            return {place: max(0, end - await self._consumer.position(place)) for place, end in ends.items()}
        except KafkaError as failed:
            raise _unread(failed) from failed

    def hold(self, partitions: Collection[int]) -> None:
        """Asks for nothing more of these partitions, and for all others again; what was fetched of them may still come."""
        assigned = self._consumer.assignment()
        held = {place for place in assigned if place.partition in partitions}
        if held != self._consumer.paused():
            self._consumer.resume(*assigned - held)
            self._consumer.pause(*held)

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
    consumer = _Consumer(
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
        reached = since_ms is not None and since_ms > 0 and knows_times(consumer)
        if since_ms is not None and reached:
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
        yield Follower(consumer, None if reached else since_ms)
    finally:
        await disconnect(consumer)


def knows_times(consumer: AIOKafkaConsumer) -> bool:
    """Says whether the broker finds records by their time; the embedded one answers, but not with the place that was asked for."""
    return any(_DELETE_RECORDS in connection._versions for connection in consumer._client._conns.values())


async def _seek(consumer: AIOKafkaConsumer, since_ms: int) -> None:
    found = await consumer.offsets_for_times(dict.fromkeys(consumer.assignment(), since_ms))
    for partition, place in found.items():
        if place is None:
            await consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, place.offset)
