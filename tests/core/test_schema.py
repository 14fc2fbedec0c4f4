"""Exported schemas: committed as exported, valid, and true of what the engine reads and writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from streamapp.bus.topics import Topics
from streamapp.config import load_pipeline
from streamapp.core.deadletter import dead_letter
from streamapp.core.encode import COLUMNS
from streamapp.core.schema import event_schema, export, reason_codes, verdict_properties, verdict_schema
from streamapp.core.spec import VerdictSection
from tests.core.decode_cases import DECODER, decide, segment
from tests.line import answers, serving_of
from tests.line import segment as line_segment

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
SPEC = load_pipeline("messages")
FILES = export(SPEC)
VERDICT: dict[str, Any] = {
    "decision_id": "0" * 32, "event_id": "e", "tenant": "", "pipeline": "messages", "entity": "f" * 32, "event_time": 1, "received_at": 2,
    "decided_at": 3, "verdict": "review", "decided_by": "fast", "score": 0.7, "probability": 0.6, "labels": ["spam"], "threshold": 0.9,
    "reasons": [{"code": "many_urls", "text": "contains 3 links", "feature": "url_count", "value": 3.0, "limit": 2.0},
                {"code": "model_word_ngrams", "text": "the words used", "weight": 1.5}],
    "stages": {"features": 0.2},
    "versions": {"release": "r", "schema": "1/e", "features": "f", "rules": "r", "models": {"fast": "messages/1"},
                 "calibration": {"fast": "c"}, "thresholds": "t", "arm": None, "lists": "0-0"},
    "degraded": [{"component": "model:heavy", "cause": "deadline"}],
    "flags": ["truncated"], "source": {"topic": "t", "partition": 0, "offset": 9},
}  # fmt: skip


def valid(schema: dict[str, Any], document: Any) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(document)


@pytest.mark.parametrize("path", FILES)
def test_the_committed_schema_is_the_exported_one(path: str) -> None:
    assert (SCHEMAS / path).read_text(encoding="utf-8") == FILES[path], "run `streamapp schema export`"


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith(".json")])
def test_every_schema_is_one(path: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(FILES[path]))


@pytest.mark.parametrize(
    "members",
    [
        {}, {"user_id": 7}, {"user_id": 0}, {"user_id": -3}, {"user_id": ""}, {"user_id": None}, {"user_id": 1.5}, {"user_id": 7.0},
        {"user_id": True},
        {"user_id": "u" * 128}, {"user_id": "u" * 129}, {"text": ""}, {"text": " \n"}, {"text": "x" * 20_000}, {"text": 5}, {"text": None},
        {"language": "en"}, {"language": "eng"}, {"language": None}, {"language": 5}, {"metadata": {"a": [1]}}, {"metadata": None},
        {"channel": "c" * 64}, {"channel": "c" * 65}, {"channel": 5}, {"ip": 3}, {"ip": None}, {"event_id": 12}, {"event_id": ""},
        {"event_id": "e" * 257}, {"tenant": ""}, {"tenant": None}, {"tenant": "t" * 129}, {"event_time": 5}, {"event_time": 5.5},
        {"event_time": None}, {"event_time": True}, {"event_time": 1e15}, {"event_time": {}}, {"unknown": {"a": 1}},
    ],
)  # fmt: skip
def test_the_event_schema_and_the_decoder_agree(members: dict[str, Any]) -> None:
    event = {"user_id": "u1", "text": "hello"} | members
    accepted = decide(json.dumps(event).encode())[0] == "event"
    assert valid(event_schema(SPEC), event) == accepted


def test_required_fields_are_required() -> None:
    assert not valid(event_schema(SPEC), {"text": "x"})
    assert not valid(event_schema(SPEC), [])


def test_a_verdict_has_the_fields_that_are_encoded() -> None:
    assert list(verdict_properties(SPEC)) == list(COLUMNS) == list(VERDICT)


def test_verdicts_are_checked_down_to_their_reasons() -> None:
    schema = verdict_schema(SPEC)
    assert valid(schema, VERDICT)
    assert valid(schema, VERDICT | {"score": None, "probability": None, "threshold": None, "decided_by": "default", "added_later": 1})
    for wrong in (
        {"verdict": "maybe"}, {"decided_by": "nobody"}, {"pipeline": "payments"}, {"score": "high"}, {"probability": 1.5},
        {"flags": ["odd"]},
        {"entity": "u1"}, {"reasons": [{"code": "made_up", "text": "x"}]}, {"reasons": [{"code": "many_urls"}]}, {"source": {"topic": "t"}},
        {"versions": {}}, {"degraded": [{"component": "x"}]}, {"event_time": "now"}, {"stages": {"features": "fast"}},
    ):  # fmt: skip
        assert not valid(schema, VERDICT | wrong), wrong
    assert not any(valid(schema, {name: value for name, value in VERDICT.items() if name != left_out}) for left_out in VERDICT)


def test_a_pipeline_may_emit_fewer_fields() -> None:
    fewer = msgspec.structs.replace(SPEC, verdict=VerdictSection(fields=("event_id", "verdict")))
    assert verdict_schema(fewer)["required"] == ["event_id", "verdict"]
    assert valid(verdict_schema(fewer), {"event_id": "e", "verdict": "block"})


def test_reason_codes_are_closed() -> None:
    codes = reason_codes(SPEC)
    assert len(codes) == len(set(codes))
    assert {"many_urls", "model_url_count", "model_character_ngrams", "default_route"} <= set(codes)


def test_a_decision_is_a_verdict_with_features() -> None:
    schema = json.loads(FILES["messages/decision.v1.json"])
    features = dict.fromkeys(schema["properties"]["features"]["properties"], 0.0)
    assert "url_count" in features and "account_age_days_missing" in features
    assert valid(schema, VERDICT | {"features": features, "text_sha256": "0" * 64})
    assert not valid(schema, VERDICT)


def test_dead_letters_carry_the_headers_of_their_schema() -> None:
    bad = segment([b"nonsense"])
    (reject,) = DECODER.plan([bad]).rejects
    _, _, headers = dead_letter(reject, bad, 5)
    schema = json.loads(FILES["messages/dead-letter-headers.v1.json"])
    document = {name: (value or b"").decode() for name, value in headers}
    jsonschema.validate(document, schema)
    assert set(document) == set(schema["required"])
    assert not valid(schema, document | {"dlq.reason": "because"})


def test_asyncapi_names_the_topics_that_are_created() -> None:
    document = yaml.safe_load(FILES["messages/asyncapi.yaml"])
    topics = Topics(SPEC.namespace)
    assert document["asyncapi"] == "3.0.0"
    assert {role: channel["address"] for role, channel in document["channels"].items()} == {
        role: getattr(topics, role) for role in document["channels"]
    }
    # The state log is nobody's interface: only workers read it, and its format may change with them.
    assert {channel["address"] for channel in document["channels"].values()} == set(topics.names()) - {topics.state}
    referred = {message["payload"]["$ref"].removeprefix("./") for channel in document["channels"].values()
                for message in channel["messages"].values() if "payload" in message}  # fmt: skip
    assert {f"messages/{name}" for name in referred} <= set(FILES)
    for operation in document["operations"].values():
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in document["channels"]


def test_verdicts_name_the_events_schema_and_decisions_the_id_that_a_frame_said() -> None:
    plain, framed = b'{"user_id":"u","text":"a"}', b'\0\0\0\1\xf4{"user_id":"u","text":"b"}'
    digest = hashlib.sha256((SCHEMAS / "messages" / "event.v1.json").read_bytes()).hexdigest()
    some = answers(serving_of(), [line_segment([plain, framed])])
    assert [one["versions"]["schema"] for one in some.values()] == [f"1/{digest[:12]}"] * 2, "that of the file that is shipped"
    assert [one.get("schema_id") for one in some.values()] == [None, 500]
    schema = json.loads(FILES["messages/decision.v1.json"])
    for one in (*some.values(), *answers(serving_of(), [line_segment([plain])]).values()):
        jsonschema.validate(one, schema)
    assert "schema_id" not in answers(serving_of(), [line_segment([plain])])[0, 0]
