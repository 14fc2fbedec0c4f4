"""Tiers, cheapest first: each row leaves at the first tier that is sure; a tier that fails, is slow or has no number is passed over."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.conditions import Columns
from streamapp.core.route import APPROVE, BLOCK, REVIEW, UNDECIDED
from streamapp.core.tiers import Answer, Belief, Cut, Float64, Question, Rows, Scorer, Tier, by_urgency, tuples
from streamapp.core.vectorise import Inputs
from streamapp.core.windows_index import compiled

__all__ = ["NO_TIER", "Answer", "Degraded", "Question", "Scorer", "Scores", "Tier", "TierUse", "answered_here", "score", "scoring"]

T = TypeVar("T")
NO_TIER = -1
_NOBODY = UNDECIDED  # and NO_TIER: both columns begin with the same number
#: Causes in `degraded` beside the names of exceptions: there is no model, of one tier or of all; rows or time ran out, an earlier call is
#: still under way, no number came back.
NO_MODEL = "none"
ROW_BUDGET, TIME_BUDGET, BUSY, NOT_A_NUMBER = "row_budget", "time_budget", "busy", "not_a_number"
Clock = Callable[[], float]


class Degraded(msgspec.Struct, frozen=True, gc=False):
    """A component that could not do its part in this micro-batch, and why."""

    component: str
    cause: str


class TierUse(NamedTuple):
    """What one tier did in a micro-batch: rows it was due to see, rows it answered, rows that left with it, and its time."""

    name: str
    due: int
    answered: int
    decided: int
    ms: float


@dataclass(slots=True)
class Scores:
    """Per row: raw score and calibrated probability of the last tier that answered (NaN: none), its route and its index."""

    score: Float64
    probability: Float64
    threshold: Float64
    route: npt.NDArray[np.int8]
    tier: npt.NDArray[np.int8]
    degraded: list[Degraded]
    labels: npt.NDArray[np.object_] | None = None  # n; None where every tier has one positive class
    uses: list[TierUse] = field(default_factory=list)  # of a cascade of several tiers
    first: Float64 | None = None  #                      n: raw score of its first model, which is asked about most rows; None: `score`


def standing_still() -> float:
    """The clock of whoever asks for no times."""
    return 0.0


def score(
    inputs: Inputs,
    tiers: Sequence[Tier],
    open_rows: npt.NDArray[np.bool_],
    columns: Columns | None = None,
    cheapest: tuple[Float64, Float64] | None = None,
) -> Scores:
    """Gives what `scoring` gives when every tier is asked on the spot and has all the time it wants."""
    return answered_here(scoring(inputs, tiers, open_rows, columns, standing_still, cheapest))


def answered_here(steps: Generator[Question, Answer, T], *, with_plugins: bool = True) -> T:
    """Runs `steps` to their end; each question is answered on the spot, those to plug-ins only where that is wanted."""
    try:
        question = next(steps)
        while True:
            asked = with_plugins or question.tier.plugin is None
            question = steps.send(question.here() if asked else question.unanswered("not_asked"))
    except StopIteration as done:
        result: T = done.value
        return result


async def answered_beside(steps: Generator[Question, Answer, T], ask: Callable[[Question], Awaitable[Answer]]) -> T:
    """Runs `steps` to their end; each question is answered by `ask`, which may wait."""
    try:
        question = next(steps)
        while True:
            question = steps.send(await ask(question))
    except StopIteration as done:
        result: T = done.value
        return result


def scoring(
    inputs: Inputs,
    tiers: Sequence[Tier],
    open_rows: npt.NDArray[np.bool_],
    columns: Columns | None,
    clock: Clock,
    cheapest: tuple[Float64, Float64] | None = None,
) -> Generator[Question, Answer, Scores]:
    """Takes inputs of n rows, which of them a tier may decide [n], the columns formulas and plug-ins read, and each row's cuts by cost.

    Runs the tiers over what is open; a tier with `time_ms` is yielded as a Question and goes on with the Answer it is sent.
    Law: any one tier failing, or leaving rows out, loses no row: it keeps what an earlier tier said, or stays UNDECIDED for the rules and
    the default. `clock` gives seconds and is read in cascades of several tiers only.
    """
    n = open_rows.shape[0]
    numbers, places = np.full((3, n), np.nan), np.full((2, n), _NOBODY, np.int8)
    result = Scores(numbers[0], numbers[1], numbers[2], places[0], places[1], [])
    if not tiers:
        result.degraded.append(Degraded("model", NO_MODEL))
    todo: Rows = np.flatnonzero(open_rows)
    several = len(tiers) > 1
    for place, tier in enumerate(tiers):
        if not todo.size:
            break
        started = clock() if several else 0.0
        asked = todo
        if tier.time_ms is not None or (tier.rows_max is not None and todo.size > tier.rows_max):
            asked = by_urgency(todo, result.probability)[: tier.rows_max]
        question = Question(tier, asked, inputs, columns)
        answer = question.here() if tier.time_ms is None else (yield question)
        left = _take_in(result, place, tier, asked, answer, cheapest)
        if several and tier.model is not None and result.first is None:
            result.first = np.where(result.tier == place, result.score, np.nan)
        if asked.size < todo.size:
            result.degraded.append(Degraded(f"model:{tier.name}", ROW_BUDGET))
        if several:
            answered = int(np.count_nonzero(result.tier[todo] == place))
            result.uses.append(TierUse(tier.name, todo.size, answered, left.size, (clock() - started) * 1e3))
        if left.size and place + 1 < len(tiers):
            gone = np.zeros(n, np.bool_)
            gone[left] = True
            todo = todo[~gone[todo]]
    return result


def _take_in(result: Scores, place: int, tier: Tier, asked: Rows, answer: Answer, cheapest: tuple[Float64, Float64] | None) -> Rows:
    """Puts an answer about the rows `asked` into the result; gives the rows that leave with it."""
    cause = answer.cause
    if math.isnan(answer.values.sum()):  # one number for all rows: what is usual costs nothing
        missing = np.isnan(answer.values).any(axis=1)
        if cause is None and tier.formula is None:  # a formula over a missing value has none: that is data, not a failure
            cause = NOT_A_NUMBER
        asked, answer = asked[~missing], Answer(answer.values[~missing])
    if cause is not None:
        result.degraded.append(Degraded(f"model:{tier.name}", cause))
    if not asked.size:
        return asked
    belief = tier.believes(answer.values)
    approve, block = tier.cuts(asked, cheapest)
    if belief.labels is not None:
        _name(result, asked, belief)
    left = np.empty(len(asked), np.intp)
    count = _settle(
        asked, belief.raw, belief.probability, _column(approve), _column(block),
        np.nan if tier.review_from is None else tier.review_from, place,
        result.score, result.probability, result.threshold, result.route, result.tier, left,
    )  # fmt: skip
    return left[:count]


@lru_cache(maxsize=256)
def _one(cut: float | None) -> Float64:
    """Gives a cut for all rows as a column of one, which is not written to."""
    return np.array([np.nan if cut is None else cut])


def _column(cut: Cut) -> Float64:
    return cut if isinstance(cut, np.ndarray) else _one(cut)


@compiled
def _settle(
    asked: Any, raw: Any, probability: Any, approve: Any, block: Any, review_from: float, place: int, score: Any, believed: Any,
    threshold: Any, route: Any, tier: Any, left: Any,
) -> int:  # fmt: skip
    """Routes rows as route.route_by_thresholds does and writes them down; puts those that leave here into `left`, and gives how many.

    A cut is one number or one for each row, not a number where there is none. `threshold` is what a row was compared with: where it is
    approved the approve cut, else the block cut; what a tier that never blocks holds for people, `review_from`.
    """
    count = 0
    for at in range(len(asked)):
        row, one = asked[at], probability[at]
        low, high = approve[min(at, len(approve) - 1)], block[min(at, len(block) - 1)]
        chosen = REVIEW
        if one < low:
            chosen = APPROVE
        if one >= high:
            chosen = BLOCK
        if np.isnan(one):
            chosen = UNDECIDED
        score[row], believed[row], route[row], tier[row] = raw[at], one, chosen, place
        threshold[row] = low if chosen == APPROVE else review_from if np.isnan(high) else high
        if chosen != REVIEW or one >= review_from:
            left[count] = row
            count += 1
    return count


def _name(result: Scores, rows: Rows, belief: Belief) -> None:
    if result.labels is None:
        result.labels = tuples([()] * len(result.route))
    result.labels[rows] = belief.labels
