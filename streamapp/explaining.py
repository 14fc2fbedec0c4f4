"""Why a row was not approved: its rules, its model, what would have been milder, what it would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt

from streamapp.core import cascade
from streamapp.core.costs import Prices
from streamapp.core.counterfactual import Change, Counterfactuals, Reroute
from streamapp.core.events import Plan
from streamapp.core.explain import NOTHING, Normal, Reason, beside_normal
from streamapp.core.features import FeatureSet
from streamapp.core.lists import Listed
from streamapp.core.route import APPROVE, ROUTE_NAMES
from streamapp.core.rules import RuleHits
from streamapp.core.state import Remembered
from streamapp.core.vectorise import Inputs
from streamapp.serving import Serving


@dataclass(slots=True, frozen=True)
class Judged:
    """A micro-batch whose routes are known, and all that they came from."""

    plan: Plan
    features: FeatureSet
    hits: RuleHits
    inputs: Inputs
    scores: cascade.Scores
    route: npt.NDArray[np.int8]
    listed: Listed | None
    prices: Prices | None
    cheapest: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None


def explain(judged: Judged, remembered: Remembered, serving: Serving, again: Reroute) -> list[Sequence[Reason]]:
    """Gives the reasons of every row that is not approved.

    The list that denies it, its rules, the model's contributions, what would have been milder, its costs.
    Law: none of them is left without one. A model that cannot say why is named in `scores.degraded`.
    """
    hits, scores, route, listed = judged.hits, judged.scores, judged.route, judged.listed
    reasons: list[Sequence[Reason]] = [()] * len(route)
    if not serving.explains:
        return reasons
    asked = np.flatnonzero((route != APPROVE) & ~remembered.duplicate)
    found: dict[int, list[Reason]] = {row: serving.rules.reasons(hits, row) for row in asked.tolist()}
    if listed is not None:
        found = {row: [listed.reasons[row], *hit] if row in listed.reasons else hit for row, hit in found.items()}
    normal = serving.normals.of(hits.columns, asked) if serving.normals and asked.size else NOTHING
    if normal:
        found = {row: beside_normal(told, normal, place) for place, (row, told) in enumerate(found.items())}
    changes = _told_by_models(judged, asked, normal, found, serving)
    if serving.counterfactuals is not None and asked.size:
        tried = _tried(judged, asked, serving.counterfactuals)
        changes = serving.counterfactuals.by_rules(hits.hit, tried) + changes
        for row, reason in serving.counterfactuals.reasons(changes, judged.features.values, route, again).items():
            found[row].append(reason)
    if judged.prices is not None:
        by_cost = np.array([any(tier.by_cost) for tier in serving.tiers] + [False])  # NO_TIER is the last
        rows = asked[by_cost[scores.tier[asked]] & (route[asked] == scores.route[asked])]
        for row, costs in zip(rows.tolist(), judged.prices.of(rows).expected(scores.probability[rows]).tolist(), strict=True):
            found[row].append(serving.sentences.cheapest(ROUTE_NAMES[route[row]], costs[route[row]], costs[APPROVE]))
    for row, told in found.items():
        reasons[row] = told or [serving.sentences.last_resort(scores.probability[row], scores.threshold[row], ROUTE_NAMES[route[row]])]
    for row, first_offset in remembered.first_offsets():
        reasons[row] = [serving.sentences.duplicate(first_offset)]
    return reasons


def _told_by_models(
    judged: Judged, asked: npt.NDArray[np.intp], normal: Normal, found: dict[int, list[Reason]], serving: Serving
) -> list[Change]:
    """Adds to `found` the reasons of the models that scored the rows `asked`; gives the changes of an input that would move them."""
    changes: list[Change] = []
    for place, (tier, explainer) in enumerate(zip(serving.tiers, serving.explainers, strict=True)):
        mine = judged.scores.tier[asked] == place
        rows = asked[mine]
        if explainer is None or tier.model is None or not rows.size:
            continue
        own_normal = {name: list(compress(values, mine)) for name, values in normal.items()} if normal else NOTHING
        try:
            places = serving.numeric if tier.own is None else tier.own.places
            shares = tier.shares(judged.inputs, rows)
            because = explainer.top(shares, judged.features.values.take(rows, axis=0).take(places, axis=1), own_normal)
            if serving.counterfactuals is not None:
                tried = _tried(judged, asked, serving.counterfactuals)
                every = tried.size == asked.size  # as nearly always; to look for each row takes longer than to try it
                at = slice(None) if every else np.isin(rows, tried, assume_unique=True)
                cuts = tier.cuts(rows[at], judged.cheapest)
                numeric = tier.inputs(judged.inputs, rows).numeric[at]
                changes += serving.counterfactuals.by_model(place, tier, rows[at], numeric, shares[at], cuts)
        except Exception as failure:  # noqa: BLE001 - the decision stands; what is missing is named
            judged.scores.degraded.append(cascade.Degraded(f"explanation:{tier.name}", type(failure).__name__))
            continue
        for row, one in zip(rows.tolist(), because, strict=True):
            found[row] += one
    return changes


def _tried(judged: Judged, asked: npt.NDArray[np.intp], counterfactuals: Counterfactuals) -> npt.NDArray[np.intp]:
    """Gives the rows that changes are tried on: what a list decides, no number changes."""
    open_rows = asked if judged.listed is None else asked[judged.listed.by[asked] < 0]
    return open_rows[: counterfactuals.rows_max]
