"""Batch scores on Redis: what a night's scoring leaves behind is a feature of the next day's events, for as long as it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from streamapp.config import shipped

PIPELINE = """
[pipeline]
name = "risky"
version = "1"
key = "user_id"
[event.fields.user_id]
type = "id"
required = true
[event.fields.amount]
type = "number"
required = true
[features.fields]
amount = { default = 0.0, low = 0.0, high = 100.0 }
[features.profile]
batch_risk = { default = 0.0, low = 0.0, high = 1.0 }
[[rules]]
code = "risky_yesterday"
when = "batch_risk > 0.85"
route = "review"
text = "the last batch found {value}"
hit = { features = { batch_risk = 0.9 } }
miss = { features = { batch_risk = 0.8 } }
[[tiers]]
name = "amount"
expression = "amount / 100"
[thresholds]
approve = 0.5
block = 0.95
"""


@pytest.fixture
def risky(tmp_path: Path) -> Path:
    path = tmp_path / "risky.toml"
    path.write_text(PIPELINE + '[risk_cache]\nabove = 0.7\nttl = "2h"\n')
    return path


def payments(*given: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"event_id": f"e{number}", "user_id": user, "amount": amount} for number, (user, amount) in enumerate(given)]


@pytest.mark.redis
def test_scores_above_the_cut_are_a_feature_of_later_events(
    call, events_file: Callable[..., Path], risky: Path, redis_address: str, namespace: str
) -> None:
    where = ["--pipeline", str(risky), "--profiles-redis", f"redis://{redis_address}/0", "--namespace", namespace]
    night = events_file(*payments(("ana", 75), ("ana", 90), ("ana", 10), ("ben", 70), ("carl", 71)))
    scored = call("score", "--risk-cache", *where, str(night))
    assert scored.exit_code == 0, scored.output
    host, port = redis_address.split(":")
    with Redis(host=host, port=int(port)) as client:
        assert sorted(client.scan_iter(f"{namespace}:risk:*")) == [f"{namespace}:risk:{name}".encode() for name in ("ana", "carl")]
        assert 1.7 < client.pttl(f"{namespace}:risk:ana") / 3_600_000 < 2.3
    day = events_file(*payments(("ana", 1), ("ben", 1), ("carl", 1)))
    decisions = [json.loads(line) for line in call("score", "--features", *where, str(day)).stdout.splitlines()]
    assert [one["features"]["batch_risk"] for one in decisions] == [0.9, 0, 0.71]
    assert [one["features"]["batch_risk_missing"] for one in decisions] == [0, 1, 0]
    assert [(one["verdict"], one["decided_by"]) for one in decisions] == [("review", "rule"), ("approve", "amount"), ("approve", "amount")]
    assert all(one["degraded"] == [] for one in decisions)
    traced = json.loads(call("trace", *where, "--json", "-", stdin=json.dumps(payments(("ana", 1))[0])).stdout)
    assert traced["features"]["batch_risk"]["value"] == 0.9 and traced["verdict"]["verdict"] == "review"


def test_a_redis_that_is_gone_is_named_in_verdicts_and_ends_a_batch_that_should_write(
    call, events_file: Callable[..., Path], risky: Path
) -> None:
    where = ["--pipeline", str(risky), "--profiles-redis", "redis://127.0.0.1:1/0"]
    source = events_file(*payments(("ana", 90)))
    (decision,) = (json.loads(line) for line in call("score", *where, str(source)).stdout.splitlines()[-1:])
    assert decision["verdict"] == "review" and decision["degraded"] == [{"component": "redis", "cause": "profiles:refused"}]
    failed = call("score", "--risk-cache", *where, str(source))
    assert failed.exit_code == 2 and "Redis does not take the risks" in failed.output


def test_a_batch_that_cannot_leave_risks_behind_says_so_at_once(call, events_file: Callable[..., Path], risky: Path) -> None:
    source = events_file(*payments(("ana", 90)))
    no_redis = call("score", "--risk-cache", "--pipeline", str(risky), str(source))
    assert no_redis.exit_code == 2 and "--profiles-redis" in no_redis.output
    shipped_one = str(shipped("pipelines") / "reference.toml")
    no_table = call("score", "--risk-cache", "--pipeline", shipped_one, "--profiles-redis", "redis://127.0.0.1:1/0", str(source))
    assert no_table.exit_code == 2 and "has no [risk_cache]" in no_table.output
