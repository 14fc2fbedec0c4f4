import json
import os
from pathlib import Path

import numpy as np
import pytest

from streamapp.core.calibrate import check_calibration, curve, logistic, probability, softmax
from streamapp.core.card import Calibration
from streamapp.core.errors import ModelRejected
from streamapp.core.reliability import brier, expected_calibration_error, log_loss, reliability_bins

DATA = Path(os.environ.get("STREAMAPP_DATA", Path(__file__).parents[3] / "shared" / "data"))
COLUMN = np.array([[-800.0], [-2.0], [0.0], [0.5], [800.0]])


def test_logistic_is_exact_in_the_middle_and_finite_at_the_ends() -> None:
    assert logistic(COLUMN).ravel().tolist() == pytest.approx([0.0, 1 / (1 + np.exp(2.0)), 0.5, 1 / (1 + np.exp(-0.5)), 1.0], abs=1e-16)


def test_softmax_rows_sum_to_one_also_for_huge_margins() -> None:
    rows = softmax(np.array([[1000.0, 0.0, -1000.0], [1.0, 1.0, 1.0]]))
    assert rows.sum(axis=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-15)
    assert rows[1].tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("task", "calibration", "margin", "expected"),
    [
        ("binary", Calibration("none"), [0.5], [1 / (1 + np.exp(-0.5))]),
        ("binary", Calibration("sigmoid", a=-2.0, b=1.0), [0.5], [0.5]),
        ("binary", Calibration("temperature", t=2.0), [1.0], [1 / (1 + np.exp(-0.5))]),
        ("binary", Calibration("isotonic", x=(-1.0, 1.0), y=(0.2, 0.6)), [0.0], [0.4]),
        ("multi_label", Calibration("none"), [0.0, 2.0], [0.5, 1 / (1 + np.exp(-2.0))]),
        ("multi_class", Calibration("none"), [0.0, np.log(3.0)], [0.25, 0.75]),
        ("multi_class", Calibration("temperature", t=2.0), [0.0, 2 * np.log(3.0)], [0.25, 0.75]),
    ],
)
def test_every_task_and_method_by_hand(task: str, calibration: Calibration, margin: list[float], expected: list[float]) -> None:
    check_calibration(calibration, task)
    assert probability(np.array([margin]), task, calibration)[0].tolist() == pytest.approx(expected, abs=1e-15)


def test_the_curve_is_flat_outside_and_hits_its_points() -> None:
    x, y = np.array([-1.0, 0.0, 3.0]), np.array([0.1, 0.1, 0.9])
    assert curve(np.array([-9.0, -1.0, 0.0, 1.5, 3.0, 9.0]), x, y).tolist() == pytest.approx([0.1, 0.1, 0.1, 0.5, 0.9, 0.9])
    assert curve(np.array([[-9.0], [9.0]]), np.array([0.0]), np.array([0.3])).tolist() == [[0.3], [0.3]]


@pytest.mark.parametrize(
    ("calibration", "task", "reason"),
    [
        (Calibration("sigmoid", a=1.0), "binary", "turn the order"),
        (Calibration("temperature", t=0.0), "binary", "turn the order"),
        (Calibration("sigmoid", a=float("nan")), "binary", "not finite"),
        (Calibration("isotonic"), "binary", "0 x for 0 y"),
        (Calibration("isotonic", x=(0.0, 1.0), y=(0.5,)), "binary", "2 x for 1 y"),
        (Calibration("isotonic", x=(0.0, 0.0), y=(0.1, 0.2)), "binary", "not increasing"),
        (Calibration("isotonic", x=(0.0, 1.0), y=(0.3, 0.2)), "binary", "not increasing"),
        (Calibration("isotonic", x=(0.0, 1.0), y=(0.3, 1.2)), "binary", "leaves"),
        (Calibration("isotonic", x=(0.0, 1.0), y=(0.3, 0.4)), "multi_class", "one margin at a time"),
    ],
)
def test_a_calibration_that_is_no_monotone_map_is_refused(calibration: Calibration, task: str, reason: str) -> None:
    with pytest.raises(ModelRejected, match=reason):
        check_calibration(calibration, task)


def test_bins_are_right_closed_and_weighted() -> None:
    p, y = np.array([0.0, 0.5, 0.51, 1.0]), np.array([False, True, True, True])
    assert [(row["low"], row["n"]) for row in reliability_bins(p, y, 2)] == [(0.0, 2.0), (0.5, 2.0)]
    assert expected_calibration_error(p, y, 2) == pytest.approx(0.5 * abs(0.25 - 0.5) + 0.5 * abs(0.755 - 1.0))
    assert brier(p, y) == pytest.approx((0.25 + 0.49**2) / 4)


def test_certainty_that_is_wrong_costs_a_finite_amount() -> None:
    assert log_loss(np.array([1.0]), np.array([False])) == pytest.approx(-np.log(1e-15))
    assert log_loss(np.array([0.5, 0.5]), np.array([False, True])) == pytest.approx(np.log(2.0))


def test_no_rows_have_no_figures() -> None:
    nothing, labels = np.empty(0), np.empty(0, np.bool_)
    assert reliability_bins(nothing, labels) == []
    assert np.isnan([brier(nothing, labels), log_loss(nothing, labels), expected_calibration_error(nothing, labels)]).all()


@pytest.mark.skipif(not (DATA / "refvectors/calibration.json").exists(), reason="refvectors/calibration.json is not here")
def test_published_ece_and_brier_vectors() -> None:
    for vector in json.loads((DATA / "refvectors/calibration.json").read_text()):
        p, y = np.array(vector["p"]), np.array(vector["y"], np.bool_)
        assert expected_calibration_error(p, y, 15) == pytest.approx(vector["ece15_equal_width"], abs=1e-14)
        assert brier(p, y) == pytest.approx(vector["brier"], abs=1e-14)
