"""Velocity as it is declared in a pipeline file: `[velocity.<name>]` tables to stores, windows and named features; no state in here.

    [velocity.card_1h]
    entity = "card_id"                                                    # whose events are counted
    window = "1h"                                                         # (t - delay - window, t - delay]
    aggregates = ["count", "sum:amount", "distinct:merchant_id"]          # features card_1h_count, card_1h_sum_amount, ...

Tables over one entity (and one feed) share a store: each event is kept once, however many windows look at it.

    [velocity.terminal_known_7d]
    entity = "terminal_id"
    window = "7d"
    delay = "7d"                                                          # how long the truth takes to come
    fed_by = "labels"                                                     # what turned out to be true of the entity's events
    aggregates = ["count", "risk"]                                        # labels known; their weighted share of positives
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamapp.core.errors import ConfigError
from streamapp.core.windows import ACTIVITY_DECIMALS, CAP_MAX, KINDS, Aggregate, StorePlan, Window

UNITS_MS: Mapping[str, int] = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([1-9][0-9]{0,8}|0)\s*(ms|s|m|h|d)")
KEYS = (
    "entity", "window", "aggregates", "delay", "include_current", "grace", "cap", "cold_below", "decimals", "prior", "default", "weights",
    "other", "fed_by", "description",
)  # fmt: skip
BARE = ("count", "since")
LABEL_KEYS = ("entity", "window", "aggregates", "delay", "grace", "cap", "default", "fed_by", "description")
NUMBERS, NAMES = ("number", "integer"), ("id", "string", "text")
GRACE, CAP, COLD_BELOW, DECIMALS = "5m", 4096, 10, 2
#: What a label window may be asked, and where it lies among the three sums that every label store keeps per window.
LABELLED: Mapping[str, int] = {"count": 0, "positives": 2, "risk": 2}
#: How far the partition that is furthest behind may lag and still find what labels say.
LABEL_GRACE = "1d"


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """One value kept with every entry: a number field in 10^-decimals units, or the weight of a type field (`weights` given)."""

    field: str
    decimals: int
    weights: tuple[tuple[str, float], ...] | None = None
    other: float = 0.0


#: The columns of a label store: labels, their weights, and the weights of the positive ones. Corrections are entries that take back.
LABEL_VALUES = (ValueColumn("labels", 0), ValueColumn("weight", 3), ValueColumn("positive", 3))


@dataclass(frozen=True, slots=True)
class VelocityFeature:
    """One named feature: where its number is (`store`, `position` in Answers.value), and what stands for NaN.

    A risk stands for two numbers: the sum at `position` divided by the one before it.
    """

    name: str
    velocity: str
    store: str
    position: int
    aggregate: str  #        as declared: "sum:amount"
    entity: str
    window_ms: int
    delay_ms: int
    default: float
    description: str


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """One store of a partition: the fields that fill its columns, and its plan."""

    name: str
    entity: str
    fed_by: Literal["events", "labels"]
    values: tuple[ValueColumn, ...]
    keys: tuple[str, ...]
    plan: StorePlan


@dataclass(frozen=True, slots=True)
class VelocityPlan:
    """Everything the `[velocity]` tables of a pipeline ask for."""

    stores: tuple[StoreSpec, ...]
    features: tuple[VelocityFeature, ...]


def duration_ms(text: Any) -> int:
    """Takes "90s", "10m", "24h", "7d", "500ms"; gives milliseconds. Raises ConfigError on anything else."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"{text!r} is no duration", 'write a whole number and a unit, such as "10m" (ms, s, m, h, d)')
    return int(match[1]) * UNITS_MS[match[2]]


@dataclass(slots=True)
class _Mistakes:
    """Collects what is wrong with one table, so that all of it is told at once."""

    path: str
    table: Mapping[str, Any]
    found: list[str]

    def unknown(self, known: Sequence[str]) -> None:
        for key in self.table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                self.say(key, "unknown key" + (f", did you mean `{near[0]}`?" if near else f"; there are {', '.join(known)}"))

    def say(self, key: str, problem: str) -> None:
        self.found.append(f"{self.path}.{key}: {problem}" if key else f"{self.path}: {problem}")

    def duration(self, key: str, default: str, least: int) -> int:
        try:
            value = duration_ms(self.table.get(key, default))
        except ConfigError as error:
            self.say(key, str(error))
            return max(least, duration_ms(default))
        if value < least:
            self.say(key, f"must be at least {least} ms")
        return max(value, least)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self.table.get(key, default)
        if type(value) is not int or not low <= value <= high:
            self.say(key, f"must be a whole number from {low} to {high}")
            return default
        return value

    def switch(self, key: str, *, default: bool) -> bool:
        value = self.table.get(key, default)
        if type(value) is not bool:
            self.say(key, "must be true or false")
            return default
        return value

    def numbers(self, key: str) -> dict[str, float]:
        value = self.table.get(key, {})
        if not isinstance(value, Mapping) or not all(type(number) in (int, float) and math.isfinite(number) for number in value.values()):
            self.say(key, "must be a table of names and finite numbers")
            return {}
        return {name: float(number) for name, number in value.items()}


@dataclass(frozen=True, slots=True)
class _Ask:
    """One aggregate of one table, its columns still by name."""

    kind: str
    value: ValueColumn | None
    key: str | None
    label: str


def _ask(label: Any, mistakes: _Mistakes, fields: Mapping[str, str]) -> _Ask | None:
    """Takes "count" or "sum:amount"; gives what it means, or None after saying what is wrong."""
    kind, colon, name = label.partition(":") if isinstance(label, str) else ("", "", "")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f", did you mean `{near[0]}`?" if near else f"; there are {', '.join(KINDS)}"
        mistakes.say("aggregates", f"unknown aggregate {label!r}{hint}")
        return None
    if bool(colon and name) == (kind in BARE):
        mistakes.say("aggregates", f"{label!r} " + ("takes no field" if kind in BARE else f'needs a field: "{kind}:<field>"'))
        return None
    if kind in BARE:
        return _Ask(kind, None, None, label)
    wanted = NUMBERS if kind in ("sum", "mean", "max") else NAMES
    if fields.get(name) not in wanted:
        known = [field for field, type_name in fields.items() if type_name in wanted]
        there = ", ".join(known) or "none"
        mistakes.say("aggregates", f"{label!r} needs a declared field of type {' or '.join(wanted)}; there are: {there}")
        return None
    if kind == "distinct":
        return _Ask(kind, None, name, label)
    if kind == "activity":
        weights, other = mistakes.numbers("weights"), mistakes.table.get("other", 0.0)
        if not weights or min(weights.values()) < 0 or type(other) not in (int, float) or not 0 <= other < math.inf:
            mistakes.say("weights", "an activity needs weights by type and `other`, none of them negative")
            return None
        return _Ask(kind, ValueColumn(name, ACTIVITY_DECIMALS, tuple(sorted(weights.items())), float(other)), None, label)
    decimals = mistakes.table.get("decimals", {})
    if not isinstance(decimals, Mapping) or type(decimals.get(name, DECIMALS)) is not int or not 0 <= decimals.get(name, DECIMALS) <= 9:
        mistakes.say("decimals", "must be a table of fields and whole numbers from 0 to 9")
        return None
    return _Ask(kind, ValueColumn(name, decimals.get(name, DECIMALS)), None, label)


@dataclass(slots=True)
class _Draft:
    """A store while its tables are read; every column and window once."""

    first: str
    entity: str
    fed_by: Literal["events", "labels"]
    grace_ms: int
    cap: int
    cold_below: int
    windows: list[Window]
    values: list[ValueColumn]
    keys: list[str]
    aggregates: list[Aggregate]


def _position(things: list[Any], thing: Any) -> int:
    """Gives where the thing is, after putting it at the end if it was not there."""
    if thing not in things:
        things.append(thing)
    return things.index(thing)


def parse_velocity(tables: Mapping[str, Any], fields: Mapping[str, str]) -> tuple[VelocityPlan, list[str]]:
    """Takes the `[velocity]` tables by name and the declared fields' types by name; gives the plan and every mistake, none raised.

    The plan is only good when there are no mistakes. Number fields that are summed should be required: a missing one counts as 0.
    """
    found: list[str] = []
    drafts: dict[str, _Draft] = {}
    features: list[VelocityFeature] = []
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            found.append(f"velocity.{name}: must be a table")
            continue
        _read(name, _Mistakes(f"velocity.{name}", table, found), fields, drafts, features)
    stores = tuple(
        StoreSpec(
            store, draft.entity, draft.fed_by, tuple(draft.values), tuple(draft.keys),
            StorePlan(
                tuple(draft.windows), tuple(draft.aggregates), tuple(column.decimals for column in draft.values), len(draft.keys),
                draft.grace_ms, draft.cap, draft.cold_below,
            ),
        )
        for store, draft in drafts.items()
    )  # fmt: skip
    taken: set[str] = set()
    for feature in features:
        if feature.name in taken:
            found.append(f"velocity.{feature.velocity}: the feature `{feature.name}` is there already")
        taken.add(feature.name)
    return VelocityPlan(stores, tuple(features)), found


def _read(name: str, mistakes: _Mistakes, fields: Mapping[str, str], drafts: dict[str, _Draft], features: list[VelocityFeature]) -> None:
    """Reads one table into its store's draft and the list of features."""
    table = mistakes.table
    entity, fed_by = table.get("entity"), table.get("fed_by", "events")
    mistakes.unknown(KEYS)
    if fields.get(entity if isinstance(entity, str) else "") not in NAMES:
        mistakes.say("entity", f"{entity!r} is no declared field of type {' or '.join(NAMES)}")
    if fed_by not in ("events", "labels"):
        mistakes.say("fed_by", 'must be "events" or "labels"')
    if fed_by == "labels":
        _read_labelled(name, mistakes, drafts, features)
        return
    window = Window(
        mistakes.duration("window", "0s", 1), mistakes.duration("delay", "0s", 0), mistakes.switch("include_current", default=True)
    )
    grace, cap = mistakes.duration("grace", GRACE, 0), mistakes.whole("cap", CAP, 1, CAP_MAX)
    cold_below = mistakes.whole("cold_below", COLD_BELOW, 0, 1 << 20)
    labels = _aggregates(mistakes, '["count", "sum:amount"]')
    asks = [ask for label in labels if (ask := _ask(label, mistakes, fields)) is not None]
    priors, defaults = mistakes.numbers("prior"), _defaults(mistakes, labels)
    for label in priors:
        if label not in labels:
            mistakes.say("prior", f"{label!r} is not among the aggregates")
    if not isinstance(entity, str) or not asks or fed_by != "events":
        return
    draft = _draft(drafts, entity, _Draft(name, entity, "events", grace, cap, cold_below, [], [], [], []), mistakes)
    at = _position(draft.windows, window)
    for ask in asks:
        column = 0
        if ask.value is not None:
            column = _position(draft.values, ask.value)
        elif ask.key is not None:
            column = _position(draft.keys, ask.key)
        position = _position(draft.aggregates, Aggregate(ask.kind, at, column, priors.get(ask.label)))
        absent = float(window.length_ms) if ask.kind == "since" else 0.0
        features.append(_feature(name, table, entity, window, position, ask.label, defaults.get(ask.label, absent)))


def _read_labelled(name: str, mistakes: _Mistakes, drafts: dict[str, _Draft], features: list[VelocityFeature]) -> None:
    """Reads one table whose windows look at labels; they end `delay` before the event, so that nothing knows its own answer."""
    table = mistakes.table
    for key in table:
        if key in KEYS and key not in LABEL_KEYS:
            mistakes.say(key, f"says nothing about labels, which know {', '.join(LABELLED)}; remove it")
    window = Window(mistakes.duration("window", "0s", 1), mistakes.duration("delay", "0s", 1))
    grace, cap = mistakes.duration("grace", LABEL_GRACE, 0), mistakes.whole("cap", CAP, 1, CAP_MAX)
    labels = _aggregates(mistakes, '["count", "risk"]')
    asked = [label for label in labels if label in LABELLED]
    for label in labels:
        if label not in LABELLED:
            mistakes.say("aggregates", f"{label!r} is nothing that labels know; there are {', '.join(LABELLED)}")
    defaults, entity = _defaults(mistakes, labels), table.get("entity")
    if not isinstance(entity, str) or not asked:
        return
    draft = _draft(drafts, f"{entity}.labels", _Draft(name, entity, "labels", grace, cap, 0, [], list(LABEL_VALUES), [], []), mistakes)
    at = _position(draft.windows, window)
    first = _position(draft.aggregates, Aggregate("sum", at, 0))
    for column in range(1, len(LABEL_VALUES)):
        _position(draft.aggregates, Aggregate("sum", at, column))
    features += [
        _feature(name, table, entity, window, first + LABELLED[label], label, defaults.get(label, 0.0), f"{entity}.labels")
        for label in asked
    ]


def _aggregates(mistakes: _Mistakes, example: str) -> Sequence[Any]:
    labels = mistakes.table.get("aggregates")
    if not isinstance(labels, Sequence) or isinstance(labels, str) or not labels:
        mistakes.say("aggregates", f"must be a list such as {example}")
        return []
    return labels


def _defaults(mistakes: _Mistakes, labels: Sequence[Any]) -> dict[str, float]:
    defaults = mistakes.numbers("default")
    for label in defaults:
        if label not in labels:
            mistakes.say("default", f"{label!r} is not among the aggregates")
    return defaults


def _draft(drafts: dict[str, _Draft], store: str, mine: _Draft, mistakes: _Mistakes) -> _Draft:
    """Gives the draft of the store, `mine` where it is the first; says where the two differ about what they share."""
    draft = drafts.setdefault(store, mine)
    for key, my_value, its_value in (
        ("grace", mine.grace_ms, draft.grace_ms),
        ("cap", mine.cap, draft.cap),
        ("cold_below", mine.cold_below, draft.cold_below),
    ):
        if my_value != its_value:
            said = f"differs from velocity.{draft.first}, which shares the {mine.fed_by} of `{mine.entity}`; write the same value in both"
            mistakes.say(key, said)
    return draft


def _feature(
    name: str, table: Mapping[str, Any], entity: str, window: Window, position: int, label: str, default: float, store: str = ""
) -> VelocityFeature:
    described = str(table.get("description", "")) or f"{label} of {entity} over {table.get('window')}"
    return VelocityFeature(
        f"{name}_{label.replace(':', '_')}", name, store or entity, position, label, entity, window.length_ms, window.delay_ms, default,
        described,
    )  # fmt: skip
