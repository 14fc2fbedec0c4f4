"""What was said last of every labelled event, so that labels may come late, twice, corrected and in any order.

The latest word on an event counts: the greatest (labelled_at, label, weight, event time). Hence the order in which labels come does not
matter, nor how often. A word that changes something takes back what the one before it had put into the windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.windows_entries import NEVER
from streamapp.core.windows_index import compiled, find, insert, table_for

Int64 = npt.NDArray[np.int64]

UNKNOWN, NEGATIVE, POSITIVE = -1, 0, 1
#: Columns of what is known of one event.
_TIME, _TOLD, _VALUE, _WEIGHT = 0, 1, 2, 3


@compiled
def _later(word: Any, slot: int, given: Any, i: int) -> bool:
    """Whether row i says more than what is known: labelled later, or at the same time and the greater."""
    for column in (_TOLD, _VALUE, _WEIGHT, _TIME):
        if given[i, column] != word[slot, column]:
            later: bool = given[i, column] > word[slot, column]
            return later
    return False


@compiled
def _take(
    table: Any, mark: Any, word: Any, who: Any, used: int, ids: Any, given: Any, names: Any, limit: int, out: Any, out_who: Any, fate: Any
) -> Any:
    """Takes rows in; gives how many events are known and how many entries were written to `out` (time, labels, weight, positive)."""
    entries = 0
    for i in range(len(ids)):
        if given[i, _TIME] <= limit:
            fate[i] = 2
            continue
        slot = find(table, mark, ids[i, 0], ids[i, 1])
        if slot < 0:
            slot = used
            used += 1
            mark[slot, 0], mark[slot, 1] = ids[i, 0], ids[i, 1]
            insert(table, ids[i, 0], slot)
        else:
            if not _later(word, slot, given, i):
                fate[i] = 1
                continue
            same = True
            for column in (_TIME, _VALUE, _WEIGHT):
                same = same and word[slot, column] == given[i, column]
            for s in range(names.shape[1]):
                same = same and who[slot, s, 0] == names[i, s, 0] and who[slot, s, 1] == names[i, s, 1]
            if same:
                word[slot, _TOLD] = given[i, _TOLD]
                fate[i] = 1
                continue
            if word[slot, _VALUE] >= 0:
                out[entries, 0], out[entries, 1], out[entries, 2] = word[slot, _TIME], -1, -word[slot, _WEIGHT]
                out[entries, 3] = -word[slot, _WEIGHT] * word[slot, _VALUE]
                for s in range(names.shape[1]):
                    out_who[entries, s, 0], out_who[entries, s, 1] = who[slot, s, 0], who[slot, s, 1]
                entries += 1
        fate[i] = 0
        for column in range(4):
            word[slot, column] = given[i, column]
        for s in range(names.shape[1]):
            who[slot, s, 0], who[slot, s, 1] = names[i, s, 0], names[i, s, 1]
        if given[i, _VALUE] >= 0:
            out[entries, 0], out[entries, 1], out[entries, 2] = given[i, _TIME], 1, given[i, _WEIGHT]
            out[entries, 3] = given[i, _WEIGHT] * given[i, _VALUE]
            for s in range(names.shape[1]):
                out_who[entries, s, 0], out_who[entries, s, 1] = names[i, s, 0], names[i, s, 1]
            entries += 1
    return used, entries


@compiled
def _index(table: Any, mark: Any, used: int) -> None:
    for slot in range(used):
        insert(table, mark[slot, 0], slot)


@dataclass(frozen=True, slots=True)
class Changes:
    """What n labels changed: k entries [k, 4] (time ms, labels, weight and positive weight in 1/1000) of who [k, s, 2]."""

    entries: Int64
    who: Int64
    new: int  #       rows that changed something
    repeated: int  #  rows that said nothing new, or less than is known
    expired: int  #   rows about events that no window can see any more


@dataclass(slots=True)
class LabelBook:
    """The last word on each event; 64 bytes an event, 16 more for each kind of entity, and 16 to 32 of table."""

    kinds: int  #      of entities a label names
    size: int = 1024
    _used: int = field(init=False, default=0)
    _table: Int64 = field(init=False, repr=False)
    _mark: Int64 = field(init=False, repr=False)
    _word: Int64 = field(init=False, repr=False)
    _who: Int64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._table = table_for(self.size)
        self._mark, self._word = np.empty((self.size, 2), np.int64), np.empty((self.size, 4), np.int64)
        self._who = np.empty((self.size, self.kinds, 2), np.int64)

    def __len__(self) -> int:
        """Events of which something is known; some may be too old to matter."""
        return self._used

    def take(self, ids: Int64, said: Int64, who: Int64, limit: int = NEVER) -> Changes:
        """Takes n labels: ids int64[n, 2]; said int64[n, 4] (event time ms, labelled_at ms, UNKNOWN to POSITIVE, weight in 1/1000).

        who int64[n, s, 2] names its entities, (0, 0) for none. What happened at or before `limit` (ms) is too old for every window.
        Law: however labels are ordered, repeated and cut into calls, the sums of all changes are equal. Amortised constant a label.
        """
        n = len(ids)
        if self._used + n > self.size:
            self._make_room(n, limit)
        entries, named = np.empty((2 * n, 4), np.int64), np.empty((2 * n, self.kinds, 2), np.int64)
        fate = np.empty(n, np.int8)
        self._used, count = (
            int(number)
            for number in _take(
                self._table, self._mark, self._word, self._who, self._used, ids, said, who, limit, entries, named, fate
            )
        )  # fmt: skip
        fates = np.bincount(fate, minlength=3).tolist()
        return Changes(entries[:count], named[:count], *fates)

    def _make_room(self, rows: int, limit: int) -> None:
        """Lets go of what is too old; doubles where more than half of the room would be taken after that."""
        alive = np.flatnonzero(self._word[: self._used, _TIME] > limit)
        mark, word, who = self._mark[alive], self._word[alive], self._who[alive]
        while 2 * (len(alive) + rows) > self.size:
            self.size *= 2
        self.__post_init__()
        self._used = len(alive)
        self._mark[: self._used], self._word[: self._used], self._who[: self._used] = mark, word, who
        _index(self._table, self._mark, self._used)


def warm_up() -> None:
    """Compiles (or loads from the cache) the kernels of the book, so that the first label does not wait for it."""
    book = LabelBook(1, 2)
    ids = np.array([[1, 2], [3, 4], [1, 2]], np.int64)
    book.take(ids, np.array([[1, 1, 1, 1000], [2, 2, 0, 1000], [1, 3, 0, 1000]], np.int64), ids[:, None, :])
