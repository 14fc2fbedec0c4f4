"""What a worker does with a partition before it decides on it: read the journal, find where to go on, and what is already answered.

The journal says where to go on; the group's committed offset is for lag tools. What contradicts the journal is refused with a sentence.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from streamapp.bus.acks import Partition
from streamapp.bus.emit import Delivery
from streamapp.bus.journal import Kept, KafkaJournal
from streamapp.bus.topics import Topics
from streamapp.core import journal as codec
from streamapp.core.errors import BusError, ConfigError, StreamappError
from streamapp.core.journal import Head
from streamapp.core.replay import Replay

log = logging.getLogger(__name__)

#: Records at the log's end of which the last says where recovery begins; more than one because transactions leave markers.
TAIL_RECORDS = 16
_POLL_MS = 200
#: A broker that gives no record for so long, of those it says it has, is given up.
STALL_S = 30.0
_FETCH_BYTES = 8 << 20
RESET = "rebuild the state: stop the workers, then `streamapp state reset`"

Records = Sequence[tuple[int, bytes]]


@dataclass(slots=True)
class Loading:
    """How far one partition's state is loaded."""

    began_s: float
    share: float = 0.0
    rows: int = 0

    def figures(self, now_s: float) -> dict[str, Any]:
        """Gives share, rows/s, and the seconds left at this pace (None before anything came)."""
        took_s = max(now_s - self.began_s, 1e-9)
        left_s = took_s * (1 - self.share) / self.share if self.share else None
        return {"share": round(self.share, 3), "rows_per_s": round(self.rows / took_s), "seconds_left": left_s and round(left_s, 1)}


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
        self, topic: str, partition: int, replay: Replay, told: Callable[[float, int], None] = lambda share, rows: None, *, whole: bool = False
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
        last = None
        async for found in self.records(topic, partition, max(bounds.begin, bounds.end - TAIL_RECORDS), bounds.end):
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
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50, fetch_max_bytes=4 * _FETCH_BYTES,
        max_partition_fetch_bytes=_FETCH_BYTES, retry_backoff_ms=20, isolation_level="read_committed", **client,
    )  # fmt: skip
    try:
        await consumer.start()
    except (KafkaError, OSError) as failed:
        await consumer.stop()
        raise BusError(f"the broker at {bootstrap} did not answer: {failed}", "check --bootstrap, then `streamapp doctor`") from failed
    try:
        yield LogReader(consumer)
    finally:
        await _stop(consumer)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer. aiokafka's fetch task swallows a cancellation that meets it after a change of partitions, and would be waited for."""
    stopping = asyncio.ensure_future(consumer.stop())
    while not (await asyncio.wait({stopping}, timeout=0.1))[0]:
        consumer._fetcher._fetch_task.cancel()
    await stopping


@dataclass(slots=True)
class Answered:
    """Source offsets of one partition that have outputs beyond the journal, sorted int64."""

    verdicts: np.ndarray[Any, np.dtype[np.int64]]  # or dead letters
    decisions: np.ndarray[Any, np.dtype[np.int64]]


async def answered(reader: LogReader, topics: Topics, partition: int, position: int, outputs: Sequence[int]) -> Answered:
    """Reads what was emitted after the journal's last record: source offsets from `position` on. Raises BusError."""
    verdicts: set[int] = set()
    decisions: set[int] = set()
    for topic, begin in zip(topics.outputs(), outputs, strict=True):
        into = decisions if topic == topics.decisions else verdicts
        bounds = await reader.bounds(topic, partition)
        async for found in reader.records(topic, partition, max(begin, bounds.begin), bounds.end):
            for record in found:
                source = next((value for name, value in record.headers if name == "source-offset"), None)
                if source is not None and int(source) >= position:
                    into.add(int(source))
    return Answered(*(np.array(sorted(one), np.int64) for one in (verdicts, decisions)))


class Group:
    """What recovery needs of the consumer group and its transport; the worker's app gives it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def committed(self, source: Partition) -> int | None:
        """Gives the group's committed offset, None without one."""
        found = await self._app.batches.client.kafka.committed(TopicPartition(*source))
        return None if found is None else int(found)

    @property
    def begins(self) -> str:
        """`earliest` or `latest`: where a group without a position begins."""
        return str(self._app.conf.consumer_auto_offset_reset)

    def release(self, source: Partition, position: int, committed: int | None) -> None:
        """Starts delivery at `position`; the group is told where it is behind."""
        batches = self._app.batches
        batches.release(source, position)
        batches.acks.get(source).committed = committed

    async def crash(self, failure: BaseException) -> None:
        """Ends the worker with this reason."""
        await self._app.crash(failure)


@dataclass(slots=True)
class Recovery:
    """The transport's PartitionListener: every assigned partition is loaded in a task of its own, then released."""

    group: Group
    journal: KafkaJournal
    delivery: Delivery
    topics: Topics
    connect: Callable[[], Any]  #                        gives `log_reader(...)`
    told: Callable[[str, float], None] = lambda what, share: None
    loading: dict[int, Loading] = field(default_factory=dict)

    async def on_assigned(self, generation: int, partitions: frozenset[Partition]) -> None:
        """Loads all partitions at once; a failure ends the worker."""
        numbers = [source.partition for source in partitions]
        self.journal.forget([number for number in self.journal.away() if number not in numbers])
        for number in numbers:
            self.loading[number] = Loading(time.monotonic())
            self.told(f"state of partition {number}", 0.0)
        try:
            async with asyncio.TaskGroup() as tasks:
                for source in sorted(partitions):
                    tasks.create_task(self._load(generation, source))
        except* Exception as failures:  # noqa: BLE001 - whatever it is, this worker must not decide on half a state
            await self.group.crash(failures.exceptions[0])

    async def on_revoked(self, generation: int, partitions: frozenset[Partition]) -> None:
        """Gives the states up; they are kept aside until the next assignment says whose they are. Never waits."""
        for source in partitions:
            self.journal.withdraw(source.partition)
            self.delivery.nothing_answered(source.partition)
            self.loading.pop(source.partition, None)

    async def _load(self, generation: int, source: Partition) -> None:
        number = source.partition
        progress = self.loading[number]

        def tell(share: float, rows: int) -> None:
            progress.share, progress.rows = share, rows
            self.told(f"state of partition {number}", min(share, 0.99))  # the rest is what follows here

        async with self.connect() as reader:
            kept = await self._returned(reader, number, generation)
            if kept is None:
                replay = Replay(self.journal.plan.new)
                bounds = await reader.replay(self.topics.state, number, replay, tell)
                committed = await self.group.committed(source)
                await self._check_partitions(reader, number, replay.partitions)
                if replay.position is None:
                    await self._begin(reader, source, generation, replay, committed)
                    bounds = await reader.bounds(self.topics.state, number)
                kept = self.journal.loaded(number, generation, replay, bounds.end)
            else:
                committed = await self.group.committed(source)
            await self._check_position(reader, source, kept.position, committed)
            found = await answered(reader, self.topics, number, kept.position, kept.outputs)
        self.journal.adopt(kept)
        self.delivery.answered_already(number, found.verdicts, found.decisions)
        self.group.release(source, kept.position, committed)
        took_s = time.monotonic() - progress.began_s
        log.info(
            "Partition %d goes on at offset %d: %d rows applied, %d answered beyond the journal, %.2f s", number, kept.position, progress.rows,
            len(found.verdicts), took_s,
        )  # fmt: skip
        self.loading.pop(number, None)
        self.told(f"state of partition {number}", 1.0)

    async def _returned(self, reader: LogReader, number: int, generation: int) -> Kept | None:
        kept = await self.journal.returned(number)
        if kept is None:
            return None
        if kept.position <= kept.state.applied or (await reader.bounds(self.topics.state, number)).end != kept.log_next:
            return None
        kept.generation = generation
        return kept

    async def _begin(self, reader: LogReader, source: Partition, generation: int, replay: Replay, committed: int | None) -> None:
        """Opens an empty journal, so that from the first event on it is the journal that says where to go on."""
        events = await reader.bounds(source.topic, source.partition)
        if committed is not None and committed > events.begin:
            raise BusError(
                f"the group has committed offset {committed} of {source.topic}-{source.partition} and the journal is empty: the state "
                "behind that offset is not there",
                f"{RESET} (--to earliest decides again, --to committed goes on with empty windows)",
            )
        start = events.begin if self.group.begins == "earliest" else events.end
        record = await beginning(reader, self.topics, source.partition, start, generation, self.journal.partitions, kind="delta")
        offset = await self.journal.put(source.partition, record)
        replay.take([(offset, record)])

    async def _check_partitions(self, reader: LogReader, number: int, written: int | None) -> None:
        if written is None and number != 0:  # a partition that is new tells nothing; the first one does
            bounds = await reader.bounds(self.topics.state, 0)
            found = await reader.last(self.topics.state, 0, bounds) if bounds.end > bounds.begin else None
            written = found[1].partitions if found else None
        if written is not None and written != self.journal.partitions:
            raise ConfigError(
                f"the journal was written for {written} partitions of {self.topics.events}, which has {self.journal.partitions} now: keys "
                "have moved away from their state",
                f"recreate the topics with {written} partitions, or {RESET}",
            )

    async def _check_position(self, reader: LogReader, source: Partition, position: int, committed: int | None) -> None:
        events = await reader.bounds(source.topic, source.partition)
        name = f"{source.topic}-{source.partition}"
        if position < events.begin and events.end > events.begin:
            raise BusError(
                f"{name} begins at offset {events.begin}, the journal ends at {position}: retention removed events that were not decided",
                f"raise its retention.ms; to accept the loss, {RESET}",
            )
        if position > events.end:
            raise BusError(f"{name} ends at offset {events.end}, the journal at {position}: the topic was recreated or has lost records", RESET)
        if committed is not None and committed > position:
            async for found in reader.records(source.topic, source.partition, position, committed):
                if found:  # else only transaction markers lie between
                    raise BusError(
                        f"the group has committed offset {committed} of {name}, the journal ends at {position}: events in between would be "
                        "skipped or their state is lost",
                        f"set the group back with `kafka-consumer-groups --reset-offsets`, or {RESET}",
                    )


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


def _unread(topic: str, failed: KafkaError) -> StreamappError:
    return BusError(f"{topic} cannot be read: {failed!r}", "check it with `streamapp doctor`")


