"""Verdicts and decision records as bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamapp.core.cascade import Degraded
from streamapp.core.conditions import Columns
from streamapp.core.encode import COLUMNS, VerdictEncoder, Versions
from streamapp.core.events import Flag, Plan, Segment
from streamapp.core.explain import Reason
from streamapp.core.features import FeatureSet
from streamapp.core.features.catalogue import FeatureDef
from streamapp.core.outcome import Outcome
from streamapp.core.route import APPROVE, BLOCK
from streamapp.core.rules import RuleHits

VERSIONS = Versions("rel", "1/events", "feat", "rules", {"fast": "m/1"}, {"fast": "cal"}, "cuts")
NAMES = ("char_count", "url_count")
FEATURES = [
    FeatureDef(name=name, version=1, description="", created_at="", tags=(), low=0.0, high=9e9, whole=name == "url_count") for name in NAMES
]


def encoder(fields: Sequence[str] | dict[str, str] = tuple(COLUMNS), entity_key: bytes = b"k" * 16) -> VerdictEncoder:
    named = dict(fields) if isinstance(fields, dict) else {name: name for name in fields}
    return VerdictEncoder("messages", "user_id", "text", named, VERSIONS, ("rule", "fast", "default"), ("spam",), FEATURES, entity_key)


def outcome(event_id: str = "e-1", tenant: str = "", user: str = "u-1") -> Outcome:
    """Two rows on two partitions: a block by the model, an approve that no model scored."""
    segments = tuple(
        Segment("m.events.v1", partition, 1, np.array([50, 51, 52]), np.array([7, 8, 9]), [b"k"] * 3, [b"{}"] * 3, [()] * 3)
        for partition in (0, 3)
    )
    events: list[Any] = [SimpleNamespace(user_id=user, text="win a prize"), SimpleNamespace(user_id="u-2", text="héllo")]
    plan = Plan(
        segments, events, np.array([0, 1], np.int32), np.array([1, 2], np.int32), [event_id, "e-2"], [tenant, "t"],
        np.array([1000, 2000]), np.array([1001, 2001]), np.array([0, Flag.TRUNCATED | Flag.COLD_ENTITY], np.int32), [],
    )  # fmt: skip
    values = np.asfortranarray([[11.0, 0.0], [5.0, 0.25]])
    return Outcome(
        plan=plan,
        features=FeatureSet(NAMES, values, np.zeros(2, np.int64), np.zeros(2, np.int64)),
        hits=RuleHits(np.zeros((2, 0), bool), np.array([[True, False], [False, False]]), Columns({}.__getitem__, 2), (), ("a", "b")),
        score=np.array([0.9, np.nan]),
        probability=np.array([0.97, np.nan]),
        threshold=np.array([0.95, np.nan]),
        route=np.array([BLOCK, APPROVE], np.int8),
        decided_by=np.array([1, 2], np.int8),
        reasons=[[Reason("model_url_count", "links is 0", "url_count", 0.0, 0.5, -0.1)], ()],
        degraded=(Degraded("redis", "timeout"),),
        decided_at=3000,
        stage_ms={"features": 1.5},
        steps=[],
    )


def test_a_verdict_says_all_the_schema_names() -> None:
    first, second = map(json.loads, encoder().verdicts(outcome()))
    assert tuple(first) == tuple(COLUMNS)
    assert (first["verdict"], first["decided_by"], first["score"], first["probability"], first["threshold"]) == (
        "block",
        "fast",
        0.9,
        0.97,
        0.95,
    )
    assert first["reasons"] == [
        {"code": "model_url_count", "text": "links is 0", "feature": "url_count", "value": 0.0, "limit": 0.5, "weight": -0.1}
    ]
    assert first["source"] == {"topic": "m.events.v1", "partition": 0, "offset": 51}
    assert first["versions"]["models"] == {"fast": "m/1"} and first["versions"]["arm"] is None
    assert first["degraded"] == [{"component": "redis", "cause": "timeout"}] and first["stages"] == {"features": 1.5}
    assert (first["labels"], first["flags"]) == (["spam"], [])
    assert second["source"] == {"topic": "m.events.v1", "partition": 3, "offset": 52}
    assert (second["score"], second["probability"], second["threshold"], second["labels"]) == (None, None, None, [])
    assert second["flags"] == ["truncated", "cold_entity"] and second["reasons"] == []


def test_a_pipeline_may_emit_fewer_fields_in_its_own_order() -> None:
    assert encoder(("event_id", "verdict")).verdicts(outcome())[0] == b'{"event_id":"e-1","verdict":"block"}'


def test_fields_may_have_names_of_their_own_and_be_features_a_count_is_a_whole_number() -> None:
    found = encoder({"id": "event_id", "decision": "verdict", "length": "char_count", "links": "url_count"})
    assert found.verdicts(outcome())[0] == b'{"id":"e-1","decision":"block","length":11.0,"links":0.0}'
    assert found.verdicts(outcome())[1] == b'{"id":"e-2","decision":"approve","length":5.0,"links":0.25}', "never cut to fit"


def test_a_decision_adds_named_features_and_the_hash_of_the_text_never_the_text() -> None:
    found = encoder()
    verdicts = found.verdicts(outcome())
    first, second = found.decisions(outcome(), verdicts)
    record = json.loads(first)
    assert record["features"] == {"char_count": 11.0, "url_count": 0.0}
    assert (record["shadow_rules"], json.loads(second)["shadow_rules"]) == (["a"], [])
    assert record["text_sha256"] == hashlib.sha256(b"win a prize").hexdigest()
    assert {name: record[name] for name in COLUMNS} == json.loads(verdicts[0])
    assert json.loads(second)["text_sha256"] == hashlib.sha256("héllo".encode()).hexdigest()
    assert b"prize" not in first


def test_decision_ids_are_equal_for_copies_and_differ_by_tenant_and_event() -> None:
    def one(event_id: str, tenant: str) -> str:
        return encoder().decision_ids(outcome(event_id, tenant).plan)[0].decode()

    assert one("a", "t") == one("a", "t") and len(one("a", "t")) == 32
    assert len({one("a", "t"), one("b", "t"), one("a", ""), one("t", "a")}) == 4


def test_entities_are_hashed_under_the_key() -> None:
    def one(user: str, key: bytes) -> str:
        return encoder(entity_key=key).entities(outcome(user=user).plan)[0].decode()

    assert one("u-1", b"k" * 16) == one("u-1", b"k" * 16) != one("u-1", b"x" * 16)
    assert "u-1" not in one("u-1", b"k" * 16)


@pytest.mark.parametrize("text", ["\ud800", 'quote " and \\', "\x00"])
def test_ids_of_any_characters_are_escaped_or_hashed(text: str) -> None:
    ids = encoder().decision_ids(outcome(event_id=text).plan)
    assert len(ids[0]) == 32
