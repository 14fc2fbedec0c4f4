"""The journal on Kafka: a delta per micro-batch and partition, snapshots now and then, and the log trimmed behind the last but one.

While traffic is thin the deltas of several micro-batches are appended together.

Step 4 of the delivery order. A delta is appended once the outputs of its micro-batch are acknowledged, so its position says from where
events have no verdict yet. A snapshot is appended once the delta up to which it was cut is, so it never says more than the deltas do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from aiokafka.errors import KafkaError

from streamapp.bus.columns import Message, fill
from streamapp.bus.guarantee import Counted, Guarantee
from streamapp.bus.producer import Parcel
from streamapp.bus.refused import not_taken
from streamapp.bus.topics import BATCH_BYTES_MAX, Topics
from streamapp.core import journal as codec
from streamapp.core.dedupe import DECISION
from streamapp.core.errors import BusError, InvariantBroken
from streamapp.core.events import Segment
from streamapp.core.journal import Cut, Head, Release, pack_rows, pieces, shape_of, unpack_rows
from streamapp.core.replay import Replay
from streamapp.core.state import StatePlan, Step
from streamapp.core.windows_partition import Entries, PartitionState, Rows
from streamapp.ports import Outputs, Settled

log = logging.getLogger(__name__)

Trim = Callable[[int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When a partition's state is saved whole: after so many rows, or so many seconds in which there were any."""

    rows: int = 2_000_000
    seconds: float = 300.0


@dataclass(slots=True)
class _Covered:
    """A cut that waits for the deltas up to it."""

    applied: int
    there: asyncio.Future[None]


@dataclass(slots=True)
class Kept:
    """One partition's state and where its log is; `position`, `outputs` and `log_next` are those of the last acknowledged record."""

    partition: int
    generation: int
    state: PartitionState
    position: int
    outputs: list[int]
    log_next: int
    base: int
    releases: dict[int, Release]
    deciding: int = 0  #         micro-batches between `states` and the moment they count
    lost: bool = False  #        the log has not all of what the state has, and never will: another worker owns the partition
    rows: int = 0  #             since the last snapshot
    since_s: float = field(default_factory=time.monotonic)
    told: set[int] = field(default_factory=set)  # releases this owner has put into the log
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    covered: _Covered | None = None
    saving: asyncio.Task[None] | None = None
    log_since: int = field(init=False)  # where the log ended when this owner read it
    own: int = 0  #                       records it has written since

    def __post_init__(self) -> None:
        self.log_since = self.log_next

    def wrote(self, offset: int, records: int) -> None:
        """Notes records of ours that the log has from `offset` on."""
        self.log_next, self.own = max(self.log_next, offset + records), self.own + records

    @property
    def alone(self) -> bool:
        """Whether nobody else has written up to our last record: a worker that slept may write behind the one that has taken over."""
        return self.log_next - self.log_since == self.own


@dataclass(slots=True)
class _Reached:
    """How far the records of one append bring a partition."""

    kept: Kept
    position: int
    outputs: list[int]
    records: list[bytes] = field(default_factory=list)
    rows: int = 0


class KafkaJournal:
    """States by partition, and the log they survive in; partitions come and go by `adopt` and `withdraw`."""

    def __init__(
        self, guarantee: Guarantee, topics: Topics, plan: StatePlan, partitions: int, trim: Trim, policy: SnapshotPolicy | None = None
    ) -> None:
        """`partitions` is the events topic's count; `trim(partition, log offset)` removes what lies before."""
        self.plan, self.partitions = plan, partitions
        self._guarantee, self._topics, self._trim = guarantee, topics, trim
        self._policy = policy or SnapshotPolicy()
        self._kept: dict[int, Kept] = {}
        self._away: dict[int, Kept] = {}  # of partitions that a rebalance took: good again if they come back unchanged
        self._flight: deque[list[Kept]] = deque()
        self._open = asyncio.Event()
        self._open.set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._cutting = asyncio.Lock()
        self._output_places = {name: place for place, name in enumerate(topics.outputs())}
        self.appended_bytes = 0
        self.appended_rows = 0

    # -- ports.Journal

    async def ready(self) -> None:
        """Waits while a state is being copied: nothing may move it then. Returns at once but for some ms every some minutes."""
        while not self._open.is_set():
            await self._open.wait()

    @contextmanager
    def moving(self) -> Iterator[None]:
        """While it is open no state is copied: one that has moved and does not hold its decisions would be saved without them."""
        self._whole.clear()
        try:
            yield
        finally:
            self._whole.set()

    def states(self, segments: Sequence[Segment]) -> Sequence[PartitionState]:
        """Gives the state of each segment's partition; raises InvariantBroken for one that is not loaded."""
        found: list[Kept] = []
        for one in segments:
            kept = self._kept.get(one.partition)
            if kept is None:
                raise InvariantBroken(f"events of {one.topic}-{one.partition} came before its state was loaded")
            found.append(kept)
        for kept in found:
            kept.deciding += 1
        self._flight.append(found)
        return [kept.state for kept in found]

    async def append(self, settled: Sequence[Settled]) -> Awaitable[None] | None:
        """Writes what the oldest undelivered micro-batches did, and waits for the acknowledgement. Raises BusError.

        Gives None where that counts, else what to wait for until its transaction does.
        Also for a partition that was taken away meanwhile: its outputs are out, and whoever has it now skips what it has itself.
        """
        effects = self._guarantee.oldest()
        reached: dict[int, _Reached] = {}
        flown: list[Kept] = []
        for one in settled:
            steps = {step.segment: step for step in one.outcome.steps}
            found = self._flight.popleft()
            flown += found
            for place, (kept, segment) in enumerate(zip(found, one.outcome.plan.segments, strict=True)):
                to = reached.setdefault(id(kept), _Reached(kept, kept.position, list(kept.outputs)))
                self._extend(to, segment, steps.get(place), one.outputs, one.release)
        now_ms = settled[-1].outcome.decided_at
        sent: list[tuple[_Reached, Parcel]] = []
        for to in reached.values():
            records: list[Message] = [(None, record, []) for record in to.records]
            batches = fill(records, BATCH_BYTES_MAX, now_ms, transactional=self._guarantee.transactional)
            sent += [(to, (batch, self._topics.state, to.kept.partition)) for batch in batches]
        try:
            answer = effects.enqueue_all([parcel for _, parcel in sent])
        except KafkaError as refused:
            raise not_taken("the state log", refused) from refused
        await asyncio.wait([answer])
        failure = answer.exception()
        if failure is not None:
            raise not_taken("the state log", failure) from failure
        for (to, (batch, *_)), offset in zip(sent, answer.result(), strict=True):
            to.kept.wrote(offset, batch.record_count())
        for to in reached.values():
            to.kept.position, to.kept.outputs = to.position, to.outputs
            to.kept.rows += to.rows
            self._note(to.kept)
        counted = self._guarantee.leave(len(settled))
        if counted is not None:
            return _when(counted, flown)
        _settle(flown)
        return None

    def _extend(self, to: _Reached, segment: Segment, step: Step | None, outputs: Outputs, release: Release) -> None:
        """Adds the records of one segment: one, or more where they would be too large for the broker."""
        kept = to.kept
        before = tuple(to.outputs)
        for name, at in self._output_places.items():
            to.outputs[at] = max(to.outputs[at], outputs.get((name, kept.partition), -1))
        fresh = () if release.code in kept.told else (release,)
        kept.told.add(release.code)
        kept.releases[release.code] = release
        parts: list[Rows | None] = [None] if step is None else list(pieces(step.rows))
        for number, rows in enumerate(parts, 1):
            last = number == len(parts)
            # Outputs are known for the whole only: a piece in between says those before it, and more is read back than needed.
            said = tuple(to.outputs) if last else before
            after = int(segment.offsets[-1]) + 1 if last or rows is None else int(rows.offset[-1]) + 1
            shape = {} if rows is None else shape_of(rows)
            head = Head(
                "delta", to.position, after, segment.generation, self.partitions, kept.base, kept.state.clock.high, said,
                releases=fresh, **shape,
            )  # fmt: skip
            record = codec.encode(head, b"" if rows is None else pack_rows(rows))
            to.records.append(record)
            to.position, fresh = after, ()
            self.appended_bytes += len(record)
        to.rows += 0 if step is None else len(step.rows.offset)
        self.appended_rows += 0 if step is None else len(step.rows.offset)

    # -- partitions come and go (bus/recovery.py)

    def adopt(self, kept: Kept) -> None:
        """Takes a partition whose state is loaded."""
        self._away.pop(kept.partition, None)
        self._kept[kept.partition] = kept

    def loaded(self, partition: int, generation: int, replay: Replay, log_next: int) -> Kept:
        """Gives what a finished replay found, ready to be adopted."""
        outputs = list(replay.outputs) or [-1] * len(self._output_places)
        assert replay.position is not None  # noqa: S101  # the caller has opened an empty log
        return Kept(partition, generation, replay.state, replay.position, outputs, log_next, replay.base, dict(replay.releases))

    async def own(self, partition: int) -> None:
        """Sees to it that what a former owner still sends does not count, as far as the delivery promises that. Raises BusError."""
        await self._guarantee.own(partition)

    def withdraw(self, partition: int) -> None:
        """Gives a partition up: nothing more is decided on its state."""
        self._guarantee.give_up(partition)
        kept = self._kept.pop(partition, None)
        if kept is not None:
            if kept.saving is not None:
                kept.saving.cancel()
            self._away[partition] = kept

    def forget(self, partitions: Sequence[int]) -> None:
        """Drops the states of partitions that went to somebody else."""
        for partition in partitions:
            self._away.pop(partition, None)

    def away(self) -> Sequence[int]:
        """Gives the partitions that a rebalance took and nobody was named for yet."""
        return tuple(self._away)

    async def returned(self, partition: int) -> Kept | None:
        """Gives the state of a partition that was ours before the rebalance, once nothing of it is in flight; None when there is none.

        It is good as long as nobody else has written to the log since we read it. In transactions, nobody can have without our knowing.
        """
        kept = self._away.get(partition)
        while kept is not None and kept.deciding:
            kept.settled.clear()
            await kept.settled.wait()
        if kept is None or kept.lost:
            return None
        return kept if kept.alone or self._guarantee.transactional else None

    async def put(self, partition: int, record: bytes) -> int:
        """Appends one record outside of the micro-batch (a beginning, a chunk, a reset); gives its log offset. Raises BusError."""
        try:
            now_ms = time.time_ns() // 1_000_000
            (batch,) = fill([(None, record, [])], BATCH_BYTES_MAX, now_ms, transactional=self._guarantee.transactional)
            await self._guarantee.know([self._topics.state])
            effects = self._guarantee.aside()
            try:
                offset = int((await effects.enqueue(batch, self._topics.state, partition)).offset)
            finally:
                counted = effects.leave()
            if counted is not None and partition in await counted:
                raise BusError(f"partition {partition} has another owner by now", "nothing to do: the other one writes its state log")
        except KafkaError as refused:
            raise not_taken("the state log", refused) from refused
        if partition in self._kept:
            self._kept[partition].wrote(offset, 1)
        return offset

    def figures(self) -> Mapping[int, Kept]:
        """Gives the partitions that are ours, for showing."""
        return self._kept

    # -- snapshots

    def _note(self, kept: Kept) -> None:
        covered = kept.covered
        if covered is not None and kept.position > covered.applied:
            kept.covered = None
            if not covered.there.done():
                covered.there.set_result(None)
        policy = self._policy
        free = (kept.saving is None or kept.saving.done()) and self._kept.get(kept.partition) is kept
        if free and kept.rows and (kept.rows >= policy.rows or time.monotonic() - kept.since_s >= policy.seconds):
            kept.saving = asyncio.create_task(self._save(kept))

    async def _save(self, kept: Kept) -> None:
        kept.rows, kept.since_s = 0, time.monotonic()
        try:
            await self.save(kept)
        except BusError as refused:
            log.warning("A snapshot of partition %d was not written, the deltas stay: %s", kept.partition, refused)

    async def save(self, kept: Kept) -> None:
        """Writes one snapshot and trims the log behind the one before. Raises BusError.

        The state stands still only while its columns are copied, in a thread: the loop goes on, deciding waits.
        """
        async with self._cutting:
            self._open.clear()  # from here on `applied` stands still; deltas up to it may still be on their way
            try:
                await self._whole.wait()
                covered = self._cover(kept)
                # What is cut ends here, wherever the delta ends that will cover it: one append may bring what was decided after the cut.
                position, base, outputs = max(kept.position, kept.state.applied + 1), kept.log_next, tuple(kept.outputs)
                copied = await asyncio.to_thread(kept.state.snapshot)
            finally:
                self._open.set()
        cut: Cut = await asyncio.to_thread(codec.cut, copied)
        del copied
        await covered
        head = Head(
            "snapshot", -1, position, kept.generation, self.partitions, kept.base, cut.high, outputs, releases=tuple(kept.releases.values())
        )
        for record in cut.records(head):
            await self.put(kept.partition, record)
        before, kept.base = kept.base, base
        log.info("Saved partition %d whole at offset %d, in %d records", kept.partition, position, len(cut.chunks))
        if before > 0:
            await self._trim(kept.partition, before)

    def _cover(self, kept: Kept) -> asyncio.Future[None]:
        """Ends when the delta with the last row that the state holds is acknowledged."""
        there: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if kept.position > kept.state.applied:
            there.set_result(None)
        else:
            kept.covered = _Covered(kept.state.applied, there)
        return there


async def _when(counted: Counted, flown: Sequence[Kept]) -> None:
    lost = await counted
    for kept in flown:
        kept.lost |= kept.partition in lost
    _settle(flown)


def _settle(flown: Sequence[Kept]) -> None:
    for kept in flown:
        kept.deciding -= 1
        kept.settled.set()


def warm_up(plan: StatePlan) -> None:
    """Moves, packs, saves and restores one made-up row: what is compiled later would hold the loop for seconds."""
    one = np.ones((1, 1), np.int64)
    entries = {
        store.name: Entries(np.hstack((one, one)), np.repeat(one, len(store.values), 1), np.repeat(one, len(store.keys), 1))
        for store in plan.stores
    }
    state = plan.new()
    rows = Rows(one[0], one[0], one[0], np.hstack((one, one)), entries, np.zeros(1, DECISION))
    unpack_rows(Head("delta", -1, 2, 0, 1, -1, 0, (), **shape_of(rows)), pack_rows(rows))
    state.advance(rows)
    replay = Replay(plan.new)
    replay.state.apply(rows)
    for number, record in enumerate(codec.cut(state.snapshot()).records(Head("snapshot", -1, 2, 0, 1, -1, 0, ()))):
        replay.take([(number, record)])
