"""The pipeline file as typed records: what an event is, which features, rules and models decide it, and where its verdicts go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamapp.core.cache_spec import PredictionCacheSection, RiskCacheSection, check_caches
from streamapp.core.costs import CostsSection, check_costs
from streamapp.core.document import Mistakes, key_lines, nearest, read
from streamapp.core.errors import ConfigError
from streamapp.core.expressions import parse_expression
from streamapp.core.field_checks import FIELD_KINDS, RESERVED_FIELDS, check_fields
from streamapp.core.tier_spec import Count, RouteName, Text, ThresholdsSection, TierSpec, check_tiers
from streamapp.core.velocity import duration_ms, parse_velocity

FieldKind = Literal["id", "text", "string", "json", "number", "integer", "boolean"]
TopicName = Literal[
    "events", "approve", "review", "block", "decisions", "dead_letters", "late", "labels", "monitoring", "control"
]  # fmt: skip

#: What a label says beside event_id and event_time, and the label that takes back what was said before.
LABEL_FIELDS = ("label", "labelled_at", "weight", "source")
UNKNOWN_LABEL = "unknown"

#: What a rule sees of a field, by its type: "private" is a string that is never quoted; a json field cannot be read by rules.
RULE_TYPES: Mapping[str, str] = {
    "id": "private", "text": "private", "string": "string", "number": "number", "integer": "number", "boolean": "boolean",
}  # fmt: skip


class PipelineSection(msgspec.Struct, frozen=True, kw_only=True):
    """Who the pipeline is."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,62}\Z")]
    version: Text
    description: str = ""
    owner: str = ""
    key: Text  #                       the id field that records are keyed by; verdicts keep it


class FieldSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One declared field of the event."""

    type: FieldKind
    required: bool = False
    default: str | int | float | bool | None = None
    min_length: Annotated[int, Meta(ge=0)] | None = None  #   characters
    max_length: Count | None = None  #                        characters; of a json field: of its JSON text
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    overflow: Literal["reject", "truncate"] = "reject"  #     what happens to a text over max_length
    description: str = ""


class EventSection(msgspec.Struct, frozen=True, kw_only=True):
    """What an event may look like."""

    max_bytes: Annotated[int, Meta(ge=64, le=16 * 2**20)] = 65536
    key_required: bool = False  #       a record whose key is null or differs from the key field is a dead letter
    time_field: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}\Z")] = "event_time"  # the member that says when it happened
    time_unit: Literal["ms", "s"] = "ms"  # of a time given as a number: since the epoch; seconds may have a fraction
    fields: dict[str, FieldSpec]


class TextFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """The ten text features of one text field."""

    field: Text


class ProfileFeature(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the entity's profile; a missing one takes `default` and sets <name>_missing."""

    default: float
    low: float
    high: float


class FeaturesSection(msgspec.Struct, frozen=True, kw_only=True):
    """Feature families and their parameters."""

    text: TextFeatures | None = None
    profile: dict[str, ProfileFeature] = {}
    fields: dict[str, ProfileFeature] = {}  #   number fields of the event that are features as they are
    calendar: bool = False  #                   hour, night and weekend of the event's time


class NgramsSection(msgspec.Struct, frozen=True, kw_only=True):
    """Hashed n-grams: words of the folded view, characters of the raw one."""

    field: Text
    word: tuple[Annotated[int, Meta(ge=1, le=5)], Annotated[int, Meta(ge=1, le=5)]] = (1, 2)
    char: tuple[Annotated[int, Meta(ge=1, le=8)], Annotated[int, Meta(ge=1, le=8)]] = (3, 5)
    buckets: Annotated[int, Meta(ge=16, le=2**24)] = 32768
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0


class VectorSection(msgspec.Struct, frozen=True, kw_only=True):
    """Numeric inputs of the models, in order."""

    numeric: tuple[Text, ...] = ()


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: when it hits, where it sends the event and the sentence that tells people why."""

    code: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
    when: Text
    route: RouteName
    decides: Literal["always", "without_model"] = "always"
    text: Text
    mode: Literal["live", "shadow", "draft"] = "live"
    owner: str = ""
    hit: dict[str, Any] | None = None  #    an example event the rule hits; also { features = {...}, lists = {...} }, see core.examples
    miss: dict[str, Any] | None = None


class ListSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One list that people keep on the lists topic: who or what is on it decides (`deny`, `allow`), or rules ask about it."""

    kind: Literal["values", "words", "content"] = "values"  # ids and strings; words and phrases of a text; whole texts, as hashes
    effect: Literal["deny", "allow", "rules"] = "rules"
    fields: tuple[Text, ...] = ()  #             looked up for every event; a list that only rules ask about needs none
    route: Literal["review", "block"] = "block"  # of what is denied
    text: Text | None = None  #                  the sentence that tells people why; slots are {list}, {match} and {owner}
    owner: str = ""  #                           who keeps it, where an entry does not say
    similarity: Annotated[float, Meta(ge=0.5, le=1.0)] = 0.8  # of texts: the share of character 4-grams that two must have in common
    entries: tuple[Text, ...] = ()  #            always on it, whatever the topic says


class DriftSection(msgspec.Struct, frozen=True, kw_only=True):
    """When a window closes (event time, or n events) and what raises an alarm."""

    window_s: Count = 300
    window_n: Count = 5000
    psi_alarm: Annotated[float, Meta(gt=0.0)] = 0.2
    ks_alpha: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.001
    kl_alarm: Annotated[float, Meta(gt=0.0)] = 0.1


class VerdictSection(msgspec.Struct, frozen=True, kw_only=True):
    """Which fields a verdict carries, also under names of its own (`{ id = "event_id", visits = "user_1h_count" }`: features too).

    Names are checked where verdicts are encoded. `decisions` says whether the decisions log is written beside the verdicts.
    """

    fields: Literal["all"] | tuple[Text, ...] | dict[str, Text] = "all"
    decisions: bool = True

    def named(self, known: Sequence[str]) -> dict[str, str]:
        """Gives the verdict's members in order: name -> field or feature; `known` is what "all" means."""
        fields = tuple(known) if self.fields == "all" else self.fields
        return dict(fields) if isinstance(fields, dict) else {name: name for name in fields}


class ReasonsSection(msgspec.Struct, frozen=True, kw_only=True):
    """What reasons say beside value and weight. Numbers of the entity's own are expressions over features and number fields."""

    language: Text = "en"  #             the one that the rules of this file are written in
    normal: dict[str, Text] = {}  #      feature -> what it is with this entity otherwise
    counterfactuals: bool = False  #     tell what would have been decided milder, of one number changed
    counterfactual_rows: Count = 256  # tried in one micro-batch at most: the first that are not approved
    monotone: dict[str, Literal["up", "down"]] = {}  # inputs of the model that may be changed -> where risk lies


class TopicsSection(msgspec.Struct, frozen=True, kw_only=True):
    """How topics are created; `namespace` defaults to the pipeline's name."""

    namespace: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}\Z")] | None = None
    partitions: Annotated[int, Meta(ge=1, le=10000)] | None = None
    replication: Annotated[int, Meta(ge=1, le=16)] | None = None
    retention_ms: dict[str, Annotated[int, Meta(ge=-1)]] = {}


class EntitiesSection(msgspec.Struct, frozen=True, kw_only=True):
    """Where entities live: the record's key and what is `colocated` with it (a card of one customer) is local, others are shared."""

    colocated: tuple[Text, ...] = ()


class StateSection(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition remembers beside its windows; durations such as "24h"."""

    dedupe: bool = True  #     false: no event id is remembered, and every copy of an event is decided and counted again
    horizon: Text = "24h"  #   how long, in event time, an event id is known: a copy within it repeats the first decision
    skew_max: Text = "5m"  #   an event time further ahead of the broker's is flagged and replaced by it


class LabelsSection(msgspec.Struct, frozen=True, kw_only=True):
    """What the labels topic may say of an event; `unknown` is always allowed and takes back what was said before."""

    positive: tuple[Text, ...]
    negative: tuple[Text, ...]


class PipelineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one pipeline file says."""

    extends: Text | None = None  #     the pipeline (name or file) that this one differs from; resolved where files are read
    pipeline: PipelineSection
    event: EventSection
    features: FeaturesSection = FeaturesSection()
    ngrams: NgramsSection | None = None
    velocity: dict[str, Any] = {}  #   read by core.velocity, table by table
    entities: EntitiesSection = EntitiesSection()
    state: StateSection = StateSection()
    labels: LabelsSection | None = None
    vector: VectorSection = VectorSection()
    rules: tuple[RuleSpec, ...] = ()
    lists: dict[str, ListSpec] = {}
    tiers: tuple[TierSpec, ...] = ()
    thresholds: ThresholdsSection = ThresholdsSection()
    costs: CostsSection | None = None
    reasons: ReasonsSection = ReasonsSection()
    prediction_cache: PredictionCacheSection | None = None
    risk_cache: RiskCacheSection | None = None
    drift: DriftSection = DriftSection()
    verdict: VerdictSection = VerdictSection()
    topics: TopicsSection = TopicsSection()
    delivery: Literal["at_least_once"] = "at_least_once"

    @property
    def namespace(self) -> str:
        """The prefix of the pipeline's topics."""
        return self.topics.namespace or self.pipeline.name

    def field_types(self) -> dict[str, str]:
        """Gives what a rule sees of the event: field name -> "string", "private", "number" or "boolean"."""
        declared = {name: RULE_TYPES[spec.type] for name, spec in self.event.fields.items() if spec.type in RULE_TYPES}
        return {"tenant": "string", "event_id": "string"} | declared


Check = Callable[["PipelineSpec", Mistakes], None]


def parse_spec(document: Mapping[str, Any], source: str, text: str = "", more: Check | None = None) -> PipelineSpec:
    """Takes a parsed pipeline file, its name and, for line numbers, its text; gives the spec.

    `more` looks at what could be read, even where something else is wrong. Raises ConfigError that lists every mistake with its line, key
    and fix.
    """
    mistakes = Mistakes(source, key_lines(text))
    # Checks across sections run on what could be read (None where it could not), so that one slip of the pen does not hide the others.
    partial: Any = read(PipelineSpec, dict(document), "", mistakes)
    spec: PipelineSpec = partial
    fields: dict[str, FieldSpec] = (partial.event and partial.event.fields) or {}
    check_fields(fields, mistakes)
    if partial.event is not None:
        _check_time(spec.event, fields, mistakes)
    check_tiers(spec.tiers, spec.thresholds, mistakes)
    _check_rules(spec.rules, mistakes)
    by_cost = "cost" in (
        spec.thresholds.block,
        spec.thresholds.approve,
        *(cut for tier in spec.tiers for cut in (tier.block, tier.approve)),
    )
    check_costs(spec.costs, by_cost, [name for name, one in fields.items() if one.type in ("number", "integer")], mistakes)
    _check_routes(spec.thresholds, spec.tiers, spec.topics, mistakes)
    if fields:
        if partial.pipeline is not None and partial.pipeline.key is not None:
            _check_key(spec.pipeline, fields, mistakes)
        _check_features(spec, mistakes)
        _check_state(spec, fields, mistakes)
        _check_labels(spec, mistakes)
        check_caches(spec, mistakes)
        if more is not None:
            more(spec, mistakes)
    mistakes.raise_if_any()
    return spec


def _check_time(event: EventSection, fields: Mapping[str, FieldSpec], mistakes: Mistakes) -> None:
    name = event.time_field
    if name in RESERVED_FIELDS - {"event_time"}:
        mistakes.add("event.time_field", f"`{name}` is a field of every event that means something else; take another name")
    elif name in fields:
        mistakes.add("event.time_field", f"`{name}` is declared as a field as well; remove [event.fields.{name}], the time is always there")


def _check_key(pipeline: PipelineSection, fields: Mapping[str, FieldSpec], mistakes: Mistakes) -> None:
    key = fields.get(pipeline.key)
    if key is None:
        mistakes.add("pipeline.key", f"`{pipeline.key}` is no declared field{nearest(pipeline.key, fields)}")
    elif (key.type in FIELD_KINDS and key.type != "id") or not key.required:
        mistakes.add("pipeline.key", f'field `{pipeline.key}` must have type = "id" and required = true')


def _check_features(spec: PipelineSpec, mistakes: Mistakes) -> None:
    texts = [name for name, one in spec.event.fields.items() if one.type == "text" or one.type not in FIELD_KINDS]
    for at, section in (("features.text.field", spec.features.text), ("ngrams.field", spec.ngrams)):
        if section is not None and section.field not in texts:
            mistakes.add(at, f'`{section.field}` is no declared field of type "text"{nearest(section.field, texts)}')
    if spec.ngrams is not None:
        for family in ("word", "char"):
            low, high = getattr(spec.ngrams, family)
            if low > high:
                mistakes.add(f"ngrams.{family}", f"[{low}, {high}] is empty; write [{high}, {low}]")
    for name, one in spec.features.profile.items():
        if not one.low <= one.default <= one.high:
            mistakes.add(f"features.profile.{name}", f"default = {one.default:g} is outside low = {one.low:g} .. high = {one.high:g}")
        if name in spec.event.fields:
            mistakes.add(f"features.profile.{name}", "is also a field of the event; rename one of them")
    _check_unique("vector.numeric", spec.vector.numeric, mistakes)


def _check_state(spec: PipelineSpec, fields: Mapping[str, FieldSpec], mistakes: Mistakes) -> None:
    _, wrong = parse_velocity(spec.velocity, {name: one.type for name, one in fields.items()})
    for name in spec.features.fields:
        if name not in fields or fields[name].type not in ("number", "integer"):
            mistakes.add(f"features.fields.{name}", f'is no declared field of type "number" or "integer"{nearest(name, fields)}')
    for told in wrong:
        at, _, problem = told.partition(": ")
        mistakes.add(at, problem)
    local = [table for table in spec.velocity.values() if isinstance(table, Mapping) and table.get("entity") in local_entities(spec)]
    if local and not spec.event.key_required:
        mistakes.add("event.key_required", "velocity of local entities needs events keyed by their entity; set it to true")
    for key in ("horizon", "skew_max"):
        try:
            duration_ms(getattr(spec.state, key))
        except ConfigError as failure:
            mistakes.add(f"state.{key}", str(failure))
    ids = [name for name, one in fields.items() if one.type == "id"]
    for name in spec.entities.colocated:
        if name not in ids:
            mistakes.add("entities.colocated", f'`{name}` is no declared field of type "id"{nearest(name, ids)}')


def _check_labels(spec: PipelineSpec, mistakes: Mistakes) -> None:
    tables = {name: table for name, table in spec.velocity.items() if isinstance(table, Mapping) and table.get("fed_by") == "labels"}
    for name, table in tables.items():
        if table.get("entity") in LABEL_FIELDS:
            said = f"`{table['entity']}` is what a label says itself and cannot be its entity; rename the field of the event"
            mistakes.add(f"velocity.{name}.entity", said)
    meaning: Any = spec.labels  # what could not be read of it is None
    if meaning is None:
        for name in tables:
            said = 'there is no [labels] that says what may be true; add [labels] with positive = ["fraud"], negative = ["genuine"]'
            mistakes.add(f"velocity.{name}.fed_by", said)
        return
    lists = {key: getattr(meaning, key) or () for key in ("positive", "negative")}
    for key, words in lists.items():
        if not words and getattr(meaning, key) is not None:
            mistakes.add(f"labels.{key}", 'names no label; write at least one, such as ["fraud"]')
    said_twice = [word for word in lists["positive"] if word in (*lists["negative"], UNKNOWN_LABEL)]
    said_twice += [word for word in lists["negative"] if word == UNKNOWN_LABEL]
    for word in said_twice:
        mistakes.add("labels", f"`{word}` is both, or is what takes a label back; remove it from one of the lists")


def local_entities(spec: PipelineSpec) -> tuple[str, ...]:
    """Gives the fields whose entities live in the partition of their record: its key, and what is colocated with it."""
    return (spec.pipeline.key, *spec.entities.colocated)


def _check_rules(rules: tuple[RuleSpec, ...], mistakes: Mistakes) -> None:
    _check_unique("rules", [rule.code for rule in rules], mistakes)
    for place, rule in enumerate(rules):
        tree = parse_expression(rule.when or "true")  # a condition that could not be read is told already
        if isinstance(tree, str):
            mistakes.add(f"rules[{place}].when", f"{rule.code}: {tree}")


def _check_routes(thresholds: ThresholdsSection, tiers: tuple[TierSpec, ...], topics: TopicsSection, mistakes: Mistakes) -> None:
    if isinstance(thresholds.block, float) and isinstance(thresholds.approve, float) and thresholds.approve > thresholds.block:
        mistakes.add("thresholds.approve", f"{thresholds.approve:g} is above block = {thresholds.block:g}; approve must not be higher")
    _check_unique("tiers", [tier.name for tier in tiers], mistakes)
    known = TopicName.__args__  # type: ignore[attr-defined]  # the choices of a Literal
    for name in topics.retention_ms:
        if name not in known:
            mistakes.add(f"topics.retention_ms.{name}", f"`{name}` is no topic of a pipeline{nearest(name, known)}")


def _check_unique(path: str, names: Sequence[str], mistakes: Mistakes) -> None:
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if name in first and name is not None:
            mistakes.add(f"{path}[{place}]", f"`{name}` is already that of {path}[{first[name]}]; rename or remove one")
        first.setdefault(name, place)
