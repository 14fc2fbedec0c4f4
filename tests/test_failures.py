"""The short form of bench/failures.py: on a real Kafka and a real Redis every verdict is given, names what failed, and is itself again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 240


async def seen(kafka: str, *faults: str) -> dict[str, dict[str, Any]]:
    """Gives the benchmark's rows by fault. Its exit code also judges waits, which is no matter of a test."""
    command = [sys.executable, "bench/failures.py", "--bootstrap", kafka, "--only", *faults, "--seconds", "1.5", "--rate", "100", "--json"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1, cwd=ROOT, env=environ)
    async with asyncio.timeout(DEADLINE_S):
        out, words = await child.communicate()
    assert out, words.decode()[-4000:]
    return {row["fault"]: row for row in json.loads(out)["rows"]}


def assert_given(row: dict[str, Any]) -> None:
    """Nothing is lost, nothing comes twice, and every verdict has a route."""
    assert (row["lost"], row["twice"]) == (0, 0)
    assert "the group rebalanced" not in row["problems"]
    for phase in ("before", "during", "after"):
        assert row[phase]["verdicts"] == row[phase]["sent"] > 0
        assert set(row[phase]["routes"]) <= {"approve", "review", "block"}


async def test_profiles_that_cannot_be_read_are_missing_and_named(kafka: str) -> None:
    found = await seen(kafka, "profiles:hung", "profiles:wrong_type")
    for row in found.values():
        assert_given(row)
        assert row["during"]["missing_share"] > row["after"]["missing_share"]
    assert {cause.removeprefix("redis:profiles:") for cause in found["hung"]["named"]} & {"timeout", "open"}
    assert "redis:profiles:wrong_type" in found["wrong_type"]["named"]


async def test_a_model_that_fails_leaves_the_decision_to_the_rules(kafka: str) -> None:
    found = await seen(kafka, "model:throwing", "model:nan", "model:wrong_type")
    for row in found.values():
        assert_given(row)
        assert row["named"] and all(cause.startswith("model:fast:") for cause in row["named"])
        assert row["during"]["routes"]["review"] > 0.5 > row["before"]["routes"].get("review", 0.0)
