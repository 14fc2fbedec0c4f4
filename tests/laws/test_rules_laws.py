"""Laws of rules: columns decide as a person would row by row, unknown never hits, neighbours do not matter, reasons tell the truth."""

from __future__ import annotations

import ast
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import event, given, settings

from streamapp.core.implied import Domain, Range, meaning_of
from streamapp.core.rules import compile_rules
from streamapp.core.spec import RuleSpec

TYPES = {"a": "number", "b": "number", "flag": "boolean", "s": "string", "t": "string", "who": "private"}
Row = dict[str, Any]

rows = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.sampled_from([None, -1.5, 0.0, 1.0, 2.0, 3.5]),
            "b": st.sampled_from([None, -2.0, 0.0, 1.0, 4.0]),
            "flag": st.sampled_from([None, True, False]),
            "s": st.sampled_from([None, "", "x", "y"]),
            "t": st.sampled_from([None, "x", "y"]),
            "who": st.sampled_from([None, "u1"]),
        }
    ),
    min_size=1,
    max_size=12,
)


def shaped(shape: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(shape.format, *parts)


def one_of(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


names = one_of("a", "b")
numbers = st.recursive(
    st.one_of(names, names, one_of("0", "1", "2.5")),
    lambda inner: st.one_of(
        shaped("({} {} {})", inner, one_of("+", "-", "*"), inner),
        shaped("({} {} {})", inner, one_of("/", "%"), names),
        shaped("{}({}, {})", one_of("min", "max"), inner, inner),
        shaped("abs({})", inner),
        shaped("-{}", inner),
    ),
    max_leaves=4,
)
leaves = st.one_of(
    shaped("{} {} ({} + {})", numbers, one_of("<", "<=", ">", ">=", "==", "!="), names, numbers),
    shaped("0 < {} <= {}", names, names),
    shaped("{} {} [1, 2, -1.5]", names, one_of("in", "not in")),
    shaped("{} {} {}", one_of("s", "t", "who"), one_of("==", "!="), one_of("'x'", "'u1'")),
    shaped("{} {} {}", one_of("s", "who"), one_of("==", "!="), one_of("t")),
    shaped("{} {} ['x', '']", one_of("s", "t"), one_of("in", "not in")),
    one_of("flag", "flag == true", "flag != false", "missing(a)", "missing(s)", "missing(flag)"),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner), st.builds("({} or {})".format, inner, inner), st.builds("(not {})".format, inner)
    ),
    max_leaves=5,
)


def worth(node: ast.expr, row: Row) -> Any:
    """Gives an operand's value in one row, None where missing."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return {"true": True, "false": False}[node.id] if node.id in ("true", "false") else row[node.id]
    if isinstance(node, ast.UnaryOp):
        value = worth(node.operand, row)
        return None if value is None else -value
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        values = [worth(argument, row) for argument in node.args]
        return None if None in values else {"abs": abs, "min": min, "max": max}[node.func.id](*values)
    assert isinstance(node, ast.BinOp)
    left, right = worth(node.left, row), worth(node.right, row)
    if left is None or right is None or (isinstance(node.op, ast.Div | ast.Mod) and right == 0):
        return None
    return {ast.Add: lambda: left + right, ast.Sub: lambda: left - right, ast.Mult: lambda: left * right, ast.Div: lambda: left / right,
            ast.Mod: lambda: left % right}[type(node.op)]()  # fmt: skip


def truth(node: ast.expr, row: Row) -> bool | None:
    """Gives Kleene's three-valued truth of a condition in one row."""
    if isinstance(node, ast.BoolOp):
        parts = [truth(part, row) for part in node.values]
        decisive = isinstance(node.op, ast.Or)
        return decisive if decisive in parts else None if None in parts else not decisive
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = truth(node.operand, row)
        return None if inner is None else not inner
    if isinstance(node, ast.Call):
        return worth(node.args[0], row) is None
    if not isinstance(node, ast.Compare):
        return worth(node, row)  # type: ignore[no-any-return]
    sides = [node.left, *node.comparators]
    parts = [compared(op, left, right, row) for op, left, right in zip(node.ops, sides, sides[1:], strict=False)]
    return False if False in parts else None if None in parts else True


def compared(op: ast.cmpop, left_node: ast.expr, right_node: ast.expr, row: Row) -> bool | None:
    left = worth(left_node, row)
    if isinstance(right_node, ast.List):
        inside = left in [worth(one, row) for one in right_node.elts]
        return None if left is None else inside == isinstance(op, ast.In)
    right = worth(right_node, row)
    if left is None or right is None:
        return None
    return {ast.Lt: lambda: left < right, ast.LtE: lambda: left <= right, ast.Gt: lambda: left > right, ast.GtE: lambda: left >= right,
            ast.Eq: lambda: left == right, ast.NotEq: lambda: left != right}[type(op)]()  # type: ignore[no-any-return]  # fmt: skip


def hits(when: str, given_rows: list[Row]) -> list[bool]:
    if meaning_of(when, TYPES, Domain()).never():  # such a rule is refused, and must not hit
        return [False] * len(given_rows)
    rules = compile_rules([RuleSpec(code="r", when=when, route="review", text="why")], TYPES)
    found = rules.evaluate(lambda name: [row[name] for row in given_rows], len(given_rows))
    assert [bool(rules.reasons(found, place)) for place in range(len(given_rows))] == found.hit[:, 0].tolist()
    return [bool(hit) for hit in found.hit[:, 0]]


@given(conditions, rows)
@settings(max_examples=300, deadline=None)
def test_columns_decide_as_one_would_row_by_row(when: str, given_rows: list[Row]) -> None:
    tree = ast.parse(when, mode="eval").body
    assert hits(when, given_rows) == [truth(tree, row) is True for row in given_rows]


narrowed = st.builds(lambda one, other: (f"({one}) and ({other})", one), conditions, conditions)
widened = st.builds(lambda one, other: (one, f"({other}) or ({one})"), conditions, conditions)


@given(st.one_of(narrowed, widened, st.tuples(conditions, conditions), st.tuples(leaves, leaves)), rows)
@settings(max_examples=150, deadline=None)
def test_a_condition_that_implies_another_one_never_hits_alone(pair: tuple[str, str], given_rows: list[Row]) -> None:
    one, other = (meaning_of(when, TYPES, Domain()) for when in pair)
    claimed = one.implies(other)
    event(f"claimed: {claimed}")
    if claimed:
        narrow, wide = ([truth(ast.parse(when, mode="eval").body, row) is True for row in given_rows] for when in pair)
        assert all(w for n, w in zip(narrow, wide, strict=True) if n)


@given(conditions, rows)
@settings(max_examples=100, deadline=None)
def test_a_condition_that_is_always_true_is_true_of_every_row(when: str, given_rows: list[Row]) -> None:
    present = frozenset(name for name in TYPES if all(row[name] is not None for row in given_rows))
    known = Domain({"a": Range(-1.5, 3.5), "b": Range(-2.0, 4.0)}, present)
    meaning, tree = meaning_of(when, TYPES, known), ast.parse(when, mode="eval").body
    found = [truth(tree, row) is True for row in given_rows]
    assert all(found) or not meaning.always()
    assert not any(found) or not meaning.never()


@given(conditions, rows)
@settings(max_examples=50, deadline=None)
def test_neighbours_do_not_matter(when: str, given_rows: list[Row]) -> None:
    assert hits(when, given_rows) == [hits(when, [row])[0] for row in given_rows]


@given(st.sampled_from(["<", "<=", ">", ">="]), st.integers(-3, 5), rows)
@settings(max_examples=100, deadline=None)
def test_a_reason_quotes_a_comparison_that_holds(op: str, limit: int, given_rows: list[Row]) -> None:
    when = f"b > 100 or (a {op} {limit} and not missing(b)) or b < -100"
    rules = compile_rules([RuleSpec(code="r", when=when, route="block", text="{value} against {limit}, b is {b}")], TYPES)
    found = rules.evaluate(lambda name: np.array([math.nan if row[name] is None else row[name] for row in given_rows]), len(given_rows))
    for place, row in enumerate(given_rows):
        for reason in rules.reasons(found, place):
            assert (reason.feature, reason.value, reason.limit) == ("a", row["a"], limit)
            assert truth(ast.parse(f"{reason.value} {op} {reason.limit}", mode="eval").body, row) is True
            assert reason.text.startswith(f"{reason.value:g} against {limit}, b is ")
