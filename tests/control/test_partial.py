"""An Outcome's columns land in the partials of their own partitions and offsets, rejects between them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from streamapp.control.partial import observe
from streamapp.core.conditions import Columns
from streamapp.core.errors import Reject, RejectCode
from streamapp.core.events import Plan, Segment
from streamapp.core.features import FeatureSet
from streamapp.core.observe import WindowedObservations
from streamapp.core.outcome import Outcome, merged
from streamapp.core.partials import REJECT_NAMES, Layout
from streamapp.core.rules import RuleHits

LAYOUT = Layout.of(("a",), ("rule", "fast", "default"), {})


def segment(partition: int, offsets: list[int]) -> Segment:
    n = len(offsets)
    return Segment("t", partition, 1, np.array(offsets), np.array(offsets) * 10, [None] * n, [b""] * n, [()] * n)


def outcome(segments: tuple[Segment, ...], rejected: set[tuple[int, int]]) -> Outcome:
    """Every record is an event of its offset's value, but the rejected ones (segment, index)."""
    good = [(s, i) for s, seg in enumerate(segments) for i in range(len(seg)) if (s, i) not in rejected]
    n = len(good)
    offsets = np.array([segments[s].offsets[i] for s, i in good], np.int64)
    plan = Plan(
        segments, [None] * n, np.array([s for s, _ in good], np.int32), np.array([i for _, i in good], np.int32), [""] * n, [""] * n,
        offsets * 10, offsets * 10, np.zeros(n, np.int32),
        [Reject(s, i, RejectCode.INVALID_JSON, "$", "") for s, i in sorted(rejected, reverse=True)],
    )  # fmt: skip
    known = {
        "plan": plan, "features": FeatureSet(("a",), offsets[:, None].astype(np.float64), np.array([0]), np.array([0])),
        "score": np.full(n, 0.7), "probability": np.full(n, 0.7), "threshold": np.zeros(n), "route": np.zeros(n, np.int8),
        "hits": RuleHits(np.zeros((n, 1), np.bool_), np.zeros((n, 0), np.bool_), Columns({}.__getitem__, n), ("never",), ()),
        "decided_by": np.ones(n, np.int8), "reasons": [()] * n, "degraded": (), "decided_at": 0, "stage_ms": {},
    }  # fmt: skip
    return Outcome(**{field.name: known.get(field.name) for field in fields(Outcome)})  # type: ignore[arg-type]


def test_rows_and_rejects_count_in_their_own_partition() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=3)
    segments = (segment(4, [7, 9, 10, 12]), segment(1, [3, 4]), segment(2, [5]))
    closed = observe(windows, outcome(segments, {(0, 1), (1, 0), (2, 0)}), now_ms=0) + windows.flush()
    code = REJECT_NAMES.index("invalid_json")
    found = sorted((c.partition, c.n, c.first_offset, c.last_offset, int(c.of("rejects")[code])) for c in closed if c.n)
    assert found == [(1, 1, 4, 4, 1), (4, 3, 7, 12, 1)]
    assert [(c.partition, int(c.of("rejects")[code])) for c in closed if not c.n] == [(2, 1)]
    assert next(c for c in closed if c.partition == 4).moments("a")[0] == 29 / 3


def test_a_batch_of_rejects_alone_is_counted() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=3)
    (seen,) = observe(windows, outcome((segment(0, [1, 2]),), {(0, 0), (0, 1)}), now_ms=0) + windows.flush()
    assert seen.n == 0 and int(seen.of("rejects").sum()) == 2


def test_several_micro_batches_at_once_are_observed_like_one_after_the_other() -> None:
    batches = [
        outcome((segment(4, [7, 9, 10, 12]), segment(1, [3, 4])), {(0, 1), (1, 0)}),
        outcome((segment(1, [5]),), {(0, 0)}),
        outcome((segment(2, [8, 9]), segment(4, [13, 14])), {(1, 1)}),
    ]
    apart, together = (WindowedObservations(LAYOUT, window_ms=1000, part_n=3) for _ in range(2))
    closed = [one for batch in batches for one in observe(apart, batch, 0)] + apart.flush()
    at_once = observe(together, merged(batches), 0) + together.flush()
    assert [(one.partition, one.n, one.totals.tolist()) for one in at_once] == [
        (one.partition, one.n, one.totals.tolist()) for one in closed
    ]
