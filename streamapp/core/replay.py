"""The state log read back: records of one partition in log order to its state, its position and what was told with it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from streamapp.core.errors import BusError
from streamapp.core.journal import Gathering, Head, Release, concatenated, decode, snapshot_id, unpack_rows
from streamapp.core.windows_partition import PartitionState, Rows

#: Rows that are gathered before they are applied: one call moves a state past all of them.
BULK_ROWS = 1 << 16


@dataclass(slots=True)
class Replay:
    """Takes the records of one partition's log in order.

    Laws: a row is applied once however often it was logged, so records of a former owner change nothing; a snapshot of which a chunk is
    missing is as if it were not there; a delta that does not continue what is known waits for a snapshot that covers the gap.
    """

    new: Callable[[], PartitionState]
    state: PartitionState = field(init=False)
    position: int | None = field(default=None, init=False)  #  source offset to go on with
    outputs: list[int] = field(default_factory=list, init=False)
    releases: dict[int, Release] = field(default_factory=dict, init=False)
    generation: int = field(default=-1, init=False)
    partitions: int | None = field(default=None, init=False)  # of the events topic, as last written
    base: int = field(default=-1, init=False)  #               log offset where the next recovery may begin
    records: int = field(default=0, init=False)
    rows: int = field(default=0, init=False)  #                applied
    snapshots: int = field(default=0, init=False)  #           complete and used
    _pending: list[Rows] = field(default_factory=list, init=False)
    _pending_rows: int = field(default=0, init=False)
    _gathering: dict[tuple[int, int, int], Gathering] = field(default_factory=dict, init=False)
    _early: list[tuple[int, bytes]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.state = self.new()

    def take(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Takes (log offset, record) in order. Raises ConfigError for records of another format."""
        for offset, record in records:
            head, body = decode(record)
            self.records += 1
            self.partitions = head.partitions
            self.generation = max(self.generation, head.generation)
            self.releases |= {release.code: release for release in head.releases}
            if head.kind == "delta":
                self._delta(offset, head, body, record)
            elif head.kind == "snapshot":
                self._snapshot(head, body)
            else:
                self._reset(offset, head)

    def finish(self) -> None:
        """Applies what is gathered. Raises BusError when the log does not lead from a beginning or a snapshot to its end."""
        self._flush()
        if self._early:
            head, _ = decode(self._early[0][1])
            raise BusError(
                f"the state log is incomplete: nothing in it covers the events before offset {head.since}; retention or a deletion "
                "has overtaken the journal",
                "set its retention.ms and retention.bytes to -1; rebuild the state from the events: `streamapp state reset`",
            )

    def _delta(self, offset: int, head: Head, body: memoryview, record: bytes) -> None:
        if self.position is None and head.since < 0 and not self._early:
            self.position = -1
        if self.position is None or head.since > self.position:
            self._flush()
            self._early.append((offset, record))
            self.position = None
            return
        if head.next <= self.position:
            return
        self.position, self.base, self.outputs = head.next, max(self.base, head.base), list(head.outputs)
        if head.rows:
            self._pending.append(unpack_rows(head, body).after(self._applied()))
            self._pending_rows += head.rows
            if self._pending_rows >= BULK_ROWS:
                self._flush()

    def _applied(self) -> int:
        for rows in reversed(self._pending):
            if len(rows.offset):
                return int(rows.offset[-1])
        return self.state.applied

    def _flush(self) -> None:
        if self._pending:
            self.rows += self.state.apply(concatenated(self._pending))
            self._pending, self._pending_rows = [], 0

    def _snapshot(self, head: Head, body: memoryview) -> None:
        if self.position is not None and head.next <= self.position:
            return
        name = snapshot_id(head)
        gathering = self._gathering.setdefault(name, Gathering(head))
        if not gathering.take(head, body):
            return
        self._pending, self._pending_rows = [], 0
        self.state = self.new()
        gathering.into(self.state)
        self._gathering = {}
        self.position, self.base, self.outputs = head.next, max(self.base, head.base), list(head.outputs)
        self.snapshots += 1
        early, self._early = self._early, []
        for offset, record in early:
            again, rest = decode(record)
            self._delta(offset, again, rest, record)

    def _reset(self, offset: int, head: Head) -> None:
        self.state = self.new()
        self._pending, self._pending_rows, self._gathering, self._early = [], 0, {}, []
        self.position, self.base, self.outputs = head.next, offset, list(head.outputs)
