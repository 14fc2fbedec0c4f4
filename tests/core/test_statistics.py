"""Statistics against public vectors, brute force, and values from published tables."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core import statistics as s


def share_pairs() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two count vectors of one length, each with at least one event."""
    pair = st.integers(2, 12).flatmap(lambda b: st.tuples(*[st.lists(st.integers(0, 500), min_size=b, max_size=b)] * 2))
    return pair.filter(lambda p: sum(p[0]) > 0 and sum(p[1]) > 0).map(lambda p: (s.shares(np.array(p[0])), s.shares(np.array(p[1]))))


def test_psi_of_public_share_tables(shared_data: Path) -> None:
    for row in json.loads((shared_data / "refvectors" / "psi.json").read_text())["shares"]:
        value = s.psi(np.array(row["expected"], float), np.array(row["actual"], float), row["zero_replacement"])
        # One author published five decimals only.
        assert value == row["psi"] or round(value, 5) == row["psi"], row["name"]


def test_psi_of_public_samples_to_the_last_digit(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "refvectors" / "psi.json").read_text())["samples"]
    for sample, published in zip(vectors["data"], vectors["psi"], strict=True):
        reference, current = np.array(sample[:500]), np.array(sample[500:])
        edges = s.quantile_edges(reference)
        assert s.psi(s.shares(s.bin_counts(reference, edges)), s.shares(s.bin_counts(current, edges))) == published


def test_ks_of_public_vectors(shared_data: Path) -> None:
    rows = json.loads((shared_data / "refvectors" / "ks.json").read_text())
    for row in [row for row in rows if "a" in row]:
        a, b = np.array(row["a"]), np.array(row["b"])
        distance, steps = s.ks_samples(a, b)
        assert distance == row["D"], row["name"]
        assert s.ks_exact_p(steps, len(a), len(b)) == pytest.approx(row["p_exact"], rel=1e-14), row["name"]
        assert s.ks_p(distance, len(a), len(b)) == pytest.approx(row["p_asymp"], rel=1e-12), row["name"]
    published = next(row["published"] for row in rows if "published" in row)
    assert round(1 - s.ks_exact_p(1100, 100, 100), 5) == published


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_exact_ks_counts_every_order(first: list[int], second: list[int]) -> None:
    a, b = np.array(first, float), np.array(second, float)
    _, steps = s.ks_samples(a, b)
    n, m = len(a), len(b)
    # Brute force: every way to interleave n and m distinct values, each with its own distance.
    orders = [set(where) for where in itertools.combinations(range(n + m), n)]
    reached = 0
    for order in orders:
        i = j = largest = 0
        for place in range(n + m):
            i, j = (i + 1, j) if place in order else (i, j + 1)
            largest = max(largest, abs(i * m - j * n))
        reached += largest >= steps
    assert s.ks_exact_p(steps, n, m) == reached / len(orders)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), max_size=60), st.lists(st.floats(-3, 3), max_size=5, unique=True))
def test_bins_are_right_closed(values: list[float], inner: list[float]) -> None:
    edges = np.array(sorted(inner))
    bounds = [-math.inf, *edges.tolist(), math.inf]
    brute = [sum(low < v <= high for v in values) for low, high in itertools.pairwise(bounds)]
    assert s.bin_counts(np.array([*values, math.nan]), edges).tolist() == brute


@settings(max_examples=100, deadline=None)
@given(share_pairs())
def test_divergences_are_distances(pair: tuple[np.ndarray, np.ndarray]) -> None:
    e, a = pair
    assert s.psi(e, a) == pytest.approx(s.psi(a, e)) and s.psi(e, a) >= 0 and s.psi(e, e) == 0
    # PSI is KL there and back.
    assert s.psi(e, a) == pytest.approx(s.kl(e, a) + s.kl(a, e), abs=1e-12)
    assert s.kl(e, a) >= -len(e) * s.ZERO_SHARE
    assert s.ks_binned(e, a) == pytest.approx(max(abs(e[:i].sum() - a[:i].sum()) for i in range(1, len(e) + 1)), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40), st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_binned_ks_never_exceeds_the_unbinned(first: list[float], second: list[float]) -> None:
    a, b = np.array(first), np.array(second)
    edges = s.quantile_edges(a)
    binned = s.ks_binned(s.shares(s.bin_counts(a, edges)), s.shares(s.bin_counts(b, edges)))
    assert binned <= s.ks_samples(a, b)[0] + 1e-12


@pytest.mark.parametrize(
    ("probability", "degrees", "published"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4.
    [
        (0.9, 1, 2.706),
        (0.95, 1, 3.841),
        (0.999, 1, 10.828),
        (0.95, 9, 16.919),
        (0.999, 9, 27.877),
        (0.99, 20, 37.566),
        (0.999, 100, 149.449),
    ],
)
def test_chi2_quantiles_of_the_published_table(probability: float, degrees: int, published: float) -> None:
    assert round(s.chi2_quantile(probability, degrees), 3) == published
    assert s.chi2_cdf(s.chi2_quantile(probability, degrees), degrees) == pytest.approx(probability, rel=1e-9)


@pytest.mark.parametrize(("n", "distance", "published"), [(5, 0.56328, 0.05), (10, 0.40925, 0.05), (20, 0.35240, 0.01)])
def test_kolmogorov_critical_values_of_the_published_table(n: int, distance: float, published: float) -> None:
    # L. H. Miller, "Table of percentage points of Kolmogorov statistics", 1956.
    assert s.kolmogorov_sf(distance, n) == pytest.approx(published, abs=2e-5)


@pytest.mark.parametrize("n", [200, 5000, 19_999, 100_000])
def test_what_never_happens_by_chance_has_a_bound_for_its_probability(n: int) -> None:
    distance = math.sqrt(30.0 / n)
    before, beyond = s.kolmogorov_sf(distance * (1 - 1e-9), n), s.kolmogorov_sf(distance * (1 + 1e-9), n)
    assert 0.0 < before < 3e-26 and 0.0 < beyond < 3e-26 and s.kolmogorov_sf(2 * distance, n) < beyond


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.floats(0.01, 0.99), st.floats(0.001, 0.1))
def test_kolmogorov_falls_with_the_distance(n: int, distance: float, step: float) -> None:
    near, far = s.kolmogorov_sf(distance, n), s.kolmogorov_sf(distance + step, n)
    assert 0.0 <= far <= near + 1e-9 <= 1.0 + 1e-9


def test_kolmogorov_methods_meet() -> None:
    for distance in (0.02, 0.03, 0.045):
        assert s.kolmogorov_sf(distance, 1000) == pytest.approx(s.kolmogorov_sf(distance * math.sqrt(1000 / 1001), 1001), abs=3e-5)


def test_mean_shift_in_standard_errors() -> None:
    # (1.5 - 1) / sqrt(4/100 + 9/900)
    assert s.mean_shift_z(1.5, 2.0, 100, 1.0, 3.0, 900) == pytest.approx(0.5 / math.sqrt(0.05))
    assert s.mean_shift_z(1.0, 0.0, 10, 1.0, 0.0, 10) == 0
    assert s.mean_shift_z(2.0, 0.0, 10, 3.0, 0.0, 10) == -math.inf


def test_wilson_interval_of_a_published_example() -> None:
    # R. G. Newcombe 1998, table I, method 3: 81/263 and 15/148; and the ends of the scale.
    assert tuple(round(x, 4) for x in s.wilson_interval(81, 263)) == (0.2553, 0.3662)
    assert tuple(round(x, 4) for x in s.wilson_interval(15, 148)) == (0.0624, 0.1605)
    assert s.wilson_interval(0, 20)[0] == 0 and round(s.wilson_interval(0, 20)[1], 4) == 0.1611
    assert s.wilson_interval(29, 29)[1] == 1 and s.wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("n", [20, 100, 500, 5000])
def test_without_drift_the_limits_hold(n: int) -> None:
    """400 windows from the reference's own distribution: at alpha = 0.01 about 4 may pass each limit."""
    random, m, alpha = np.random.default_rng(7), 4000, 0.01
    reference = random.normal(size=m)
    edges = s.quantile_edges(reference)
    expected = s.shares(s.bin_counts(reference, edges))
    windows = [s.shares(s.bin_counts(random.normal(size=n), edges)) for _ in range(400)]
    assert sum(s.psi(expected, w) > s.psi_limit(0.0, expected, n, m, alpha) for w in windows) <= 12
    assert sum(s.kl(expected, w) > s.kl_limit(0.0, expected, n, m, alpha) for w in windows) <= 12
    assert sum(s.ks_binned(expected, w) > s.ks_limit(0.0, n, m, alpha) for w in windows) <= 12


def test_a_fixed_limit_would_alarm_without_drift() -> None:
    """Why limits depend on n: of windows of 30, most pass the customary 0.2 by chance alone."""
    random = np.random.default_rng(7)
    expected = np.full(10, 0.1)
    edges = np.arange(1, 10) / 10
    values = [s.psi(expected, s.shares(s.bin_counts(random.uniform(size=30), edges))) for _ in range(200)]
    assert sum(value > 0.2 for value in values) > 150
    assert sum(value > s.psi_limit(0.2, expected, 30, 4000, 0.001) for value in values) == 0


def test_limits_fall_to_the_threshold_as_n_grows() -> None:
    even = np.full(10, 0.1)
    limits = [s.psi_limit(0.2, even, n, 4000, 0.001) for n in (0, 20, 100, 200, 100_000)]
    assert limits[0] == math.inf and limits == sorted(limits, reverse=True) and limits[-1] == 0.2
    # Where every bin expects many events it is the plain chi-square.
    assert s.psi_limit(0.0, even, 10_000, 4000, 0.001) == pytest.approx((1 / 10_000 + 1 / 4000) * 27.877, rel=1e-4)
    assert s.kl_limit(0.0, even, 10_000, 4000, 0.001) == pytest.approx(s.psi_limit(0.0, even, 10_000, 4000, 0.001) / 2)
    assert s.z_limit(0.05) == pytest.approx(1.959963984540054)


def test_the_sparse_limit_has_the_moments_of_its_bins() -> None:
    """Two bins of rate 2: the limit's chi-square has mean and variance of the bin terms, summed here by hand."""
    share, n, m = np.array([0.5, 0.5]), 4, 10**9
    weight = [math.exp(-2) * 2**c / math.factorial(c) for c in range(60)]
    term = [((c / 4 or s.ZERO_SHARE) - 0.5) * math.log((c / 4 or s.ZERO_SHARE) / 0.5) for c in range(60)]
    mean = 2 * sum(w * t for w, t in zip(weight, term, strict=True))
    variance = 2 * (sum(w * t * t for w, t in zip(weight, term, strict=True)) - (mean / 2) ** 2)
    scale = variance / (2 * mean)
    assert s.psi_limit(0.0, share, n, m, 0.05) == pytest.approx(scale * s.chi2_quantile(0.95, mean / scale), rel=1e-6)
