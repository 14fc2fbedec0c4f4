"""Routing by thresholds and by rules."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.route import APPROVE, BLOCK, REVIEW, UNDECIDED, in_order, route_by_thresholds, strictest_rule

probability = st.floats(0, 1)


@pytest.mark.parametrize(
    ("value", "approve_below", "block_from", "route"),
    [
        (0.0, 0.2, 0.9, APPROVE),
        (0.2, 0.2, 0.9, REVIEW),  # at the approve cut: not below it
        (0.9, 0.2, 0.9, BLOCK),  # at the block cut
        (1.0, 0.2, None, REVIEW),  # a promise that is not reachable sends its band to people
        (0.0, None, 0.9, REVIEW),
        (float("nan"), 0.2, 0.9, UNDECIDED),
    ],
)
def test_one_row(value: float, approve_below: float | None, block_from: float | None, route: int) -> None:
    assert route_by_thresholds(np.array([value]), approve_below, block_from).tolist() == [route]


@given(st.lists(probability, min_size=2), st.tuples(probability, probability).map(sorted))
def test_a_higher_probability_never_gets_a_milder_route(values: list[float], cuts: list[float]) -> None:
    routes = route_by_thresholds(np.sort(np.array(values)), cuts[0], cuts[1])
    assert (np.diff(routes) >= 0).all()


def test_the_strictest_rule_decides_and_among_equals_the_first() -> None:
    routes = np.array([REVIEW, BLOCK, APPROVE, BLOCK], np.int8)
    hit = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    assert strictest_rule(hit, routes).tolist() == [1, 0, 2, -1]


def test_no_rules_decide_nothing() -> None:
    assert strictest_rule(np.zeros((3, 0), bool), np.zeros(0, np.int8)).tolist() == [-1, -1, -1]


@settings(deadline=None)  # the first call compiles
@given(st.data())
def test_a_kernel_applies_the_policy_order_as_row_by_row_python_does(data: st.DataObject) -> None:
    n, r = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 4))

    def column(values: st.SearchStrategy[int]) -> npt.NDArray[np.int8]:
        return np.array(data.draw(st.lists(values, min_size=n, max_size=n)), np.int8)

    hit = np.array(data.draw(st.lists(st.booleans(), min_size=n * r, max_size=n * r)), bool).reshape(n, r)
    routes = np.array(data.draw(st.lists(st.sampled_from((APPROVE, REVIEW, BLOCK)), min_size=r, max_size=r)), np.int8)
    always = np.array(data.draw(st.lists(st.booleans(), min_size=r, max_size=r)), bool)
    said, tier = column(st.sampled_from((UNDECIDED, APPROVE, REVIEW, BLOCK))), column(st.integers(0, 2))
    ruled, fallback = strictest_rule(hit, routes, always), strictest_rule(hit, routes)
    found = in_order(said, tier, ruled, fallback, routes, REVIEW, 4)
    for row in range(n):
        mine = [(-routes[rule], rule) for rule in range(r) if hit[row, rule]]
        first = min(((cut, rule) for cut, rule in mine if always[rule]), default=None)
        if first is None and said[row] == UNDECIDED:
            first = min(mine, default=None)
        expected = (routes[first[1]], 0) if first else (REVIEW, 4) if said[row] == UNDECIDED else (said[row], tier[row] + 1)
        assert (found[0][row], found[1][row]) == expected
