"""Margins to probabilities: the activation of the task, bent by the card's calibration; float64 throughout."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from streamapp.core.card import Calibration
from streamapp.core.errors import ModelRejected

Float64 = npt.NDArray[np.float64]
Task = Literal["binary", "multi_class", "multi_label"]


def probability(margins: Float64, task: Task, calibration: Calibration) -> Float64:
    """Gives calibrated probabilities [n, C] of the margins [n, C] (binary: C = 1, the positive class).

    Laws: each value lies in [0, 1]; a larger margin never gives a smaller probability, but for the last bit of exp;
    rows of multi_class sum to 1. Sigmoid: Platt 1999; temperature: Guo et al. 2017; isotonic: `curve`.
    """
    if calibration.method == "sigmoid":
        return logistic(-(calibration.a * margins + calibration.b))
    if calibration.method == "isotonic":
        return curve(margins, np.asarray(calibration.x, np.float64), np.asarray(calibration.y, np.float64))
    cooled = margins / calibration.t if calibration.method == "temperature" else margins
    return softmax(cooled) if task == "multi_class" else logistic(cooled)


def with_raw(margins: Float64, task: Task, calibration: Calibration) -> tuple[Float64, Float64]:
    """Gives probabilities without calibration, and `probability`: in one go where both are logistic."""
    if task == "multi_class" or calibration.method == "isotonic":
        return probability(margins, task, _NONE), probability(margins, task, calibration)
    pair = np.empty((2, *margins.shape))
    pair[0] = margins
    if calibration.method == "sigmoid":
        pair[1] = -(calibration.a * margins + calibration.b)
    else:
        pair[1] = margins / calibration.t if calibration.method == "temperature" else margins
    raw, calibrated = logistic(pair)
    return raw, calibrated


_NONE = Calibration("none")


def at_base_rate(believed: Float64, trained: float, live: float) -> Float64:
    """Takes probabilities that are true where the share of positives is `trained`; gives what they are where it is `live`.

    Of Bayes, when only the share has moved and positives look as they did: the odds change by the ratio of the shares' odds (Elkan 2001,
    theorem 2; Saerens, Latinne and Decaestecker 2002, equation 4). Law: order is kept, 0 and 1 stay.
    """
    positive = believed * (live / trained)
    moved: Float64 = positive / (positive + (1.0 - believed) * ((1.0 - live) / (1.0 - trained)))
    return moved


def margin_below(cut: Float64, calibration: Calibration, base_rates: tuple[float, float] | None = None) -> Float64:
    """Takes probabilities [m]; gives the margins below which a binary model's probability is below them, -inf where none is.

    Law: just above, it is not below. The way back through `at_base_rate`, then through the calibration.
    """
    if base_rates is not None:
        trained, live = base_rates
        cut = at_base_rate(cut, live, trained)
    if calibration.method == "isotonic":
        x, y = np.asarray(calibration.x, np.float64), np.asarray(calibration.y, np.float64)
        piece = np.searchsorted(y, cut, side="left")  # the first corner at or above the cut
        low, high = np.clip(piece - 1, 0, len(x) - 1), np.clip(piece, 0, len(x) - 1)
        rise = np.where(y[high] > y[low], y[high] - y[low], 1.0)
        inside = x[low] + (x[high] - x[low]) * (cut - y[low]) / rise
        return np.where(piece == 0, -np.inf, np.where(piece == len(x), np.inf, inside))
    with np.errstate(divide="ignore"):
        odds = np.log(cut) - np.log1p(-cut)
    return (odds + calibration.b) / -calibration.a if calibration.method == "sigmoid" else odds * calibration.t


def logistic(margins: Float64) -> Float64:
    """Gives 1 / (1 + exp(-m)) of any shape, without overflow: only exp of what is not positive is taken."""
    tail = np.exp(-np.abs(margins))
    result: Float64 = np.where(margins >= 0.0, 1.0, tail) / (1.0 + tail)
    return result


def softmax(margins: Float64) -> Float64:
    """Gives exp(m) / sum(exp(m)) over the last axis; the row's maximum is taken off first, so nothing overflows."""
    weights: Float64 = np.exp(margins - margins.max(axis=-1, keepdims=True))
    result: Float64 = weights / weights.sum(axis=-1, keepdims=True)
    return result


def curve(values: Float64, x: Float64, y: Float64) -> Float64:
    """Gives the piecewise-linear x -> y at `values` (any shape), constant outside; x strictly and y weakly increasing.

    Monotone to the last bit, which np.interp is not: within a piece rounding keeps the order, and no value may pass the piece's end.
    """
    inside = np.clip(values, x[0], x[-1])
    if len(x) == 1:
        return np.full_like(inside, y[0])
    piece = np.clip(np.searchsorted(x, inside, side="right") - 1, 0, len(x) - 2)
    slope = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
    result: Float64 = np.minimum(y[piece] + slope[piece] * (inside - x[piece]), y[piece + 1])
    return result


def check_calibration(calibration: Calibration, task: Task) -> None:
    """Raises ModelRejected when the numbers do not describe a monotone map to [0, 1] for this task."""
    method = calibration.method
    if task == "multi_class" and method in ("sigmoid", "isotonic"):
        raise ModelRejected(f"calibration {method!r} is for one margin at a time", "use temperature for multi_class")
    if not all(np.isfinite((calibration.a, calibration.b, calibration.t, *calibration.x, *calibration.y))):
        raise ModelRejected("the calibration has a number that is not finite")
    if method == "sigmoid" and calibration.a >= 0.0:
        raise ModelRejected(f"calibration a = {calibration.a} would turn the order of the margins round", "a must be below 0")
    if method == "temperature" and calibration.t <= 0.0:
        raise ModelRejected(f"calibration t = {calibration.t} would turn the order of the margins round", "t must be above 0")
    if method == "isotonic":
        x, y = calibration.x, calibration.y
        if not x or len(x) != len(y):
            raise ModelRejected(f"the isotonic curve has {len(x)} x for {len(y)} y", "give as many of one as of the other")
        if any(a >= b for a, b in pairwise(x)) or any(a > b for a, b in pairwise(y)):
            raise ModelRejected("the isotonic curve is not increasing")
        if y[0] < 0.0 or y[-1] > 1.0:
            raise ModelRejected("the isotonic curve leaves [0, 1]")
