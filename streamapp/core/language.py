"""The sentences of reasons as data: one file per language, checked when it is loaded, compiled to templates before the first event.

The program has a closed list of sentences with the slots that each may use; a pipeline adds those of its rules and the words for its
features. Words for windows come from patterns, so that a new window needs no new words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamapp.core.document import Mistakes, key_lines, nearest, read
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.spec import PipelineSpec, RuleSpec
from streamapp.core.velocity import UNITS_MS, VelocityFeature

#: Every sentence of the program and the slots it may use.
SENTENCES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("model_for", "model_against"), frozenset(("feature", "value", "limit", "label"))),
    **dict.fromkeys(("model_for_normal", "model_against_normal"), frozenset(("feature", "value", "limit", "label", "normal"))),
    **dict.fromkeys(("input_for", "input_against"), frozenset(("feature", "label"))),
    "default_route": frozenset(("route",)),
    "model_probability": frozenset(("value",)),
    "model_probability_limit": frozenset(("value", "limit")),
    "expected_cost": frozenset(("route", "value", "limit")),
    "duplicate": frozenset(("value",)),
    **dict.fromkeys(("listed_exact", "listed_normalised", "listed_similar"), frozenset(("feature", "list", "owner"))),
    **dict.fromkeys(("at_most", "at_least", "below", "above"), frozenset(("route", "feature", "limit", "value"))),
    **dict.fromkeys(("counted_at_most", "counted_at_least"), frozenset(("route", "things", "limit", "value"))),
}
_SLOT = re.compile(r"\{([^{}]*)\}")


class LanguageHead(msgspec.Struct, frozen=True, kw_only=True):
    """Which language it is."""

    name: str
    description: str = ""


class PipelineWords(msgspec.Struct, frozen=True, kw_only=True):
    """Words of one pipeline. A window's feature is `windows.<aggregate>` with {entity}, {window} and {of} filled in."""

    labels: dict[str, str] = {}
    features: dict[str, str] = {}  #  those that no pattern says well
    entities: dict[str, str] = {}  #  field -> word in the singular
    of: dict[str, str] = {}  #        field -> word as it is summed or counted
    windows: dict[str, str] = {}
    counted: dict[str, str] = {}  #   the same for things that can be counted: "payments of this {entity} in {window}"
    rules: dict[str, str] = {}


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one language file says."""

    language: LanguageHead
    sentences: dict[str, str]
    routes: dict[str, str]
    inputs: dict[str, str] = {}
    units: dict[str, str]
    pipelines: dict[str, PipelineWords] = {}


def parse_language(document: Mapping[str, Any], source: str, text: str = "") -> Language:
    """Takes a parsed language file; gives it typed. Raises ConfigError that lists what is missing, unknown or has a wrong slot."""
    mistakes = Mistakes(source, key_lines(text))
    found: Any = read(Language, dict(document), "", mistakes)
    for section, wanted in (("sentences", SENTENCES), ("routes", ROUTE_NAMES), ("units", UNITS_MS)):
        given = getattr(found, section) or {}
        for code in wanted:
            if code not in given:
                mistakes.add(section, f"`{code}` is missing; add {code} = ...")
        for code in given:
            if code not in wanted:
                mistakes.add(f"{section}.{code}", f"there is no such entry{nearest(code, wanted)}")
    for code, sentence in (found.sentences or {}).items():
        _check_slots(f"sentences.{code}", sentence, SENTENCES.get(code, frozenset()), mistakes)
    for name, words in (found.pipelines or {}).items():
        for table in ("windows", "counted"):
            for kind, pattern in getattr(words, table).items():
                _check_slots(f"pipelines.{name}.{table}.{kind}", pattern, frozenset(("entity", "window", "of")), mistakes)
    mistakes.raise_if_any()
    language: Language = found
    return language


class Words:
    """A language for one pipeline: what it calls features, labels and routes, and its sentences as templates."""

    def __init__(
        self, language: Language, spec: PipelineSpec, windows: Sequence[VelocityFeature], inputs: Sequence[str], *, own: bool
    ) -> None:
        """`own` says that the rules of `spec` are written in this language; `inputs` are the model's features.

        Raises ConfigError that names every rule, feature and label a foreign language has no words for.
        """
        self._language = language
        words = language.pipelines.get(spec.pipeline.name, PipelineWords())
        patterns = {one.name: one for one in windows}
        mistakes = Mistakes(f"language {language.language.name}")
        at = f"pipelines.{spec.pipeline.name}"
        self._features: dict[str, str] = {}
        self._counted: dict[str, str] = {}
        for name in dict.fromkeys((*inputs, *patterns)):
            said = words.features.get(name) or self._by_pattern(words, words.windows, patterns.get(name))
            if said is None and not own and name in inputs:
                mistakes.add(f"{at}.features", f"`{name}` is missing; add {name} = ...")
            self._features[name] = said or name.replace("_", " ")
            if counted := self._by_pattern(words, words.counted, patterns.get(name)):
                self._counted[name] = counted
        self._labels, self._rules, self.own = words.labels, words.rules, own
        for rule in spec.rules:
            if rule.code not in words.rules and not own:
                mistakes.add(f"{at}.rules", f"`{rule.code}` is missing; add {rule.code} = ...")
        codes = [rule.code for rule in spec.rules]
        for code in words.rules:
            if code not in codes:
                mistakes.add(f"{at}.rules.{code}", f"the pipeline has no such rule{nearest(code, codes)}")
        mistakes.raise_if_any()

    def rules(self, rules: Sequence[RuleSpec]) -> tuple[RuleSpec, ...]:
        """Gives the rules with their sentences in this language."""
        return tuple(msgspec.structs.replace(rule, text=self._rules.get(rule.code, rule.text)) for rule in rules)

    def feature(self, name: str) -> str:
        """Gives the words for a feature or an input that is no feature."""
        return self._features.get(name) or self._language.inputs.get(name) or name.replace("_", " ")

    def counted(self, name: str) -> str | None:
        """Gives the words for what a feature counts, None where it counts nothing."""
        return self._counted.get(name)

    def label(self, name: str) -> str:
        """Gives the word for a label."""
        return self._labels.get(name, name)

    def route(self, name: str) -> str:
        """Gives the word for a route."""
        return self._language.routes[name]

    def template(self, code: str, **fixed: str) -> str:
        """Gives a sentence for Python's % operator and a mapping of its slots, with `fixed` filled in already."""

        def put(slot: re.Match[str]) -> str:
            return fixed[slot[1]].replace("%", "%%") if slot[1] in fixed else f"%({slot[1]})s"

        return _SLOT.sub(put, self._language.sentences[code].replace("%", "%%"))

    def _by_pattern(self, words: PipelineWords, patterns: Mapping[str, str], window: VelocityFeature | None) -> str | None:
        if window is None:
            return None
        kind, _, of = window.aggregate.partition(":")
        pattern = patterns.get(kind)
        if pattern is None:
            return None
        said = {
            "entity": words.entities.get(window.entity, window.entity.removesuffix("_id")),
            "of": words.of.get(of, of.removesuffix("_id")),
            "window": self._duration(window.window_ms),
        }
        return _SLOT.sub(lambda slot: said[slot[1]], pattern)

    def _duration(self, length_ms: int) -> str:
        known = sorted(UNITS_MS, key=UNITS_MS.__getitem__, reverse=True)
        unit = next(unit for unit in known if length_ms % UNITS_MS[unit] == 0 and (unit != "d" or length_ms > UNITS_MS["d"]))
        return f"{length_ms // UNITS_MS[unit]} {self._language.units[unit]}"


def shown(value: Any) -> str:
    """Gives a value as people read it: whole numbers without a fraction, others with at most two places, small ones with four digits."""
    if type(value) is float:  # most values; the others are worth a second look
        if value.is_integer() and -1e15 < value < 1e15:
            return str(int(value))
        if value != value:
            return "nothing"
        return f"{value:.4g}" if -1 < value < 1 else f"{round(value, 2):.15g}"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check_slots(at: str, sentence: str, known: frozenset[str], mistakes: Mistakes) -> None:
    for slot in _SLOT.findall(sentence):
        if slot not in known:
            mistakes.add(at, f"`{{{slot}}}` is no slot of this sentence{nearest(slot, known)}")
    if re.search(r"[{}]", _SLOT.sub("", sentence)):
        mistakes.add(at, "has a lone brace")
