"""Costs over days: what was spent, the price of a scarce look, and a day on which people cannot keep up."""

from __future__ import annotations

import numpy as np
import pytest

from streamapp.control.costs import review_price, routed, spent, within_capacity
from streamapp.core.conditions import Columns
from streamapp.core.costs import Costs, CostsSection, Prices
from streamapp.core.route import APPROVE, BLOCK, REVIEW


def prices_of(n: int, price: float = 0.0, **given: float) -> Prices:
    section = CostsSection(miss=150.0, false_alarm=5.0, review=1.0, review_price=price, **given)  # type: ignore[arg-type]
    return Costs(section).prices(Columns(lambda name: (), n), [""] * n)


def test_each_route_costs_what_the_truth_makes_of_it() -> None:
    route = np.array([APPROVE, APPROVE, REVIEW, REVIEW, BLOCK, BLOCK], np.int8)
    positive = np.array([True, False] * 3)
    assert spent(route, positive, prices_of(6)).tolist() == [150.0, 0.0, 1.0, 1.0, 0.0, 5.0]
    assert spent(route, positive, prices_of(6, review_error=0.1)).tolist() == pytest.approx([150.0, 0.0, 16.0, 1.5, 0.0, 5.0])


def test_the_price_of_a_look_is_the_smallest_at_which_people_keep_up() -> None:
    rng = np.random.default_rng(3)
    believed, day = rng.beta(0.2, 8, 20_000), np.repeat(np.arange(10), 2000)
    price = review_price(believed, day, lambda one: prices_of(20_000, one), 50)

    def looks(one: float) -> int:
        return int((routed(believed, prices_of(20_000, one)) == REVIEW).sum())

    assert price > 0.0 and looks(price) <= 500 < looks(price - 0.002)
    assert review_price(believed, day, lambda one: prices_of(20_000, one), 20_000) == 0.0


def test_priced_looks_cost_less_than_as_many_at_random() -> None:
    rng = np.random.default_rng(5)
    believed, day = rng.beta(0.3, 6, 20_000), np.repeat(np.arange(10), 2000)
    positive = rng.random(20_000) < believed
    true = prices_of(20_000)
    price = review_price(believed, day, lambda one: prices_of(20_000, one), 50)
    chosen = within_capacity(routed(believed, prices_of(20_000, price)), believed, day, true, 50)
    first_come = within_capacity(routed(believed, true), believed, day, true, 50)
    assert all((chosen[day == one] == REVIEW).sum() <= 50 and (first_come[day == one] == REVIEW).sum() <= 50 for one in range(10))
    assert spent(chosen, positive, true).sum() < spent(first_come, positive, true).sum()


def test_beyond_capacity_the_cheaper_of_the_others_is_taken() -> None:
    believed, day = np.array([0.02, 0.03, 0.04, 0.05]), np.zeros(4, np.int64)
    route = np.full(4, REVIEW, np.int8)
    assert within_capacity(route, believed, day, prices_of(4), 1).tolist() == [REVIEW, APPROVE, BLOCK, BLOCK]
