"""Which row trains, which one chooses, which one judges: three parts that never overlap, by chance or by time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


@dataclass(slots=True, frozen=True)
class Split:
    """Row numbers of the three parts, ascending; rows in the gap of a split by time belong to none."""

    train: Rows
    validation: Rows
    test: Rows
    kind: str  # "random" or "time"


def random_split(positive: npt.NDArray[np.bool_], shares: tuple[float, float], seed: int) -> Split:
    """Gives a stratified split: `shares` of each class train and validate, the rest tests. Equal seed, equal split."""
    generator = np.random.default_rng(seed)
    parts: list[list[Rows]] = [[], [], []]
    for label in (False, True):
        rows = generator.permutation(np.flatnonzero(positive == label))
        cuts = np.rint(np.cumsum(shares) * len(rows)).astype(np.int64)
        for part, chosen in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chosen)
    train, validation, test = (np.sort(np.concatenate(part)) for part in parts)
    return Split(train, validation, test, "random")


def time_split(time_ms: npt.NDArray[np.int64], shares: tuple[float, float], gap_ms: int = 0) -> Split:
    """Gives train <= T1 < T1 + gap < validation <= T2 < T2 + gap < test by event time; equal times never part.

    The gap is as long as the longest window or label delay: what lies in it could know of both sides.
    """
    ordered = np.sort(time_ms)
    last = len(ordered) - 1
    first_cut, second_cut = (int(ordered[min(last, max(0, round(share * len(ordered)) - 1))]) for share in np.cumsum(shares))
    train = np.flatnonzero(time_ms <= first_cut)
    validation = np.flatnonzero((time_ms > first_cut + gap_ms) & (time_ms <= second_cut))
    test = np.flatnonzero(time_ms > max(second_cut, first_cut) + gap_ms)
    return Split(train, validation, test, "time")
