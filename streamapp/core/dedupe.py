"""One business event, one decision: the ids seen over a horizon of event time in one partition, and what was decided for each.

An id is remembered from the moment it is seen until the partition's high mark has moved on by `horizon`; late and skewed events too.
Copies move neither the high mark nor any window. Ids are known by their 128-bit hash (windows_index states the chance of a collision).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import ConfigError, InvariantBroken
from streamapp.core.events import Flag
from streamapp.core.growing import fresh, grown, zeros
from streamapp.core.next_table import NextTable
from streamapp.core.windows_clock import CLOCK_SKEW, Clock, Ticks, tick
from streamapp.core.windows_index import address, compiled, erase, find, insert, prefetch, table_for

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

DECISION = np.dtype([("offset", "<i8"), ("score", "<f8"), ("release", "<i4"), ("route", "i1"), ("decided_by", "i1"), ("settled", "?")])
"""What a copy is answered with. `release` is the position of a release's name in a table the caller keeps; 23 bytes an id."""

DUPLICATE = Flag.DUPLICATE  # a module constant is what a kernel can read


@compiled
def admit_rows(
    table: Any, mark: Any, seen_at: Any, first: int, after: int, ids: Any, event_time: Any, broker_time: Any, skew_max: int, horizon: int,
    high: int, time: Any, highs: Any, flags: Any, place: Any,
) -> Any:  # fmt: skip
    """Runs clock and ids row by row; ids live at sequence number modulo size, [first, after) are remembered. Gives (first, after, high)."""
    mask = len(mark) - 1
    for i in range(len(event_time)):
        if i + 8 < len(event_time):
            prefetch(table, (ids[i + 8, 0] & 0xFFFFFFFF) & (len(table) - 1))
        t = tick(event_time[i], broker_time[i], skew_max)
        flag = CLOCK_SKEW if t != event_time[i] else 0
        slot = find(table, mark, ids[i, 0], ids[i, 1])
        if slot >= 0:
            flag |= DUPLICATE
            place[i] = first + ((slot - first) & mask)
        else:
            high = max(high, t)
            while first < after and seen_at[first & mask] <= high - horizon:
                erase(table, mark[first & mask, 0], first & mask)
                first += 1
            slot = after & mask
            mark[slot, 0], mark[slot, 1], seen_at[slot] = ids[i, 0], ids[i, 1], high
            insert(table, ids[i, 0], slot)
            place[i] = after
            after += 1
        time[i], highs[i], flags[i] = t, high, flag
    return first, after, high


@dataclass(frozen=True, slots=True)
class Admission:
    """n rows: their times and marks, flags clock_skew and duplicate in `ticks.flags`; place int64[n], where each id's decision is kept."""

    ticks: Ticks
    place: Int64
    duplicate: Bool  #  where an earlier copy, also one of the same batch, is remembered
    copies: bool  #     whether there is any


@dataclass(slots=True)
class SeenIds:
    """The remembered ids of one partition, oldest first, in a ring of 2^k places; 24 bytes hash and mark, 23 decision, 16 to 32 table."""

    horizon_ms: int
    size: int = 64
    _first: int = field(init=False, default=0)
    _after: int = field(init=False, default=0)
    _table: Int64 = field(init=False, repr=False)
    _mark: Int64 = field(init=False, repr=False)
    _seen_at: Int64 = field(init=False, repr=False)
    _decision: npt.NDArray[np.void] = field(init=False, repr=False)
    _settled: Bool = field(init=False, repr=False)  # that column of `_decision`
    _next: NextTable = field(init=False, repr=False, default_factory=NextTable)
    _where: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.horizon_ms <= 0:
            raise ConfigError("the horizon of duplicates must be longer than nothing", "correct `horizon`")
        size = self.size = 1 << max(6, (self.size - 1).bit_length())
        self._hold(table_for(size), fresh((size, 2), np.int64), fresh((size,), np.int64), zeros((size,), DECISION))

    def _hold(self, table: Int64, mark: Int64, seen_at: Int64, decision: npt.NDArray[np.void]) -> None:
        self._table, self._mark, self._seen_at, self._decision, self._settled = table, mark, seen_at, decision, decision["settled"]
        self._where = (*map(address, (table, mark, seen_at, decision)), len(table), self.size)

    def __len__(self) -> int:
        """Ids remembered."""
        return self._after - self._first

    def admit(self, ids: Int64, event_time: Int64, broker_time: Int64, clock: Clock) -> Admission:
        """Takes n rows in offset order (ids int64[n, 2] from hash_names; times in ms); moves clock and memory past them.

        However rows are cut into calls, admissions are equal but for `place`, which is good until the next call only.
        """
        n = len(event_time)
        if ids.shape != (n, 2):
            raise InvariantBroken(f"{n} rows came with ids of shape {ids.shape}")
        self._make_room(n)
        time, highs, flags, place = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int32), np.empty(n, np.int64)
        after = self._after
        outcome = admit_rows(
            self._table, self._mark, self._seen_at, self._first, after, ids, event_time, broker_time, clock.skew_max_ms,
            self.horizon_ms, clock.high, time, highs, flags, place,
        )  # fmt: skip
        self._first, self._after, clock.high = (int(number) for number in outcome)
        if self._after > after:
            low, high = after & (self.size - 1), ((self._after - 1) & (self.size - 1)) + 1
            for part in (slice(low, high),) if low < high else (slice(low, None), slice(0, high)):
                self._settled[part] = False
        return Admission(Ticks(time, highs, flags), place, *_copies(flags))

    def where(self, more: int) -> tuple[int, ...]:
        """Gives, with room for `more` ids, what core.windows_moves knows of the memory: addresses, sizes, and which ids are remembered."""
        self._make_room(more)
        return *self._where, self._first, self._after

    def moved(self, first: int, after: int) -> None:
        """Takes which ids are remembered after a kernel went past rows."""
        self._first, self._after = first, after

    def settle(self, admission: Admission, decision: npt.NDArray[np.void]) -> None:
        """Takes the admission of this batch and what was decided for its rows, DECISION[n]; keeps it for the ids that were new."""
        place = admission.place
        if admission.copies:
            new = ~admission.duplicate
            place, decision = place[new], decision[new]
        at = place & (self.size - 1)
        self._decision[at] = decision
        self._settled[at] = True

    def decisions(self, admission: Admission) -> npt.NDArray[np.void]:
        """Gives the first decision of every row, DECISION[n]; a copy in the batch of its original is answered once that is settled."""
        first: npt.NDArray[np.void] = self._decision[admission.place & (self.size - 1)]
        return first

    def _make_room(self, more: int) -> None:
        wanted = len(self) + more
        self._next.prepare(self.size, wanted)
        while wanted >= self.size:
            self._double()

    def _double(self) -> None:
        """Grows every array where it lies. An id's place is its number modulo the size, so one stretch of them moves up by the old size."""
        size = self.size
        turn = (self._first // size + 1) * size  # the number from which places began again at 0
        begin, end = (self._first, min(turn, self._after)) if self._first & size else (turn, max(turn, self._after))
        low, high = begin & (size - 1), (begin & (size - 1)) + end - begin
        arrays: list[npt.NDArray[Any]] = []
        for array in (self._mark, self._seen_at, self._decision):
            arrays.append(grown(array, 2 * size))
            arrays[-1][size + low : size + high] = arrays[-1][low:high]
        table = self._next.take(self._table, 2 * size, low, high, size)
        self.size = 2 * size  # last, with all of it there: without memory for more, what was remembered stays
        self._hold(table, *arrays)

    def _held(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        held: npt.NDArray[Any] = array[np.arange(self._first, self._after) & (len(array) - 1)]
        return held

    def _fill(self, first: int, after: int, ids: Any, seen_at: Any, decision: Any) -> None:
        at = np.arange(first, after) & (self.size - 1)
        self._mark[at], self._seen_at[at], self._decision[at] = ids, seen_at, decision
        _index(self._table, self._mark, first, after)
        self._first, self._after = first, after

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Gives the remembered ids, oldest first: id [e, 2], seen_at [e] (high mark, ms), decision [e] of DECISION."""
        return {"id": self._held(self._mark), "seen_at": self._held(self._seen_at), "decision": self._held(self._decision)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes a snapshot; from here on admissions are those of the memory it was taken from, within this horizon."""
        count = len(arrays["id"])
        if arrays["id"].shape != (count, 2) or arrays["seen_at"].shape != (count,) or arrays["decision"].dtype != DECISION:
            raise ConfigError("the remembered ids were written in another form", "rebuild the state from the events")
        self.size = count + 1
        self.__post_init__()
        self._fill(0, count, arrays["id"], arrays["seen_at"], arrays["decision"])


class NoIds:
    """The memory of a partition whose pipeline wants none: nothing is a copy, nothing is kept, and only the clock moves."""

    horizon_ms = 0

    def __len__(self) -> int:
        """Ids remembered: none."""
        return 0

    def admit(self, ids: Int64, event_time: Int64, broker_time: Int64, clock: Clock) -> Admission:
        """Takes n rows in offset order (`ids` is not looked at); moves the clock past them."""
        ticks = clock.advance(event_time, broker_time)
        return Admission(ticks, np.zeros(0, np.int64), *_copies(ticks.flags))

    def where(self, more: int) -> tuple[int, ...]:
        """Gives that there is no memory, in SeenIds' form."""
        return (0,) * 8

    def moved(self, first: int, after: int) -> None:
        """Notes nothing."""

    def settle(self, admission: Admission, decision: npt.NDArray[np.void]) -> None:
        """Keeps nothing."""

    def decisions(self, admission: Admission) -> npt.NDArray[np.void]:
        """Gives no decision: there are no copies to ask for."""
        return np.zeros(0, DECISION)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """Gives a memory of no ids, in SeenIds' form: a pipeline may come to remember later."""
        return {"id": np.zeros((0, 2), np.int64), "seen_at": np.zeros(0, np.int64), "decision": np.zeros(0, DECISION)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes a snapshot; what it remembers is let go."""


def _copies(flags: npt.NDArray[np.int32]) -> tuple[Bool, bool]:
    duplicate: Bool = (flags & DUPLICATE) != 0
    return duplicate, bool(duplicate.any())


@compiled
def _index(table: Any, mark: Any, first: int, after: int) -> None:
    mask = len(mark) - 1
    for number in range(first, after):
        insert(table, mark[number & mask, 0], number & mask)
