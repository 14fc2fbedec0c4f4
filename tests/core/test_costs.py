"""Costs: the cuts make each row take its cheapest route, by tenant and amount; what is wrong with `[costs]` is named."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp import pipeline
from streamapp.config import shipped
from streamapp.control.release import assemble
from streamapp.core.calibrate import at_base_rate
from streamapp.core.conditions import Columns
from streamapp.core.costs import Costs, CostsSection, CostTable, Prices
from streamapp.core.errors import ConfigError, ModelRejected
from streamapp.core.outcome import Outcome
from streamapp.core.route import ROUTE_NAMES, route_by_thresholds
from streamapp.core.spec import PipelineSpec, ThresholdsSection, parse_spec
from tests.line import ENTITY_KEY, SPEC, cut, linear_model, segment

price = st.floats(0.0, 1e6)


def prices(**given: float) -> Prices:
    """One row's prices."""
    section = CostsSection(**given)  # type: ignore[arg-type]
    return Costs(section).prices(Columns(lambda name: [None], 1), [""])


@given(price, price, st.one_of(st.none(), price), st.floats(0.0, 0.49), st.floats(0.0, 1.0))
@settings(max_examples=400)
def test_the_route_by_the_cuts_is_the_cheapest(miss: float, alarm: float, review: float | None, error: float, probability: float) -> None:
    row = prices(miss=miss, false_alarm=alarm, review_error=error, **({} if review is None else {"review": review}))
    believed = np.array([probability])
    expected = row.expected(believed)[0]
    route = int(route_by_thresholds(believed, *row.cuts())[0])
    assert expected[route] <= expected.min() + 1e-9 * (miss + alarm + 1)


def test_a_miss_of_150_and_a_false_alarm_of_5_block_from_5_in_155() -> None:
    for row in (prices(miss=150, false_alarm=5), prices(miss=150, false_alarm=5, review=4.9)):  # the second look never pays
        approve, block = row.cuts()
        assert approve[0] == block[0] == pytest.approx(5 / 155)


def test_between_the_cuts_a_look_is_the_cheapest() -> None:
    approve, block = prices(miss=150, false_alarm=5, review=2).cuts()
    assert approve[0] == pytest.approx(2 / 150) and block[0] == pytest.approx(1 - 2 / 5)
    dearer, _ = prices(miss=150, false_alarm=5, review=2, review_price=1).cuts()
    assert dearer[0] == pytest.approx(3 / 150), "the price of a scarce look holds fewer"
    wrong, _ = prices(miss=150, false_alarm=5, review=2, review_error=0.1).cuts()
    assert wrong[0] == pytest.approx(2.5 / 135.5)


def test_prices_go_by_tenant_and_amount_and_a_missing_amount_is_nothing() -> None:
    tenants = {"acme": CostTable(miss=100), "tiny": CostTable(miss_share=0)}
    section = CostsSection(miss=10, miss_share=1.0, false_alarm=5, review=2, amount="amount", tenant=tenants)
    given: list[float | None] = [50.0, 50.0, None, 50.0]
    found = Costs(section).prices(Columns(lambda name: given, 4), ["", "acme", "acme", "tiny"])
    assert found.miss.tolist() == [60.0, 150.0, 100.0, 10.0]
    assert found.alarm.tolist() == [5.0] * 4


def test_nothing_to_lose_approves_all_but_the_certain() -> None:
    approve, block = prices(miss=0, false_alarm=5, review=2).cuts()
    assert (approve[0], block[0]) == (1.0, 1.0)


#: Rates whose ratio of odds is at most 1e8: beyond, a probability next to 1 has too few digits left for the way back.
rates = st.floats(1e-4, 1 - 1e-4)


@given(st.floats(0.0, 1.0), rates, rates)
def test_probabilities_move_with_the_base_rate_and_back(probability: float, trained: float, live: float) -> None:
    moved = at_base_rate(np.array([probability]), trained, live)
    assert 0.0 <= moved[0] <= 1.0
    assert at_base_rate(moved, live, trained)[0] == pytest.approx(probability, abs=1e-6)
    assert at_base_rate(np.array([trained]), trained, live)[0] == pytest.approx(live)  # what knows nothing believes the base rate


def test_the_moved_probability_is_bayes_on_counted_events() -> None:
    """1,000 events, 100 positive; a score seen in 40 positives and 90 negatives. Ten times as many negatives: 40 of 40 + 900."""
    assert at_base_rate(np.array([40 / 130]), 100 / 1000, 100 / 9100)[0] == pytest.approx(40 / 940)


def costed(**costs: Any) -> PipelineSpec:
    return msgspec.structs.replace(
        SPEC, thresholds=ThresholdsSection(block="cost", approve="cost"), costs=CostsSection(**costs), rules=()
    )  # fmt: skip


def outcome_of(spec: PipelineSpec, tenants: list[str]) -> Outcome:
    serving = assemble(spec, {"fast": linear_model()}, ENTITY_KEY)
    words = np.random.default_rng(5).integers(97, 123, (len(tenants), 4, 5)).astype(np.uint8)
    texts = [" ".join(bytes(word).decode() for word in row) for row in words]
    rows = enumerate(zip(texts, tenants, strict=True))
    lines = [msgspec.json.encode({"text": text, "user_id": str(row), "tenant": name}) for row, (text, name) in rows]
    plan = pipeline.plan([segment(lines)], serving)
    return pipeline.decide(plan, pipeline.Read(), [serving.state.new()], serving, 2000, lambda: 0.0)


def test_decide_routes_each_row_by_its_own_costs_and_says_the_cut() -> None:
    tenants = ["", "careful"] * 200
    found = outcome_of(costed(miss=5.0, false_alarm=5.0, review=1.0, tenant={"careful": CostTable(miss=500.0, false_alarm=1.0)}), tenants)
    plain, careful = found.route[0::2], found.route[1::2]
    assert {0, 1, 2} <= set(plain.tolist()) and (careful == 2).mean() > (plain == 2).mean()
    assert set(found.threshold[1::2].round(9)) == {round(1 / 501, 9)}, "a look never pays for them, so both cuts are one"
    assert set(found.threshold[0::2].round(9)) == {0.2, 0.8}
    for row in np.flatnonzero(found.route != 0).tolist():
        reason = found.reasons[row][-1]
        p, miss, alarm = found.probability[row], (5.0, 500.0)[row % 2], (5.0, 1.0)[row % 2]
        assert reason.code == "expected_cost" and reason.limit == pytest.approx(p * miss, abs=0.006)
        assert reason.value == pytest.approx({1: 1.0, 2: (1 - p) * alarm}[int(found.route[row])], abs=0.006)
        assert reason.text.startswith(f"{ROUTE_NAMES[found.route[row]]} is the cheapest route")


def test_without_costs_a_cut_by_cost_is_no_cut_and_the_file_is_refused() -> None:
    text = (shipped("pipelines") / "messages.toml").read_text()

    def refused(old: str, new: str) -> str:
        changed = text.replace(old, new)
        assert changed != text
        with pytest.raises(ConfigError) as failure:
            parse_spec(tomllib.loads(changed), "messages.toml", changed)
        return str(failure.value)

    card = 'approve = "card"'
    assert "there is no [costs]" in refused(card, 'approve = "cost"')
    assert "no cut goes by cost" in refused("[thresholds]", "[costs]\nmiss = 1.0\nfalse_alarm = 1.0\n\n[thresholds]")
    costs = '[costs]\nmiss_share = 1.0\namount = "amuont"\nreview = -1\n\n[costs.tenant.a]\nmis = 1.0\n\n[thresholds]'
    wrong = refused("[thresholds]", costs)
    for told in ("`amuont` is no number field", "a false alarm costs nothing", "costs.review: -1 is wrong", "unknown key `mis` (did you"):
        assert told in wrong
    assert "a share of what?" in refused("[thresholds]", "[costs]\nmiss_share = 1.0\nfalse_alarm = 1.0\n\n[thresholds]")


def test_a_base_rate_needs_the_cards() -> None:
    spec = msgspec.structs.replace(SPEC, thresholds=ThresholdsSection(base_rate=0.01))
    model = linear_model()
    with pytest.raises(ModelRejected, match="says no base_rate"):
        assemble(spec, {"fast": model}, ENTITY_KEY)
    card = msgspec.structs.replace(model.card, base_rate=0.2, block=cut(0.7), approve=cut(0.3))
    moved = outcome_of_model(spec, msgspec.structs.replace(card), model)
    still = outcome_of_model(SPEC, card, model)
    asked = ~np.isnan(still.probability)
    assert np.allclose(moved.probability[asked], at_base_rate(still.probability[asked], 0.2, 0.01))
    assert np.array_equal(moved.score[asked], still.score[asked]), "the raw score is the model's"


def outcome_of_model(spec: PipelineSpec, card: Any, model: Any) -> Outcome:
    serving = assemble(spec, {"fast": type(model)(card, model.calibration, model.linear)}, ENTITY_KEY)
    plan = pipeline.plan([segment([msgspec.json.encode({"text": f"win {row}", "user_id": "1"}) for row in range(50)])], serving)
    return pipeline.decide(plan, pipeline.Read(), [serving.state.new()], serving, 2000, lambda: 0.0)


def test_route_names_are_the_order_of_expected_costs() -> None:
    assert ROUTE_NAMES == ("approve", "review", "block")
    assert prices(miss=100, false_alarm=10, review=3).expected(np.array([0.25])).tolist() == [[25.0, 3.0, 7.5]]
