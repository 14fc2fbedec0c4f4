"""What a window looked like, as one vector of whole numbers: partials of batches, partitions and workers merge exactly, in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.card import Reference
from streamapp.core.errors import InvariantBroken, RejectCode
from streamapp.core.events import FLAG_NAMES
from streamapp.core.route import ROUTE_NAMES

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

SCORE = "score"
REJECT_NAMES = tuple(code.value for code in RejectCode)

#: Values are summed as whole multiples of 2^-20 reference standard deviations, so that a sum does not depend on its order.
QUANTUM = 2.0**-20
#: A value further out than this many standard deviations is summed as if it lay here: 2^23 such rows fit an int64 sum of squares.
FAR_STD = 1024.0
#: MN5: a value this many reference standard deviations from the mean counts as outlying.
OUTLYING_STD = 3.0
CONFIDENCE_BUCKETS = 10  # of max(p, 1 - p), 0.05 wide, from 0.5 to 1.0


@dataclass(slots=True, frozen=True)
class Layout:
    """Where each count lies in a partial's vector, and the reference bins behind it; `key` is equal for layouts that may merge."""

    features: tuple[str, ...]  #       k
    deciders: tuple[str, ...]
    references: Mapping[str, Reference]  # of features and of "score", where the card has them
    edges: Float64  #                  inner edges of all features and of the score, one after the other
    edge_start: Int64  #               k + 2
    centre: Float64  #                 k + 1, reference mean
    spread: Float64  #                 k + 1, reference standard deviation, 1 where there is none
    bin_start: Int64  #                k + 2, into the vector
    place: Mapping[str, slice]  #      of every other group of counts
    width: int
    key: str
    at: Mapping[str, int]  #           the place of each feature and of the score among them

    @staticmethod
    def of(features: Sequence[str], deciders: Sequence[str], references: Mapping[str, Reference]) -> Layout:
        """Takes the feature names, the names behind `decided_by`, and the card's references; a name without one has a single bin."""
        names = (*features, SCORE)
        inner = [references[name].edges if name in references else () for name in names]
        sizes = np.array([len(e) for e in inner], np.int64)
        groups = {
            "rows": 1, "scored": 1, "late": 1, "route": len(ROUTE_NAMES), "decided_by": len(deciders), "flags": len(FLAG_NAMES),
            "rejects": len(REJECT_NAMES), "missing": len(features), "clipped": len(features), "confidence": CONFIDENCE_BUCKETS,
            "unknown": len(names), "outlying": len(names), "sum": len(names), "square": len(names),
        }  # fmt: skip
        place: dict[str, slice] = {}
        at = 0
        for name, size in groups.items():
            place[name] = slice(at, at + size)
            at += size
        std = [references[name].std if name in references else 0.0 for name in names]
        key = hashlib.sha256(msgspec.json.encode([features, deciders, [(e, references.get(n)) for n, e in zip(names, inner, strict=True)]]))
        return Layout(
            tuple(features), tuple(deciders), references,
            np.array([edge for e in inner for edge in e], np.float64), np.concatenate([[0], np.cumsum(sizes)]),
            np.array([references[name].mean if name in references else 0.0 for name in names], np.float64),
            np.array([s if s > 0 else 1.0 for s in std], np.float64),
            at + np.concatenate([[0], np.cumsum(sizes + 1)]), place, at + int(np.sum(sizes + 1)), key.hexdigest()[:16],
            {name: number for number, name in enumerate(names)},
        )  # fmt: skip


@dataclass(slots=True, frozen=True)
class Observations:
    """A mergeable partial of one window: counts as one vector int64[layout.width], and how far in time and offsets it reaches."""

    layout: Layout
    partition: int  #      -1 once partitions were merged
    start_ms: int  #       of the window, event time
    end_ms: int  #         exclusive
    final: bool  #         the partition's event time had passed the window's end
    first_offset: int
    last_offset: int
    first_time: int  #     of the events, epoch ms
    last_time: int
    totals: Int64

    def of(self, group: str) -> Int64:
        """Gives one group of counts, such as "route" or "missing"."""
        return self.totals[self.layout.place[group]]

    @property
    def n(self) -> int:
        """Events counted, without rejects."""
        return int(self.of("rows")[0])

    def bins(self, name: str) -> Int64:
        """Gives the counts on the reference bins of a feature or of "score"; raises KeyError for a name that is not there."""
        place = self.layout.at[name]
        return self.totals[self.layout.bin_start[place] : self.layout.bin_start[place + 1]]

    def moments(self, name: str) -> tuple[float, float, int]:
        """Gives mean and standard deviation of the known values, within 1e-6 reference deviations, and their number."""
        place = self.layout.at[name]
        n = int(self.bins(name).sum())
        if not n:
            return 0.0, 0.0, 0
        mean, square = float(self.of("sum")[place]) * QUANTUM / n, float(self.of("square")[place]) * QUANTUM / n
        spread = float(self.layout.spread[place])
        return float(self.layout.centre[place]) + spread * mean, spread * max(0.0, square - mean * mean) ** 0.5, n

    def __add__(self, other: Observations) -> Observations:
        """Merges two partials of one layout: associative, commutative, exact. Raises InvariantBroken for different layouts."""
        if self.layout.key != other.layout.key:
            raise InvariantBroken(f"Partials of different reference bins cannot be merged: {self.layout.key}, {other.layout.key}")
        return Observations(
            self.layout, self.partition if self.partition == other.partition else -1,
            min(self.start_ms, other.start_ms), max(self.end_ms, other.end_ms), self.final or other.final,
            min(self.first_offset, other.first_offset), max(self.last_offset, other.last_offset),
            min(self.first_time, other.first_time), max(self.last_time, other.last_time), self.totals + other.totals,
        )  # fmt: skip
