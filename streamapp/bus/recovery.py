"""What a worker does with a partition before it decides on it: read the journal, find where to go on, and what is already answered.

The journal says where to go on; the group's committed offset is for lag tools. What contradicts the journal is refused with a sentence.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import TopicPartition

from streamapp.bus.acks import Partition
from streamapp.bus.answered import Answered, unlogged
from streamapp.bus.columns import SOURCE_OFFSET
from streamapp.bus.emit import Delivery
from streamapp.bus.journal import KafkaJournal, Kept
from streamapp.bus.statelog import RESET, LogReader, beginning
from streamapp.bus.topics import Topics
from streamapp.core.deadletter import SOURCE_TOPIC
from streamapp.core.errors import BusError, ConfigError
from streamapp.core.replay import Replay

log = logging.getLogger(__name__)


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


async def answered(reader: LogReader, topics: Topics, partition: int, position: int, outputs: Sequence[int]) -> Answered:
    """Reads what was emitted after the journal's last record: source offsets from `position` on. Raises BusError."""
    outputs_found: list[tuple[str, int, bytes]] = []
    for topic, begin in zip(topics.outputs(), outputs, strict=True):
        bounds = await reader.bounds(topic, partition)
        async for found in reader.records(topic, partition, max(begin, bounds.begin), bounds.end):
            for record in found:
                headers = dict(record.headers)
                if headers.get(SOURCE_TOPIC, topics.events.encode()) != topics.events.encode():
                    continue  # the dead letter of a label, which has offsets of its own
                source = headers.get(SOURCE_OFFSET)
                if source is not None and int(source) >= position:
                    outputs_found.append((topic, int(source), record.value or b""))
    return unlogged(outputs_found, topics.decisions, topics.dead_letters)


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
    _generation: int = field(default=-1, init=False)  #  of the last assignment that gave us anything

    async def on_assigned(self, generation: int, partitions: frozenset[Partition]) -> None:
        """Loads all partitions at once; a failure ends the worker."""
        numbers = [source.partition for source in partitions]
        # A generation that we were not told of may have had another owner, whose records our own late ones can hide at the log's end.
        followed, self._generation = generation == self._generation + 1, generation
        self.journal.forget([number for number in self.journal.away() if number not in numbers or not followed])
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
            if self.loading.pop(source.partition, None) is not None:
                self.told(f"state of partition {source.partition}", 1.0)  # the rest is somebody else's to load
                log.info("Partition %d was taken away while its state was loading", source.partition)

    async def _load(self, generation: int, source: Partition) -> None:
        number = source.partition
        progress = self.loading[number]

        def tell(share: float, rows: int) -> None:
            progress.share, progress.rows = share, rows
            self.told(f"state of partition {number}", min(share, 0.99))  # the rest is what follows here

        await self.journal.own(number)  # before anything is read: what is read is final then
        async with self.connect() as reader:
            # Before the journal is read: what was committed by then is logged by now, whoever goes on committing meanwhile.
            committed = await self.group.committed(source)
            kept = await self._returned(reader, number, generation)
            if kept is None:
                replay = Replay(self.journal.plan.new)
                bounds = await reader.replay(self.topics.state, number, replay, tell)
                await self._check_partitions(reader, number, replay.partitions)
                if replay.position is None:
                    await self._begin(reader, source, generation, replay, committed)
                    bounds = await reader.bounds(self.topics.state, number)
                kept = self.journal.loaded(number, generation, replay, bounds.end)
            await self._check_position(reader, source, kept.position, committed)
            found = await answered(reader, self.topics, number, kept.position, kept.outputs)
        self.journal.adopt(kept)
        self.delivery.answered_already(number, found)
        self.group.release(source, kept.position, committed)
        took_s = time.monotonic() - progress.began_s
        log.info(
            "Partition %d goes on at offset %d: %d rows applied, %d answered beyond the journal, %.2f s", number, kept.position,
            progress.rows, len(found.verdicts), took_s,
        )  # fmt: skip
        self.loading.pop(number, None)
        self.told(f"state of partition {number}", 1.0)

    async def _returned(self, reader: LogReader, number: int, generation: int) -> Kept | None:
        kept = await self.journal.returned(number)
        if kept is None or kept.position <= kept.state.applied:
            return None
        end = (await reader.bounds(self.topics.state, number)).end
        async for found in reader.records(self.topics.state, number, kept.log_next, end):
            if found:  # else only transaction markers lie between
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
            raise BusError(
                f"{name} ends at offset {events.end}, the journal at {position}: the topic was recreated or has lost records", RESET
            )
        if committed is not None and committed > position:
            async for found in reader.records(source.topic, source.partition, position, committed):
                if found:  # else only transaction markers lie between
                    raise BusError(
                        f"the group has committed offset {committed} of {name}, the journal ends at {position}: events in between would be "
                        "skipped or their state is lost",
                        f"set the group back with `kafka-consumer-groups --reset-offsets`, or {RESET}",
                    )
