"""Metrics against a count by hand through the exposition format, and independence of batch cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from streamapp.adapters.metrics import DEFINITIONS, Metrics
from streamapp.core.cascade import Degraded, TierUse
from streamapp.core.conditions import Columns
from streamapp.core.errors import Reject, RejectCode
from streamapp.core.events import Plan
from streamapp.core.features import FeatureSet
from streamapp.core.outcome import Outcome, merged
from streamapp.core.rules import RuleHits

DECIDERS = ("rule", "fast", "default")


def columns_of(routes: Sequence[int], *least: int) -> npt.NDArray[np.bool_]:
    """Rules that hit where a route is at least so strict."""
    return np.array([[route >= one for one in least] for route in routes], np.bool_).reshape(len(routes), len(least))


def outcome(
    rows: list[tuple[int, int, float, int]], rejects: int = 0, degraded: tuple[Degraded, ...] = (), uses: tuple[TierUse, ...] = ()
) -> Outcome:
    """An Outcome of rows (route, decided_by, probability, received_at); what metrics do not read is empty."""
    n = len(rows)
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    plan = Plan(
        (), [None] * n, np.zeros(n, np.int32), np.arange(n, dtype=np.int32), [""] * n, [""] * n, np.zeros(n, np.int64),
        np.array(columns[3], np.int64), np.zeros(n, np.int32), [Reject(0, i, RejectCode.BLANK_TEXT, "$.text", "") for i in range(rejects)],
    )  # fmt: skip
    known = {
        "plan": plan, "features": FeatureSet(("a", "b"), np.zeros((n, 2)), np.array([n, 0]), np.array([0, 2 * n])),
        "score": np.array(columns[2], np.float64), "probability": np.array(columns[2], np.float64), "threshold": np.zeros(n),
        "route": np.array(columns[0], np.int8), "decided_by": np.array(columns[1], np.int8), "reasons": [()] * n, "degraded": degraded,
        "hits": RuleHits(
            columns_of(columns[0], 1, 2), columns_of(columns[0], 2), Columns({}.__getitem__, n), ("mild", "strict"), ("tried",),
        ),
        "decided_at": 0, "stage_ms": {"score": 1.5, "rules": 0.25}, "uses": uses,
    }  # fmt: skip
    return Outcome(**{field.name: known.get(field.name) for field in fields(Outcome)})  # type: ignore[arg-type]


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape would read, by name and labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def test_tiers_of_a_cascade_tell_how_many_rows_they_saw_decided_and_left() -> None:
    metrics = Metrics("messages", "1")
    row = [(0, 1, 0.01, 9_995)]
    metrics.decided(outcome(row, uses=(TierUse("fast", 10, 10, 9, 0.5), TierUse("heavy", 1, 0, 0, 100.0))), DECIDERS, "r7", 10_000)
    metrics.decided(outcome(row, uses=(TierUse("fast", 5, 5, 3, 0.5), TierUse("heavy", 2, 2, 1, 3.0))), DECIDERS, "r7", 10_000)
    seen = samples(metrics)
    rows = {tuple(dict(labels).values()): value for (name, labels), value in seen.items() if name == "streamapp_tier_rows_total"}
    assert rows == {
        ("decided", "fast"): 12, ("passed_on", "fast"): 3, ("unanswered", "fast"): 0,
        ("decided", "heavy"): 1, ("passed_on", "heavy"): 1, ("unanswered", "heavy"): 1,
    }  # fmt: skip


def test_a_batch_is_counted_as_by_hand() -> None:
    metrics = Metrics("messages", "1")
    rows = [(0, 1, 0.01, 9_995), (0, 1, 0.02, 9_990), (2, 0, float("nan"), 9_000), (1, 2, 0.995, 10_050)]
    metrics.decided(outcome(rows, rejects=3, degraded=(Degraded("fast", "timeout"),)), DECIDERS, "r7", acked_ms=10_000)
    seen = samples(metrics)
    assert seen["streamapp_events_total", ()] == 7
    assert seen["streamapp_verdicts_total", (("decided_by", "fast"), ("release", "r7"), ("route", "approve"))] == 2
    assert seen["streamapp_verdicts_total", (("decided_by", "rule"), ("release", "r7"), ("route", "block"))] == 1
    assert seen["streamapp_verdicts_total", (("decided_by", "default"), ("release", "r7"), ("route", "review"))] == 1
    assert seen["streamapp_dead_letters_total", (("reason", "blank_text"),)] == 3
    hits = {(dict(labels)["rule"], dict(labels)["mode"]): value for (name, labels), value in seen.items() if "rule_hits" in name}
    assert hits == {("mild", "live"): 2, ("strict", "live"): 1, ("tried", "shadow"): 1}
    assert seen["streamapp_degraded_total", (("cause", "timeout"), ("component", "fast"))] == 1
    # 5 ms, 10 ms, 1 s, and a clock that ran ahead: 0. A value on a bound is below it.
    latency = {dict(labels)["le"]: value for (name, labels), value in seen.items() if name == "streamapp_decision_latency_seconds_bucket"}
    assert [latency[le] for le in ("0.001", "0.005", "0.01", "0.75", "1.0", "+Inf")] == [1, 2, 3, 3, 4, 4]
    assert seen["streamapp_decision_latency_seconds_sum", ()] == pytest.approx(1.015)
    assert seen["streamapp_probability_count", (("release", "r7"),)] == 3
    assert seen["streamapp_batch_rows_bucket", (("le", "16.0"),)] == 1 and seen["streamapp_batch_rows_bucket", (("le", "4.0"),)] == 0
    assert seen["streamapp_stage_seconds_sum", (("stage", "score"),)] == pytest.approx(0.0015)
    assert seen["streamapp_feature_missing_total", (("feature", "a"),)] == 4
    assert seen["streamapp_feature_clipped_total", (("feature", "b"),)] == 8


row = st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1) | st.just(float("nan")), st.integers(0, 10_000))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(row, max_size=8), max_size=6))
def test_batch_cuts_change_no_count(batches: list[list[tuple[int, int, float, int]]]) -> None:
    cut, whole = Metrics("messages", "1"), Metrics("messages", "1")
    for batch in batches:
        cut.decided(outcome(batch), DECIDERS, "r1", acked_ms=10_000)
    whole.decided(outcome([row for batch in batches for row in batch]), DECIDERS, "r1", acked_ms=10_000)
    per_batch = ("streamapp_batch_rows", "streamapp_stage_seconds")
    left, right = ({key: value for key, value in samples(m).items() if value and not key[0].startswith(per_batch)} for m in (cut, whole))
    assert left == pytest.approx(right)
    told = [outcome(batch, rejects=place % 2) for place, batch in enumerate(batches)]
    one, several = Metrics("messages", "1"), Metrics("messages", "1")
    for place, batch in enumerate(told):
        one.decided(batch, DECIDERS, "r1", acked_ms=10_000 + place)
        several.batch(batch)
    if told:
        acked_ms = np.repeat([10_000 + place for place in range(len(told))], [len(batch.plan) for batch in told])
        several.rows(merged(told), DECIDERS, "r1", acked_ms)
    assert samples(several) == pytest.approx(samples(one))


def test_lag_of_partitions_that_moved_away_disappears() -> None:
    metrics = Metrics("messages", "1")
    metrics.lag({0: (5, 1.5), 1: (0, 0.0)})
    metrics.lag({1: (7, 2.0)})
    seen = {key: value for key, value in samples(metrics).items() if key[0].startswith("streamapp_lag")}
    assert seen == {("streamapp_lag_records", (("partition", "1"),)): 7, ("streamapp_lag_seconds", (("partition", "1"),)): 2.0}


def test_the_release_that_serves_is_the_only_one_named() -> None:
    metrics = Metrics("messages", "1.2.0")
    metrics.serves("r1")
    metrics.serves("r2")
    info = [labels for (name, labels) in samples(metrics) if name == "streamapp_build_info"]
    assert info == [(("pipeline", "messages"), ("release", "r2"), ("version", "1.2.0"))]


def test_a_name_that_is_not_defined_is_refused() -> None:
    metrics = Metrics("messages", "1")
    with pytest.raises(KeyError):
        metrics.count("streamapp_typo_total")
    metrics.count("streamapp_rebalances_total", by=2)
    assert samples(metrics)["streamapp_rebalances_total", ()] == 2


def test_two_workers_of_one_process_stay_apart_and_one_registry_takes_others() -> None:
    registry = CollectorRegistry()
    one, other = Metrics("messages", "1", registry), Metrics("messages", "1")
    one.count("streamapp_rebalances_total")
    assert samples(other)["streamapp_rebalances_total", ()] == 0
    assert registry.get_sample_value("streamapp_rebalances_total") == 1


def test_names_are_in_base_units_and_labels_are_no_ids() -> None:
    for name, definition in DEFINITIONS.items():
        assert name.startswith("streamapp_") and name.endswith("_total") == (definition.kind == "counter"), name
        assert not any(unit in name for unit in ("_ms", "_millis", "_minutes", "_kb", "_percent")), name
        assert not {"event_id", "user_id", "tenant", "key", "offset"} & set(definition.labels), name
        assert list(definition.bounds) == sorted(set(definition.bounds)), name


def test_latency_buckets_answer_the_promises() -> None:
    bounds = DEFINITIONS["streamapp_decision_latency_seconds"].bounds
    # The promises to be read off: p50 5 ms, p99 15 ms, half load 50 ms, alert 200 ms; from 1 ms to 1 s.
    assert {0.001, 0.005, 0.015, 0.05, 0.2, 1.0} <= set(bounds)
