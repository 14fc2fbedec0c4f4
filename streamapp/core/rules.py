"""Rules as columns: compiled and checked when the pipeline file is loaded, evaluated for a whole micro-batch, told in sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.conditions import PRIVATE, Bools, Columns, Condition, Leaf, on_no_list
from streamapp.core.document import Mistakes, nearest
from streamapp.core.explain import Reason
from streamapp.core.expressions import NO_LISTS, WrongExpression, compile_condition
from streamapp.core.implied import Domain, Meaning, meaning_of
from streamapp.core.language import shown as say
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.spec import RuleSpec

#: Raised whenever the same condition may hit other rows than before; part of Rules.version.
LANGUAGE_VERSION = 1

#: Nothing is known of any name.
NOTHING_KNOWN = Domain()

_SLOT = re.compile(r"\{([^{}]*)\}")


@dataclass(slots=True)
class RuleHits:
    """Which rules hit which of n rows; what was compared with what is looked up only for rows somebody asks about."""

    hit: npt.NDArray[np.bool_]  #     n x live rules
    shadow: npt.NDArray[np.bool_]  #  n x shadow rules: counted and logged, never decide
    columns: Columns
    codes: tuple[str, ...]  #         of the live rules
    shadow_codes: tuple[str, ...]
    told: dict[int, list[Reason]] | None = None  #  by row; told for all rows at once when the first is asked for

    def __len__(self) -> int:
        return len(self.hit)


@dataclass(slots=True, frozen=True)
class _Compiled:
    spec: RuleSpec
    condition: Condition
    slots: tuple[str, ...]

    def reasons(self, columns: Columns, rows: npt.NDArray[np.intp]) -> dict[int, Reason]:
        """Takes the rows the rule hits; gives a reason for each."""
        reasons: dict[int, Reason] = {}
        for leaf, mine in self._by_leaf(columns, rows):
            values, limits = _picked(leaf.value, columns, mine), _picked(leaf.limit, columns, mine)
            told: dict[tuple[Any, Any], Reason] = {}  # one reason serves every row with equal values
            shared = {"value", "limit"}.issuperset(self.slots)
            for row, value, limit in zip(mine.tolist(), values, limits, strict=False):
                reason = told.get((value, limit)) if shared else None
                if reason is None:
                    reason = Reason(self.spec.code, self._sentence(value, limit, columns, row), leaf.name, value, limit)
                    told[value, limit] = reason
                reasons[row] = reason
        return reasons

    def _by_leaf(self, columns: Columns, rows: npt.NDArray[np.intp]) -> Iterable[tuple[Leaf, npt.NDArray[np.intp]]]:
        """Gives each comparison that made the rule hit, with its rows."""
        if not self.condition.parts:
            return ((self.condition.leaf or Leaf(), rows),)
        leaves = self.condition.leaves(columns, rows)
        found = [*dict.fromkeys(leaves)]
        if len(found) == 1:
            return ((found[0], rows),)
        return ((leaf, rows[[place for place, one in enumerate(leaves) if one is leaf]]) for leaf in found)

    def _sentence(self, value: Any, limit: Any, columns: Columns, row: int) -> str:
        shown = {"value": say(value), "limit": say(limit)}
        for name in self.slots:
            if name not in shown:
                shown[name] = say(columns.at(name, row))
        return _SLOT.sub(lambda slot: shown[slot[1]], self.spec.text)


class Rules:
    """The live and shadow rules of one pipeline, frozen; drafts are checked and left out."""

    def __init__(self, compiled: Sequence[_Compiled]) -> None:
        """Takes compiled rules in the order of the pipeline file; made by `compile_rules`."""
        live = [rule for rule in compiled if rule.spec.mode == "live"]
        shadow = [rule for rule in compiled if rule.spec.mode == "shadow"]
        self._by_code = {rule.spec.code: rule.condition for rule in compiled}
        self._live, self._live_tests = live, [rule.condition.true for rule in live]
        self._shadow_tests = [rule.condition.true for rule in shadow]
        self.codes = tuple(rule.spec.code for rule in live)
        self.shadow_codes = tuple(rule.spec.code for rule in shadow)
        self.routes = np.array([ROUTE_NAMES.index(rule.spec.route) for rule in live], np.int8)
        self.always = np.array([rule.spec.decides == "always" for rule in live], np.bool_)
        deciding = [(one.code, one.when, one.route, one.decides, one.text, one.mode) for one in (rule.spec for rule in live + shadow)]
        self.version = sha256(msgspec.json.encode((LANGUAGE_VERSION, deciding))).hexdigest()

    def evaluate(self, column: Callable[[str], Any], n: int, listed: Callable[[str, str], Bools] = on_no_list) -> RuleHits:
        """Takes the columns of n rows by name (arrays, or lists with None where missing); gives which rules certainly hit which rows.

        `listed(list, field)` says where a field's value is on a list. Law: a row's hits depend on that row's values only.
        """
        columns = Columns(column, n, listed)
        with np.errstate(all="ignore"):  # overflow is inf and compares as such; what cannot be computed is missing
            live, shadow = _table(self._live_tests, columns), _table(self._shadow_tests, columns)
        return RuleHits(live, shadow, columns, self.codes, self.shadow_codes)

    def hits_of(self, code: str, hits: RuleHits) -> npt.NDArray[np.bool_]:
        """Gives where one rule hits [n], whatever its mode: for its examples, and for looking at drafts."""
        with np.errstate(all="ignore"):
            return self._by_code[code].true(hits.columns)

    def reasons(self, hits: RuleHits, row: int) -> list[Reason]:
        """Gives a reason for every live rule that hits `row`, in file order."""
        if hits.told is None:
            hits.told = self._tell(hits)
        return list(hits.told.get(row, ()))

    def _tell(self, hits: RuleHits) -> dict[int, list[Reason]]:
        told: dict[int, list[Reason]] = {}
        with np.errstate(all="ignore"):
            for place in dict.fromkeys(sorted(hits.hit.nonzero()[1].tolist())):
                for row, reason in self._live[place].reasons(hits.columns, hits.hit[:, place].nonzero()[0]).items():
                    told.setdefault(row, []).append(reason)
        return told


def compile_rules(
    rules: Sequence[RuleSpec],
    types: Mapping[str, str],
    source: str = "rules",
    lines: Mapping[str, int] | None = None,
    *,
    lists: Mapping[str, frozenset[str]] = NO_LISTS,
    domain: Domain = NOTHING_KNOWN,
) -> Rules:
    """Takes rules and the types of the features and fields they may name ("number", "boolean", "string", "private").

    `lists` says which fields each list may be asked about, `domain` what is known of the names before any event.
    A "private" string may decide but is never quoted. Raises ConfigError that lists every mistake of every rule.
    """
    mistakes = Mistakes(source, lines or {})
    compiled = check_rules(rules, types, mistakes, lists=lists, domain=domain)
    mistakes.raise_if_any()
    return Rules(compiled)


def check_rules(
    rules: Sequence[RuleSpec],
    types: Mapping[str, str],
    mistakes: Mistakes,
    *,
    lists: Mapping[str, frozenset[str]] = NO_LISTS,
    domain: Domain = NOTHING_KNOWN,
    skip: Collection[int] = (),
) -> list[_Compiled]:
    """Compiles every rule but those at the places in `skip`, noting what is wrong with them; cost grows with the square of their number."""
    compiled: list[_Compiled] = []
    meanings: list[tuple[int, RuleSpec, Meaning]] = []
    for place, rule in enumerate(rules):
        if place in skip:
            continue
        try:
            condition = compile_condition(rule.when, types, lists)
        except WrongExpression as wrong:
            mistakes.add(f"rules[{place}].when", f"{rule.code}: {wrong}")
        else:
            compiled.append(_Compiled(rule, condition, tuple(_SLOT.findall(rule.text))))
            meaning = meaning_of(rule.when, types, domain)
            if meaning.never():
                mistakes.add(
                    f"rules[{place}].when", f"{rule.code}: can never be true; its parts exclude one another, or the bounds of a name"
                )
            elif meaning.always():
                mistakes.add(f"rules[{place}].when", f"{rule.code}: is true of every event; narrow it, or set thresholds.default_route")
            else:
                meanings.append((place, rule, meaning))
            if not condition.telling() and {"value", "limit"} & set(compiled[-1].slots):
                mistakes.add(
                    f"rules[{place}].text", f"{rule.code}: `when` compares nothing that may be quoted; leave out {{value}} and {{limit}}"
                )
        _check_sentence(place, rule, types, mistakes)
    _check_reach(meanings, mistakes)
    return compiled


def _check_sentence(place: int, rule: RuleSpec, types: Mapping[str, str], mistakes: Mistakes) -> None:
    if re.search(r"[{}]", _SLOT.sub("", rule.text)):
        mistakes.add(f"rules[{place}].text", f"{rule.code}: has a lone brace; slots are {{value}}, {{limit}} or a name")
    for slot in _SLOT.findall(rule.text):
        if slot not in ("value", "limit") and types.get(slot, PRIVATE) == PRIVATE:
            why = (
                "is private and is never quoted" if slot in types else f"is no feature or field{nearest(slot, [*types, 'value', 'limit'])}"
            )
            mistakes.add(f"rules[{place}].text", f"{rule.code}: `{{{slot}}}` {why}")


def _check_reach(meanings: Sequence[tuple[int, RuleSpec, Meaning]], mistakes: Mistakes) -> None:
    """Notes every rule in whose place another one decides whenever it hits."""
    live = [one for one in meanings if one[1].mode == "live"]
    for place, rule, meaning in meanings:
        over = next((o for o in live if o[0] != place and _outranks(o[0], o[1], place, rule) and meaning.implies(o[2])), None)
        if over is not None:
            mistakes.add(
                f"rules[{place}].when",
                f"{rule.code}: never decides, because rules[{over[0]}] `{over[1].code}` hits wherever it does and goes before it; "
                "remove it, move it up, or narrow the other one",
            )


def _outranks(place: int, rule: RuleSpec, other_place: int, other: RuleSpec) -> bool:
    """Says whether a rule decides where another one hits too: those that always decide first, then the strictest, then the first."""
    if rule.decides != other.decides:
        return rule.decides == "always"
    strictness = ROUTE_NAMES.index(rule.route) - ROUTE_NAMES.index(other.route)
    return strictness > 0 or (strictness == 0 and place < other_place)


def _table(tests: Sequence[Callable[[Columns], npt.NDArray[np.bool_]]], columns: Columns) -> npt.NDArray[np.bool_]:
    table = np.empty((columns.n, len(tests)), np.bool_)
    for place, test in enumerate(tests):
        table[:, place] = test(columns)
    return table


def _picked(run: Callable[[Columns], Any] | None, columns: Columns, rows: npt.NDArray[np.intp]) -> Any:
    """Gives the operand's values of `rows`; None for an operand that is not quoted."""
    if run is None:
        return repeat(None, len(rows))
    values = run(columns)
    if isinstance(values, np.ndarray):
        return values[rows].tolist()
    if isinstance(values, list):
        return [values[row] for row in rows.tolist()]
    return repeat(values, len(rows))
