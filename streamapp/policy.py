"""Whose word counts: what rules and tiers say of rows, in the policy order, and what they would say to other values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core import cascade
from streamapp.core.conditions import on_no_list
from streamapp.core.events import Plan
from streamapp.core.features import FeatureSet
from streamapp.core.lists import Listed, Lookup
from streamapp.core.route import in_order, strictest_rule
from streamapp.core.rules import RuleHits
from streamapp.core.vectorise import Inputs, Ngrams, scaled, take_ngrams
from streamapp.explaining import Judged
from streamapp.serving import Serving


def evaluate(plan: Plan, features: FeatureSet, serving: Serving, lookup: Lookup | None = None) -> RuleHits:
    """Takes a plan's rows, their features and what answers for the lists (None: the pipeline file); gives which rules hit which rows."""
    if lookup is None and serving.lists is not None:
        lookup = Lookup(plan, serving.lists.fixed)
    listed = on_no_list if lookup is None else lookup.listed
    return serving.rules.evaluate(
        lambda name: features.column(name) if name in serving.features.place else plan.column(name), len(plan), listed
    )


def vectorise(features: FeatureSet, ngrams: Ngrams | None, serving: Serving) -> Inputs:
    """Takes raw features; gives model inputs: those of the first model, and the raw values for tiers with a view of their own."""
    models = serving.models
    if not models:
        return Inputs(np.empty((len(features.values), 0), np.float32), None)
    return Inputs(scaled(features.values, serving.numeric, models[0].card.scaler), ngrams, features.values)


def combine(
    hits: RuleHits, ruled: npt.NDArray[np.intp], scores: cascade.Scores, serving: Serving, listed: Listed | None = None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Applies the policy order; gives the route [n] and who decided [n]. Law: no row stays undecided."""
    by_default, routes = len(serving.tiers) + 1, serving.rules.routes
    fallback = strictest_rule(hits.hit, routes)
    route, decided_by = in_order(scores.route, scores.tier, ruled, fallback, routes, serving.default_route, by_default)
    if listed is not None:
        listed.put(route, decided_by, by_default + 1)
    return route, decided_by


def reroute(
    judged: Judged, serving: Serving, rows: npt.NDArray[np.intp], places: npt.NDArray[np.intp], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.int8]:
    """Takes m rows, one may stand several times, and for each a feature's place and another value; gives the routes they would get [m].

    The line as it is, but for the state: rules, tiers, policy order; what lists say stays.
    """
    m, features = len(rows), judged.features
    changed = features.values[rows]
    changed[np.arange(m), places] = values

    def column(name: str) -> Any:
        if name in serving.features.place:
            return changed[:, serving.features.place[name]]
        kept = judged.plan.column(name)
        return [kept[row] for row in rows.tolist()]

    hits = serving.rules.evaluate(column, m, lambda name, field: judged.hits.columns.listed(name, field)[rows])
    ruled = strictest_rule(hits.hit, serving.rules.routes, serving.rules.always)
    ngrams = None if judged.inputs.ngrams is None else take_ngrams(judged.inputs.ngrams, rows)
    inputs = vectorise(FeatureSet(features.names, changed, features.missing, features.clipped), ngrams, serving)
    cuts = None if judged.cheapest is None else (judged.cheapest[0][rows], judged.cheapest[1][rows])
    scores = cascade.score(inputs, serving.tiers, ruled < 0, hits.columns, cuts)
    return combine(hits, ruled, scores, serving)[0]
