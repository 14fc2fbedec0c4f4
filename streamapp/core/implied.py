"""What conditions say about one another: which can never be true, which always are, which hit wherever another one does.

A condition is written as a choice of cases, each of them intervals of numbers, sets of words and comparisons that are not looked into.
That is enough for what people write by mistake; where it is not, or where there are too many cases, nothing is claimed.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from streamapp.core.conditions import NUMBER
from streamapp.core.expressions import constant_of, parse_expression

#: Cases beyond which nothing is claimed about a condition; time grows with its square.
CASES_MAX = 128

#: Truth values of a boolean, written as words; no constant of the language looks like them.
_TRUE, _FALSE = "\0true", "\0false"


@dataclass(slots=True, frozen=True)
class Range:
    """Numbers from `low` to `high`; an open end is not part of it."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __and__(self, other: Range) -> Range:
        low, low_open = max((self.low, self.low_open), (other.low, other.low_open))
        high, closed = min((self.high, not self.high_open), (other.high, not other.high_open))
        return Range(low, high, low_open, not closed)

    def empty(self) -> bool:
        """Says whether no number is in it."""
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def within(self, other: Range) -> bool:
        """Says whether all of it is in `other`."""
        return (self & other) == self


@dataclass(slots=True, frozen=True)
class Words:
    """One of `members`, or where `inside` is false any other word."""

    members: frozenset[str]
    inside: bool = True

    def __and__(self, other: Words) -> Words:
        if self.inside and other.inside:
            return Words(self.members & other.members)
        if self.inside or other.inside:
            listed, outside = (self, other) if self.inside else (other, self)
            return Words(listed.members - outside.members)
        return Words(self.members | other.members, inside=False)

    def empty(self) -> bool:
        """Says whether no word is in it."""
        return self.inside and not self.members

    def within(self, other: Words) -> bool:
        """Says whether all of it is in `other`."""
        return (self & other) == self


@dataclass(slots=True, frozen=True)
class Domain:
    """What is known of the names before any condition: number ranges, and which names are never missing."""

    ranges: Mapping[str, Range] = field(default_factory=dict)
    present: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Case:
    """Everything in it holds at once."""

    ranges: dict[str, Range] = field(default_factory=dict)
    words: dict[str, Words] = field(default_factory=dict)
    other: dict[str, bool] = field(default_factory=dict)  #  comparisons that are not looked into, and whether they hold
    missing: set[str] = field(default_factory=set)
    possible: bool = True

    def named(self) -> set[str]:
        """Gives the names that are certainly there."""
        return {*self.ranges, *self.words}

    def add(self, more: _Case) -> _Case:
        """Gives both at once."""
        ranges, words = dict(self.ranges), dict(self.words)
        for name, numbers in more.ranges.items():
            ranges[name] = ranges.get(name, Range()) & numbers
        for name, listed in more.words.items():
            words[name] = words[name] & listed if name in words else listed
        both = _Case(ranges, words, {**self.other, **more.other}, self.missing | more.missing, self.possible and more.possible)
        both.possible &= all(more.other.get(text, holds) == holds for text, holds in self.other.items())
        both.possible &= not any(one.empty() for one in ranges.values()) and not any(one.empty() for one in words.values())
        both.possible &= not both.missing & both.named()
        return both

    def fits(self, domain: Domain) -> bool:
        """Says whether any row could be like this."""
        inside = all(not (numbers & domain.ranges.get(name, Range())).empty() for name, numbers in self.ranges.items())
        return self.possible and inside and not self.missing & domain.present

    def says(self, other: _Case, domain: Domain) -> bool:
        """Says whether every row like this is a row like `other`."""
        for name, numbers in other.ranges.items():
            if name not in self.ranges and name not in domain.present:
                return False
            if not (self.ranges.get(name, Range()) & domain.ranges.get(name, Range())).within(numbers):
                return False
        return (
            all(name in self.words and self.words[name].within(listed) for name, listed in other.words.items())
            and all(self.other.get(text) == holds for text, holds in other.other.items())
            and other.missing <= self.missing
        )


class _TooManyCases(Exception):
    pass


@dataclass(slots=True, frozen=True)
class Meaning:
    """A condition as cases; None where it has too many of them to say anything."""

    cases: Sequence[_Case] | None
    names: frozenset[str]
    domain: Domain
    opposite: Sequence[_Case] | None
    plain: bool  #  only names are compared, with constants: a computed number may be missing though its names are there

    def never(self) -> bool:
        """Says whether it can certainly not be true."""
        return self.cases is not None and not self.cases

    def always(self) -> bool:
        """Says whether it is certainly true of every row."""
        return self.plain and self.opposite is not None and not self.opposite and self.names <= self.domain.present

    def implies(self, other: Meaning) -> bool:
        """Says whether `other` is certainly true wherever this is."""
        if self.cases is None or other.cases is None:
            return False
        return all(any(case.says(wide, self.domain) for wide in other.cases or ()) for case in self.cases)


def meaning_of(text: str, types: Mapping[str, str], domain: Domain) -> Meaning:
    """Takes a condition that compiles, the types of its names and what is known of them; gives what can be said of it."""
    tree = parse_expression(text)
    if isinstance(tree, str):
        return Meaning(None, frozenset(), domain, None, plain=False)
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in types)
    cases, opposite = _possible(tree, types, domain, wanted=True), _possible(tree, types, domain, wanted=False)
    plain = not any(isinstance(node, ast.BinOp) or (isinstance(node, ast.Call) and not _asks(node)) for node in ast.walk(tree))
    return Meaning(cases, names, domain, opposite, plain)


def _asks(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("missing", "in_list")


def _possible(tree: ast.expr, types: Mapping[str, str], domain: Domain, *, wanted: bool) -> list[_Case] | None:
    try:
        return [case for case in _cases(tree, types, wanted=wanted) if case.fits(domain)]
    except _TooManyCases:
        return None


def _cases(node: ast.expr, types: Mapping[str, str], *, wanted: bool) -> list[_Case]:
    """Gives the cases in which a condition is certainly true (`wanted`), or certainly false."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _cases(node.operand, types, wanted=not wanted)
    if isinstance(node, ast.BoolOp):
        parts = (_cases(value, types, wanted=wanted) for value in node.values)
        return _all_of(parts) if isinstance(node.op, ast.And) == wanted else _any_of(parts)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        pairs = (_pair(left, op, right, types, wanted=wanted) for left, op, right in zip(sides, node.ops, sides[1:], strict=False))
        return _all_of(pairs) if wanted else _any_of(pairs)
    if isinstance(node, ast.Name):
        return [_Case(words={node.id: Words(frozenset((_TRUE if wanted else _FALSE,)))})]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "missing":
        name = ast.unparse(node.args[0])
        if wanted:
            return [_Case(missing={name})]
        return [_Case(ranges={name: Range()}) if types[name] == NUMBER else _Case(words={name: Words(frozenset(), inside=False)})]
    return [_Case(other={ast.unparse(node): wanted})]


def _all_of(parts: Iterable[list[_Case]]) -> list[_Case]:
    cases = [_Case()]
    for part in parts:
        cases = [both for one in cases for other in part if (both := one.add(other)).possible]
        if len(cases) > CASES_MAX:
            raise _TooManyCases
    return cases


def _any_of(parts: Iterable[list[_Case]]) -> list[_Case]:
    cases = [case for part in parts for case in part]
    if len(cases) > CASES_MAX:
        raise _TooManyCases
    return cases


def _pair(left: ast.expr, op: ast.cmpop, right: ast.expr, types: Mapping[str, str], *, wanted: bool) -> list[_Case]:
    if isinstance(op, (ast.NotIn, ast.NotEq)):
        return _pair(left, ast.In() if isinstance(op, ast.NotIn) else ast.Eq(), right, types, wanted=not wanted)
    if not isinstance(left, ast.Name) and isinstance(right, ast.Name) and type(op) in _MIRRORED:
        left, op, right = right, _MIRRORED[type(op)](), left
    if isinstance(op, ast.In):
        members = [constant_of(item) for item in right.elts] if isinstance(right, (ast.List, ast.Tuple)) else []
    else:
        members = [constant_of(right)]
    if not isinstance(left, ast.Name) or None in members or not members:
        return [_Case(other=_unseen(left, op, right, wanted=wanted))]
    if types.get(left.id) == NUMBER:
        numbers = [float(member) for member in members if isinstance(member, (int, float))]
        return [_Case(ranges={left.id: one}) for one in _ranges(op, numbers, wanted=wanted)]
    listed = frozenset((_TRUE if member else _FALSE) if isinstance(member, bool) else str(member) for member in members)
    return [_Case(words={left.id: Words(listed, inside=wanted)})]


_MIRRORED: Mapping[type[ast.cmpop], Callable[[], ast.cmpop]] = {
    ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.Eq,
}  # fmt: skip


def _ranges(op: ast.cmpop, numbers: Sequence[float], *, wanted: bool) -> list[Range]:
    if isinstance(op, (ast.Gt, ast.LtE)):
        number = numbers[0]
        return [Range(low=number, low_open=True) if isinstance(op, ast.Gt) == wanted else Range(high=number)]
    if isinstance(op, (ast.Lt, ast.GtE)):
        number = numbers[0]
        return [Range(high=number, high_open=True) if isinstance(op, ast.Lt) == wanted else Range(low=number)]
    points = sorted(set(numbers))
    if wanted:
        return [Range(point, point) for point in points]
    ends = [-math.inf, *points, math.inf]
    return [Range(low, high, low_open=True, high_open=True) for low, high in pairwise(ends)]


def _unseen(left: ast.expr, op: ast.cmpop, right: ast.expr, *, wanted: bool) -> dict[str, bool]:
    """Gives a comparison that is not looked into, in one form for it and its opposite."""
    one, other = ast.unparse(left), ast.unparse(right)
    if isinstance(op, (ast.Lt, ast.GtE)):
        return {f"{other} > {one}": isinstance(op, ast.Lt) == wanted}
    if isinstance(op, (ast.Gt, ast.LtE)):
        return {f"{one} > {other}": isinstance(op, ast.Gt) == wanted}
    if isinstance(op, ast.Eq):
        return {" == ".join(sorted((one, other))): wanted}
    return {f"{one} in {other}": wanted}
