"""Tiers with early exit; a failing tier loses nothing."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streamapp.core.card import Calibration, Card, Scaler, Threshold
from streamapp.core.cascade import NO_TIER, Answer, Tier, score, scoring
from streamapp.core.route import APPROVE, BLOCK, REVIEW, UNDECIDED, route_by_thresholds
from streamapp.core.tiers import View, labels_of, strange_labels
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


def test_a_row_budget_asks_about_the_likeliest_positives_and_names_itself() -> None:
    fast, heavy = Echo(), Echo(-10.0)
    limited = Tier("heavy", heavy, 0.1, 0.9, rows_max=2)
    found = score(inputs(0.1, 0.9, 0.4, 0.8), [tier("fast", fast), limited], np.ones(4, bool))
    assert found.tier.tolist() == [0, 1, 0, 1] and found.route.tolist() == [REVIEW, APPROVE, REVIEW, APPROVE]
    assert heavy.rows == 2 and [(one.component, one.cause) for one in found.degraded] == [("model:heavy", "row_budget")]


def test_people_look_from_the_review_cut_on_and_no_further_tier_is_asked() -> None:
    heavy = Echo(-10.0)
    found = score(inputs(-0.5, 0.5, 1.5), [Tier("fast", Echo(), 0.1, 0.9, review_from=0.8), tier("heavy", heavy)], OPEN)
    assert found.tier.tolist() == [1, 1, 0] and found.route.tolist() == [BLOCK, APPROVE, REVIEW]


def test_a_tier_that_only_sends_to_people_was_compared_with_that_cut() -> None:
    found = score(inputs(-5.0, 5.0, 0.0), [Tier("heavy", Echo(), 0.7, None, review_from=0.7)], OPEN)
    assert found.route.tolist() == [APPROVE, REVIEW, APPROVE] and found.threshold.tolist() == [0.7, 0.7, 0.7]


class Holey(Echo):
    """Gives no number for rows whose input is 0.5."""

    def logits(self, inputs: Inputs) -> np.ndarray:
        margins = super().logits(inputs)
        margins[inputs.numeric == 0.5] = np.nan
        return margins


def test_a_row_without_a_number_keeps_what_an_earlier_tier_said_and_the_others_do_not_suffer() -> None:
    found = score(inputs(0.4, 0.5, 0.6), [tier("fast", Echo()), tier("heavy", Holey(-10.0))], OPEN)
    assert found.tier.tolist() == [1, 0, 1] and found.route.tolist() == [APPROVE, REVIEW, APPROVE]
    assert found.probability[1] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert [(one.component, one.cause) for one in found.degraded] == [("model:heavy", "not_a_number")]


def test_a_tier_with_a_deadline_is_yielded_the_most_urgent_rows_first() -> None:
    heavy = Tier("heavy", Echo(-10.0), 0.1, 0.9, time_ms=50)
    steps = scoring(inputs(0.1, 5.0, 0.9, 0.4), [tier("fast", Echo()), heavy], np.ones(4, bool), None, lambda: 0.0)
    question = next(steps)
    assert question.tier is heavy and question.rows.tolist() == [2, 3, 0]
    with pytest.raises(StopIteration) as stopped:  # only the first was answered in time
        steps.send(Answer(np.array([[-9.0], [np.nan], [np.nan]]), "time_budget"))
    found = stopped.value.value
    assert found.tier.tolist() == [0, 0, 1, 0] and found.route.tolist() == [REVIEW, BLOCK, APPROVE, REVIEW]
    assert [(one.component, one.cause) for one in found.degraded] == [("model:heavy", "time_budget")]
    assert [use[:4] for use in found.uses] == [("fast", 4, 4, 1), ("heavy", 3, 1, 1)]


def test_an_answer_does_not_depend_on_the_order_in_which_rows_are_asked_about() -> None:
    margins = np.random.default_rng(1).normal(0, 2, 50)
    plain = score(inputs(*margins), [tier("fast", Echo()), tier("heavy", Echo(0.3))], np.ones(50, bool))
    slow = Tier("heavy", Echo(0.3), 0.1, 0.9, time_ms=50)
    beside = score(inputs(*margins), [tier("fast", Echo()), slow], np.ones(50, bool))
    first = score(inputs(*margins), [Tier("fast", Echo(), 0.1, 0.9, time_ms=50), tier("heavy", Echo(0.3))], np.ones(50, bool))
    for other in (beside, first):
        assert np.array_equal(plain.route, other.route) and np.array_equal(plain.probability, other.probability)


class Many(Echo):
    """Three margins per row, made of its only input."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def logits(self, inputs: Inputs) -> np.ndarray:
        return inputs.numeric.astype(np.float64) * np.array([1.0, -1.0, 0.0])


def many(task: str, **changes: object) -> Card:
    return msgspec.structs.replace(CARD, **({"task": task, "labels": ("hate", "fine", "rude"), "benign": ("fine",)} | changes))


def test_classes_that_exclude_one_another_are_routed_by_what_all_harmful_ones_have_together() -> None:
    model = Many(many("multi_class"))
    found = score(inputs(5.0, -5.0, 0.0), [Tier("fast", model, 0.1, 0.9, labels=labels_of(model.card, {}))], OPEN)
    assert found.route.tolist() == [BLOCK, APPROVE, REVIEW]
    assert found.labels is not None and found.labels.tolist() == [("hate",), ("fine",), ("hate",)]
    weights = np.exp([5.0, -5.0, 0.0])
    assert found.probability[0] == pytest.approx((weights[0] + weights[2]) / weights.sum())


def test_labels_that_may_hold_together_have_a_cut_each_and_the_likeliest_harmful_one_routes() -> None:
    model = Many(many("multi_label", label_cuts=(0.5, 0.9, 0.6)))
    fast = Tier("fast", model, 0.4, 0.9, labels=labels_of(model.card, {"rude": 0.4}))
    found = score(inputs(5.0, -5.0, 0.0), [fast], OPEN)
    assert found.labels is not None and found.labels.tolist() == [("hate", "rude"), ("fine", "rude"), ("hate", "rude")]
    assert found.route.tolist() == [BLOCK, REVIEW, REVIEW]
    assert found.probability.tolist() == pytest.approx([1 / (1 + np.exp(-5.0)), 0.5, 0.5])


@pytest.mark.parametrize(
    ("card", "cuts", "problem"),
    [
        (many("multi_class", benign=()), {}, "none of its classes is benign"),
        (many("multi_label", benign=("hate", "fine", "rude")), {}, "could never hold an event back"),
        (many("multi_label", benign=("kind",)), {}, "kind is no label"),
        (many("multi_label", label_cuts=(0.5,)), {}, "1 label cuts for 3 labels"),
        (many("multi_class"), {"hate": 0.5}, "cuts by label are for a multi-label model"),
        (CARD, {"ham": 0.5}, "ham is no label"),
    ],
)
def test_labels_that_cannot_route_are_refused(card: Card, cuts: dict[str, float], problem: str) -> None:
    assert problem in str(strange_labels(card, cuts))
    assert strange_labels(CARD, {}) is None and strange_labels(many("multi_label"), {"rude": 0.1}) is None


def test_a_tier_with_a_scale_of_its_own_is_given_its_own_inputs() -> None:
    class Sees(Echo):
        def logits(self, inputs: Inputs) -> np.ndarray:
            self.seen = inputs.numeric.tolist()
            return np.zeros((len(inputs.numeric), 1))

    heavy = Sees()
    own = View(np.array([1, 0]), Scaler(("b", "a"), (0.0, 1.0), (10.0, 1.0)))
    given = Inputs(np.array([[-5.0], [0.5], [5.0]], np.float32), None, np.array([[1.0, 20.0], [3.0, 40.0], [5.0, 60.0]]))
    score(given, [tier("fast", Echo()), Tier("heavy", heavy, None, None, own=own)], OPEN)
    assert heavy.seen == [[4.0, 2.0]]


NAN = float("nan")


@pytest.mark.parametrize("cuts", [(0.3, 0.7), (None, 0.7), (0.3, None), (None, None), "by cost"])
@pytest.mark.parametrize("review_from", [None, 0.6])
def test_rows_are_routed_and_written_down_as_columns_would_be(cuts: object, review_from: float | None) -> None:
    margins = np.linspace(-3.0, 3.0, 41)
    cheapest = (np.linspace(0.2, 0.4, 41), np.linspace(0.9, 0.5, 41)) if cuts == "by cost" else None
    approve, block = (None, None) if cheapest is not None else cuts  # type: ignore[misc]
    asked = Tier("fast", Echo(), approve, block, review_from=review_from, by_cost=(cheapest is not None,) * 2)
    open_rows = np.arange(41) % 5 > 0
    found = score(inputs(*margins), [asked], open_rows, None, cheapest)
    low, high = cheapest if cheapest is not None else (approve, block)
    believed = 1.0 / (1.0 + np.exp(-margins.astype(np.float32).astype(np.float64)))
    route = np.where(open_rows, route_by_thresholds(believed, low, high), UNDECIDED)
    held = review_from if high is None else high
    threshold = np.where(route == APPROVE, NAN if low is None else low, NAN if held is None else held)
    assert found.route.tolist() == route.tolist()
    assert found.probability == pytest.approx(np.where(open_rows, believed, NAN), abs=1e-15, nan_ok=True)
    assert found.threshold == pytest.approx(np.where(open_rows, threshold, NAN), nan_ok=True)
    assert found.tier.tolist() == np.where(open_rows, 0, NO_TIER).tolist()
