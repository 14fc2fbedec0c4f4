"""Probability cuts that keep a promise on data the model did not see, with the interval of what was observed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from streamapp.core.card import Threshold

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
Z95 = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""
ROUNDING = 1e-9
"""Of a number of positives: 0.07 x 100 is a little more than 7."""


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Gives the score interval of a share (Wilson 1927); (0, 1) without trials. It stays in [0, 1] and is honest for few trials."""
    if not trials:
        return 0.0, 1.0
    share, shrink = successes / trials, z * z / trials
    middle = (share + shrink / 2) / (1 + shrink)
    half = z / (1 + shrink) * math.sqrt(share * (1 - share) / trials + shrink / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def block_threshold(
    probability: Float64, positive: Labels, precision: float, positives_min: int, low_min: float = 0.0, recall: float | None = None
) -> Threshold:
    """Gives the lowest cut, hence the most recall, at which what lies at or above it is positive with `precision`.

    With `recall`, the highest cut, hence the fewest false alarms, at or above which that share of all positives lies too; `observed` and
    its interval are then those of the recall. The interval of the precision must not reach below `low_min`: of many cuts the one that
    just keeps the promise did so by luck.
    `value` is None, not reachable, where no cut keeps all of it or fewer than `positives_min` true positives stand for it. O(n log n).
    """
    promise, total = f"precision >= {precision:g}", int(positive.sum())
    cuts, above, hits = _at_or_above(probability, positive)
    certain = np.array([wilson(*pair)[0] >= low_min for pair in zip(hits.tolist(), above.tolist(), strict=True)], np.bool_)
    precise = (hits >= precision * above) & (hits >= positives_min) & certain
    if recall is not None:
        promise = f"recall >= {recall:g} with {promise}"
        precise &= hits >= recall * total - ROUNDING
    kept = np.flatnonzero(precise)
    if not kept.size:
        return Threshold(None, promise, None, None, None, total)
    best, out_of = (int(kept[0]), above) if recall is None else (int(kept[-1]), np.full_like(above, total))
    low, high = wilson(int(hits[best]), int(out_of[best]))
    return Threshold(float(cuts[best]), promise, float(hits[best] / out_of[best]), low, high, total)


def approve_threshold(probability: Float64, positive: Labels, miss_rate: float, positives_min: int, ceiling: float = 1.0) -> Threshold:
    """Gives the highest cut, at most `ceiling`, below which at most the share `miss_rate` of all positives lies.

    `value` is None, not reachable, where fewer than `positives_min` positives are there to say so. O(n log n).
    """
    promise = f"miss rate <= {miss_rate:g}"
    total = int(positive.sum())
    cuts, _, hits = _at_or_above(probability, positive)
    missed = total - hits
    kept = np.flatnonzero((missed <= miss_rate * total + ROUNDING) & (cuts <= ceiling))
    if total < positives_min or not kept.size:
        return Threshold(None, promise, None, None, None, total)
    best = int(kept[-1])
    low, high = wilson(int(missed[best]), total)
    return Threshold(float(cuts[best]), promise, float(missed[best] / total), low, high, total)


def approve_share(probability: Float64, positive: Labels, share: float, positives_min: int) -> Threshold:
    """Gives the cut below which as nearly as possible the share `share` of all rows lies: for a tier that has to take work off the next.

    `observed` is what that costs: the share of the positives that lie below. `value` is None where fewer than `positives_min` positives
    are there to say so. O(n log n).
    """
    promise, total = f"approves {share:g} of all", int(positive.sum())
    cuts, above, hits = _at_or_above(probability, positive)
    if total < positives_min:
        return Threshold(None, promise, None, None, None, total)
    best = int(np.argmin(np.abs(len(positive) - above - share * len(positive))))
    missed = total - int(hits[best])
    return Threshold(float(cuts[best]), promise, missed / total, *wilson(missed, total), total)


def best_f1_cut(probability: Float64, positive: Labels) -> float:
    """Gives the cut with the largest F1, for the report beside a promise that is not reachable; 0.5 without positives."""
    cuts, above, hits = _at_or_above(probability, positive)
    if not hits.size or not positive.any():
        return 0.5
    return float(cuts[np.argmax(2 * hits / (above + positive.sum()))])


def _at_or_above(probability: Float64, positive: Labels) -> tuple[Float64, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Gives every cut that changes something, ascending, with how many rows and how many positives lie at or above it.

    A cut stands half-way between two probabilities: an ulp more or less on another machine moves no row across it.
    """
    values, place = np.unique(probability, return_inverse=True)
    rows = np.bincount(place, minlength=len(values))
    hits = np.bincount(place, weights=positive, minlength=len(values)).astype(np.int64)
    cuts = values.copy()
    cuts[1:] = (values[:-1] + values[1:]) / 2
    return cuts, rows[::-1].cumsum()[::-1], hits[::-1].cumsum()[::-1]
