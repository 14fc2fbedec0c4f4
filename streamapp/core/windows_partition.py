"""All that one partition remembers (clock, ids, window stores) as one thing that moves by rows, is replayed by rows, and is saved whole.

The rows of a micro-batch are its delta: they determine every change, so a journal that carries them, and skips what a snapshot already
holds, ends in the state it would have without the stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.dedupe import Admission, NoIds, SeenIds
from streamapp.core.errors import InvariantBroken
from streamapp.core.windows import EVENT, Answers, Int8, Int32, Int64, WindowStore
from streamapp.core.windows_clock import Clock


@dataclass(frozen=True, slots=True)
class Entries:
    """What n rows mean to one store: name int64[n, 2], value int64[n, v], key int64[n, q], mode int8[n] or None for events throughout."""

    name: Int64
    value: Int64
    key: Int64
    mode: Int8 | None = None

    def after(self, row: int) -> Entries:
        """Gives the rows from `row` on."""
        return Entries(self.name[row:], self.value[row:], self.key[row:], None if self.mode is None else self.mode[row:])


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows of one partition in offset order: offset, event_time, broker_time int64[n], event_id int64[n, 2], entries by store.

    Where no ids are remembered event_id is int64[n, 0] and there is no `decision`.

    `decision` (dedupe.DECISION[n]) is there once they are decided: a delta to be replayed has it wherever ids are remembered.
    """

    offset: Int64
    event_time: Int64
    broker_time: Int64
    event_id: Int64
    entries: Mapping[str, Entries]
    decision: npt.NDArray[np.void] | None = None

    def after(self, offset: int) -> Rows:
        """Gives the rows beyond a source offset."""
        row = int(np.searchsorted(self.offset, offset, side="right"))
        decision = None if self.decision is None else self.decision[row:]
        entries = {name: entries.after(row) for name, entries in self.entries.items()}
        return Rows(self.offset[row:], self.event_time[row:], self.broker_time[row:], self.event_id[row:], entries, decision)


@dataclass(frozen=True, slots=True)
class Moved:
    """What advancing n rows gave: admission (times, marks, copies), answers by store, and flags int32[n], bits of events.Flag."""

    admission: Admission
    answers: Mapping[str, Answers]
    flags: Int32


@dataclass(slots=True)
class PartitionState:
    """Clock, ids and stores of one partition; `applied` is the source offset of the last row it has moved past."""

    clock: Clock
    seen: SeenIds | NoIds
    stores: dict[str, WindowStore]
    applied: int = field(default=-1)

    def advance(self, rows: Rows) -> Moved:
        """Takes rows beyond `applied`; gives their answers and moves past them. Copies of a remembered event move nothing."""
        admission = self._admit(rows)
        flags = admission.ticks.flags.copy()
        answers: dict[str, Answers] = {}
        for name, store in self.stores.items():
            given = rows.entries[name]
            answered = store.advance(
                given.name, admission.ticks.time, admission.ticks.high, given.value, given.key, _in_force(given.mode, admission)
            )
            answers[name] = answered
            flags |= answered.flags
        return Moved(admission, answers, flags)

    def apply(self, rows: Rows) -> int:
        """Takes a delta, of which any part may be applied already; gives how many rows were new. The bulk way: answers nothing."""
        rows = rows.after(self.applied)
        if not len(rows.offset):
            return 0
        admission = self._admit(rows)
        for name, store in self.stores.items():
            given = rows.entries[name]
            store.apply(given.name, admission.ticks.time, admission.ticks.high, given.value, given.key, _in_force(given.mode, admission))
        if rows.decision is not None:
            self.settle(admission, rows.decision)
        return len(rows.offset)

    def settle(self, admission: Admission, decision: npt.NDArray[np.void]) -> None:
        """Takes the decisions of the rows just advanced (dedupe.DECISION[n]); copies will be answered with them."""
        self.seen.settle(admission, decision)

    def _admit(self, rows: Rows) -> Admission:
        offset = rows.offset
        if len(offset) and (offset[0] <= self.applied or bool((offset[1:] <= offset[:-1]).any())):
            raise InvariantBroken(f"rows from offset {offset[0]} came out of order or twice; offset {self.applied} is applied already")
        admission = self.seen.admit(rows.event_id, rows.event_time, rows.broker_time, self.clock)
        if len(offset):
            self.applied = int(offset[-1])
        return admission

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Gives all of it as named columns: `applied`, `high`, `seen/...`, `<store>/...`; only what is alive."""
        parts: dict[str, npt.NDArray[Any]] = {
            "applied": np.array([self.applied], np.int64),
            "high": np.array([self.clock.high], np.int64),
        }
        parts |= {f"seen/{column}": array for column, array in self.seen.snapshot().items()}
        for name, store in self.stores.items():
            parts |= {f"{name}/{column}": array for column, array in store.snapshot(self.clock.high).items()}
        return parts

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes a snapshot; from here on everything is as if it had never stopped."""
        self.applied, self.clock.high = int(arrays["applied"][0]), int(arrays["high"][0])
        self.seen.restore(_below(arrays, "seen/"))
        for name, store in self.stores.items():
            store.restore(_below(arrays, f"{name}/"))


def _in_force(given: Int8 | None, admission: Admission) -> Int8:
    """Gives a store's modes as they count: copies take no part."""
    if given is None:
        given = np.full(len(admission.duplicate), EVENT, np.int8)
    return np.where(admission.duplicate, np.int8(0), given) if admission.copies else given


def _below(arrays: Mapping[str, npt.NDArray[Any]], begin: str) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(begin): array for name, array in arrays.items() if name.startswith(begin)}
