"""What producers and consumers rely on, as JSON Schema: the event, the verdict, the decision record and the headers of dead letters.

All of it is derived from the pipeline file and from the closed lists in the code, so that the two cannot part ways.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from streamapp.core.asyncapi import asyncapi
from streamapp.core.counterfactual import CODES as COUNTERFACTUALS
from streamapp.core.errors import RejectCode
from streamapp.core.events import FLAG_NAMES
from streamapp.core.explain import LAST_RESORTS, NGRAM_GROUPS
from streamapp.core.features.plan import FeaturePlan
from streamapp.core.fields import EVENT_ID, TENANT, id_bounds, integer_bounds
from streamapp.core.labels import LabelPlan, window_features
from streamapp.core.lists import DECIDER, REASON
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.spec import FieldSpec, PipelineSpec
from streamapp.core.times import TIME_MAX_MS, TIME_MIN_MS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_HEX = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_EPOCH_MS = {"type": "integer", "minimum": TIME_MIN_MS, "maximum": TIME_MAX_MS}
_VERSION = {"type": "string", "minLength": 1}
_VERSION_BY_TIER = {"type": "object", "additionalProperties": _VERSION}


def export(spec: PipelineSpec) -> dict[str, str]:
    """Gives every schema file of one pipeline, path (below schemas/) -> text; equal specs give equal bytes."""
    name = spec.pipeline.name
    schemas = {
        "event.v1.json": event_schema(spec),
        "verdict.v1.json": verdict_schema(spec),
        **({"decision.v1.json": decision_schema(spec)} if spec.verdict.decisions else {}),
        **({"label.v1.json": label_schema(spec)} if LabelPlan(spec).stores else {}),
        "dead-letter-headers.v1.json": dead_letter_headers_schema(),
    }
    files = {f"{name}/{file}": _text(schema) for file, schema in schemas.items()}
    return files | {f"{name}/asyncapi.yaml": asyncapi(spec)}


def event_version(spec: PipelineSpec) -> str:
    """Gives the version of the events' schema: that of its name, and the first 12 digits of the sha256 of event.v1.json as exported."""
    return f"1/{hashlib.sha256(_text(event_schema(spec)).encode()).hexdigest()[:12]}"


def event_schema(spec: PipelineSpec) -> Schema:
    """Gives the schema of what producers send; the decoder accepts what it accepts, but for the length of json fields in characters."""
    said = f"At most {spec.event.max_bytes} bytes. Unknown members are ignored; where a member stands twice, the last one counts."
    properties: Schema = {
        "event_id": _field(EVENT_ID),
        spec.event.time_field: _time(spec.event.time_unit),
        "tenant": _field(TENANT),
    }
    properties |= {name: _field(field) for name, field in spec.event.fields.items()}
    return {
        **_head(spec, "event", f"Event of {spec.pipeline.name}", f"{spec.pipeline.description}. {said}"),
        "type": "object",
        "properties": properties,
        "required": [name for name, field in spec.event.fields.items() if field.required],
        "additionalProperties": True,
    }


def label_schema(spec: PipelineSpec) -> Schema:
    """Gives the schema of what says that an event turned out to be fraud, or not; bad ones become dead letters."""
    schema = event_schema(LabelPlan(spec).spec)
    time_field = spec.event.time_field
    for name in ("event_id", time_field):  # an event may leave them out, a label says which event it means
        member = schema["properties"][name]
        kinds = [kind for kind in member.pop("anyOf", ()) if kind.get("type") != "null"]
        schema["properties"][name] = {**member, "anyOf": kinds} if kinds else {**member, "type": ["string", "integer"]}
    schema["properties"]["event_id"]["description"] = "The event it is about"
    schema["properties"][time_field]["description"] = "When the event happened, as the event says"
    time = {"anyOf": [{"type": "string", "format": "date-time"}, _EPOCH_MS, {"type": "null"}]}
    schema["properties"]["labelled_at"] |= time
    said = "What turned out to be true of one event. The latest word counts; the same word may come any number of times."
    schema |= {**_head(spec, "label", f"Label of {spec.pipeline.name}", said)}
    schema["required"] = ["event_id", time_field, *schema["required"]]
    return schema


def _text(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _time(unit: str) -> Schema:
    words, scale = {"ms": ("milliseconds", 1), "s": ("seconds", 1000)}[unit]
    bounds = {"minimum": TIME_MIN_MS, "maximum": TIME_MAX_MS} if scale == 1 else {
        "minimum": TIME_MIN_MS // scale, "maximum": TIME_MAX_MS / scale,
    }  # fmt: skip
    return {
        "description": f"When it happened: RFC 3339 or epoch {words}; else the record's timestamp",
        "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number", **bounds}, {"type": "null"}],
    }


def _field(field: FieldSpec) -> Schema:
    schema: Schema = {"description": field.description} if field.description else {}
    if field.type == "json":
        if field.required:
            schema["not"] = {"type": "null"}
        if field.max_length is not None:
            schema["$comment"] = f"its JSON text has at most {field.max_length} characters"
        return schema
    names = {"id": ["string", "integer"], "text": ["string"]}.get(field.type, [field.type])
    kinds = names if field.required else [*names, "null"]
    schema["type"] = kinds if len(kinds) > 1 else kinds[0]
    if field.type == "id":
        schema["minLength"], schema["maxLength"] = id_bounds(field)
        schema["exclusiveMinimum"] = 0
    elif field.type == "integer":
        schema["minimum"], schema["maximum"] = integer_bounds(field)
    elif field.type == "text":
        schema["pattern"] = "\\S"
        schema |= {} if field.min_length is None else {"minLength": field.min_length}
        if field.overflow == "reject" and field.max_length is not None:
            schema["maxLength"] = field.max_length
    given = {
        "minLength": field.min_length, "maxLength": None if field.type == "text" else field.max_length, "pattern": field.pattern,
        "minimum": field.minimum, "maximum": field.maximum, "default": field.default,
    }  # fmt: skip
    return given_only(given) | schema


def given_only(values: Mapping[str, Any]) -> Schema:
    """Gives the entries that say something."""
    return {name: value for name, value in values.items() if value is not None}


def reason_codes(spec: PipelineSpec) -> list[str]:
    """Gives the closed list of reason codes: lists that deny, rules in file order, model inputs, n-gram groups, last resorts."""
    inputs = [*spec.vector.numeric, *(NGRAM_GROUPS if spec.ngrams else ())] if spec.tiers else []
    decided = [*(f"{REASON}{name}" for name, one in spec.lists.items() if one.effect == "deny")]
    decided += [rule.code for rule in spec.rules if rule.mode != "draft"]
    otherwise = COUNTERFACTUALS if spec.reasons.counterfactuals else ()
    return [*decided, *(f"model_{name}" for name in inputs), *otherwise, *LAST_RESORTS, "duplicate"]


def verdict_properties(spec: PipelineSpec) -> Schema:
    """Gives the schema of every field a verdict can have, in their order."""
    probability = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    lists = [name for name, one in spec.lists.items() if one.effect != "rules"]
    return {
        "decision_id": {**_HEX, "description": "Hash of pipeline, tenant and event_id: equal on redelivery"},
        "event_id": {"type": "string"},
        "tenant": {"type": "string", "description": "Empty where the event names none"},
        "pipeline": {"const": spec.pipeline.name},
        "entity": {**_HEX, "description": "Keyed hash of the entity's id"},
        "event_time": {**_EPOCH_MS, "description": "Epoch milliseconds"},
        "received_at": {"type": "integer", "description": "The source record's timestamp, epoch milliseconds"},
        "decided_at": {"type": "integer", "description": "Epoch milliseconds"},
        "verdict": {"enum": list(ROUTE_NAMES)},
        "decided_by": {"enum": ["rule", *(tier.name for tier in spec.tiers), "default", *(f"{DECIDER}{name}" for name in lists)]},
        "score": {**probability, "description": "Raw score of the tier that answered; null when no model did"},
        "probability": {**probability, "description": "Calibrated"},
        "labels": {"type": "array", "items": {"type": "string"}},
        "threshold": {**probability, "description": "The cut the probability was compared with"},
        "reasons": {"type": "array", "items": _reason(spec), "description": "Empty where approved"},
        "stages": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}, "description": "Milliseconds per stage"},
        "versions": _object(
            {
                "release": _VERSION, "schema": _VERSION, "features": _VERSION, "rules": _VERSION, "models": _VERSION_BY_TIER,
                "calibration": _VERSION_BY_TIER, "thresholds": _VERSION, "arm": {"type": ["string", "null"]},
                **({"lists": _VERSION} if spec.lists else {}),
            }
        ),
        "degraded": {"type": "array", "items": _object({"component": {"type": "string"}, "cause": {"type": "string"}})},
        "flags": {"type": "array", "items": {"enum": list(FLAG_NAMES.values())}, "uniqueItems": True},
        "source": _object(
            {"topic": {"type": "string"}, "partition": {"type": "integer", "minimum": 0}, "offset": {"type": "integer", "minimum": 0}}
        ),
    }  # fmt: skip


def _reason(spec: PipelineSpec) -> Schema:
    told = {"type": ["number", "string", "null"]}
    return _object(
        {
            "code": {"enum": reason_codes(spec)},
            "text": {"type": "string", "minLength": 1, "description": "A sentence for people"},
            "feature": {"type": ["string", "null"]},
            "value": told,
            "limit": told,
            "weight": {"type": ["number", "null"], "description": "Signed share of the model's margin"},
            "normal": {"type": ["number", "null"], "description": "What the value is with this entity otherwise"},
        },
        optional=("feature", "value", "limit", "weight", "normal"),
    )


def verdict_schema(spec: PipelineSpec) -> Schema:
    """Gives the schema of a verdict. Consumers must ignore members they do not know: fields are added without a new major version."""
    known = verdict_properties(spec)
    # What is no field of a verdict is a feature: a number, described where it is declared.
    properties = {name: known.get(field, {"type": "number"}) for name, field in spec.verdict.named(tuple(known)).items()}
    head = _head(spec, "verdict", f"Verdict of {spec.pipeline.name}", "The answer to one event. Never carries raw text.")
    return {**head, **_object(properties)}


def decision_schema(spec: PipelineSpec) -> Schema:
    """Gives the schema of the decisions log: the verdict with what training, replay and parity need."""
    number = {"type": ["number", "null"]}
    defined = FeaturePlan(spec, window_features(spec)).definitions
    features = {one.name: {**number, "description": one.description} for one in defined}
    schema = verdict_schema(spec)
    added: Schema = {"features": _object(features)}
    if spec.features.text is not None:
        added["text_sha256"] = {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "Of the text as it was decided, UTF-8"}
    shadows = [rule.code for rule in spec.rules if rule.mode == "shadow"]
    if shadows:
        told = "Rules in shadow that would have hit; they decide nothing"
        added["shadow_rules"] = {"type": "array", "items": {"enum": shadows}, "uniqueItems": True, "description": told}
    framed = "The id in Confluent's frame, where the event came in one"
    added["schema_id"] = {"type": "integer", "minimum": 0, "description": framed}
    again = "The verdict was out before a crash; the features are those of deciding the event again, which its verdict may not be made from"
    added["decided_again"] = {"const": True, "description": again}
    head = _head(spec, "decision", f"Decision record of {spec.pipeline.name}", "A verdict and the named feature values it was made from.")
    return {**head, **_object({**schema["properties"], **added}, ("schema_id", "decided_again"))}


def dead_letter_headers_schema() -> Schema:
    """Gives the schema of the headers that a dead letter adds; key, value and the other headers are those of the event, untouched."""
    digits = {"type": "string", "pattern": "^[0-9]+$"}
    codes = {"enum": [code.value for code in RejectCode]}
    return {
        "$schema": DIALECT,
        "$id": "urn:streamapp:dead-letter-headers:v1",
        "title": "Headers of a dead letter",
        "description": "Header values are UTF-8 text. Names under __streams.errors are those of KIP-1034.",
        **_object(
            {
                "__streams.errors.exception": codes,
                "__streams.errors.message": {"type": "string"},
                "__streams.errors.topic": {"type": "string"},
                "__streams.errors.partition": digits,
                "__streams.errors.offset": digits,
                "dlq.reason": {**codes, "description": "Closed list"},
                "dlq.path": {"type": "string", "description": "Where in the event: $ is the whole value"},
                "dlq.stage": {"type": "string"},
                "dlq.first-failed-at": {**digits, "description": "Epoch milliseconds"},
                "dlq.replay-count": digits,
                "source-offset": digits,
            }
        ),
    }


def _head(spec: PipelineSpec, kind: str, title: str, description: str) -> Schema:
    return {"$schema": DIALECT, "$id": f"urn:streamapp:{spec.pipeline.name}:{kind}:v1", "title": title, "description": description}


def _object(properties: Schema, optional: Sequence[str] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": True}
