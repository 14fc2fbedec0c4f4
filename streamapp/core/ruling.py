"""Rules and lists of a pipeline file, checked as a whole when it is loaded: what they may name, what they say, whether they can decide."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from streamapp.core.document import Mistakes, nearest
from streamapp.core.errors import ConfigError
from streamapp.core.examples import check_example
from streamapp.core.expressions import parse_expression
from streamapp.core.features.catalogue import FeatureDef
from streamapp.core.features.plan import FeaturePlan
from streamapp.core.field_checks import FIELD_KINDS
from streamapp.core.fields import integer_bounds
from streamapp.core.implied import Domain, Range
from streamapp.core.labels import window_features
from streamapp.core.lists import REASON
from streamapp.core.rules import check_rules
from streamapp.core.spec import FieldSpec, ListSpec, PipelineSection, PipelineSpec, StateSection
from streamapp.core.velocity import duration_ms, parse_velocity

#: Types of the fields whose values, and whose texts, can be on a list of each kind.
LISTED_TYPES: Mapping[str, tuple[str, ...]] = {"values": ("id", "string"), "words": ("text",), "content": ("text",)}

#: Lists of one pipeline: who decided is told in a byte, beside rules and tiers.
LISTS_MAX = 64


@dataclass(slots=True, frozen=True)
class Vocabulary:
    """What conditions may name: the types of features and fields, the fields each list may be asked about, and what bounds them all."""

    types: Mapping[str, str]
    lists: Mapping[str, frozenset[str]]
    domain: Domain


def vocabulary(spec: PipelineSpec, features: Sequence[FeatureDef]) -> Vocabulary:
    """Takes a pipeline and its features; gives what its rules may name. A feature goes before a field of the same name."""
    types = {**spec.field_types(), **{feature.name: "number" for feature in features}}
    ranges = {name: _range(field) for name, field in spec.event.fields.items() if field.type in ("number", "integer")}
    ranges |= {one.name: Range(max(one.low, 0.0) if one.whole else one.low, one.high) for one in features}
    there = {name for name, field in spec.event.fields.items() if field.required or field.default is not None}
    domain = Domain(ranges, frozenset({*there, *(feature.name for feature in features)}))
    return Vocabulary(types, {name: listed_fields(spec, one) for name, one in spec.lists.items()}, domain)


def listed_fields(spec: PipelineSpec, listed: ListSpec) -> frozenset[str]:
    """Gives the fields that a list may be asked about."""
    implicit = ("tenant",) if listed.kind == "values" else ()
    wanted = LISTED_TYPES.get(listed.kind, ())
    return frozenset((*implicit, *(name for name, field in spec.event.fields.items() if field.type in wanted)))


def check_ruling(spec: PipelineSpec, mistakes: Mistakes) -> None:
    """Takes what could be read of a pipeline file; notes what is wrong with its rules, their examples and its lists.

    What names a part that is itself wrong is left alone: one slip of the pen is told once.
    """
    whole = _readable(spec)
    if len(spec.lists) > LISTS_MAX:
        mistakes.add("lists", f"there are {len(spec.lists)} lists; at most {LISTS_MAX} are looked up")
    for name, listed in spec.lists.items():
        _check_list(name, listed, whole, mistakes)
    for place, rule in enumerate(spec.rules):
        if str(rule.code) in {f"{REASON}{name}" for name in spec.lists}:
            mistakes.add(f"rules[{place}].code", f"`{rule.code}` is the reason code of a list; take another name")
    features = FeaturePlan(whole, window_features(whole)).definitions
    words = vocabulary(whole, features)
    unsure = _unsure(spec, whole)
    skip = [place for place, rule in enumerate(spec.rules) if not _complete(rule) or unsure.search(rule.when)]
    check_rules(spec.rules, words.types, mistakes, lists=words.lists, domain=words.domain, skip=skip)
    names = [feature.name for feature in features]
    for place, rule in enumerate(spec.rules):
        for kind, given in (("hit", rule.hit), ("miss", rule.miss)):
            if given is None or not unsure.search(repr(given)):
                check_example(f"rules[{place}].{kind}", given, whole, names, mistakes)


def _check_list(name: str, listed: ListSpec, spec: PipelineSpec, mistakes: Mistakes) -> None:
    at = f"lists.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        mistakes.add(at, "a list's name is lower-case letters, digits and _, and starts with a letter")
    known = listed_fields(spec, listed)
    for place, field in enumerate(listed.fields):
        if field not in known and (field not in spec.event.fields or spec.event.fields[field].type in FIELD_KINDS):
            kinds = " or ".join(f'"{one}"' for one in LISTED_TYPES.get(listed.kind, ()))
            mistakes.add(f"{at}.fields[{place}]", f"`{field}` is no declared field of type {kinds}{nearest(field, known)}")
    if listed.effect != "rules" and not listed.fields:
        mistakes.add(f"{at}.fields", f'effect = "{listed.effect}" needs the fields to look up; add `fields = [...]`')
    if listed.effect == "rules" and listed.fields:
        mistakes.add(f"{at}.fields", 'only rules ask about it: remove `fields`, or set effect = "deny" or "allow"')
    if listed.effect == "allow" and listed.kind == "words":
        mistakes.add(f"{at}.effect", "a word does not vouch for the rest of a text; allow values or whole texts")
    if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", listed.text or "")):
        mistakes.add(f"{at}.text", "has a lone brace; slots are {list}, {match} and {owner}")
    for slot in re.findall(r"\{([^{}]*)\}", listed.text or ""):
        if slot not in ("list", "match", "owner"):
            mistakes.add(f"{at}.text", f"`{{{slot}}}` is no slot{nearest(slot, ('list', 'match', 'owner'))}")
    if listed.effect != "deny" and listed.text is not None:
        mistakes.add(f"{at}.text", "only what is denied needs a sentence; remove it")


def _complete(rule: Any) -> bool:
    there = None not in (rule.code, rule.when, rule.route, rule.text)
    return there and not isinstance(parse_expression(rule.when), str)  # what is no expression is told already


def _range(field: FieldSpec) -> Range:
    if field.type == "integer":
        low, high = integer_bounds(field)
        return Range(float(low), float(high))
    return Range(-math.inf if field.minimum is None else field.minimum, math.inf if field.maximum is None else field.maximum)


def _unsure(spec: PipelineSpec, whole: PipelineSpec) -> re.Pattern[str]:
    """Gives what finds a name that cannot be judged, because the part of the file that makes it is wrong."""
    broken = [name for name in spec.event.fields if name not in whole.event.fields]
    broken += [name for name in spec.features.profile if name not in whole.features.profile]
    broken += [name for name in spec.features.fields if name not in whole.features.fields]
    broken += [name for name in spec.lists if name not in whole.lists]
    _, wrong = parse_velocity(spec.velocity, {name: field.type for name, field in spec.event.fields.items()})
    tables = {told.split(":")[0].split(".")[1] for told in wrong}
    return re.compile("|".join([rf"\b{re.escape(name)}\b" for name in broken] + [rf"\b{table}_" for table in tables]) or r"(?!)")


def _readable(spec: PipelineSpec) -> PipelineSpec:
    """Gives the spec without the parts that could not be read."""
    replaced = msgspec.structs.replace
    section: PipelineSection | None = spec.pipeline
    fields = {name: field for name, field in spec.event.fields.items() if field.type in FIELD_KINDS}
    features = replaced(
        spec.features,
        profile={name: one for name, one in spec.features.profile.items() if None not in (one.default, one.low, one.high)},
        fields={name: one for name, one in spec.features.fields.items() if name in fields and None not in (one.default, one.low, one.high)},
    )
    return replaced(
        spec,
        pipeline=section or PipelineSection(name="", version="", key=""),
        event=replaced(spec.event, fields=fields),
        features=features,
        state=spec.state if all(_is_duration(one) for one in (spec.state.horizon, spec.state.skew_max)) else StateSection(),
        lists={name: one for name, one in spec.lists.items() if one.kind in LISTED_TYPES},
    )


def _is_duration(text: Any) -> bool:
    try:
        duration_ms(text)
    except ConfigError:
        return False
    return True
