"""Probabilities and rule hits to routes, in the fixed policy order: rules that always decide > models, cheapest first > default."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.windows_index import compiled

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


def strictest_rule(
    hit: npt.NDArray[np.bool_], routes: npt.NDArray[np.int8], only: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.intp]:
    """Takes hits [n, r], each rule's route [r] and which rules count [r] (None: all); gives the deciding rule's index [n].

    It is -1 where none hits.
    The strictest route wins; among equals the rule that stands first in the pipeline file.
    """
    found = np.empty(len(hit), np.intp)
    _strictest(hit, routes, np.ones(len(routes), np.bool_) if only is None else only, found)
    return found


@compiled
def _strictest(hit: Any, routes: Any, only: Any, found: Any) -> None:
    for row in range(len(found)):
        best = -1
        for rule in range(len(routes)):
            if hit[row, rule] and only[rule] and (best < 0 or routes[rule] > routes[best]):
                best = rule
        found[row] = best


def in_order(
    route: npt.NDArray[np.int8], tier: npt.NDArray[np.int8], ruled: npt.NDArray[np.intp], fallback: npt.NDArray[np.intp],
    routes: npt.NDArray[np.int8], default: int, by_default: int,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:  # fmt: skip
    """Applies the policy order to n rows: what tiers say (`route`, UNDECIDED where none does, and `tier`), the rule that always decides,
    the one that decides where no tier does (their places in `routes`, -1: none), and the default.

    Gives the routes [n] and who decided [n]: 0 for a rule, the tier's place plus one, `by_default`. Law: no row stays undecided.
    """
    chosen, decided_by = np.empty_like(route), np.empty_like(route)
    _in_order(route, tier, ruled, fallback, routes, default, by_default, chosen, decided_by)
    return chosen, decided_by


@compiled
def _in_order(
    route: Any, tier: Any, ruled: Any, fallback: Any, routes: Any, default: int, by_default: int, chosen: Any, decided_by: Any
) -> None:
    for row in range(len(route)):
        rule = ruled[row]
        if rule < 0 and route[row] == UNDECIDED:
            rule = fallback[row]
        if rule >= 0:
            chosen[row], decided_by[row] = routes[rule], 0
        elif route[row] == UNDECIDED:
            chosen[row], decided_by[row] = default, by_default
        else:
            chosen[row], decided_by[row] = route[row], tier[row] + 1
