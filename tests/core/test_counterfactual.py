"""What would have been milder: found for rules and trees, tried on the whole line, told as people say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from streamapp import pipeline
from streamapp.adapters.models_memory import TreeModel
from streamapp.config import load_pipeline
from streamapp.control.boost import trees_of
from streamapp.control.languages import load_language
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.release import assemble
from streamapp.core.calibrate import at_base_rate, logistic, margin_below, probability
from streamapp.core.card import Calibration, Card, Scaler, Threshold
from streamapp.core.costs import CostsSection
from streamapp.core.counterfactual import flips
from streamapp.core.errors import ConfigError
from streamapp.core.events import Segment
from streamapp.core.explain import Reason
from streamapp.core.outcome import Outcome
from streamapp.core.route import APPROVE, BLOCK, ROUTE_NAMES
from streamapp.core.schema import reason_codes
from streamapp.core.spec import PipelineSpec, ReasonsSection
from streamapp.core.trees import Trees
from streamapp.core.vectorise import Inputs
from tests.line import ENTITY_KEY, linear_model

PLAIN = load_pipeline("payments")
NAMES = ("amount", "customer_10m_count", "customer_24h_sum_amount", "hour")
SECTION = ReasonsSection(
    counterfactuals=True, monotone={"amount": "up", "customer_10m_count": "up", "customer_24h_sum_amount": "up"}, counterfactual_rows=4096
)
SPEC = msgspec.structs.replace(PLAIN, reasons=SECTION, vector=msgspec.structs.replace(PLAIN.vector, numeric=NAMES))
APPROVE_CUT, BLOCK_CUT = 0.3, 0.8


def lines(count: int = 3000) -> list[bytes]:
    return [record.value for record in payments(count, PaymentMix(seed=4, customers=40, terminals=60)) if record.value]


def segment_of_payments(values: Sequence[bytes]) -> Segment:
    events = [msgspec.json.decode(value) for value in values]
    times = np.array([event["event_time"] for event in events], np.int64)
    keys = [event["customer_id"].encode() for event in events]
    return Segment("t", 0, 1, np.arange(len(events), dtype=np.int64), times, keys, list(values), [()] * len(events))


def decided(spec: PipelineSpec, models: dict[str, Any], values: Sequence[bytes], **more: Any) -> tuple[Outcome, pipeline.Serving]:
    serving = assemble(spec, models, ENTITY_KEY, **more)
    plan = pipeline.plan([segment_of_payments(values)], serving)
    return pipeline.decide(plan, pipeline.Read(), [serving.state.new()], serving, 0, lambda: 0.0), serving


@pytest.fixture(scope="module")
def trees() -> Trees:
    """Trees that find large and frequent payments risky."""
    outcome, serving = decided(SPEC, {}, lines())
    values = outcome.features.values[:, serving.features.places(NAMES)].astype(np.float32)
    odds = np.log(values[:, 0] / 60) + 0.8 * (values[:, 1] - 1) + values[:, 2] / 3000 + np.sin(values[:, 3])
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "use_missing": False, "max_depth": 4, "seed": 3}
    positive = (odds + np.random.default_rng(1).normal(0, 1, len(odds)) > 1.0).astype(np.float32)
    return trees_of(lightgbm.train(parameters, lightgbm.Dataset(values, positive), 30), len(NAMES))


def model_of(trees: Trees, calibration: Calibration = Calibration("none")) -> TreeModel:  # noqa: B008 - frozen
    cuts = [Threshold(value, "test", None, None, None, 9) for value in (BLOCK_CUT, APPROVE_CUT)]
    card = Card(
        name="payments", version="t", task="binary", labels=("fraud",), framework="", created_at="", created_by="", feature_spec="",
        scaler=Scaler(NAMES, (0.0,) * 4, (1.0,) * 4), onnx_sha256="", calibration_sha256="", trees_sha256="x",
        block=cuts[0], approve=cuts[1],
    )  # fmt: skip
    return TreeModel(card, calibration, trees)


def changes_of(reasons: Sequence[Reason]) -> list[Reason]:
    return [one for one in reasons if one.code.startswith("counterfactual_")]


def believed(trees: Trees, row: npt.NDArray[np.float64], name: str, value: float) -> float:
    changed = row.astype(np.float32)[None].copy()
    changed[0, NAMES.index(name)] = value
    return float(logistic(trees.margins(Inputs(changed, None)))[0, 0])


def test_what_the_model_decides_is_told_with_the_nearest_value_that_helps(trees: Trees) -> None:
    without_rules = msgspec.structs.replace(SPEC, rules=())
    outcome, serving = decided(without_rules, {"fast": model_of(trees)}, lines(1200))
    rows = outcome.features.values[:, serving.features.places(NAMES)]
    told, named = 0, set()
    for row in np.flatnonzero(outcome.route != APPROVE).tolist():
        found = changes_of(outcome.reasons[row])
        assert len(found) <= 1
        for reason in found:
            told += 1
            route = ROUTE_NAMES.index(reason.code.removeprefix("counterfactual_"))
            cut = (APPROVE_CUT, BLOCK_CUT)[route]
            assert route < outcome.route[row] and reason.feature is not None and isinstance(reason.limit, float)
            assert believed(trees, rows[row], reason.feature, reason.limit) < cut
            smaller = [believed(trees, rows[row], reason.feature, reason.limit * share) for share in (0.9, 0.5, 0.1)]
            assert max(smaller) < cut, "at most means at most"
            if reason.feature == "amount":
                assert believed(trees, rows[row], "amount", reason.limit + 0.02) >= cut, "the nearest value"
            else:
                assert reason.limit == int(reason.limit) or reason.feature.endswith("amount")
            named.add(reason.feature)
    assert told > 0.5 * (outcome.route != APPROVE).sum() and {"amount", "customer_10m_count"} <= named
    assert not any(changes_of(outcome.reasons[row]) for row in np.flatnonzero(outcome.route == APPROVE).tolist())


def test_a_rule_is_told_with_the_value_at_which_it_lets_go(trees: Trees) -> None:
    burst = [
        {"customer_id": "c", "card_id": "k", "terminal_id": "t", "amount": 5.0, "event_id": str(at), "event_time": 1_767_268_800_000 + at}
        for at in range(7)
    ]
    outcome, _ = decided(SPEC, {}, [msgspec.json.encode(event) for event in burst])
    assert ROUTE_NAMES[outcome.route[6]] == "block" and outcome.reasons[6][0].code == "card_burst"
    (reason,) = changes_of(outcome.reasons[6])
    assert reason.text == "review if at most 4 payments of this card in 2 min; it was 7"
    assert (reason.code, reason.feature, reason.value, reason.limit) == ("counterfactual_review", "card_2m_count", 7.0, 4.0)
    german, _ = decided(SPEC, {}, [msgspec.json.encode(event) for event in burst], language=load_language("de"))
    assert changes_of(german.reasons[6])[0].text == "prüfen bei höchstens 4 Zahlungen (Karte) in 2 min; es waren 7"


def test_a_rule_row_that_the_model_would_block_as_well_is_told_nothing(trees: Trees) -> None:
    stern = model_of(trees, Calibration("sigmoid", a=-1.0, b=-50.0))  # certain of everything
    event = {"customer_id": "c", "card_id": "k", "terminal_id": "t", "amount": 25_000.5, "event_id": "e", "event_time": 1_767_268_800_000}
    line = [msgspec.json.encode(event)]
    one_rule = msgspec.structs.replace(SPEC, rules=tuple(rule for rule in SPEC.rules if rule.code == "amount_limit"))
    blocked, _ = decided(one_rule, {"fast": stern}, line)
    assert blocked.route[0] == BLOCK and changes_of(blocked.reasons[0]) == []
    mild = model_of(trees, Calibration("sigmoid", a=-1.0, b=50.0))
    let_go, _ = decided(one_rule, {"fast": mild}, line)
    assert changes_of(let_go.reasons[0])[0].text == "approve if the amount is at most 25000; it was 25000.5"


def test_only_the_first_rows_are_tried_and_the_rest_keep_their_reasons(trees: Trees) -> None:
    few = msgspec.structs.replace(SPEC, reasons=msgspec.structs.replace(SECTION, counterfactual_rows=3))
    outcome, _ = decided(few, {"fast": model_of(trees)}, lines(1200))
    held = np.flatnonzero(outcome.route != APPROVE).tolist()
    assert sum(bool(changes_of(outcome.reasons[row])) for row in held) <= 3 and all(outcome.reasons[row] for row in held)


@pytest.mark.parametrize("costs", [None, CostsSection(miss=30.0, false_alarm=6.0, review=3.0)], ids=["cuts of the card", "cuts by cost"])
def test_cuts_by_cost_and_a_moved_base_rate_are_searched_with(trees: Trees, costs: CostsSection | None) -> None:
    trained, live = 0.3, 0.2
    cuts = (APPROVE_CUT, BLOCK_CUT) if costs is None else (3.0 / 30.0, (6.0 - 3.0) / 6.0)
    said = {} if costs is None else {"approve": "cost", "block": "cost"}
    thresholds = msgspec.structs.replace(SPEC.thresholds, base_rate=live, **said)
    spec = msgspec.structs.replace(SPEC, rules=(), costs=costs, thresholds=thresholds)
    model = model_of(trees)
    model = replace(model, card=msgspec.structs.replace(model.card, base_rate=trained))
    outcome, serving = decided(spec, {"fast": model}, lines(1200))
    rows = outcome.features.values[:, serving.features.places(NAMES)]

    def moved(row: int, name: str, value: float) -> float:
        return float(at_base_rate(np.array([believed(trees, rows[row], name, value)]), trained, live)[0])

    told = [(row, reason) for row, reasons in enumerate(outcome.reasons) for reason in changes_of(reasons)]
    for row, reason in told:
        route = ROUTE_NAMES.index(reason.code.removeprefix("counterfactual_"))
        assert reason.feature is not None and isinstance(reason.limit, float)
        assert moved(row, reason.feature, reason.limit) < cuts[route]
        if reason.feature == "amount":
            assert moved(row, "amount", reason.limit + 0.02) >= cuts[route], "the nearest value"
    assert len(told) > 0.5 * (outcome.route != APPROVE).sum() and "amount" in {reason.feature for _, reason in told}


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration("none"), Calibration("temperature", t=1.7), Calibration("sigmoid", a=-0.8, b=0.3),
        Calibration("isotonic", x=(-3.0, -1.0, 0.5, 2.0), y=(0.01, 0.2, 0.2, 0.9)),
    ],
    ids=["none", "temperature", "sigmoid", "isotonic"],
)  # fmt: skip
@pytest.mark.parametrize("rates", [None, (0.1, 0.02)])
def test_the_margin_below_a_cut_is_where_the_probability_crosses_it(calibration: Calibration, rates: tuple[float, float] | None) -> None:
    def at(margins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = probability(margins[:, None], "binary", calibration)[:, 0]
        return found if rates is None else at_base_rate(found, *rates)

    cuts = np.array([0.0, 0.001, 0.05, 0.1, 0.2, 0.5, 0.95, 1.0])
    for cut, bound in zip(cuts, margin_below(cuts, calibration, rates), strict=True):
        below, above = np.array([-4.0, -2, -1.5, 0, 1, 1.9, 5]), np.array([-4.0, -2, -1.5, 0, 1, 1.9, 5])
        assert (at(below[below < bound - 1e-9]) < cut).all() and (at(above[above > bound + 1e-9]) >= cut - 1e-12).all()


def test_comparisons_of_features_with_numbers_are_turned_and_no_others() -> None:
    places, whole = {"count": 0, "amount": 1}, np.array([True, False])

    def said(when: str) -> list[tuple[int, str, float]]:
        return [(flip.place, flip.word, flip.limit) for flip in flips(when, places, whole)]

    assert said("count >= 5") == [(0, "at_most", 4.0)] and said("count > 8") == [(0, "at_most", 8.0)]
    assert said("amount >= 5") == [(1, "below", 5.0)] and said("3 > amount or count < 2") == [(1, "at_least", 3.0), (0, "at_least", 2.0)]
    assert said("amount <= 5") == [(1, "above", 5.0)] and said("count <= 5") == [(0, "at_least", 6.0)]
    assert said("amount > 10 and not missing(amount) and amount > count") == [(1, "at_most", 10.0)]
    assert said('amount == 5 or country in ["x"] or other > 4') == []


def test_codes_stand_in_the_schema_where_they_can_come_and_wrong_declarations_are_refused() -> None:
    assert {"counterfactual_approve", "counterfactual_review"} <= set(reason_codes(SPEC))
    silent = msgspec.structs.replace(SPEC, reasons=ReasonsSection())
    assert not any(code.startswith("counterfactual") for code in reason_codes(silent))
    wrong = ReasonsSection(counterfactuals=True, monotone={"amuont": "up"})
    with pytest.raises(ConfigError, match="`amuont` is no feature"):
        assemble(msgspec.structs.replace(SPEC, reasons=wrong), {}, ENTITY_KEY)
    with pytest.raises(ConfigError, match="set counterfactuals = true"):
        assemble(msgspec.structs.replace(SPEC, reasons=ReasonsSection(monotone={"amount": "up"})), {}, ENTITY_KEY)


def test_a_pipeline_with_text_tries_its_rules() -> None:
    spec = msgspec.structs.replace(load_pipeline("messages"), reasons=ReasonsSection(counterfactuals=True))
    serving = assemble(spec, {"fast": linear_model()}, ENTITY_KEY)
    text = " ".join(f"http://{letter}.example" for letter in "abcdefghijklmnopqrstuvwxyz")
    record = msgspec.json.encode({"text": text, "user_id": "1"})
    one = np.zeros(1, np.int64)
    plan = pipeline.plan([Segment("t", 0, 0, one, one, [None], [record], [()])], serving)
    outcome = pipeline.decide(plan, pipeline.Read(), [serving.state.new()], serving, 0, lambda: 0.0)
    assert outcome.route[0] == BLOCK
    for reason in changes_of(outcome.reasons[0]):
        assert reason.feature == "url_count" and reason.limit in (20.0, 2.0)
