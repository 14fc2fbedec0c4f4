from dataclasses import replace

import numpy as np
import pytest

from streamapp.control.calibration import METHODS, choose_calibration, fit_calibration
from streamapp.control.evaluate import ladder, pr_auc, quality, suspicious_features
from streamapp.control.fit import Recipe, Table, fit, fit_scaler, matrix, prior
from streamapp.control.reference import reference
from streamapp.control.split import random_split
from streamapp.core.calibrate import check_calibration, logistic, probability
from streamapp.core.errors import ConfigError
from streamapp.core.vectorise import Inputs, Ngrams, scale

BUCKETS, NAMES = 200, ("length", "noise")


def spammy(n: int, seed: int) -> Table:
    """Rows whose n-grams come from two overlapping halves of the buckets, by label."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    lengths = rng.integers(5, 20, n)
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows = zip(lengths, positive, strict=True)
    bucket = np.concatenate([np.sort(rng.choice(120, k, replace=False)) + (80 if label else 0) for k, label in rows])
    weight = np.repeat(1 / np.sqrt(lengths), lengths).astype(np.float32)
    ngrams = Ngrams(start, bucket.astype(np.int32), weight, np.zeros(len(bucket), np.int8))
    values = np.column_stack((lengths + 3.0 * positive, rng.normal(size=n)))
    return Table(values, ngrams, positive, np.arange(n))


def test_platt_and_temperature_find_the_map_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(0.0, 3.0, 20_000)
    platt = fit_calibration("sigmoid", margins, rng.random(20_000) < logistic(2 * margins - 1))
    assert (platt.a, platt.b) == pytest.approx((-2.0, 1.0), abs=0.12)
    warm = fit_calibration("temperature", margins, rng.random(20_000) < logistic(margins / 4))
    assert warm.t == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_every_fitted_calibration_is_a_map_the_loader_accepts(method: str) -> None:
    margins = np.array([-3.0, -1.0, -1.0, 0.0, 2.0, 2.0, 4.0])
    calibration = fit_calibration(method, margins, np.array([False, False, True, False, True, False, True]))
    check_calibration(calibration, "binary")
    believed = probability(margins[:, None], "binary", calibration)
    assert 0.0 < believed.min() < believed.max() < 1.0


def test_the_calibration_that_is_believed_is_the_one_with_the_least_loss() -> None:
    rng = np.random.default_rng(1)
    margins = rng.normal(0.0, 2.0, 4000)
    happened = rng.random(4000) < np.where(margins > 1.0, 0.9, 0.1)  # a step: no sigmoid bends like that
    calibration, losses = choose_calibration(margins[:2000], happened[:2000], margins[2000:], happened[2000:])
    assert calibration.method == "isotonic"
    assert losses["isotonic"] == min(losses.values())


def test_references_are_right_closed_and_count_every_row_once() -> None:
    found = reference(np.array([1.0, 1.0, 2.0, 3.0, np.nan]), bins=2)
    assert (found.edges, found.counts, found.n, found.missing) == ((1.0,), (2, 2), 4, 1)
    constant = reference(np.full(10, 30.0))
    assert (constant.edges, constant.counts) == ((30.0,), (10, 0))
    assert reference(np.array([np.nan])).n == 0
    many = reference(np.random.default_rng(0).normal(size=1000))
    assert len(many.edges) == 9
    assert set(many.counts) == {100}


def test_the_scaler_is_of_the_rows_it_saw_and_a_constant_stays_finite() -> None:
    scaler = fit_scaler(np.array([[1.0, 5.0], [3.0, 5.0]]), NAMES)
    assert (scaler.mean, scaler.scale, scaler.low, scaler.high) == ((2.0, 5.0), (1.0, 1.0), (1.0, 5.0), (3.0, 5.0))


def test_buckets_never_seen_stay_without_weight() -> None:
    table = spammy(50, 0)
    features = matrix(Inputs(scale(table.values, fit_scaler(table.values, NAMES)), table.ngrams), 300)
    factors = prior(features, NAMES)
    assert (factors[2:][200:] == 0.0).all()
    assert (factors[:2] == 0.1).all()
    assert prior(features, ("length", "account_age_days"))[:2].tolist() == [0.1, 1.0]


def test_what_is_known_of_a_user_counts_beside_a_text_that_says_much() -> None:
    table = spammy(600, 1)
    told = np.column_stack((table.values[:, 0], np.random.default_rng(2).normal(size=600) + table.positive))
    split, recipe = random_split(table.positive, (0.6, 0.2), 1), Recipe(augment=False, folds=3, penalties=(1.0,))
    weight = {}
    for name in ("noise", "account_age_days"):
        fitted = fit(replace(table, values=told), ("length", name), split, recipe, BUCKETS, None, lambda stage, share: None)
        weight[name] = float(fitted.linear.numeric_weight[1])
    assert weight["account_age_days"] > max(0.3, 3 * weight["noise"])


def test_a_fitted_model_ranks_unseen_rows_and_keeps_its_promises_on_them() -> None:
    table = spammy(900, 1)
    split = random_split(table.positive, (0.6, 0.2), 1)
    stages: list[tuple[str, float]] = []
    fitted = fit(table, NAMES, split, Recipe(augment=False, folds=3), BUCKETS, None, lambda stage, share: stages.append((stage, share)))
    test = table.rows(split.test)
    figures = quality(fitted.probability(test), test.positive, fitted.approve.value, fitted.block.value)
    assert figures.pr_auc is not None and figures.pr_auc > 0.95
    assert figures.block_precision is not None and figures.block_precision > 0.85
    assert figures.caught_recall is not None and figures.caught_recall > 0.85
    assert fitted.approve.value is not None and fitted.block.value is not None and fitted.approve.value <= fitted.block.value
    assert stages[-1][1] == 1.0
    again = fit(table, NAMES, split, Recipe(augment=False, folds=3), BUCKETS, None, lambda stage, share: None)
    assert (again.linear.bucket_weight == fitted.linear.bucket_weight).all()


def test_attacked_copies_train_only_where_their_original_does() -> None:
    table = spammy(300, 2)
    split = random_split(table.positive, (0.6, 0.2), 2)
    plain = fit(table, NAMES, split, Recipe(augment=False, folds=3), BUCKETS, None, lambda stage, share: None)
    of_tests = table.rows(split.test)
    poisoned = Table(of_tests.values, of_tests.ngrams, ~of_tests.positive, split.test)
    same = fit(table, NAMES, split, Recipe(augment=True, folds=3), BUCKETS, poisoned, lambda stage, share: None)
    assert (same.linear.bucket_weight == plain.linear.bucket_weight).all()


def test_a_recipe_without_a_penalty_is_told_so() -> None:
    table = spammy(100, 3)
    with pytest.raises(ConfigError, match="no penalty"):
        fit(table, NAMES, random_split(table.positive, (0.6, 0.2), 2), Recipe(penalties=()), BUCKETS, None, lambda stage, share: None)


def test_quality_by_hand() -> None:
    found = quality(np.array([0.1, 0.5, 0.5, 0.9, 0.9]), np.array([False, False, True, True, False]), 0.3, 0.8)
    assert (found.block_precision, found.block_recall, found.caught_recall) == (0.5, 0.5, 1.0)
    assert (found.negatives_in_review, found.negatives_blocked) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    nobody = quality(np.array([0.1]), np.array([False]), None, None)
    assert (nobody.pr_auc, nobody.roc_auc, nobody.block_precision, nobody.negatives_in_review) == (None, None, None, 1.0)


def test_the_ladder_flags_a_rung_that_adds_nothing() -> None:
    positive = np.array([False, True] * 20)
    noise = np.linspace(0.0, 1.0, 40)
    rungs = ladder({"noise": noise, "oracle": positive + 0.0, "oracle again": positive * 2.0}, positive)
    assert [rung.worth_it for rung in rungs] == [True, True, False]
    assert rungs[2].uplift == 0.0
    assert pr_auc(noise, np.zeros(40, np.bool_)) is None


def test_a_feature_that_knows_the_answer_is_named() -> None:
    positive = np.array([False, True] * 20)
    values = np.column_stack((positive, ~positive, np.zeros(40)))
    assert suspicious_features(values, ("leak", "mirror", "flat"), positive) == {"leak": 1.0, "mirror": 0.0}
    assert suspicious_features(values, ("leak", "mirror", "flat"), np.zeros(40, np.bool_)) == {}
