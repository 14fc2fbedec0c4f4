"""The whole line run over examples before the first event: kernels are compiled or loaded then, and caches filled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from streamapp import pipeline
from streamapp.core.cascade import answered_here
from streamapp.core.decode import PLAIN_ROWS_MIN
from streamapp.core.events import Plan, Segment
from streamapp.core.examples import example_of, least_event, segment_of
from streamapp.core.outcome import Outcome
from streamapp.core.texts import Texts

#: More than any of the line's ways for few rows takes.
MANY_ROWS = 160
#: Of these, how many the kernel that reads plain JSON leaves to somebody else: few enough that it goes on with the others.
ODD_ROWS = 2


def rehearse(serving: pipeline.Serving) -> None:
    """Runs the line over the examples of rules and cards, in few rows and in many, so that no event waits for a kernel to compile.

    Law, seen for the shipped pipelines and generated events: whatever the size of a micro-batch, nothing is compiled or loaded for it.
    """
    spec = serving.spec
    given = [one for rule in spec.rules for one in (rule.hit, rule.miss) if one is not None]
    examples = [example_of(one, spec).event for one in given]
    examples += [smoke.event for tier in serving.tiers if tier.model is not None for smoke in tier.model.card.smoke]
    least = {"event_id": "e", **least_event(spec)}
    odd = {name: 'é & 1A0A "' for name, field in spec.event.fields.items() if field.type == "text"}
    events = [{**least, **example} for example in (*examples, odd, {"event_time": "2026-01-01T00:00:00Z"})]
    few, last = segment_of(events), segment_of(events[-1:])
    whole = [{**least, **example} for example in examples] or [least]
    many = segment_of(_numbered(islice(cycle(whole), MANY_ROWS)), key=spec.pipeline.key)
    plain = segment_of(_numbered([least] * MANY_ROWS), key=spec.pipeline.key)
    mixed = replace(plain, values=[*plain.values[:-ODD_ROWS], segment_of([events[-2]]).values[0], b"{"])
    read = pipeline.Read(lists=None if serving.lists is None else serving.lists.rehearsal())
    between = segment_of(_numbered(islice(cycle(whole), PLAIN_ROWS_MIN - 1)), key=spec.pipeline.key)
    twice = _fetched(mixed), replace(_fetched(mixed), partition=1)
    for segments in ((few,), (last,), (between,), (many,), (_fetched(many),), (_fetched(plain),), twice):
        outcome = _rehearsed(pipeline.plan(segments, serving), read, serving)
        serving.encoder.decisions(outcome, serving.encoder.verdicts(outcome))


def _numbered(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [{**event, "event_id": f"e{number}"} for number, event in enumerate(events)]


def _rehearsed(plan: Plan, read: pipeline.Read, serving: pipeline.Serving) -> Outcome:
    """Decides from an empty state; somebody's own Python is not asked, which may take its time or call a paid service."""
    states = [serving.state.new() for _ in plan.segments]
    return answered_here(pipeline.deciding(plan, read, states, serving, 0, lambda: 0.0), with_plugins=False)


def _fetched(given: Segment) -> Segment:
    """Gives the records of one partition as a kernel reads them from a fetch."""
    keys, values = (Texts.of([one or b"" for one in column]) for column in (given.keys, given.values))
    return replace(given, keys=Texts(keys.data.copy(), keys.start), values=Texts(values.data.copy(), values.start))
