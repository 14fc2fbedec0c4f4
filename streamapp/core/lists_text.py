"""Texts as lists compare them: the folded view spelled as words with one space behind each, and sketches that tell how alike two texts are.

A sketch is the set of the smallest hashes of a text's 4-byte shingles (bottom-k sketch, Broder 1997): of the smallest hashes of two texts
taken together, the share that both have estimates the share of shingles they have in common. Short texts are compared exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.windows_index import compiled, table_for

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SHINGLE_BYTES = 4
#: Hashes in a sketch, and how many of the smallest ones find the texts that are worth a comparison: of two texts that have 0.8 of their
#: shingles in common about one in a million shares none of eight.
SKETCH, PROBED = 48, 8
#: Texts looked at per probed hash, so that a flood of nearly equal entries costs no more than this.
CANDIDATES_MAX = 32

_NONE = 1 << 32  # behind the last hash of a short sketch
_WORD = 0xFFFFFFFF


@dataclass(slots=True, frozen=True)
class Spelled:
    """n texts as words: `data[start[i]:start[i + 1]]` is text i, each word with a space behind it; word t is `data[at[t]:at[t + 1]]`."""

    data: Bytes
    start: Int64  #  n + 1
    at: Int64  #     words + 1
    row: Int64  #    words: the text it is in


def spelled(folded: Bytes, start: Int64) -> Spelled:
    """Takes n folded texts as bytes; gives their words: runs of letters and digits, and of what is beyond ASCII. Cost: linear."""
    data = np.empty(len(folded) + len(start), np.uint8)
    at, row = np.empty(len(folded) // 2 + len(start) + 1, np.int64), np.empty(len(folded) // 2 + len(start), np.int64)
    begins = np.zeros(len(start), np.int64)
    words = _spell(folded, start, data, begins, at, row)
    return Spelled(data[: begins[-1]], begins, at[: words + 1], row[:words])


@compiled
def _spell(folded: Any, start: Any, data: Any, begins: Any, at: Any, row_of: Any) -> int:
    out, words = 0, 0
    at[0] = 0
    for row in range(len(start) - 1):
        inside = False
        for i in range(start[row], start[row + 1]):
            byte = folded[i]
            if byte >= 128 or 48 <= byte <= 57 or 97 <= byte <= 122 or 65 <= byte <= 90:
                data[out] = byte
                out += 1
                inside = True
            elif inside:
                data[out] = 32
                out += 1
                row_of[words] = row
                words += 1
                at[words] = out
                inside = False
        if inside:
            data[out] = 32
            out += 1
            row_of[words] = row
            words += 1
            at[words] = out
        begins[row + 1] = out
    return words


def sketches(data: Bytes, start: Int64) -> Int64:
    """Takes n texts as `spelled` gives them; gives int64[n, SKETCH], ascending, 2^32 where a text has no more shingles."""
    out = np.full((len(start) - 1, SKETCH), _NONE, np.int64)
    _sketch(data, start, out)
    return out


@compiled
def _sketch(data: Any, start: Any, out: Any) -> None:
    most = out.shape[1]
    for row in range(len(start) - 1):
        begin, end = start[row], start[row + 1]
        held = 0
        for i in range(begin, max(begin + 1, end - 3) if end > begin else begin):
            word = np.uint32(0)
            for j in range(min(4, end - i)):
                word |= np.uint32(data[i + j]) << np.uint32(8 * j)
            word = np.uint32((word ^ (word >> np.uint32(16))) * np.uint32(0x85EBCA6B))  # the finish of MurmurHash3
            word = np.uint32((word ^ (word >> np.uint32(13))) * np.uint32(0xC2B2AE35))
            mixed = np.int64(word ^ (word >> np.uint32(16)))
            if held == most and mixed >= out[row, most - 1]:
                continue
            place = held if held < most else most - 1
            while place > 0 and out[row, place - 1] > mixed:
                place -= 1
            if place > 0 and out[row, place - 1] == mixed:
                continue
            last = held if held < most else most - 1
            for k in range(last, place, -1):
                out[row, k] = out[row, k - 1]
            out[row, place] = mixed
            held = min(held + 1, most)


@compiled
def _alike(one: Any, other: Any) -> float:
    """Gives the estimated share of shingles that two sketches' texts have in common."""
    a, b, seen, both = 0, 0, 0, 0
    most = len(one)
    while seen < most and (a < most or b < most):
        left = one[a] if a < most else _NONE
        right = other[b] if b < most else _NONE
        if left == _NONE and right == _NONE:
            break
        seen += 1
        both += left == right
        a += left <= right
        b += right <= left
    return both / seen if seen else 0.0


class SketchIndex:
    """The sketches of one list's texts, found by their smallest hashes; made anew after a change, when somebody first asks."""

    def __init__(self) -> None:
        self._sketch: dict[int, Int64] = {}  # by slot
        self._slots, self._rows, self._table = np.empty(0, np.int64), np.empty((0, SKETCH), np.int64), np.zeros(64, np.int64)
        self._stale = False

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._sketch)

    def put(self, slot: int, sketch: tuple[int, ...]) -> None:
        """Adds a text, or replaces the one of this slot."""
        self._sketch[slot] = np.array(sketch[:SKETCH], np.int64)
        self._stale = True

    def drop(self, slot: int) -> None:
        """Takes a text away, if it is there."""
        self._stale |= self._sketch.pop(slot, None) is not None

    def like(self, wanted: Int64, least: float, expires: Int64, now: Int64) -> Int64:
        """Takes n sketches; gives the slot of a text that is alive and has at least `least` in common [n], -1 where there is none."""
        if self._stale:
            self._slots = np.fromiter(self._sketch, np.int64, len(self._sketch))
            self._rows = np.full((len(self._sketch), SKETCH), _NONE, np.int64)
            for place, sketch in enumerate(self._sketch.values()):
                self._rows[place, : len(sketch)] = sketch
            self._table = table_for(len(self._slots) * PROBED)
            _index(self._rows, self._table)
            self._stale = False
        found = np.full(len(wanted), -1, np.int64)
        compared_with = np.full(len(self._rows), -1, np.int64)
        _like(wanted, self._rows, self._slots, self._table, least, expires, now, compared_with, found)
        return found


@compiled
def _index(rows: Any, table: Any) -> None:
    mask = len(table) - 1
    for row in range(len(rows)):
        for probe in range(PROBED):
            tag = rows[row, probe]
            if tag == _NONE:
                break
            place, seen = tag & mask, 0
            while table[place] != 0 and seen < CANDIDATES_MAX:  # more of one hash are never looked at, and would make every walk longer
                seen += (table[place] >> 32) & _WORD == tag
                place = (place + 1) & mask
            if table[place] == 0:
                table[place] = (tag << 32) | (row + 1)


@compiled
def _like(wanted: Any, rows: Any, slots: Any, table: Any, least: float, expires: Any, now: Any, compared_with: Any, found: Any) -> None:
    mask = len(table) - 1
    for row in range(len(wanted)):
        for probe in range(PROBED):
            tag = wanted[row, probe]
            if tag == _NONE or found[row] >= 0:
                break
            place, seen = tag & mask, 0
            while table[place] != 0 and seen < CANDIDATES_MAX and found[row] < 0:
                if (table[place] >> 32) & _WORD == tag:
                    seen += 1
                    entry = (table[place] & _WORD) - 1
                    if compared_with[entry] != row:  # most texts that share one hash share several
                        compared_with[entry] = row
                        slot = slots[entry]
                        if expires[slot] > now[row] and _alike(wanted[row], rows[entry]) >= least:
                            found[row] = slot
                place = (place + 1) & mask
