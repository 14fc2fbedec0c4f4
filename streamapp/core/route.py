"""Probabilities and rule hits to routes, in the fixed policy order: rules that always decide > models, cheapest first > default."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

APPROVE, REVIEW, BLOCK = 0, 1, 2
ROUTE_NAMES = ("approve", "review", "block")
UNDECIDED = -1


def route_by_thresholds(
    probability: npt.NDArray[np.float64],
    approve_below: npt.NDArray[np.float64] | float | None,
    block_from: npt.NDArray[np.float64] | float | None,
) -> npt.NDArray[np.int8]:
    """Takes probabilities [n] and cuts, one for all or one for each; gives routes [n]: block from, approve below, people between.

    Law: monotone, a higher probability never gets a milder route. A promise that is not reachable (None) sends its band to
    people. NaN (no model answered) stays UNDECIDED.
    """
    routes = np.full(probability.shape[0], REVIEW, np.int8)
    if approve_below is not None:
        routes[probability < approve_below] = APPROVE
    if block_from is not None:
        routes[probability >= block_from] = BLOCK
    routes[np.isnan(probability)] = UNDECIDED
    return routes


def strictest_rule(hit: npt.NDArray[np.bool_], routes: npt.NDArray[np.int8]) -> npt.NDArray[np.intp]:
    """Takes hits [n, r] and each rule's route [r]; gives the deciding rule's index per row [n], -1 where none hits.

    The strictest route wins; among equals the rule that stands first in the pipeline file.
    """
    if not routes.shape[0]:
        return np.full(hit.shape[0], -1, np.intp)
    order = np.argsort(-routes, kind="stable")
    first = order[np.argmax(hit[:, order], axis=1)]
    return np.where(hit.any(axis=1), first, -1)
