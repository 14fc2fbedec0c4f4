"""Costs over whole days, when the truth is known: what routes cost, and what a look must be priced at so that people keep up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from streamapp.core.costs import Prices
from streamapp.core.route import APPROVE, BLOCK, REVIEW, route_by_thresholds

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Routes = npt.NDArray[np.int8]
Labels = npt.NDArray[np.bool_]


def routed(believed: Float64, prices: Prices) -> Routes:
    """Takes probabilities [n] and prices; gives each row's cheapest route."""
    return route_by_thresholds(believed, *prices.cuts())


def spent(route: Routes, positive: Labels, prices: Prices) -> Float64:
    """Gives what each row's route cost [n], knowing what is true; people err as often as the prices say, on either side."""
    miss, alarm = np.where(positive, prices.miss, 0.0), np.where(positive, 0.0, prices.alarm)
    look = np.where(np.isfinite(prices.review), prices.review, 0.0) + prices.error * (miss + alarm)
    cost: Float64 = np.choose(route, [miss, look, alarm])
    return cost


def review_price(believed: Float64, day: Int64, prices_at: Callable[[float], Prices], looks_per_day: int, most: float = 1e6) -> float:
    """Gives the smallest price on top of a look at which no more than `looks_per_day` are held on average, within a thousandth.

    The price of a scarce look is a multiplier of Lagrange: of all ways to hold that many, routing by these prices costs least.
    `prices_at(price)` gives the prices of the rows; looks fall as their price rises. O(n log(most)).
    """
    days = max(1, len(np.unique(day)))

    def held(price: float) -> int:
        return int((routed(believed, prices_at(price)) == REVIEW).sum())

    low, high = 0.0, most
    if held(0.0) <= looks_per_day * days:
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) <= looks_per_day * days else (middle, high)
    return high


def within_capacity(route: Routes, believed: Float64, day: Int64, prices: Prices, looks_per_day: int) -> Routes:
    """Gives the routes when people look at the first `looks_per_day` of a day, and the rest takes the cheaper of the other two.

    Rows come in their order of time; nobody knows in the morning what the evening brings.
    """
    found = route.copy()
    expected = prices.expected(believed)
    without_people = np.where(expected[:, BLOCK] <= expected[:, APPROVE], BLOCK, APPROVE).astype(np.int8)
    for one in np.unique(day).tolist():
        held = np.flatnonzero((route == REVIEW) & (day == one))
        found[held[looks_per_day:]] = without_people[held[looks_per_day:]]
    return found
