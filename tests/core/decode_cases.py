"""What decode tests share: the messages pipeline, records as segments, and a plan as plain rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamapp.config import load_pipeline
from streamapp.core.decode import Decoder
from streamapp.core.events import Headers, Plan, Segment

SPEC = load_pipeline("messages")
DECODER = Decoder(SPEC)
RECORD_TIME = 1_700_000_000_123
GOOD = b'{"event_id":"good","user_id":"u1","text":"hello"}'


def segment(
    values: Sequence[bytes | None],
    headers: Sequence[Headers] | None = None,
    keys: Sequence[bytes | None] | None = None,
    *,
    partition: int = 0,
    first_offset: int = 0,
) -> Segment:
    """Gives records of one partition with rising offsets."""
    n = len(values)
    offsets = np.arange(first_offset, first_offset + n, dtype=np.int64)
    return Segment("t", partition, 1, offsets, np.full(n, RECORD_TIME, np.int64), keys or [None] * n, values, headers or [()] * n)


def rows(plan: Plan, first: int = 0) -> list[tuple[Any, ...]]:
    """Gives what became of every record in (partition, offset) order: an event with all its columns, or a reject."""
    found: dict[tuple[int, int], tuple[Any, ...]] = {}
    for place, event in enumerate(plan.events):
        at = plan.segments[plan.segment[place]]
        values = tuple(bytes(value) if name == "metadata" else value for name in SPEC.event.fields for value in [plan.column(name)[place]])
        same = tuple(bytes(getattr(event, name)) if name == "metadata" else getattr(event, name) for name in SPEC.event.fields)
        assert same == values, "the event and its columns say the same"
        found[at.partition, int(at.offsets[plan.index[place]])] = (
            "event", plan.event_id[place], plan.tenant[place], int(plan.event_time[place]), int(plan.flags[place]), values,
        )  # fmt: skip
    for reject in plan.rejects:
        at = plan.segments[reject.segment]
        found[at.partition, int(at.offsets[reject.index])] = ("reject", reject.code.value, reject.path)
    assert len(found) == sum(map(len, plan.segments)), "every record has exactly one fate"
    return [found[key] for key in sorted(found)]


def decide(value: bytes | None, headers: Headers = ()) -> tuple[Any, ...]:
    """Gives the fate of one record alone."""
    return rows(DECODER.plan([segment([value], [headers])]))[0]
