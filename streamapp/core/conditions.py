"""Conditions over whole columns: what is true where, and which comparison made it true.

Missing values make three-valued logic: a comparison with a missing operand is unknown, `not` of unknown is unknown, and only what is
certainly true hits. It is kept by pushing `not` down to the comparisons, each of which is false where an operand is missing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import InvariantBroken

Bools = npt.NDArray[np.bool_]

#: Types of names. "private" is a string that may decide but is never quoted in a reason (ids, raw text).
NUMBER, STRING, BOOLEAN, PRIVATE = "number", "string", "boolean", "private"


def on_no_list(name: str, field: str) -> Bools:
    """`listed` of columns that no condition asks about lists."""
    raise InvariantBroken(f"a condition asks whether {field} is on list {name}, and nobody answers")


class Columns:
    """The columns one micro-batch's rules look at, each fetched and converted once."""

    def __init__(self, column: Callable[[str], Any], n: int, listed: Callable[[str, str], Bools] = on_no_list) -> None:
        """`column(name)` gives n values: an array, or a list with None where missing; `listed(list, field)` where a value is on a list."""
        self._column, self.n, self.listed = column, n, listed
        self._numbers: dict[str, npt.NDArray[np.float64]] = {}
        self._words: dict[str, list[str | None]] = {}
        self._found: dict[Hashable, Bools] = {}

    def once(self, what: Hashable, find: Callable[[], Bools]) -> Bools:
        """Gives what `find` gives, looked for once however many conditions ask the same; nobody may change it."""
        found = self._found.get(what)
        if found is None:
            found = self._found[what] = find()
        return found

    def missing(self, name: str) -> Bools:
        """Gives where a string column is missing."""
        words = self.words(name)
        if None not in words:
            return self.once(None, lambda: np.zeros(self.n, np.bool_))
        return self.once(name, lambda: np.fromiter(map(operator.is_, words, repeat(None)), np.bool_, self.n))

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Gives a number or boolean column as float64 [n], NaN where missing."""
        values = self._numbers.get(name)
        if values is None:
            values = self._numbers[name] = np.asarray(self._column(name), np.float64)
        return values

    def at(self, name: str, row: int) -> Any:
        """Gives one value as a plain Python value."""
        value = self._column(name)[row]
        return value.item() if isinstance(value, np.generic) else value

    def words(self, name: str) -> list[str | None]:
        """Gives a string column as a list of n, None where missing."""
        values = self._words.get(name)
        if values is None:
            column = self._column(name)
            values = self._words[name] = column if isinstance(column, list) else list(column)
        return values


Run = Callable[[Columns], Any]


@dataclass(slots=True, frozen=True)
class Operand:
    """One side of a comparison: `run` gives a column, or the constant itself."""

    kind: str
    run: Run
    names: frozenset[str] = frozenset()
    constant: Any = None
    name: str | None = None  #   where it is one feature or field as it stands

    @property
    def fixed(self) -> bool:
        """Says whether every row has the same value."""
        return not self.names


@dataclass(slots=True, frozen=True, eq=False)
class Leaf:
    """One comparison: what was compared with what, to be told in a reason."""

    name: str | None = None  #      of the feature or field, where the value is just that
    value: Run | None = None  #     None: nothing to quote
    limit: Run | None = None


@dataclass(slots=True, frozen=True)
class Condition:
    """A truth value per row: where it is certainly true, and how to find the comparison that made it so."""

    true: Callable[[Columns], Bools]
    false: Callable[[Columns], Bools]
    leaf: Leaf | None = None
    parts: tuple[Condition, ...] = ()
    every: bool = True  #                      of `parts`: all must be true, or any

    def leaves(self, columns: Columns, rows: npt.NDArray[np.intp]) -> list[Leaf]:
        """Takes rows where the condition is true; gives per row the first comparison that made it true."""
        if not self.parts:
            return [self.leaf or Leaf()] * len(rows)
        if self.every:
            telling = [part for part in self.parts if part.telling()]
            return (telling or list(self.parts))[0].leaves(columns, rows)
        found: list[Leaf] = [Leaf()] * len(rows)
        open_places = np.arange(len(rows))
        for part in self.parts:
            now = part.true(columns)[rows[open_places]]
            for place, leaf in zip(open_places[now].tolist(), part.leaves(columns, rows[open_places[now]]), strict=True):
                found[place] = leaf
            open_places = open_places[~now]
        return found

    def telling(self) -> bool:
        """Says whether a reason could quote a value from here."""
        return any(part.telling() for part in self.parts) if self.parts else self.leaf is not None and self.leaf.value is not None


def leaf_of(one: Operand, other: Operand) -> Leaf:
    """Tells the side with names as the value; a private side quotes nothing."""
    if PRIVATE in (one.kind, other.kind):
        return Leaf(one.name)
    value, limit = (other, one) if one.fixed else (one, other)
    return Leaf(value.name, value.run, limit.run)


def negated(condition: Condition) -> Condition:
    """Gives the condition that is true where this one is certainly false."""
    if condition.parts:
        return joined([negated(part) for part in condition.parts], every=not condition.every)
    return Condition(condition.false, condition.true, condition.leaf)


def joined(parts: Iterable[Condition], *, every: bool) -> Condition:
    """Gives the condition that all parts, or any part, is true."""
    kept = tuple(parts)

    def combine(form: str, operation: Callable[[Bools, Bools], Bools]) -> Callable[[Columns], Bools]:
        runs = [getattr(part, form) for part in kept]

        def run(columns: Columns) -> Bools:
            result: Bools = runs[0](columns)
            for other in runs[1:]:
                result = operation(result, other(columns))
            return result

        return run

    both, either = operator.and_, operator.or_
    return Condition(combine("true", both if every else either), combine("false", either if every else both), None, kept, every)


def leafless(true: Callable[[Columns], Bools]) -> Condition:
    """Gives a condition that is never unknown and has nothing to quote."""
    return Condition(true, lambda columns: ~true(columns), Leaf())


def is_true(operand: Operand) -> Condition:
    """Gives the condition that a boolean column is true; its negation: that it is false."""
    return Condition(lambda columns: operand.run(columns) == 1.0, lambda columns: operand.run(columns) == 0.0, Leaf(operand.name))


def same_numbers(one: Operand, other: Operand) -> Condition:
    """Gives the condition that two numbers or booleans are equal."""

    def differ(columns: Columns) -> Bools:
        first, second = one.run(columns), other.run(columns)
        different: Bools = np.not_equal(first, second) & ~(np.isnan(first) | np.isnan(second))
        return different

    return Condition(lambda columns: np.equal(one.run(columns), other.run(columns)), differ, leaf_of(one, other))


def same_words(one: Operand, other: Operand) -> Condition:
    """Gives the condition that two strings are equal."""
    leaf = leaf_of(one, other)
    if one.fixed or other.fixed:
        named, constant = (other, one) if one.fixed else (one, other)
        return words_in(named.name or "", frozenset((constant.constant,)), leaf)

    names = one.name or "", other.name or ""  # strings that are not constants are fields as they stand

    def same(columns: Columns) -> Bools:
        first, second = map(columns.words, names)
        equal = columns.once(("==", *names), lambda: np.fromiter(map(operator.eq, first, second), np.bool_, columns.n))
        return equal & ~columns.missing(names[0])

    def differ(columns: Columns) -> Bools:
        first, second = map(columns.words, names)
        other = columns.once(("!=", *names), lambda: np.fromiter(map(operator.ne, first, second), np.bool_, columns.n))
        return other & ~(columns.missing(names[0]) | columns.missing(names[1]))

    return Condition(same, differ, leaf)


def words_in(name: str, members: frozenset[str], leaf: Leaf) -> Condition:
    """Gives the condition that a field's value is one of `members`."""

    def listed(columns: Columns) -> Bools:
        found = members.__contains__
        return columns.once((name, members), lambda: np.fromiter(map(found, columns.words(name)), np.bool_, columns.n))

    return Condition(listed, lambda columns: ~(listed(columns) | columns.missing(name)), leaf)


def listed_in(operand: Operand, name: str) -> Condition:
    """Gives the condition that a field's value is on the list `name`; of a missing value nothing is known."""
    field = operand.name or ""

    def absent(columns: Columns) -> Bools:
        return ~(columns.listed(name, field) | columns.missing(field))

    leaf = leaf_of(operand, Operand(STRING, lambda _: name, constant=name))
    return Condition(lambda columns: columns.listed(name, field), absent, leaf)
