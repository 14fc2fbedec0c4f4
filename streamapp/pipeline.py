"""The way of an event, without I/O: `plan` what was read, `decide` it under one `Serving`; `worker.py` carries the Outcome away."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial

import numpy as np

from streamapp.core import cascade
from streamapp.core.events import Plan, Segment
from streamapp.core.lists import Lookup
from streamapp.core.outcome import Outcome
from streamapp.core.route import strictest_rule
from streamapp.core.windows_partition import PartitionState
from streamapp.explaining import Judged, explain
from streamapp.policy import combine, evaluate, reroute, vectorise
from streamapp.serving import DEFAULT, RULE, Read, Serving

__all__ = ["DEFAULT", "RULE", "Read", "Serving"]


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
    ruled = strictest_rule(hits.hit, serving.rules.routes, serving.rules.always)
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
    reasons = explain(judged, remembered, serving, partial(reroute, judged, serving))
    lap("explain")
    return Outcome(
        plan, features, hits, scores.score, scores.probability, scores.threshold, route, decided_by, reasons,
        (*read.degraded, *serving.absent, *scores.degraded), now_ms, stage_ms, remembered.steps, shared.written,
        None if lookup is None else lookup.version, scores.labels, scores.uses, scores.first,
    )  # fmt: skip
