"""A tier that is an expression: its value decides, what it cannot compute is left to the next, and mistakes are told at load."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from streamapp.core.cascade import Tier, score
from streamapp.core.conditions import Columns
from streamapp.core.errors import ConfigError
from streamapp.core.formula import Formula, compile_formula
from streamapp.core.route import APPROVE, BLOCK, REVIEW, UNDECIDED
from streamapp.core.vectorise import Inputs

TYPES = {"x": "number", "y": "number", "name": "string"}
NO_INPUTS = Inputs(np.empty((4, 0), np.float32), None)


def columns(x: Sequence[float | None], y: Sequence[float] | None = None) -> Columns:
    return Columns({"x": list(x), "y": list(y or x)}.__getitem__, len(x))


def formula(text: str) -> Formula:
    return compile_formula(text, TYPES, "tiers[0].expression")


def test_the_value_is_what_python_makes_of_the_expression_row_by_row() -> None:
    found = formula("1 / (1 + exp(-(0.01 * x + 0.0005 * y - 2)))").probability(columns([0, 3, 400], [0.0, 5000.5, 1e4]))
    expected = [1 / (1 + math.exp(-(0.01 * x + 0.0005 * y - 2))) for x, y in ((0, 0.0), (3, 5000.5), (400, 1e4))]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        ("1 / (1 + exp(-x))", -1e5, 0.0), ("1 / (1 + exp(-x))", 1e5, 1.0), ("x", 1.5, 1.0), ("x", -3.0, 0.0), ("x / 0.5", 0.25, 0.5),
        ("log(x)", 0.0, math.nan), ("log(x)", -1.0, math.nan), ("sqrt(x)", -1.0, math.nan), ("sqrt(x)", 0.25, 0.5),
        ("1 / x", 0.0, math.nan),
        ("x", None, math.nan), ("max(x, 0.5)", None, math.nan),
    ],
)  # fmt: skip
def test_out_of_bounds_is_the_nearer_end_and_what_cannot_be_computed_is_missing(text: str, x: float | None, expected: float) -> None:
    np.testing.assert_equal(formula(text).probability(columns([x])), [expected])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x > 1", "not part of the language"), ("name", "a number is needed"), ("0.5", "always the same"), ("x +", "no condition"),
        ("z", "no feature or field"), ("exp(x, y)", "takes one number"), ("__import__('os')", "no function"), ("exp(1000) * x", "finite"),
    ],
)  # fmt: skip
def test_a_wrong_expression_is_told_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as told:
        formula(text)
    assert "tiers[0].expression" in str(told.value)


def test_a_formula_routes_by_its_cuts_and_its_value_is_score_and_probability() -> None:
    open_rows = np.array([True, True, True, False])
    found = score(NO_INPUTS, [Tier("fast", None, 0.5, 0.8, formula("x"))], open_rows, columns([0.4, 0.5, 0.8, 0.9]))
    assert found.route.tolist() == [APPROVE, REVIEW, BLOCK, UNDECIDED]
    np.testing.assert_equal(found.score, [0.4, 0.5, 0.8, np.nan])
    np.testing.assert_equal(found.probability, found.score)
    np.testing.assert_equal(found.threshold, [0.5, 0.8, 0.8, np.nan])


def test_rows_without_a_value_go_on_to_the_next_tier() -> None:
    tiers = [Tier("fast", None, 0.5, 0.8, formula("1 / x")), Tier("heavy", None, 0.5, 0.8, formula("y"))]
    found = score(NO_INPUTS, tiers, np.ones(2, bool), columns([0.0, 10.0], [0.9, 0.9]))
    assert found.route.tolist() == [BLOCK, APPROVE] and found.tier.tolist() == [1, 0]
    nobody = score(NO_INPUTS, tiers[:1], np.ones(2, bool), columns([0.0, 10.0]))
    assert nobody.route.tolist() == [UNDECIDED, APPROVE]
