"""Profiles as columns: how an entity's values are packed into one binary value, and the bounded layer that keeps them in the process.

A value is `mark, updated_ms, column, column, …`, eight bytes each, little-endian; the mark is a hash of the columns' names, so that what
was written for other columns, or is no profile at all, is told apart instead of being read as numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import numpy.typing as npt

from streamapp.core.cascade import Degraded
from streamapp.core.features.profile import AGE, BATCH_RISK, CREATED, USER_FEATURES

Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]

#: What is known of an entity: nothing, its values, or that something else stands in their place.
UNKNOWN, KNOWN, WRONG = 0, 1, 2
_HEAD = 2  # mark and time stand before the columns


class Part:
    """One binary value per entity: its name, which is a part of the key, and its columns."""

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self.name, self.columns = name, tuple(columns)
        self.width = 8 * (_HEAD + len(self.columns))
        digest = hashlib.sha256("\0".join((name, *self.columns)).encode()).digest()
        self.mark = int.from_bytes(digest[:8], "little", signed=True)
        self._absent = bytes(self.width)

    def pack(self, values: Float64, updated_ms: Int64) -> list[bytes]:
        """Takes values [n, columns] (NaN: not known) and their times [n]; gives one value per row."""
        rows = np.empty((len(values), _HEAD + len(self.columns)), "<f8")
        rows.view("<i8")[:, 0] = self.mark
        rows.view("<i8")[:, 1] = updated_ms
        rows[:, _HEAD:] = values
        data = rows.tobytes()
        return [data[at : at + self.width] for at in range(0, len(data), self.width)]

    def unpack(self, found: Sequence[bytes | None]) -> tuple[Float64, Int64, Int8]:
        """Takes n values as read, None where there is none; gives columns [n, columns], times [n] and state [n].

        Law: total; a value of another length or under another mark is WRONG, and its columns are NaN.
        """
        sound = [self._absent if one is None else one for one in found]
        if any(len(one) != self.width for one in sound):
            sound = [one if len(one) == self.width else b"\xff" * self.width for one in sound]
        rows = np.frombuffer(b"".join(sound), "<f8").reshape(len(found), _HEAD + len(self.columns))
        marks = rows.view("<i8")[:, 0]
        state = np.where(marks == self.mark, KNOWN, np.where(marks == 0, UNKNOWN, WRONG)).astype(np.int8)
        columns = np.where((state == KNOWN)[:, None] & np.isfinite(rows[:, _HEAD:]), rows[:, _HEAD:], np.nan)
        return columns, rows.view("<i8")[:, 1], state


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """Which values a pipeline reads of its entities; `parts` is empty where it declares no profile feature."""

    parts: tuple[Part, ...]
    columns: tuple[str, ...] = field(init=False)  # of all parts, in the order of a row

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(name for part in self.parts for name in part.columns))

    @classmethod
    def of(cls, names: Iterable[str]) -> ProfilePlan:
        """Takes the declared profile features; gives the plan.

        The eight user features are always stored, so that a pipeline that declares one more of them needs no reload; others come behind.
        """
        declared = tuple(names)
        parts = []
        if any(name != BATCH_RISK for name in declared):
            others = (name for name in declared if name not in (*USER_FEATURES, BATCH_RISK))
            parts.append(Part("profile", (CREATED, *(name for name in USER_FEATURES if name != AGE), *others)))
        if BATCH_RISK in declared:
            parts.append(Part("risk", (BATCH_RISK,)))
        return cls(tuple(parts))


@dataclass(slots=True, frozen=True)
class ProfileRead:
    """What is known of the entities of n rows: values [n, columns], NaN where nothing is, and what could not be read."""

    values: Float64
    degraded: tuple[Degraded, ...] = ()


class KeptProfiles:
    """The layer in the process: the values of at most `most` entities in arrays, each until a time of its own; the oldest make room.

    Cost: one dictionary look-up per row, then arrays. Memory: `most` x (8 x columns + about 150) bytes.
    """

    def __init__(self, columns: int, most: int) -> None:
        self._most = most
        self._slot: dict[str, int] = {}
        self._key: list[str | None] = [None] * most
        self._next = 0
        # The last row is nobody's: unknown, and never fresh. A key without a slot (-1) reads it.
        self._values = np.full((most + 1, columns), np.nan)
        self._fresh_until = np.full(most + 1, -np.inf)
        self._usable_until = np.full(most + 1, -np.inf)
        self._state = np.zeros(most + 1, np.int8)

    def __len__(self) -> int:
        return len(self._slot)

    def look(self, keys: Sequence[str], now_s: float) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """Gives where the entities of n rows are kept [n] (-1: nowhere), and which of them are fresh [n]."""
        slots = np.fromiter(map(self._slot.get, keys, repeat(-1)), np.int64, len(keys))
        return slots, self._fresh_until[slots] > now_s

    def rows(self, slots: Int64, now_s: float) -> Float64:
        """Gives what is known at `slots` [n], fresh or not: [n, columns]; NaN where it is too old to be used."""
        values = self._values[slots]
        values[self._usable_until[slots] <= now_s] = np.nan
        return values

    def wrong(self, slots: Int64) -> bool:
        """Tells whether something else stood in the place of one of these profiles."""
        return bool((self._state[slots] == WRONG).any())

    def known(self, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Tells of n keys which have values that were read [n]."""
        slots = np.fromiter(map(self._slot.get, keys, repeat(-1)), np.int64, len(keys))
        were_read: npt.NDArray[np.bool_] = self._state[slots] == KNOWN
        return were_read

    def keep(self, keys: Sequence[str], values: Float64, state: Int8, fresh_until_s: Float64, usable_until_s: Float64) -> None:
        """Takes what was read of n different entities [n, columns], and until when it is fresh and may be used at all [n]."""
        slots = np.fromiter(map(self._place, keys), np.int64, len(keys))
        self._values[slots] = values
        self._state[slots] = state
        self._fresh_until[slots] = fresh_until_s
        self._usable_until[slots] = usable_until_s

    def _place(self, key: str) -> int:
        """Gives the next slot, whose entity goes; what is put is the newest from then on, also where it was there before."""
        slot = self._next
        self._next = (slot + 1) % self._most
        gone, before = self._key[slot], self._slot.get(key, -1)
        if gone is not None:
            del self._slot[gone]
        if before >= 0:
            self._key[before] = None
        self._slot[key], self._key[slot] = slot, key
        return slot
