"""A report says what moved, not what chance moved, and names how it was made."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streamapp.core import statistics as stat
from streamapp.core.card import Reference
from streamapp.core.drift import NOT_VISIBLE, DriftReport, Limits, drift_report, to_json
from streamapp.core.observe import WindowedObservations
from streamapp.core.partials import Layout, Observations

RANDOM = np.random.default_rng(3)
SAMPLE = {"steady": RANDOM.normal(2.0, 3.0, 4000), "other": RANDOM.gamma(2.0, size=4000), "score": RANDOM.beta(1, 6, 4000)}


def yardstick(values: np.ndarray, missing: int = 0) -> Reference:
    edges = stat.quantile_edges(values)
    counts = stat.bin_counts(values, edges)
    return Reference(tuple(edges.tolist()), tuple(counts.tolist()), len(values), float(values.mean()), float(values.std()), missing)


LAYOUT = Layout.of(("steady", "other", "unmeasured"), ("rule", "fast"), {name: yardstick(values) for name, values in SAMPLE.items()})


def window(steady: np.ndarray, other: np.ndarray, score: np.ndarray, missing: int = 0, layout: Layout = LAYOUT) -> Observations:
    n = len(steady)
    windows = WindowedObservations(layout, 1000, part_n=10**9)
    windows.add(
        partition=np.zeros(n, np.int64), offset=np.arange(n), event_time=np.zeros(n, np.int64),
        values=np.column_stack([steady, other, np.ones(n)]), score=score, probability=score, route=np.zeros(n, np.int8),
        decided_by=np.ones(n, np.int8), flags=np.zeros(n, np.int32), missing=np.array([missing, 0, 0]), clipped=np.zeros(3, np.int64),
    )  # fmt: skip
    (seen,) = windows.flush()
    return seen


def report(seen: Observations, limits: Limits | None = None) -> DriftReport:
    return drift_report(seen, limits or Limits(), pipeline="messages", release="r1", kind="time")


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(2.0, 3.0, n), random.gamma(2.0, size=n), random.beta(1, 6, n)


def test_figures_are_those_of_the_statistics_on_the_raw_values() -> None:
    steady, other, score = draw(700, 1)
    seen = report(window(steady, other, score)).features["steady"]
    reference = LAYOUT.references["steady"]
    expected = stat.shares(np.array(reference.counts))
    actual = stat.shares(stat.bin_counts(steady, np.array(reference.edges)))
    assert seen.psi == stat.psi(expected, actual) and seen.kl == stat.kl(expected, actual) and seen.ks == stat.ks_binned(expected, actual)
    assert seen.psi_limit == stat.psi_limit(0.2, expected, 700, 4000, 0.001 / 3)
    assert seen.mean == pytest.approx(steady.mean(), abs=1e-5)
    assert seen.mean_shift_z == pytest.approx(
        stat.mean_shift_z(steady.mean(), steady.std(), 700, reference.mean, reference.std, 4000), abs=1e-3
    )


@pytest.mark.parametrize("n", [30, 200, 2000, 20_000])
def test_the_reference_itself_raises_no_alarm(n: int) -> None:
    # A fixed PSI limit of 0.2 would alarm on most windows of 30; small windows must know how little they know.
    assert sum(report(window(*draw(n, seed))).alarm for seed in range(40)) == 0


def test_a_shift_is_named_where_it_happened() -> None:
    steady, other, score = draw(2000, 5)
    seen = report(window(steady + 3.0, other, score))
    assert seen.alarm and set(seen.features["steady"].drifted) == {"psi", "kl", "ks", "mean"}
    assert seen.features["other"].drifted == () and seen.score.drifted == ()
    assert seen.features["steady"].mean_shift_z > 0 and seen.features["steady"].ks_p < 1e-9


def test_a_shift_of_no_size_is_no_alarm_however_many_events_show_it() -> None:
    steady, other, score = draw(300_000, 6)
    seen = report(window(steady + 0.3, other, score)).features["steady"]
    # Significant (z beyond 3) and irrelevant (a tenth of a standard deviation).
    assert seen.mean_shift_z > 3 and seen.drifted == ()


def test_falling_scores_alarm() -> None:
    steady, other, score = draw(2000, 7)
    seen = report(window(steady, other, score * 0.3))
    assert seen.score.drifted and seen.alarm and not any(feature.drifted for feature in seen.features.values())
    assert sum(seen.confidence.buckets) == 2000 and 0.9 < seen.confidence.mean < 1.0


def test_missing_and_outlying_values_are_quality() -> None:
    steady, other, score = draw(1000, 8)
    steady[:30] = 40.0
    seen = report(window(steady, other, score, missing=90))
    assert seen.features["steady"].quality == ("missing", "outlying") and seen.features["steady"].missing_share == 0.09
    assert seen.features["other"].quality in ((), ("outlying",))
    # What the reference itself misses is no news.
    usual = Layout.of(LAYOUT.features, LAYOUT.deciders, {"steady": yardstick(SAMPLE["steady"], missing=1000)})
    assert "missing" not in report(window(steady, other, score, missing=190, layout=usual)).features["steady"].quality
    assert "missing" in report(window(steady, other, score, missing=290, layout=usual)).features["steady"].quality


def test_a_feature_without_reference_is_described_only() -> None:
    seen = report(window(*draw(100, 9))).features["unmeasured"]
    assert (seen.n, seen.mean, seen.psi, seen.drifted) == (100, 1.0, None, ())


def test_nothing_seen_is_no_drift() -> None:
    nothing = np.full(5, np.nan)
    seen = report(window(nothing, nothing, nothing))
    assert not seen.alarm and seen.features["steady"].psi is None and seen.features["steady"].missing_share == 1.0
    assert seen.confidence.mean is None


def test_the_record_names_its_recipe_and_what_it_cannot_see() -> None:
    seen = report(window(*draw(500, 10)))
    record = msgspec.json.decode(msgspec.json.encode(seen))
    assert record["type"] == "drift" and record["not_visible"] == NOT_VISIBLE
    assert record["recipe"]["zero_share"] == 1e-4 and record["recipe"]["thresholds"]["psi_alarm"] == 0.2
    assert msgspec.json.decode(msgspec.json.encode(seen), type=DriftReport) == seen
    # The figure can be recomputed from the record and the card.
    feature = record["features"]["other"]
    expected = stat.shares(np.array(LAYOUT.references["other"].counts))
    assert stat.psi(expected, stat.shares(np.array(feature["bins"]))) == feature["psi"]


def test_a_figure_that_is_not_finite_is_null() -> None:
    constant = Layout.of(("steady",), ("rule", "fast"), {"steady": yardstick(np.full(100, 3.0))})
    n = 50
    windows = WindowedObservations(constant, 1000, part_n=10**9)
    windows.add(
        partition=np.zeros(n, np.int64), offset=np.arange(n), event_time=np.zeros(n, np.int64), values=np.full((n, 1), 4.0),
        score=np.full(n, np.nan), probability=np.full(n, np.nan), route=np.zeros(n, np.int8), decided_by=np.zeros(n, np.int8),
        flags=np.zeros(n, np.int32), missing=np.zeros(1, np.int64), clipped=np.zeros(1, np.int64),
    )  # fmt: skip
    seen = report(windows.flush()[0])
    # Both samples are constant: the shift is infinitely many standard errors.
    assert seen.features["steady"].mean_shift_z is None and "mean" in seen.features["steady"].drifted
    assert msgspec.json.decode(to_json(seen), type=DriftReport) == seen
