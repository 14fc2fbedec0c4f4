"""Tiers of models, cheapest first: each row leaves at the first tier that is sure; a tier that fails is passed over and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core import calibrate
from streamapp.core.card import Calibration, Card
from streamapp.core.conditions import Columns
from streamapp.core.errors import InvariantBroken
from streamapp.core.formula import Formula
from streamapp.core.route import APPROVE, REVIEW, UNDECIDED, route_by_thresholds
from streamapp.core.vectorise import Contributions, Inputs, take

Float64 = npt.NDArray[np.float64]
NO_TIER = -1
#: A cut for all rows, one for each, or none: a promise that was not reachable.
Cut = Float64 | float | None
UNCALIBRATED = Calibration("none")


class Scorer(Protocol):
    """What a tier asks of a model."""

    card: Card
    calibration: Calibration

    def logits(self, inputs: Inputs) -> Float64: ...

    def contributions(self, inputs: Inputs) -> Contributions: ...


@dataclass(slots=True, frozen=True)
class Tier:
    """A model, or where there is none a formula, with the cuts that hold for it; None is a promise that was not reachable."""

    name: str
    model: Scorer | None
    approve_below: float | None
    block_from: float | None
    formula: Formula | None = None
    by_cost: tuple[bool, bool] = (False, False)  # whether approve and block go by each row's costs instead
    base_rates: tuple[float, float] | None = None  # of the data that calibrated, and now

    def cuts(self, rows: npt.NDArray[np.intp], cheapest: tuple[Float64, Float64] | None) -> tuple[Cut, Cut]:
        """Gives what `rows` are approved below and blocked from: one number for all, or each row's own by `cheapest` [n]."""
        if cheapest is None:
            return self.approve_below, self.block_from
        fixed = (self.approve_below, self.block_from)
        approve, block = (own[rows] if costed else cut for costed, own, cut in zip(self.by_cost, cheapest, fixed, strict=True))
        return approve, block

    def answers(self, inputs: Inputs, rows: npt.NDArray[np.intp], columns: Columns | None) -> tuple[Float64, Float64]:
        """Gives score and calibrated probability of `rows` (of all n rows when they are as many)."""
        if self.model is None:
            if self.formula is None or columns is None:
                raise InvariantBroken(f"tier {self.name} has neither a model nor a formula with columns to read")
            value = self.formula.probability(columns)
            value = value if rows.size == value.size else value[rows]
            return value, value
        margins = self.model.logits(inputs if rows.size == len(inputs.numeric) else take(inputs, rows))
        task = self.model.card.task
        raw = calibrate.probability(margins, task, UNCALIBRATED)[:, 0]
        believed = calibrate.probability(margins, task, self.model.calibration)[:, 0]
        return raw, believed if self.base_rates is None else calibrate.at_base_rate(believed, *self.base_rates)


class Degraded(msgspec.Struct, frozen=True, gc=False):
    """A component that could not do its part in this micro-batch, and why."""

    component: str
    cause: str


@dataclass(slots=True)
class Scores:
    """Per row: raw score and calibrated probability of the last tier that answered (NaN: none), its route and its index."""

    score: Float64
    probability: Float64
    threshold: Float64
    route: npt.NDArray[np.int8]
    tier: npt.NDArray[np.int8]
    degraded: list[Degraded]


def score(
    inputs: Inputs,
    tiers: Sequence[Tier],
    open_rows: npt.NDArray[np.bool_],
    columns: Columns | None = None,
    cheapest: tuple[Float64, Float64] | None = None,
) -> Scores:
    """Takes inputs of n rows, which of them a model may decide [n], the columns that formulas read, and where costs decide each row's cuts.

    Runs the tiers over what is open.

    Law: any one tier failing loses no row: it keeps what an earlier tier said, or stays UNDECIDED for the rules and the default.
    """
    n = open_rows.shape[0]
    nan = np.full(n, np.nan)
    result = Scores(nan, nan.copy(), nan.copy(), np.full(n, UNDECIDED, np.int8), np.full(n, NO_TIER, np.int8), [])
    if not tiers:
        result.degraded.append(Degraded("model", "none"))
    todo = np.flatnonzero(open_rows)
    for place, tier in enumerate(tiers):
        if not todo.size:
            break
        try:
            raw, probability = tier.answers(inputs, todo, columns)
        except Exception as failure:  # noqa: BLE001 - whatever a model throws, a cheaper path decides and the verdict names it
            result.degraded.append(Degraded(f"model:{tier.name}", type(failure).__name__))
            continue
        approve, block = tier.cuts(todo, cheapest)
        route = route_by_thresholds(probability, approve, block)
        result.score[todo] = raw
        result.probability[todo] = probability
        result.route[todo] = route
        result.tier[todo] = place
        result.threshold[todo] = _cut_that_decided(route, approve, block)
        todo = todo[(route == REVIEW) | (route == UNDECIDED)]
    return result


def _cut_that_decided(route: npt.NDArray[np.int8], approve: Cut, block: Cut) -> Float64:
    """Per row the cut it was compared with: the block cut where it blocks or is held for people, the approve cut where it passes."""
    lower, upper = (np.nan if cut is None else cut for cut in (approve, block))
    return np.where(route == APPROVE, lower, upper)
