"""The state log read from outside of any group: partitions from a place on, replayed, and begun anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.structs import TopicPartition

from streamapp.bus.disconnect import disconnect
from streamapp.bus.refused import not_taken
from streamapp.bus.topics import Topics
from streamapp.bus.unreachable import unreachable
from streamapp.core import journal as codec
from streamapp.core.errors import BusError, ConfigError, StreamappError
from streamapp.core.journal import Head
from streamapp.core.replay import Replay

log = logging.getLogger(__name__)

#: Offsets at the log's end among which the last record is looked for, which says where recovery begins: transactions leave markers, and
#: what was aborted. Where there is none, so many times more are looked at.
TAIL_RECORDS, TAIL_GROWTH = 16, 8
#: Short, because a poll ends no earlier when all it met were markers.
_POLL_MS = 20
#: A broker that gives no record for so long, of those it says it has, is given up.
STALL_S = 30.0
_FETCH_BYTES = 8 << 20
RESET = "rebuild the state: stop the workers, then `streamapp state reset`"


@dataclass(slots=True)
class Bounds:
    """First and next offset of one partition of a topic."""

    begin: int
    end: int


class LogReader:
    """Reads single partitions outside of any group; what it reads goes by (offset, value or headers)."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """Gives where the partition begins and ends now. Raises BusError."""
        place = TopicPartition(topic, partition)
        try:
            begin, end = (await self._consumer.beginning_offsets([place]))[place], (await self._consumer.end_offsets([place]))[place]
        except KafkaError as failed:
            raise _unread(topic, failed) from failed
        return Bounds(int(begin), int(end))

    async def partitions(self, topic: str) -> int:
        """Gives how many partitions a topic has. Raises BusError when there is none of this name."""
        await self._consumer._client.add_topic(topic)
        count = len(self._consumer.partitions_for_topic(topic) or ())
        if not count:
            raise BusError(f"the broker knows no topic {topic}", "create it with `streamapp topics create`")
        return count

    async def records(self, topic: str, partition: int, begin: int, end: int) -> AsyncIterator[Sequence[Any]]:
        """Gives the records of [begin, end) as they come, each with offset, value and headers. Raises BusError."""
        place = TopicPartition(topic, partition)
        if begin >= end:
            return
        moved_s = time.monotonic()
        try:
            self._consumer.assign([place])
            self._consumer.seek(place, begin)
            while (position := await self._consumer.position(place)) < end:
                found = (await self._consumer.getmany(place, timeout_ms=_POLL_MS)).get(place, [])
                kept = [record for record in found if record.offset < end]
                if kept:
                    yield kept
                    moved_s = time.monotonic()
                elif await self._consumer.position(place) != position:
                    moved_s = time.monotonic()
                elif time.monotonic() - moved_s > STALL_S:
                    raise BusError(f"{topic}-{partition} gives nothing at offset {position} of {end}", "check it with `streamapp doctor`")
        except KafkaError as failed:
            raise _unread(topic, failed) from failed

    async def replay(
        self,
        topic: str,
        partition: int,
        replay: Replay,
        told: Callable[[float, int], None] = lambda share, rows: None,
        *,
        whole: bool = False,
    ) -> Bounds:
        """Takes an empty replay and fills it from the partition's log; gives the log's bounds. `whole` reads all that is there.

        Decoding and applying run in a thread. Raises BusError, ConfigError.
        """
        bounds = await self.bounds(topic, partition)
        begin = bounds.begin
        if bounds.end > bounds.begin and not whole:
            begin = max(bounds.begin, await self._base(topic, partition, bounds))
        async for found in self.records(topic, partition, begin, bounds.end):
            await asyncio.to_thread(replay.take, [(record.offset, record.value) for record in found])
            told((found[-1].offset + 1 - begin) / (bounds.end - begin), replay.rows)
        await asyncio.to_thread(replay.finish)
        return bounds

    async def last(self, topic: str, partition: int, bounds: Bounds) -> tuple[int, Head] | None:
        """Gives the last record's log offset and head; None when there is none."""
        last, begin, width = None, bounds.end, TAIL_RECORDS
        while last is None and begin > bounds.begin:
            end, begin = begin, max(bounds.begin, bounds.end - width)
            width *= TAIL_GROWTH
            async for found in self.records(topic, partition, begin, end):
                last = found[-1].offset, codec.decode(found[-1].value)[0]
        return last

    async def _base(self, topic: str, partition: int, bounds: Bounds) -> int:
        found = await self.last(topic, partition, bounds)
        if found is None:
            return bounds.begin
        offset, head = found
        return offset if head.kind == "reset" else head.base


@asynccontextmanager
async def log_reader(bootstrap: str, client: Mapping[str, Any]) -> AsyncIterator[LogReader]:
    """Gives a connected LogReader. Raises BusError when no broker answers."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50,
        fetch_max_bytes=4 * _FETCH_BYTES,
        max_partition_fetch_bytes=_FETCH_BYTES, retry_backoff_ms=20, isolation_level="read_committed", **client,
    )  # fmt: skip
    try:
        await consumer.start()
    except (KafkaError, OSError) as failed:
        await consumer.stop()
        raise await unreachable(bootstrap, client, failed) from failed
    try:
        yield LogReader(consumer)
    finally:
        await disconnect(consumer)


def trimming(bootstrap: str, topics: Topics, client: Mapping[str, Any]) -> Callable[[int, int], Awaitable[None]]:
    """Gives a function that removes what lies before a log offset; where the broker has no such request, it says so once and keeps all."""
    unable = False

    async def trim(partition: int, before: int) -> None:
        nonlocal unable
        if unable:
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **client)
        try:
            await admin.start()
            await admin.delete_records({TopicPartition(topics.state, partition): RecordsToDelete(before)})
        except IncompatibleBrokerVersion:
            unable = True
            log.info("This broker cannot trim the state log; it is kept whole")
        except (KafkaError, OSError) as failed:
            log.warning("The state log was not trimmed, the next snapshot tries again: %r", failed)
        finally:
            await admin.close()

    return trim


def check_log(topics: Topics, events: int, state: int) -> None:
    """Takes the partition counts of the events topic and the state log. Raises ConfigError when they differ."""
    if events != state:
        raise ConfigError(
            f"{topics.events} has {events} partitions and {topics.state} has {state}: keys have moved away from their state",
            f"recreate both with one count, or {RESET}",
        )


async def beginning(
    reader: LogReader, topics: Topics, partition: int, start: int, generation: int, partitions: int, kind: codec.Kind
) -> bytes:
    """Gives the record that says: from `start` on, with no state; what outputs hold now belongs to what was before. Raises BusError."""
    outputs = [(await reader.bounds(topic, partition)).end for topic in topics.outputs()]
    return codec.encode(Head(kind, -1, start, generation, partitions, -1, np.iinfo(np.int64).min, tuple(outputs)), b"")


async def start_over(
    bootstrap: str, client: Mapping[str, Any], group: str, producer: Any, reader: LogReader, topics: Topics, place: str
) -> dict[int, int]:
    """Sets group and journal of all partitions to `earliest`, `latest` or `committed`, with no state; gives the positions.

    The group comes first, because its broker refuses while it has members. Raises BusError.
    """
    count = await reader.partitions(topics.events)
    sources = [TopicPartition(topics.events, number) for number in range(count)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False, **client)
    positions: dict[int, int] = {}
    try:
        await consumer.start()
        consumer.assign(sources)
        for source in sources:
            bounds = await reader.bounds(*source)
            reached = await consumer.committed(source)
            known = {"earliest": bounds.begin, "latest": bounds.end, "committed": bounds.begin if reached is None else int(reached)}
            positions[source.partition] = known[place]
        await consumer.commit({source: positions[source.partition] for source in sources})
    except KafkaError as refused:
        raise BusError(
            f"the group {group} cannot be moved: {refused!r}",
            "stop its workers and wait until their session is over (10 s), then try again",
        ) from refused
    finally:
        await disconnect(consumer)
    for number, start in positions.items():
        record = await beginning(reader, topics, number, start, 0, count, kind="reset")
        try:
            await producer.send_and_wait(topics.state, record, partition=number)
        except KafkaError as refused:
            raise not_taken("the state log", refused) from refused
    return positions


def _unread(topic: str, failed: KafkaError) -> StreamappError:
    return BusError(f"{topic} cannot be read: {failed!r}", "check it with `streamapp doctor`")
