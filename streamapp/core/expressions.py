"""The language of rule conditions: a small part of Python's grammar, typed, turned into operations on whole columns; nothing is evaluated.

A division (or remainder) by zero is a missing number, and so are the logarithm of zero and a root or logarithm of less than zero.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from streamapp.core.conditions import (
    BOOLEAN,
    NUMBER,
    PRIVATE,
    STRING,
    Condition,
    Operand,
    is_true,
    joined,
    leaf_of,
    leafless,
    listed_in,
    negated,
    same_numbers,
    same_words,
    words_in,
)  # fmt: skip
from streamapp.core.document import nearest

#: Bounds of one condition: characters, nodes of its tree, depth of its tree.
LENGTH_MAX, NODES_MAX, DEPTH_MAX = 2000, 300, 30

NO_LISTS: Mapping[str, frozenset[str]] = {}


class WrongExpression(Exception):
    """What is wrong with a condition, as one sentence."""


def parse_expression(text: str) -> ast.expr | str:
    """Takes a condition's text; gives its tree, or the sentence that says why it is none."""
    flat = re.sub(r"\s*\n\s*", " ", text.strip())
    if len(flat) > LENGTH_MAX:
        return f"is longer than {LENGTH_MAX} characters; split the rule"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on odd literals is not ours
            tree = ast.parse(flat, mode="eval").body
        nodes, depth = _size(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as failure:
        return f"is no condition: {getattr(failure, 'msg', None) or 'it cannot be parsed'}"
    if nodes > NODES_MAX or depth > DEPTH_MAX:
        return f"has {nodes} parts, {depth} deep; at most {NODES_MAX} parts, {DEPTH_MAX} deep: split the rule"
    return tree


def compile_condition(text: str, types: Mapping[str, str], lists: Mapping[str, frozenset[str]] = NO_LISTS) -> Condition:
    """Takes a condition's text, the types of the names it may use and the fields that each list may be asked about.

    Gives the compiled condition, raises WrongExpression.
    """
    tree = parse_expression(text)
    if isinstance(tree, str):
        raise WrongExpression(tree)
    return _Compiler(types, lists).condition(tree)


def constant_of(node: ast.expr) -> float | str | bool | None:
    """Gives what an expression without names is, None where it is none of the language's constants."""
    try:
        constant: float | str | bool | None = _Compiler({}).operand(node).constant
    except WrongExpression:
        return None
    return constant


def _size(tree: ast.AST) -> tuple[int, int]:
    nodes, deepest, left = 0, 0, [(tree, 1)]
    while left:
        node, depth = left.pop()
        nodes, deepest = nodes + 1, max(deepest, depth)
        left.extend((child, depth + 1) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context))
    return nodes, deepest


def compile_number(text: str, types: Mapping[str, str]) -> Operand:
    """Takes the text of an expression with a number as its value and the types of the names it may use; raises WrongExpression."""
    tree = parse_expression(text)
    if isinstance(tree, str):
        raise WrongExpression(tree)
    operand = _Compiler(types).operand(tree)
    if operand.kind != NUMBER:
        raise WrongExpression(f"`{ast.unparse(tree)}` is a {_said(operand.kind)}; a number is needed here")
    if operand.fixed:
        raise WrongExpression(f"`{ast.unparse(tree)}` is always the same; name a feature or field")
    return operand


_ORDER: Mapping[type[ast.cmpop], tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    ast.Lt: (np.less, np.greater_equal),
    ast.LtE: (np.less_equal, np.greater),
    ast.Gt: (np.greater, np.less_equal),
    ast.GtE: (np.greater_equal, np.less),
}


class _Compiler:
    def __init__(self, types: Mapping[str, str], lists: Mapping[str, frozenset[str]] = NO_LISTS) -> None:
        self._types, self._lists = types, lists

    def condition(self, node: ast.expr) -> Condition:
        if isinstance(node, ast.BoolOp):
            return joined([self.condition(value) for value in node.values], every=isinstance(node.op, ast.And))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return negated(self.condition(node.operand))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("missing", "in_list"):
            return self._missing(node) if node.func.id == "missing" else self._in_list(node)
        operand = self.operand(node)
        if operand.kind != BOOLEAN:
            raise WrongExpression(f"`{ast.unparse(node)}` is a {operand.kind}, not a condition; compare it with something")
        if operand.fixed:
            raise WrongExpression(f"`{ast.unparse(node)}` is always the same; name a feature or field")
        return is_true(operand)

    def operand(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Constant):
            return _constant(node)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return _apply(np.negative if isinstance(node.op, ast.USub) else np.positive, node, self._number(node.operand))
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise WrongExpression(
            f"`{ast.unparse(node)}` is not part of the language; use comparisons, and/or/not, + - * / %, in [...], "
            "missing, in_list, abs, exp, log, sqrt, min, max"
        )

    def _name(self, name: str) -> Operand:
        if name in ("true", "false") and name not in self._types:
            return _constant(ast.Constant(name == "true"))
        kind = self._types.get(name)
        if kind is None:
            raise WrongExpression(f"`{name}` is no feature or field{nearest(name, self._types)}")
        if kind in (STRING, PRIVATE):
            return Operand(kind, lambda columns: columns.words(name), frozenset((name,)), name=name)
        return Operand(kind, lambda columns: columns.numbers(name), frozenset((name,)), name=name)

    def _number(self, node: ast.expr) -> Operand:
        operand = self.operand(node)
        if operand.kind != NUMBER:
            raise WrongExpression(f"`{ast.unparse(node)}` is a {_said(operand.kind)}; a number is needed here")
        return operand

    def _arithmetic(self, node: ast.BinOp) -> Operand:
        operation = _ARITHMETIC.get(type(node.op))
        if operation is None:
            raise WrongExpression(f"`{ast.unparse(node)}` uses an operator that is not part of the language; there are + - * / %")
        left, right = self._number(node.left), self._number(node.right)
        if isinstance(node.op, (ast.Div, ast.Mod)) and right.fixed and right.constant == 0:
            raise WrongExpression(f"`{ast.unparse(node)}` divides by zero")
        return _apply(operation, node, left, right)

    def _call(self, node: ast.Call) -> Operand:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        known: dict[str, tuple[Callable[..., Any], int]] = {
            "abs": (np.absolute, 1), "exp": (np.exp, 1), "log": (_logarithm, 1), "sqrt": (np.sqrt, 1),
            "min": (np.minimum, 2), "max": (np.maximum, 2),
        }  # fmt: skip
        if name not in known:
            raise WrongExpression(f"`{name}` is no function of the language{nearest(name, [*known, 'missing', 'in_list'])}")
        operation, least = known[name]
        arguments = [self._number(argument) for argument in node.args]
        if node.keywords or len(arguments) < least or (least == 1 and len(arguments) > 1):
            raise WrongExpression(f"`{name}` takes {'one number' if least == 1 else 'two or more numbers'}")
        if least == 1:
            return _apply(operation, node, arguments[0])
        result = arguments[0]
        for argument in arguments[1:]:
            result = _apply(operation, node, result, argument)
        return result

    def _missing(self, node: ast.Call) -> Condition:
        if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Name):
            raise WrongExpression("`missing` takes the name of one feature or field")
        name = node.args[0].id
        if self._name(name).kind in (STRING, PRIVATE):
            return leafless(lambda columns: columns.missing(name))
        return leafless(lambda columns: np.isnan(columns.numbers(name)))

    def _in_list(self, node: ast.Call) -> Condition:
        field, listed = node.args if len(node.args) == 2 else (None, None)
        if node.keywords or not isinstance(field, ast.Name) or not isinstance(listed, ast.Constant) or not isinstance(listed.value, str):
            raise WrongExpression('`in_list` takes a field and the name of a list, like in_list(ip, "blocked_addresses")')
        name, one = listed.value, self._name(field.id)
        if name not in self._lists:
            raise WrongExpression(f"`{name}` is no list; declare [lists.{name}]{nearest(name, self._lists)}")
        if field.id not in self._lists[name]:
            raise WrongExpression(f"list `{name}` cannot be asked about `{field.id}`{nearest(field.id, self._lists[name])}")
        return listed_in(one, name)

    def _compare(self, node: ast.Compare) -> Condition:
        sides = [node.left, *node.comparators]
        parts = [self._pair(left, op, right) for left, op, right in zip(sides, node.ops, sides[1:], strict=False)]
        return parts[0] if len(parts) == 1 else joined(parts, every=True)

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Condition:
        shown = ast.unparse(ast.Compare(left, [op], [right]))
        if isinstance(op, (ast.In, ast.NotIn)):
            inside = self._membership(left, right, shown)
            return negated(inside) if isinstance(op, ast.NotIn) else inside
        if not isinstance(op, (ast.Eq, ast.NotEq, *_ORDER)):
            raise WrongExpression(f"`{shown}` uses a comparison that is not part of the language; there are < <= > >= == != in")
        one, other = self.operand(left), self.operand(right)
        if one.fixed and other.fixed:
            raise WrongExpression(f"`{shown}` is always the same; name a feature or field")
        kinds = {STRING if operand.kind == PRIVATE else operand.kind for operand in (one, other)}
        if len(kinds) > 1:
            raise WrongExpression(f"`{shown}` compares a {_said(one.kind)} with a {_said(other.kind)}")
        if isinstance(op, (ast.Eq, ast.NotEq)):
            same = same_words(one, other) if kinds == {STRING} else same_numbers(one, other)
            return negated(same) if isinstance(op, ast.NotEq) else same
        if kinds != {NUMBER}:
            raise WrongExpression(f"`{shown}` orders {_said(one.kind)}s; only numbers have an order, use == or in")
        test, opposite = _ORDER[type(op)]
        leaf = leaf_of(one, other)
        return Condition(
            lambda columns: test(one.run(columns), other.run(columns)),
            lambda columns: opposite(one.run(columns), other.run(columns)),
            leaf,
        )

    def _membership(self, left: ast.expr, right: ast.expr, shown: str) -> Condition:
        operand = self.operand(left)
        if not isinstance(right, (ast.List, ast.Tuple)) or not right.elts:
            raise WrongExpression(f'`{shown}`: `in` needs a list of constants, like ["a", "b"]')
        members = [self.operand(item) for item in right.elts]
        if operand.fixed:
            raise WrongExpression(f"`{shown}` is always the same; name a feature or field")
        wanted = STRING if operand.kind == PRIVATE else operand.kind
        if wanted == BOOLEAN or any(not member.fixed or member.kind != wanted for member in members):
            raise WrongExpression(f"`{shown}`: the list must hold constants of type {_said(wanted)}")
        constants = [member.constant for member in members]
        limit = ", ".join(str(constant) for constant in constants[:5]) + (", ..." if len(constants) > 5 else "")
        leaf = leaf_of(operand, Operand(STRING, lambda _: limit))
        if wanted == STRING:
            return words_in(operand.name or "", frozenset(constants), leaf)
        listed = np.array(sorted(set(constants)), np.float64)
        return Condition(
            lambda columns: np.isin(operand.run(columns), listed),
            lambda columns: ~(np.isin(operand.run(columns), listed) | np.isnan(operand.run(columns))),
            leaf,
        )


def _said(kind: str) -> str:
    return STRING if kind == PRIVATE else kind


def _constant(node: ast.Constant) -> Operand:
    value = node.value
    if isinstance(value, bool):
        return Operand(BOOLEAN, lambda _: float(value), constant=value)
    if isinstance(value, str):
        return Operand(STRING, lambda _: value, constant=value)
    if isinstance(value, (int, float)) and abs(value) <= 1e300:
        number = float(value)
        return Operand(NUMBER, lambda _: number, constant=number)
    raise WrongExpression(f"`{ast.unparse(node)}` is no constant of the language; there are numbers, strings, true and false")


def _remainder(left: Any, right: Any) -> Any:
    return np.where(np.equal(right, 0.0), np.nan, np.mod(left, right))


def _quotient(left: Any, right: Any) -> Any:
    return np.where(np.equal(right, 0.0), np.nan, np.divide(left, right))


def _logarithm(number: Any) -> Any:
    return np.log(np.where(np.equal(number, 0.0), np.nan, number))  # of zero it is missing, like a division by zero


_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: _quotient, ast.Mod: _remainder,
}  # fmt: skip


def _apply(operation: Callable[..., Any], node: ast.expr, *operands: Operand) -> Operand:
    names = frozenset[str]().union(*(operand.names for operand in operands))
    if names:
        runs = [operand.run for operand in operands]
        if len(runs) == 1:
            only = runs[0]
            return Operand(NUMBER, lambda columns: operation(only(columns)), names)
        first, second = runs
        return Operand(NUMBER, lambda columns: operation(first(columns), second(columns)), names)
    with np.errstate(all="ignore"):
        value = float(operation(*(operand.constant for operand in operands)))
    if not np.isfinite(value):
        raise WrongExpression(f"`{ast.unparse(node)}` is no finite number")
    return Operand(NUMBER, lambda _: value, constant=value)
