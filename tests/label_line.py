"""A pipeline whose only windows are of labels, and labels as records of their topic; no broker, no files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamapp import pipeline
from streamapp.control.release import assemble
from streamapp.core.events import Segment
from streamapp.core.labels import LabelRead, LabelState
from streamapp.core.outcome import Outcome
from streamapp.core.spec import parse_spec
from tests.line import ENTITY_KEY

DAY_MS = 86_400_000
KNOWN = {"entity": "terminal_id", "delay": "7d", "fed_by": "labels", "aggregates": ["count", "risk"]}
DOCUMENT: dict[str, Any] = {
    "pipeline": {"name": "known", "version": "1", "key": "customer_id"},
    "event": {
        "key_required": True,
        "fields": {"customer_id": {"type": "id", "required": True}, "terminal_id": {"type": "id"}, "ip": {"type": "id"}},
    },
    "labels": {"positive": ["fraud", "stolen"], "negative": ["genuine"]},
    "velocity": {
        **{f"known_{days}d": {**KNOWN, "window": f"{days}d"} for days in (1, 7, 30)},
        "customer_known_2d": {
            "entity": "customer_id", "window": "2d", "delay": "1d", "fed_by": "labels", "aggregates": ["positives", "risk"],
            "default": {"risk": 0.25},
        },
    },
}  # fmt: skip
SPEC = parse_spec(DOCUMENT, "tests")
SERVING = assemble(SPEC, {}, ENTITY_KEY)


def records(values: Sequence[Mapping[str, Any] | bytes | None], told: Sequence[int], topic: str = "known.labels.v1") -> Segment:
    """Gives records of one partition that came at the times `told`, ms."""
    n = len(values)
    raw = [value if value is None or isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    keys = [str(value["customer_id"]).encode() if isinstance(value, Mapping) and "customer_id" in value else None for value in values]
    return Segment(topic, 0, 1, np.arange(n, dtype=np.int64), np.array(told, np.int64), keys, raw, [()] * n)


def label(event_id: str, time: int, word: str, terminal: str | None = "t", customer: str = "c", **more: Any) -> dict[str, Any]:
    """Gives one label; `more` are labelled_at, weight, source."""
    said = {"event_id": event_id, "event_time": time, "label": word, "customer_id": customer, **more}
    return said if terminal is None else {**said, "terminal_id": terminal}


def ask(known: LabelState | None, times: Sequence[int], terminal: str | None = "t", customer: str = "c") -> tuple[Outcome, np.ndarray]:
    """Decides events at `times` in a partition that begins with them; gives the outcome and its features [n, m]."""
    events: list[dict[str, Any]] = [{"event_id": f"asks-{time}", "event_time": time, "customer_id": customer} for time in times]
    if terminal is not None:
        events = [{**event, "terminal_id": terminal} for event in events]
    plan = pipeline.plan([records(events, [max(times, default=0)] * len(events), "known.events.v1")], SERVING)
    assert not plan.rejects
    read = pipeline.Read(labels=None if known is None else LabelRead(known))
    outcome = pipeline.decide(plan, read, [SERVING.state.new()], SERVING, 0, lambda: 0.0)
    return outcome, outcome.features.values
