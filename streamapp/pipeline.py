"""The way of an event, without I/O: `plan` what was read, `decide` it under one `Serving`; `worker.py` carries the Outcome away."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core import cascade
from streamapp.core.conditions import on_no_list
from streamapp.core.costs import Costs, Prices
from streamapp.core.counterfactual import Change, Counterfactuals
from streamapp.core.decode import Decoder
from streamapp.core.encode import VerdictEncoder, Versions
from streamapp.core.events import Plan, Segment
from streamapp.core.explain import NOTHING, ModelReasons, Normal, Reason, Sentences, beside_normal, group_contributions
from streamapp.core.features import FeatureSet
from streamapp.core.features.plan import FeaturePlan, Texts
from streamapp.core.labels import LabelPlan, LabelRead
from streamapp.core.lists import Listed, ListPlan, Lookup
from streamapp.core.lists_table import ListTable
from streamapp.core.normal import Normals
from streamapp.core.outcome import Outcome
from streamapp.core.predictions import Predictions
from streamapp.core.route import APPROVE, ROUTE_NAMES, UNDECIDED, strictest_rule
from streamapp.core.rules import RuleHits, Rules
from streamapp.core.shared import SharedPlan, SharedRead
from streamapp.core.spec import PipelineSpec
from streamapp.core.state import Remembered, StatePlan
from streamapp.core.vectorise import Inputs, Ngrams, scale, take_ngrams
from streamapp.core.velocity import VelocityFeature
from streamapp.core.windows_partition import PartitionState

#: `decided_by`: rules, then the tiers by name, then the default, then the lists that decide.
RULE, DEFAULT = "rule", "default"


@dataclass(slots=True, frozen=True)
class Serving:
    """Everything versioned that decides, frozen together; a worker swaps it between two micro-batches."""

    release: str
    code: int  #                                   of the release, where a name is too long: with remembered decisions
    spec: PipelineSpec
    decoder: Decoder
    state: StatePlan
    shared: SharedPlan
    labels: LabelPlan
    features: FeaturePlan
    rules: Rules
    tiers: tuple[cascade.Tier, ...]
    explainers: tuple[ModelReasons | None, ...]  # by tier; None where the model cannot say why
    deciders: tuple[str, ...]  #                   names behind Outcome.decided_by
    encoder: VerdictEncoder
    versions: Versions
    default_route: int
    sentences: Sentences
    numeric: npt.NDArray[np.intp]  #               feature columns that enter the models, in the cards' order
    predictions: Predictions | None = None  #      where scores are used again
    explains: bool = True  #                       whether reasons are told; False where no output carries them
    lists: ListPlan | None = None  #               where lists are declared
    normals: Normals | None = None  #              of the entities, where the pipeline declares them
    counterfactuals: Counterfactuals | None = None
    costs: Costs | None = None  #                  where a cut goes by cost

    @property
    def waits(self) -> bool:
        """Whether a tier is asked beside the event loop."""
        return any(tier.time_ms is not None for tier in self.tiers)

    @property
    def windows(self) -> tuple[VelocityFeature, ...]:
        """The features of all windows, in the order of their columns: local, shared, of labels."""
        return (*self.state.features, *self.shared.features, *self.labels.features)

    @property
    def models(self) -> tuple[cascade.Scorer, ...]:
        """The models of the tiers that have one, cheapest first."""
        return tuple(tier.model for tier in self.tiers if tier.model is not None)


@dataclass(slots=True, frozen=True)
class Read:
    """What prefetch brought for a plan's keys; empty where nothing is configured."""

    profiles: npt.NDArray[np.float64] | None = None  #  n x features.profiles.columns, NaN where not known; None: none were read
    degraded: tuple[cascade.Degraded, ...] = ()
    shared: SharedRead | None = None  #                windows of entities that cross partitions; None: all of them are missing
    texts: Texts | None = None  #                       what was read of the texts meanwhile
    texts_ms: float = 0.0
    labels: LabelRead | None = None  #                  what turned out to be true; None: nothing is known
    lists: ListTable | None = None  #                  what is on the lists now; None: what the pipeline file says


def plan(segments: Sequence[Segment], serving: Serving) -> Plan:
    """Takes what one poll brought; gives its good events as columns and the others as rejects. Total: no bytes make it raise."""
    return serving.decoder.plan(segments)


def decide(plan: Plan, read: Read, states: Sequence[PartitionState], serving: Serving, now_ms: int, clock: Callable[[], float]) -> Outcome:
    """Gives what `deciding` gives when every tier is asked on the spot and has all the time it wants."""
    return cascade.answered_here(deciding(plan, read, states, serving, now_ms, clock))


def deciding(
    plan: Plan, read: Read, states: Sequence[PartitionState], serving: Serving, now_ms: int, clock: Callable[[], float]
) -> Generator[cascade.Question, cascade.Answer, Outcome]:
    """Takes a plan, what was read for it and the state of each segment's partition; gives one verdict per event.

    A tier with a time budget is yielded as a Question, to be answered beside the loop; meanwhile the states have moved and what was
    decided is not yet in them, so nobody may look at them (ADR 18). Without such a tier nothing is yielded.

    Deterministic but for `now_ms` and the stage times; `states` and the copy in `read.shared` move past the plan's rows in place;
    `Outcome.steps` and `Outcome.shared` are those deltas. What labels said before this plan moves nothing but how far it reaches back.
    Law: however a stream is cut into plans, routes and features are equal and scores agree within 1e-6.
    `clock` gives seconds and is used for the stage times only.
    """
    stage_ms: dict[str, float] = {}
    started = clock()

    def lap(stage: str) -> None:
        nonlocal started
        ended = clock()
        stage_ms[stage] = round((ended - started) * 1e3, 3)
        started = ended

    remembered = serving.state.advance(plan, states)
    shared = serving.shared.answer(len(plan), remembered, read.shared)
    plan.flags |= remembered.flags | shared.flags
    windows = [remembered.values, shared.values]
    if serving.labels.stores:
        known = serving.labels.answer(plan, remembered, read.labels, read.shared)
        plan.flags |= known.flags
        windows.append(known.values)
    lap("state")
    features, ngrams = serving.features.measure(plan, read.profiles, np.hstack(windows), read.texts)
    lap("features")
    stage_ms["features"] += read.texts_ms
    lookup, listed = None, None
    if serving.lists is not None:
        lookup = Lookup(plan, serving.lists.fixed if read.lists is None else read.lists)
        listed = serving.lists.decide(lookup)
        lap("lists")
    hits = evaluate(plan, features, serving, lookup)
    ruled = strictest_rule(hits.hit & serving.rules.always, serving.rules.routes)
    lap("rules")
    inputs = vectorise(features, ngrams, serving)
    prices = None if serving.costs is None else serving.costs.prices(hits.columns, plan.tenant)
    cheapest = None if prices is None else prices.cuts()
    undecided = (ruled < 0) & ~remembered.duplicate
    if listed is not None:
        undecided &= listed.by < 0
    recalled = None
    if serving.predictions is not None:
        texts = None if serving.spec.ngrams is None else plan.column(serving.spec.ngrams.field)
        users = plan.column(serving.spec.pipeline.key)
        recalled = serving.predictions.recall(users, texts, features.values, undecided, now_ms)
        undecided = recalled.left
    scores = yield from cascade.scoring(inputs, serving.tiers, undecided, hits.columns, clock, cheapest)
    if serving.predictions is not None and recalled is not None:
        serving.predictions.settle(recalled, scores, now_ms)
    lap("score")
    for use in scores.uses:
        stage_ms[f"tier:{use.name}"] = round(use.ms, 3)
    route, decided_by = combine(hits, ruled, scores, serving, listed)
    serving.state.settle(remembered, route, decided_by, scores.score, serving.code)
    judged = Judged(plan, features, hits, inputs, scores, route, listed, prices, cheapest)
    reasons = explain(judged, remembered, serving)
    lap("explain")
    return Outcome(
        plan, features, hits, scores.score, scores.probability, scores.threshold, route, decided_by, reasons,
        (*read.degraded, *scores.degraded), now_ms, stage_ms, remembered.steps, shared.written,
        None if lookup is None else lookup.version, scores.labels, scores.uses,
    )  # fmt: skip


def evaluate(plan: Plan, features: FeatureSet, serving: Serving, lookup: Lookup | None = None) -> RuleHits:
    """Takes a plan's rows, their features and what answers for the lists; gives which rules hit which rows."""
    listed = on_no_list if lookup is None else lookup.listed
    return serving.rules.evaluate(
        lambda name: features.column(name) if name in serving.features.place else plan.column(name), len(plan), listed
    )


def vectorise(features: FeatureSet, ngrams: Ngrams | None, serving: Serving) -> Inputs:
    """Takes raw features; gives model inputs: those of the first model, and the raw values for tiers with a view of their own."""
    models = serving.models
    if not models:
        return Inputs(np.empty((len(features.values), 0), np.float32), None)
    return Inputs(scale(features.values[:, serving.numeric], models[0].card.scaler), ngrams, features.values)


def combine(
    hits: RuleHits, ruled: npt.NDArray[np.intp], scores: cascade.Scores, serving: Serving, listed: Listed | None = None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Applies the policy order; gives the route [n] and who decided [n]. Law: no row stays undecided."""
    by_rule, by_default = 0, len(serving.tiers) + 1
    route, decided_by = scores.route.copy(), (scores.tier + 1).astype(np.int8)
    fallback = strictest_rule(hits.hit, serving.rules.routes) if (route == UNDECIDED).any() else ruled
    for rules in (np.where(route == UNDECIDED, fallback, -1), ruled):
        chosen = rules >= 0
        route[chosen] = serving.rules.routes[rules[chosen]]
        decided_by[chosen] = by_rule
    left = route == UNDECIDED
    route[left] = serving.default_route
    decided_by[left] = by_default
    if listed is not None:
        listed.put(route, decided_by, by_default + 1)
    return route, decided_by


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


def explain(judged: Judged, remembered: Remembered, serving: Serving) -> list[Sequence[Reason]]:
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
        again = partial(reroute, judged, serving)
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
        own_normal = {name: list(compress(values, mine)) for name, values in normal.items()}
        try:
            places = serving.numeric if tier.own is None else tier.own.places
            inputs = tier.inputs(judged.inputs, rows)
            shares = group_contributions(tier.model.contributions(inputs), inputs.ngrams)
            because = explainer.top(shares, judged.features.values[np.ix_(rows, places)], own_normal)
            if serving.counterfactuals is not None:
                at = np.isin(rows, _tried(judged, asked, serving.counterfactuals), assume_unique=True)
                cuts = tier.cuts(rows[at], judged.cheapest)
                changes += serving.counterfactuals.by_model(place, tier, rows[at], inputs.numeric[at], shares[at], cuts)
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
    ruled = strictest_rule(hits.hit & serving.rules.always, serving.rules.routes)
    ngrams = None if judged.inputs.ngrams is None else take_ngrams(judged.inputs.ngrams, rows)
    inputs = vectorise(FeatureSet(features.names, changed, features.missing, features.clipped), ngrams, serving)
    cuts = None if judged.cheapest is None else (judged.cheapest[0][rows], judged.cheapest[1][rows])
    scores = cascade.score(inputs, serving.tiers, ruled < 0, hits.columns, cuts)
    return combine(hits, ruled, scores, serving)[0]
