"""Micro-batches to partials: every row counts in one event-time window of its partition, whatever the batch cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.errors import RejectCode
from streamapp.core.events import FLAG_NAMES
from streamapp.core.partials import CONFIDENCE_BUCKETS, FAR_STD, OUTLYING_STD, QUANTUM, Layout, Observations

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]

_REJECT_PLACE = {code: place for place, code in enumerate(RejectCode)}
_FLAG_BITS = np.array(list(FLAG_NAMES), np.int32)
_LAST = np.iinfo(np.int64).max

# Columns of `slots`, one row per open partial, and of `marks`, one row per partition.
_PARTITION, _START, _FIRST_OFFSET, _LAST_OFFSET, _FIRST_TIME, _LAST_TIME, _TOUCHED = range(7)
_FREE = -1
_OLDEST, _LATEST, _KNOWN = 1, 2, 3  # start of the oldest open window, and of the last row's; 0 until there was a row
# Why `_place` stopped: all rows are placed; the partition is new; windows of the partition end; a slot is wanted; a partial is full.
_DONE, _NEW, _ENDS, _OPEN, _FULL = range(5)


@dataclass(slots=True, frozen=True)
class Rejected:
    """The r rejects of a micro-batch, as columns in (segment, offset) order."""

    before: Int64  #     r: the reject stood before this row (n: behind the last), non-decreasing
    partition: Int64  #  r
    time: Int64  #       r, the record's timestamp, epoch ms
    code: Int8  #        r, index into REJECT_NAMES

    @staticmethod
    def of(before: Sequence[int], partition: Sequence[int], time: Sequence[int], codes: Sequence[RejectCode]) -> Rejected:
        """Takes plain sequences of equal length."""
        places = np.array([_REJECT_PLACE[code] for code in codes], np.int8)
        return Rejected(np.array(before, np.int64), np.array(partition, np.int64), np.array(time, np.int64), places)


NO_REJECTS = Rejected.of((), (), (), ())


@njit(cache=True, nogil=True)
def _place(
    at: int, done: int, partition: Int64, offset: Int64, time: Int64, before: Int64, reject_partition: Int64, reject_time: Int64,
    reject_code: Int8, marks: Int64, slots: Int64, totals: Int64, slot_of: Int64, window_ms: int, grace_ms: int, part_n: int,
    rows_at: int, late_at: int, rejects_at: int, now_ms: int,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Gives each row from `at` on its slot, in row order, until Python must open or close one.

    Returns (why, rows done, rejects done, partition, window start).
    """
    mark = slot = 0
    while at < partition.shape[0] or done < before.shape[0]:
        is_reject = done < before.shape[0] and before[done] <= at
        p, t = (reject_partition[done], reject_time[done]) if is_reject else (partition[at], time[at])
        oldest = (t - grace_ms) // window_ms * window_ms
        if marks[mark, _PARTITION] != p:
            mark = 0
            while mark < marks.shape[0] and marks[mark, _PARTITION] != p:
                mark += 1
            if mark == marks.shape[0]:
                return _NEW, at, done, p, oldest
        if not is_reject and (marks[mark, _KNOWN] == 0 or oldest > marks[mark, _OLDEST]):
            return _ENDS, at, done, p, oldest
        start, late = t // window_ms * window_ms, False
        # A window that has ended stays as it was reported: what comes later counts in the oldest open one, so that a stream of odd
        # times opens no more than a few windows.
        # A reject's time is the broker's: it moves nothing, and counts where the row before it did.
        if is_reject and marks[mark, _KNOWN] == 1:
            start = marks[mark, _LATEST]
        elif start < marks[mark, _OLDEST]:
            start, late = marks[mark, _OLDEST], True
        if slots[slot, _PARTITION] != p or slots[slot, _START] != start:
            slot = 0
            while slot < slots.shape[0] and (slots[slot, _PARTITION] != p or slots[slot, _START] != start):
                slot += 1
            if slot == slots.shape[0]:
                return _OPEN, at, done, p, start
        slots[slot, _TOUCHED] = now_ms
        if is_reject:
            totals[slot, rejects_at + reject_code[done]] += 1
            done += 1
            continue
        slot_of[at], marks[mark, _LATEST] = slot, start
        totals[slot, rows_at] += 1
        totals[slot, late_at] += late
        slots[slot, _FIRST_OFFSET] = min(slots[slot, _FIRST_OFFSET], offset[at])
        slots[slot, _LAST_OFFSET] = max(slots[slot, _LAST_OFFSET], offset[at])
        slots[slot, _FIRST_TIME] = min(slots[slot, _FIRST_TIME], t)
        slots[slot, _LAST_TIME] = max(slots[slot, _LAST_TIME], t)
        at += 1
        if totals[slot, rows_at] >= part_n:
            return _FULL, at, done, p, start
    return _DONE, at, done, 0, 0


@njit(cache=True, nogil=True)
def _count_column(
    begin: int, end: int, values: Float64, slot_of: Int64, totals: Int64, edges: Float64, bins_at: int, unknown_at: int, outlying_at: int,
    sum_at: int, square_at: int, centre: float, spread: float,
) -> None:  # fmt: skip
    for row in range(begin, end):
        value, slot = values[row], slot_of[row]
        if np.isnan(value):
            totals[slot, unknown_at] += 1
            continue
        place = 0
        for edge in edges:
            place += edge < value
        totals[slot, bins_at + place] += 1
        far = (value - centre) / spread
        if abs(far) > OUTLYING_STD:
            totals[slot, outlying_at] += 1
            far = min(FAR_STD, max(-FAR_STD, far))
        totals[slot, sum_at] += np.int64(np.rint(far / QUANTUM))
        totals[slot, square_at] += np.int64(np.rint(far * far / QUANTUM))


@njit(cache=True, nogil=True)
def _count(
    begin: int, end: int, values: Float64, score: Float64, probability: Float64, route: Int8, decided_by: Int8, flags: Int32, bits: Int32,
    slot_of: Int64, totals: Int64, edges: Float64, edge_start: Int64, bin_start: Int64, centre: Float64, spread: Float64,
    scored_at: int, route_at: int, decided_at: int, flags_at: int, confidence_at: int, unknown_at: int, outlying_at: int, sum_at: int,
    square_at: int,
) -> None:  # fmt: skip
    """Adds rows begin:end to the slots they were placed in; `values` is k x n, a feature's column contiguous."""
    k = values.shape[0]
    for f in range(k + 1):
        _count_column(
            begin, end, score if f == k else values[f], slot_of, totals, edges[edge_start[f] : edge_start[f + 1]], bin_start[f],
            unknown_at + f, outlying_at + f, sum_at + f, square_at + f, centre[f], spread[f],
        )  # fmt: skip
    for row in range(begin, end):
        slot = slot_of[row]
        totals[slot, route_at + route[row]] += 1
        totals[slot, decided_at + decided_by[row]] += 1
        if flags[row]:
            for bit in range(bits.shape[0]):
                totals[slot, flags_at + bit] += (flags[row] & bits[bit]) != 0
        p = probability[row]
        if not np.isnan(p):
            confidence = max(p, 1.0 - p)
            totals[slot, scored_at] += 1
            totals[slot, confidence_at + min(CONFIDENCE_BUCKETS - 1, int(confidence * 2 * CONFIDENCE_BUCKETS - CONFIDENCE_BUCKETS))] += 1


class WindowedObservations:
    """The open partials of one worker under one release.

    Law: partials of a partition depend on its rows in offset order alone; batch cuts and other partitions change nothing
    (`missing` and `clipped`, known per batch only, count in the partial of the batch's first row).
    """

    def __init__(self, layout: Layout, window_ms: int, part_n: int, grace_ms: int = 10_000) -> None:
        """A partial closes when its partition's event time is `grace_ms` past the window's end, or after `part_n` events."""
        self.layout, self.window_ms, self.part_n, self.grace_ms = layout, window_ms, part_n, grace_ms
        self._slots = np.full((8, 7), _FREE, np.int64)
        self._totals = np.zeros((8, layout.width), np.int64)
        self._marks = np.full((1, 4), _FREE, np.int64)
        at = {name: place.start for name, place in layout.place.items()}
        self._place_at = (at["rows"], at["late"], at["rejects"])
        self._count_at = tuple(
            at[name] for name in ("scored", "route", "decided_by", "flags", "confidence", "unknown", "outlying", "sum", "square")
        )

    def add(
        self, *, partition: Int64, offset: Int64, event_time: Int64, values: Float64, score: Float64, probability: Float64, route: Int8,
        decided_by: Int8, flags: Int32, missing: Int64, clipped: Int64, rejected: Rejected = NO_REJECTS, now_ms: int = 0,
    ) -> list[Observations]:  # fmt: skip
        """Takes n rows in (segment, offset) order, `values` n x k (best column-major), `missing` and `clipped` k; NaN is unknown.

        Gives the partials that closed, in the order in which they did. `now_ms` matters for `idle` only.
        """
        columns = np.ascontiguousarray(values.T, np.float64)
        partition, offset, event_time = (np.ascontiguousarray(c, np.int64) for c in (partition, offset, event_time))
        score, probability = (np.ascontiguousarray(c, np.float64) for c in (score, probability))
        slot_of = np.empty(len(partition), np.int64)
        layout, closed, counted, at, done = self.layout, list[Observations](), 0, 0, 0
        while True:
            why, at, done, owner, start = _place(
                at, done, partition, offset, event_time, rejected.before, rejected.partition, rejected.time, rejected.code,
                self._marks, self._slots, self._totals, slot_of, self.window_ms, self.grace_ms, self.part_n, *self._place_at, now_ms,
            )  # fmt: skip
            if at > counted:
                if counted == 0:
                    self._totals[slot_of[0], layout.place["missing"]] += missing
                    self._totals[slot_of[0], layout.place["clipped"]] += clipped
                _count(
                    counted, at, columns, score, probability, route, decided_by, flags, _FLAG_BITS, slot_of, self._totals,
                    layout.edges, layout.edge_start, layout.bin_start, layout.centre, layout.spread, *self._count_at,
                )  # fmt: skip
                counted = at
            if why == _DONE:
                return closed
            if why == _NEW:
                self._marks = np.vstack([self._marks, [[owner, start, start, 0]]])
            elif why == _OPEN:
                self._open(owner, start)
            elif why == _FULL:
                closed += self._close((self._slots[:, _PARTITION] == owner) & (self._slots[:, _START] == start), final=False)
            else:
                mark = int(np.flatnonzero(self._marks[:, _PARTITION] == owner)[0])
                self._marks[mark, _OLDEST], self._marks[mark, _KNOWN] = start, 1
                closed += self._close((self._slots[:, _PARTITION] == owner) & (self._slots[:, _START] < start), final=True)

    def idle(self, now_ms: int, idle_ms: int) -> list[Observations]:
        """Closes the partials to which nothing was added for `idle_ms`, by the `now_ms` that `add` was given."""
        return self._close((self._slots[:, _PARTITION] != _FREE) & (self._slots[:, _TOUCHED] <= now_ms - idle_ms), final=False)

    def flush(self, partition: int | None = None) -> list[Observations]:
        """Closes what is open, of one partition (it was revoked, and is forgotten) or of all."""
        mine = self._slots[:, _PARTITION] != _FREE if partition is None else self._slots[:, _PARTITION] == partition
        if partition is not None:
            self._marks = self._marks[self._marks[:, _PARTITION] != partition]
        return self._close(mine, final=False)

    def _open(self, partition: int, start: int) -> None:
        free = np.flatnonzero(self._slots[:, _PARTITION] == _FREE)
        if not free.size:
            free = np.array([len(self._slots)])
            self._slots = np.vstack([self._slots, np.full_like(self._slots, _FREE)])
            self._totals = np.vstack([self._totals, np.zeros_like(self._totals)])
        self._slots[free[0]] = partition, start, _LAST, -1, _LAST, -1, 0

    def _close(self, chosen: npt.NDArray[np.bool_], final: bool) -> list[Observations]:
        closed = []
        for slot in np.flatnonzero(chosen)[np.argsort(self._slots[chosen, _START], kind="stable")].tolist():
            partition, start, first_offset, last_offset, first_time, last_time = self._slots[slot, :_TOUCHED].tolist()
            closed.append(
                Observations(
                    self.layout, partition, start, start + self.window_ms, final, first_offset, last_offset, first_time, last_time,
                    self._totals[slot].copy(),
                )
            )  # fmt: skip
            self._slots[slot], self._totals[slot] = _FREE, 0
        return closed


def warm_up() -> None:
    """Compiles the kernels (seconds once, then cached on disk), so that no micro-batch waits for it."""
    one, none = np.zeros(1, np.int64), np.zeros(1)
    rejected = Rejected.of([1], [0], [0], [RejectCode.BLANK_TEXT])
    WindowedObservations(Layout.of(("x",), ("x",), {}), 1, 1).add(
        partition=one, offset=one, event_time=one, values=none[:, None], score=none, probability=none, route=one.astype(np.int8),
        decided_by=one.astype(np.int8), flags=one.astype(np.int32), missing=one, clipped=one, rejected=rejected,
    )  # fmt: skip
