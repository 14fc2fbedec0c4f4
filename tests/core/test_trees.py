"""Flat trees: which way a row goes at a threshold, what its margin is, and which tables are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import InvariantBroken
from streamapp.core.trees import LEAF, Trees, below
from streamapp.core.vectorise import Inputs

finite = st.floats(-1e30, 1e30, allow_nan=False)


def stump(threshold: float) -> Trees:
    """Two trees: one split on feature 1, and one leaf alone."""
    return Trees(
        np.array([0, 3]), np.array([1, LEAF, LEAF, LEAF]), np.array([threshold, 0, 0, 0], np.float32), np.array([1, LEAF, LEAF, LEAF]),
        np.array([2, LEAF, LEAF, LEAF]), np.array([0.0, -1.0, 2.0, 0.25]), 2,
    )  # fmt: skip


def test_equal_goes_left_and_the_next_number_goes_right() -> None:
    rows = np.array([[9, 3], [9, np.nextafter(np.float32(3), np.float32(4))]], np.float32)
    assert stump(3.0).margins(Inputs(rows, None)).tolist() == [[-0.75], [2.25]]


def test_margins_do_not_depend_on_how_many_rows_come_together() -> None:
    rows = np.random.default_rng(1).normal(3, 1, (9000, 2)).astype(np.float32)
    whole = stump(3.0).margins(Inputs(rows, None))
    assert np.array_equal(whole[5000:5010], stump(3.0).margins(Inputs(rows[5000:5010], None)))
    assert stump(3.0).margins(Inputs(rows[:0], None)).shape == (0, 1)


@given(finite, finite)
def test_a_float32_row_takes_the_same_side_of_the_rounded_threshold(threshold: float, value: float) -> None:
    near = np.float32(threshold)
    for x in (np.float32(value), near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))):
        assert bool(x <= below(np.array([threshold]))[0]) == bool(float(x) <= threshold)


def test_a_child_before_its_parent_and_an_unknown_feature_are_refused() -> None:
    good = stump(1.0)
    with pytest.raises(InvariantBroken):
        Trees(good.root, good.feature, good.threshold, np.zeros(4, np.int64), good.right, good.value, 2)
    with pytest.raises(InvariantBroken):
        Trees(good.root, good.feature, good.threshold, good.left, good.right, good.value, 1)
