"""The cascade that comes with the program: sieve, fast and heavy tier each do their part, and any of them may be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamapp.adapters.models import latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.release import load_serving
from streamapp.pipeline import Serving
from tests.control.test_shipped_model import FRIENDLY, UNWANTED
from tests.line import run, segment

BORDERLINE = "call me when you are free to talk about the offer for your flat, I can text you the number"
MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def serving() -> Serving:
    return load_serving(load_pipeline("messages_cascade"), MODELS, b"test-key-of-16-b", load_model, latest_version)


def verdicts(serving: Serving, texts: tuple[str, ...]) -> list[dict[str, Any]]:
    values = [json.dumps({"event_id": str(place), "user_id": "u", "text": text}).encode() for place, text in enumerate(texts)]
    return [json.loads(one) for one in serving.encoder.verdicts(run(serving, [segment(values)]))]


def test_its_file_differs_from_messages_only_in_what_it_names() -> None:
    base, own = load_pipeline("messages"), load_pipeline("messages_cascade")
    assert (own.event, own.features, own.ngrams, own.vector) == (base.event, base.features, base.ngrams, base.vector)
    assert own.rules == base.rules
    assert [(tier.name, tier.model, tier.approve, tier.block) for tier in own.tiers] == [
        ("sieve", "messages_sieve", None, "never"), ("fast", "messages", 0.05, 0.95), ("heavy", "messages_heavy", None, None),
    ]  # fmt: skip


def test_friends_pass_and_prizes_do_not(serving: Serving) -> None:
    assert [one["verdict"] for one in verdicts(serving, FRIENDLY)] == ["approve"] * len(FRIENDLY)
    found = verdicts(serving, UNWANTED)
    assert [one["verdict"] for one in found] == ["block"] * len(UNWANTED) and {one["decided_by"] for one in found} == {"fast"}


def test_the_sieve_lets_plain_texts_pass_and_blocks_nothing(serving: Serving) -> None:
    passed, stopped = verdicts(serving, ("ok see you then", UNWANTED[0]))
    sieve = serving.tiers[0]
    assert sieve.approve_below is not None and sieve.block_from is None
    assert (passed["decided_by"], passed["verdict"], passed["reasons"]) == ("sieve", "approve", [])
    assert passed["probability"] < passed["threshold"] == sieve.approve_below
    assert stopped["decided_by"] == "fast"


def test_what_the_fast_tier_is_unsure_of_is_decided_and_told_by_the_heavy_one(serving: Serving) -> None:
    words = BORDERLINE.split()
    texts = tuple(" ".join(words[: 8 + place] + UNWANTED[place % 3].split()[: place % 9]) for place in range(14))
    found = [one for one in verdicts(serving, texts) if one["decided_by"] == "heavy"]
    assert found, "none of these lies between the fast tier's cuts"
    heavy = serving.tiers[2]
    assert heavy.approve_below is not None
    for one in found:
        assert one["verdict"] == ("approve" if one["probability"] < heavy.approve_below else "review")
        assert one["verdict"] == "approve" or [reason for reason in one["reasons"] if reason["code"].startswith("model_")]
        assert {"tier:sieve", "tier:fast", "tier:heavy"} <= set(one["stages"])


@pytest.mark.parametrize("there", [("messages",), ("messages_sieve", "messages"), ("messages_sieve",)])
def test_without_the_other_models_those_that_are_there_decide_and_every_verdict_names_the_others(
    tmp_path: Path, there: tuple[str, ...]
) -> None:
    for name in there:
        (tmp_path / name).symlink_to(MODELS / name)
    alone = load_serving(load_pipeline("messages_cascade"), tmp_path, b"test-key-of-16-b", load_model, latest_version)
    found = verdicts(alone, (*FRIENDLY, *UNWANTED))
    assert {one["decided_by"] for one in found} <= {"sieve", "fast", "rule", "default"}
    missing = [tier.name for tier in alone.spec.tiers if tier.model not in there]
    assert all(one["degraded"] == [{"component": f"model:{name}", "cause": "none"} for name in missing] for one in found)


def test_where_every_model_is_there_none_is_missed_and_where_none_is_there_it_is_told_once(serving: Serving, tmp_path: Path) -> None:
    assert {str(one["degraded"]) for one in verdicts(serving, FRIENDLY)} == {"[]"}
    empty = load_serving(load_pipeline("messages_cascade"), tmp_path, b"test-key-of-16-b", load_model, latest_version)
    assert {str(one["degraded"]) for one in verdicts(empty, FRIENDLY)} == {str([{"component": "model", "cause": "none"}])}
