from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.control.thresholds import approve_share, approve_threshold, best_f1_cut, block_threshold, wilson

scored = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=80)


def columns(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([step / 20 for step, _ in rows]), np.array([label for _, label in rows], np.bool_)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (95, 100, 0.8882, 0.9785)],
)
def test_wilson_interval_as_in_the_tables(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_block_takes_the_lowest_cut_that_keeps_the_promise() -> None:
    probability = np.array([0.1, 0.4, 0.6, 0.7, 0.8, 0.9])
    positive = np.array([False, True, False, True, True, True])
    cut = block_threshold(probability, positive, 0.95, positives_min=2)
    assert cut.value == pytest.approx(0.65)  # half-way between the last false alarm and the next row
    assert (cut.observed, cut.positives) == (1.0, 4)
    assert block_threshold(probability, positive, 0.75, positives_min=2).value == pytest.approx(0.25)


def test_a_promise_without_enough_positives_behind_it_is_not_reachable() -> None:
    probability, positive = np.array([0.1, 0.9, 0.9]), np.array([False, True, True])
    assert block_threshold(probability, positive, 0.95, positives_min=3).value is None
    assert approve_threshold(probability, positive, 0.05, positives_min=3).value is None
    mixed = np.array([0.9] * 20), np.array([True, False] * 10)
    assert block_threshold(*mixed, 0.95, positives_min=2).value is None


@settings(max_examples=150, deadline=None)
@given(scored, st.sampled_from([0.5, 0.8, 0.95, 1.0]), st.integers(1, 5))
def test_block_equals_trying_every_cut(rows: list[tuple[int, bool]], precision: float, positives_min: int) -> None:
    probability, positive = columns(rows)
    best_recall = None
    for cut in sorted(set(probability)):
        above = positive[probability >= cut]
        if above.sum() >= positives_min and above.sum() >= precision * len(above):
            best_recall = int(above.sum())
            break
    found = block_threshold(probability, positive, precision, positives_min)
    if found.value is None:
        assert best_recall is None
    else:
        blocked = positive[probability >= found.value]
        assert blocked.sum() == best_recall
        assert blocked.mean() == pytest.approx(found.observed)
        assert found.low is not None and found.high is not None and found.low <= blocked.mean() <= found.high


@settings(max_examples=150, deadline=None)
@given(scored, st.sampled_from([0.3, 0.7, 1.0]), st.sampled_from([0.0, 0.5, 0.9]), st.integers(1, 3))
def test_a_recall_is_kept_by_the_highest_cut_that_is_precise_as_well(
    rows: list[tuple[int, bool]], recall: float, precision: float, positives_min: int
) -> None:
    probability, positive = columns(rows)
    fewest = None
    for cut in sorted(set(probability), reverse=True):
        above = positive[probability >= cut]
        if above.sum() >= max(positives_min, recall * positive.sum() - 1e-9) and above.sum() >= precision * len(above):
            fewest = len(above)
            break
    found = block_threshold(probability, positive, precision, positives_min, recall=recall)
    assert found.promise.startswith(f"recall >= {recall:g}")
    if found.value is None:
        assert fewest is None
        return
    blocked = probability >= found.value
    assert blocked.sum() == fewest
    assert found.observed == pytest.approx(positive[blocked].sum() / positive.sum()) and found.observed >= recall - 1e-9
    assert found.low is not None and found.high is not None and found.low <= found.observed + 1e-9 and found.observed <= found.high + 1e-9
    lowest = block_threshold(probability, positive, precision, positives_min)
    assert lowest.value is not None and lowest.value <= found.value, "the most recall under that precision is below it"


def test_a_recall_out_of_reach_of_the_precision_sends_the_band_to_people() -> None:
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    positive = np.array([True, True, False, False, True])
    assert block_threshold(probability, positive, 0.95, 1, recall=0.6).value == pytest.approx(0.75)
    assert block_threshold(probability, positive, 0.95, 1, recall=0.7).value is None, "the third is behind two false alarms"
    assert block_threshold(probability, positive, 0.6, 1, recall=0.7).value == pytest.approx(0.5)


@settings(max_examples=150, deadline=None)
@given(scored, st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0.33, 1.0]))
def test_approve_misses_no_more_than_it_declares_and_stays_below_its_ceiling(
    rows: list[tuple[int, bool]], miss_rate: float, ceiling: float
) -> None:
    probability, positive = columns(rows)
    found = approve_threshold(probability, positive, miss_rate, 1, max(ceiling, float(probability.min())))
    if found.value is None:
        assert not positive.any()
        return
    missed = (positive & (probability < found.value)).sum() / positive.sum()
    assert missed == pytest.approx(found.observed)
    assert missed <= miss_rate
    steps = sorted(set(probability.tolist()))
    cuts = [steps[0], *((a + b) / 2 for a, b in pairwise(steps))]
    limit = max(ceiling, steps[0])
    assert found.value == max(cut for cut in cuts if cut <= limit and (positive & (probability < cut)).sum() <= miss_rate * positive.sum())


def test_best_f1_is_a_half_when_there_is_nothing_to_find() -> None:
    assert best_f1_cut(np.array([0.2, 0.4]), np.array([False, False])) == 0.5
    assert best_f1_cut(np.array([0.1, 0.2, 0.8]), np.array([False, False, True])) == pytest.approx(0.5)


def test_a_precision_that_may_be_luck_is_not_promised() -> None:
    """Ten hits in a row are a precision of 1, but what stands behind them is 0.72 at worst."""
    probability, positive = np.concatenate((np.full(30, 0.1), np.full(10, 0.9))), np.array([False] * 30 + [True] * 10)
    assert block_threshold(probability, positive, 0.95, 5).value == pytest.approx(0.5)
    assert block_threshold(probability, positive, 0.95, 5, low_min=0.72).value == pytest.approx(0.5)
    assert block_threshold(probability, positive, 0.95, 5, low_min=0.73).value is None


@settings(max_examples=150, deadline=None)
@given(scored, st.sampled_from([0.1, 0.4, 0.9]))
def test_a_share_of_all_is_approved_as_nearly_as_ties_allow(rows: list[tuple[int, bool]], share: float) -> None:
    probability, positive = columns(rows)
    found = approve_share(probability, positive, share, 1)
    if found.value is None:
        assert not positive.any()
        return
    below = probability < found.value
    reachable = [float((probability < step).mean()) for step in set(probability.tolist())]
    assert abs(below.mean() - share) == pytest.approx(min(abs(one - share) for one in reachable))
    assert found.observed == pytest.approx((below & positive).sum() / positive.sum())
    assert found.low is not None and found.high is not None and found.low <= found.observed + 1e-9 and found.observed <= found.high + 1e-9
