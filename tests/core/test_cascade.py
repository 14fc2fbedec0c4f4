"""Tiers with early exit; a failing tier loses nothing."""

from __future__ import annotations

import numpy as np
import pytest

from streamapp.core.card import Calibration, Card, Scaler, Threshold
from streamapp.core.cascade import NO_TIER, Tier, score
from streamapp.core.route import APPROVE, BLOCK, REVIEW, UNDECIDED
from streamapp.core.vectorise import Contributions, Inputs

CUT = Threshold(0.5, "", None, None, None, 0)
CARD = Card(
    name="m", version="1", task="binary", labels=("spam",), framework="none", created_at="", created_by="", feature_spec="",
    scaler=Scaler(("x",), (0.0,), (1.0,)), onnx_sha256="", calibration_sha256="", block=CUT, approve=CUT,
)  # fmt: skip


class Echo:
    """Gives its only input back as margin, times a factor; keeps how many rows it saw."""

    card = CARD
    calibration = Calibration("none")

    def __init__(self, factor: float = 1.0, failure: Exception | None = None) -> None:
        self.factor, self.failure, self.rows = factor, failure, 0

    def logits(self, inputs: Inputs) -> np.ndarray:
        if self.failure:
            raise self.failure
        self.rows = len(inputs.numeric)
        return inputs.numeric.astype(np.float64) * self.factor

    def contributions(self, inputs: Inputs) -> Contributions:
        raise NotImplementedError


def inputs(*margins: float) -> Inputs:
    return Inputs(np.array(margins, np.float32)[:, None], None)


def tier(name: str, model: Echo) -> Tier:
    return Tier(name, model, 0.1, 0.9)


OPEN = np.ones(3, bool)


def test_sure_rows_leave_at_the_first_tier_and_only_the_band_goes_on() -> None:
    fast, heavy = Echo(), Echo(-10.0)
    found = score(inputs(-5.0, 0.5, 5.0), [tier("fast", fast), tier("heavy", heavy)], OPEN)
    assert found.route.tolist() == [APPROVE, APPROVE, BLOCK] and found.tier.tolist() == [0, 1, 0]
    assert (fast.rows, heavy.rows) == (3, 1) and found.threshold.tolist() == [0.1, 0.1, 0.9]


@pytest.mark.parametrize("broken", [0, 1])
def test_any_one_tier_failing_loses_no_row_and_is_named(broken: int) -> None:
    models = [Echo(), Echo()]
    models[broken].failure = RuntimeError("boom")
    found = score(inputs(-5.0, 0.5, 5.0), [tier("fast", models[0]), tier("heavy", models[1])], OPEN)
    assert found.route.tolist() == [APPROVE, REVIEW, BLOCK]
    assert [(one.component, one.cause) for one in found.degraded] == [(f"model:{('fast', 'heavy')[broken]}", "RuntimeError")]


def test_without_models_all_stays_undecided_and_says_so() -> None:
    found = score(inputs(0.0, 0.0, 0.0), [], OPEN)
    assert found.route.tolist() == [UNDECIDED] * 3 and np.isnan(found.score).all() and (found.tier == NO_TIER).all()
    assert [(one.component, one.cause) for one in found.degraded] == [("model", "none")]


def test_rows_that_a_rule_decided_are_not_scored() -> None:
    model = Echo()
    found = score(inputs(-5.0, 0.5, 5.0), [tier("fast", model)], np.array([False, True, False]))
    assert model.rows == 1 and found.route.tolist() == [UNDECIDED, REVIEW, UNDECIDED]
