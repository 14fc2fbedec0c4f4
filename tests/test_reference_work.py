"""The reference pipeline, declared like any other: seconds under a name of their own, a formula, renamed fields, no ids, no decisions."""

from __future__ import annotations

import json
import math
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamapp import pipeline
from streamapp.config import load_pipeline
from streamapp.control.release import assemble
from streamapp.core.errors import ConfigError
from streamapp.core.events import Segment
from streamapp.core.schema import event_schema, export, verdict_schema
from streamapp.core.spec import parse_spec

TEXT = (Path(__file__).resolve().parents[1] / "pipelines" / "reference.toml").read_text(encoding="utf-8")
SPEC = load_pipeline("reference")
SERVING = assemble(SPEC, {}, b"k" * 16)


def spec(**sections: dict[str, Any]) -> Any:
    document = tomllib.loads(TEXT)
    for name, changed in sections.items():
        document[name] = {**document[name], **changed}
    return parse_spec(document, "reference.toml", TEXT)


def segment(events: list[dict[str, Any]], first: int = 0) -> Segment:
    n, keys = len(events), [str(event["user_id"]).encode() for event in events]
    values = [json.dumps(event).encode() for event in events]
    return Segment("t", 0, 1, np.arange(first, first + n), np.full(n, 1_800_000_000_000), keys, values, [()] * n)


def decided(serving: pipeline.Serving, batches: list[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], Any]:
    state, found, first = serving.state.new(), [], 0
    for batch in batches:
        plan = pipeline.plan([segment(batch, first)], serving)
        assert not plan.rejects
        outcome = pipeline.decide(plan, pipeline.Read(), [state], serving, 0, lambda: 0.0)
        found += [json.loads(verdict) for verdict in serving.encoder.verdicts(outcome)]
        first += len(batch)
    return found, state


def events(count: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    times = 1_700_000_000 + np.sort(random.random(count) * 9000).round(3)
    return [
        {"event_id": f"e{row}", "user_id": f"u{random.integers(5)}", "amount": round(float(random.random() * 190), 2), "ts": float(ts)}
        for row, ts in enumerate(times)
    ]


@pytest.mark.parametrize("cut", [1, 7, 400])
def test_counts_sums_scores_and_routes_are_those_of_a_plain_loop(cut: int) -> None:
    given = events(400, seed=3)
    found, _ = decided(SERVING, [given[at : at + cut] for at in range(0, len(given), cut)])
    held: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for event, verdict in zip(given, found, strict=True):
        now = round(event["ts"] * 1000)
        held[event["user_id"]].append((now, round(event["amount"] * 100)))
        count60 = sum(now - 60_000 < at <= now for at, _ in held[event["user_id"]])
        sum3600 = sum(cents for at, cents in held[event["user_id"]] if now - 3_600_000 < at <= now) / 100
        p = 1 / (1 + math.exp(-(0.01 * count60 + 0.0005 * sum3600 - 2)))
        assert list(verdict) == ["id", "decision", "score", "count60", "sum3600"]
        assert (verdict["id"], verdict["count60"]) == (event["event_id"], count60) and type(verdict["count60"]) is int
        assert verdict["sum3600"] == pytest.approx(sum3600, abs=1e-9) and verdict["score"] == pytest.approx(p, rel=1e-12)
        assert verdict["decision"] == ("approve" if p < 0.5 else "review" if p < 0.8 else "block")
    assert {one["decision"] for one in found} >= {"approve", "review"}, "the test decides something"


def test_without_dedupe_every_copy_counts_and_no_id_is_held() -> None:
    twice = events(1, seed=1) * 2
    found, state = decided(SERVING, [twice])
    assert [one["count60"] for one in found] == [1, 2]
    assert not state.snapshot()["seen/id"].size and state.applied == 1
    with_ids, _ = decided(assemble(spec(state={"dedupe": True}), {}, b"k" * 16), [twice])
    assert [one["count60"] for one in with_ids] == [1, 0], "a copy asks no window"


def test_a_memory_of_no_ids_survives_a_snapshot_and_can_become_one() -> None:
    given = events(50, seed=2)
    _, state = decided(SERVING, [given])
    for serving in (SERVING, assemble(spec(state={"dedupe": True}), {}, b"k" * 16)):
        again = serving.state.new()
        again.restore(state.snapshot())
        assert again.applied == 49 and again.clock.high == state.clock.high and len(again.seen) == 0


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        (1_700_000_000, 1_700_000_000_000), (1_700_000_000.123, 1_700_000_000_123), (1_700_000_000.0006, 1_700_000_000_001),
        (0.0, 0), ("2023-11-14T22:13:20.5Z", 1_700_000_000_500), (None, 1_800_000_000_000),
    ],
)  # fmt: skip
def test_seconds_become_the_nearest_millisecond_beside_any_other_form(ts: Any, expected: int) -> None:
    one = {"user_id": "u", "amount": 1.0, "ts": ts}
    for neighbours in ([], [{**one, "ts": 5.25}, {**one, "ts": "2024-01-01T00:00:00Z"}, {**one, "user_id": 7}]):
        plan = pipeline.plan([segment([one, *neighbours])], SERVING)
        assert not plan.rejects and plan.event_time[0] == expected


@pytest.mark.parametrize("ts", [1e15, True, "yesterday", [1]])
def test_what_is_no_time_is_rejected_under_the_member_s_own_name(ts: Any) -> None:
    plan = pipeline.plan([segment([{"user_id": "u", "amount": 1.0, "ts": ts}])], SERVING)
    assert [(reject.code.value, reject.path) for reject in plan.rejects] == [("invalid_time", "$.ts")]


def test_event_time_is_an_unknown_member_where_the_time_has_another_name() -> None:
    plan = pipeline.plan([segment([{"user_id": "u", "amount": 1.0, "ts": 5, "event_time": "whatever"}])], SERVING)
    assert plan.event_time.tolist() == [5000] and not plan.rejects


def test_schemas_say_what_the_file_says() -> None:
    assert "ts" in event_schema(SPEC)["properties"] and "event_time" not in event_schema(SPEC)["properties"]
    assert list(verdict_schema(SPEC)["properties"]) == ["id", "decision", "score", "count60", "sum3600"]
    assert "reference/decision.v1.json" not in export(SPEC) and '"decisions"' not in export(SPEC)["reference/asyncapi.yaml"]


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"event": {"time_field": "amount"}}, "declared as a field as well"),
        ({"event": {"time_field": "tenant"}}, "means something else"),
        ({"event": {"time_unit": "h"}}, "event.time_unit"),
        ({"thresholds": {"block": "card"}}, "has no card"),
        ({"verdict": {"fields": {"id": "event_id", "n": "user_60s_cuont"}}}, "user_60s_cuont is no field"),
        ({"verdict": {"fields": {"decision": "verdict"}}}, "names no id"),
        ({"verdict": {"fields": {"id": "event_id", "my-name": "verdict"}}}, "my-name is no name"),
    ],
)
def test_mistakes_are_told(sections: dict[str, dict[str, Any]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        assemble(spec(**sections), {}, b"k" * 16)


@pytest.mark.parametrize(
    ("tier", "told"),
    [
        ({"name": "fast"}, "either a `model`, an `expression`"),
        ({"name": "fast", "model": "m", "expression": "amount"}, "either a `model`, an `expression`"),
        ({"name": "fast", "expression": "amount", "version": "1"}, "has no versions"),
        ({"name": "fast", "expression": "amount +"}, "is no condition"),
        ({"name": "fast", "expression": "amuont"}, "amuont"),
    ],
)
def test_mistakes_of_a_tier_are_told(tier: dict[str, str], told: str) -> None:
    document = {**tomllib.loads(TEXT), "tiers": [tier]}
    with pytest.raises(ConfigError, match=told):
        assemble(parse_spec(document, "reference.toml"), {}, b"k" * 16)


def test_the_committed_schemas_are_the_exported_ones() -> None:
    for path, text in export(SPEC).items():
        assert (Path(__file__).resolve().parents[1] / "schemas" / path).read_text(encoding="utf-8") == text, "run `streamapp schema export`"
