"""The examples of rules: events a rule hits or misses, with what an event alone cannot say given beside its fields.

hit = { amount = 10.0, features = { card_2m_count = 5 } }     # the fifth purchase: a window that one event cannot fill
hit = { ip = "192.0.2.66", lists = { blocked_addresses = ["192.0.2.66"] } }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from streamapp.core.document import Mistakes, nearest
from streamapp.core.events import Segment
from streamapp.core.field_checks import IMPLICIT_FIELDS
from streamapp.core.spec import PipelineSpec

#: Members of an example that are no fields of the event (unless the event has a field of that name).
BESIDE = ("features", "lists")


@dataclass(slots=True, frozen=True)
class Example:
    """An event, the features that are taken as given, and what is on the lists beside their fixed entries."""

    event: Mapping[str, Any]
    features: Mapping[str, float]
    lists: Mapping[str, Sequence[str]]


def example_of(given: Mapping[str, Any], spec: PipelineSpec) -> Example:
    """Takes an example as it is written in the pipeline file; gives its parts."""
    beside = {name: given[name] for name in BESIDE if name in given and name not in spec.event.fields}
    event = {name: value for name, value in given.items() if name not in beside}
    return Example(event, beside.get("features", {}), beside.get("lists", {}))


def least_event(spec: PipelineSpec) -> dict[str, Any]:
    """Gives the smallest event that is valid: examples name only the fields that matter to their rule."""
    fills: dict[str, Any] = {
        "id": "example", "text": "example", "string": "example", "json": {}, "number": 1, "integer": 1, "boolean": False,
    }  # fmt: skip
    return {name: fills[field.type] for name, field in spec.event.fields.items() if field.required}


def check_example(at: str, given: Mapping[str, Any] | None, spec: PipelineSpec, features: Sequence[str], mistakes: Mistakes) -> None:
    """Notes what an example names that is not there; whether it hits is seen when it is run."""
    if given is None:
        mistakes.add(at, f"is missing; add an example event, {at.rpartition('.')[2]} = {{ ... }}")
        return
    example = example_of(given, spec)
    stated: Any = example.features
    listed: Any = example.lists
    known = {spec.event.time_field, *IMPLICIT_FIELDS, *spec.event.fields}
    for name in example.event:
        if name not in known:
            mistakes.add(f"{at}.{name}", f"`{name}` is no declared field{nearest(name, [*known, *BESIDE])}")
    if not isinstance(stated, Mapping) or not isinstance(listed, Mapping):
        mistakes.add(at, "`features` and `lists` are tables: { features = { url_count = 3 }, lists = { friends = ['u1'] } }")
        return
    for name, value in stated.items():
        if name not in features:
            mistakes.add(f"{at}.features.{name}", f"`{name}` is no feature{nearest(name, features)}")
        elif not isinstance(value, (int, float)):
            mistakes.add(f"{at}.features.{name}", f"{value!r} is no number")
    for name, entries in listed.items():
        if name not in spec.lists:
            mistakes.add(f"{at}.lists.{name}", f"`{name}` is no list{nearest(name, spec.lists)}")
        elif not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries):
            mistakes.add(f"{at}.lists.{name}", 'must be a list of entries, like ["192.0.2.66"]')


def segment_of(events: Sequence[Mapping[str, Any]], topic: str = "examples", key: str | None = None, time_ms: int = 0) -> Segment:
    """Gives events as the records of one partition, all received at `time_ms`, keyed by their field `key`."""
    n = len(events)
    values = [msgspec.json.encode(event) for event in events]
    keys = [None if key is None or event.get(key) is None else str(event[key]).encode() for event in events]
    return Segment(topic, 0, 0, np.arange(n, dtype=np.int64), np.full(n, time_ms, np.int64), keys, values, [()] * n)
