"""Scores that are used again: never another row's, never too old, the last used ones, and the same decisions as without."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from streamapp import pipeline
from streamapp.adapters.models_memory import LinearModel
from streamapp.config import shipped
from streamapp.control.generate import Mix, messages
from streamapp.control.release import assemble
from streamapp.core.cache_spec import PredictionCacheSection
from streamapp.core.cascade import Degraded, Scores
from streamapp.core.errors import ConfigError, ModelFailed
from streamapp.core.predictions import Predictions
from streamapp.core.spec import parse_spec
from tests.line import ENTITY_KEY, SPEC, linear_model, segment

CACHED = msgspec.structs.replace(SPEC, prediction_cache=PredictionCacheSection())


def scores_of(*given: float) -> Scores:
    column = np.array(given)
    n = len(given)
    return Scores(column.copy(), column.copy(), np.full(n, 0.5), np.zeros(n, np.int8), np.zeros(n, np.int8), [])


def blank(n: int) -> Scores:
    nan = np.full(n, np.nan)
    return Scores(nan, nan.copy(), nan.copy(), np.full(n, 3, np.int8), np.full(n, -1, np.int8), [])


class Rows:
    """A cache, asked about rows of one user, text and feature each."""

    def __init__(self, most: int = 3, release: str = "r") -> None:
        self.cache = Predictions(release, 1000, most)

    def ask(self, now_ms: int, *rows: tuple[str, str | None, float]) -> list[bool]:
        """Scores what is not known (a row's score is its feature); gives which rows were known."""
        users, texts, features = zip(*rows, strict=True)
        wanted = np.ones(len(rows), np.bool_)
        found = self.cache.recall(users, None if texts[0] is None else texts, np.array(features)[:, None], wanted, now_ms)
        scores = blank(len(rows))
        for row in np.flatnonzero(found.left).tolist():
            one = scores_of(features[row])
            scores.score[row], scores.probability[row], scores.threshold[row] = one.score[0], one.probability[0], one.threshold[0]
            scores.route[row], scores.tier[row] = 0, 0
        self.cache.settle(found, scores, now_ms)
        assert scores.score.tolist() == list(features) and scores.tier.tolist() == [0] * len(rows)
        return (~found.left).tolist()


def test_a_score_is_used_again_for_the_same_user_text_and_features_only() -> None:
    rows = Rows(most=100)
    assert rows.ask(0, ("u", "t", 1.0), ("v", "t", 1.0)) == [False, False]
    assert rows.ask(1, ("u", "t", 1.0), ("u", "T", 1.0), ("u", "t", 1.5), ("ut", "", 1.0), ("v", "t", 1.0)) == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert rows.cache.counted() == {"cache": 2, "tiers": 5} and rows.cache.counted() == {"cache": 0, "tiers": 0}
    assert Rows().ask(0, ("u", None, 1.0)) == [False]


def test_a_score_lives_as_long_as_it_may_and_use_does_not_lengthen_that() -> None:
    rows = Rows()
    rows.ask(0, ("u", "t", 1.0))
    assert rows.ask(999, ("u", "t", 1.0)) == [True]
    assert rows.ask(1000, ("u", "t", 1.0)) == [False]
    assert rows.ask(1999, ("u", "t", 1.0)) == [True]


def test_the_last_used_stay() -> None:
    rows = Rows(most=2)
    for name in "ab":
        rows.ask(0, (name, "t", 1.0))
    assert rows.ask(1, ("a", "t", 1.0)) == [True]
    rows.ask(2, ("c", "t", 1.0))
    assert rows.ask(3, ("a", "t", 1.0), ("c", "t", 1.0), ("b", "t", 1.0)) == [True, True, False]


def test_what_a_degraded_cascade_said_is_not_kept() -> None:
    cache = Predictions("r", 1000, 10)
    for degraded, known in (([Degraded("model:fast", "time_budget")], False), ([], False), ([], True)):
        found = cache.recall(["u"], None, np.ones((1, 1)), np.ones(1, np.bool_), 0)
        assert bool(found.known) == known
        scores = scores_of(0.25) if not known else blank(1)
        scores.degraded += degraded
        cache.settle(found, scores, 0)
    assert cache.recall(["u"], None, np.ones((1, 1)), np.zeros(1, np.bool_), 0).known == {}


class Counting:
    """A model that counts the rows it is asked about, and fails when told to."""

    def __init__(self, model: LinearModel) -> None:
        self.card, self.calibration, self.contributions = model.card, model.calibration, model.contributions
        self._model, self.rows, self.fails = model, 0, False

    def logits(self, inputs: Any) -> Any:
        if self.fails:
            raise ModelFailed("told to")
        self.rows += len(inputs.numeric)
        return self._model.logits(inputs)


def decided(serving: pipeline.Serving, values: list[bytes | None], now_ms: int, first: int = 0) -> list[dict[str, Any]]:
    given = [segment(values, first=first)]
    outcome = pipeline.decide(pipeline.plan(given, serving), pipeline.Read(), [serving.state.new()], serving, now_ms, lambda: 0.0)
    return [json.loads(verdict) for verdict in serving.encoder.verdicts(outcome)]


def test_decisions_are_those_without_a_cache_and_the_model_is_asked_once_per_text() -> None:
    values = [one.value for one in messages(300, Mix(seed=11, garbage=0.0))]
    base = linear_model()
    counting, first = Counting(base), 0
    cached, plain = assemble(CACHED, {"fast": counting}, ENTITY_KEY), assemble(SPEC, {"fast": base}, ENTITY_KEY)
    wanted = decided(plain, values, 2000)
    for round_ms in (2000, 3000):
        for found, expected in zip(decided(cached, values, round_ms), wanted, strict=True):
            for name in ("score", "probability", "threshold"):
                assert found[name] == pytest.approx(expected[name], abs=1e-6)
            assert [found[name] for name in ("verdict", "decided_by", "degraded")] == [
                expected[name] for name in ("verdict", "decided_by", "degraded")
            ]
            assert [reason["code"] for reason in found["reasons"]] == [reason["code"] for reason in expected["reasons"]]
        first = first or counting.rows
    assert 0 < first == counting.rows
    counting.fails = True
    assert all(one["score"] is not None or one["decided_by"] == "rule" for one in decided(cached, values, 4000))
    assert any(one["degraded"] for one in decided(cached, values, 302_001))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"velocity": {"user_1h": {"entity": "user_id", "window": "1h", "aggregates": ["count"]}}}, "windows move with every event"),
        ({"thresholds": {"block": "cost", "approve": "cost"}, "costs": {"miss": 10, "false_alarm": 1, "review": 1}}, "routes by cost"),
        ({"tiers": [{"name": "sum", "expression": "char_count / 10"}], "thresholds": {"block": 0.9, "approve": 0.1}}, "is no model"),
        ({"tiers": []}, "no tier whose scores"),
        ({"prediction_cache": {"ttl": "soon"}}, "is no duration"),
        ({"prediction_cache": {"most": 0}}, "prediction_cache.most"),
        ({"prediction_cache": {"size": 3}}, "prediction_cache.size"),
        ({"risk_cache": {}}, "nobody reads it"),
        ({"risk_cache": {"above": 1.5}}, "risk_cache.above"),
    ],
)
def test_a_cache_that_would_lie_is_refused_when_the_file_is_loaded(change: dict[str, Any], says: str) -> None:
    import tomllib

    document = tomllib.loads((shipped("pipelines") / "messages.toml").read_text()) | {"prediction_cache": {}}
    document["event"]["key_required"] = True
    parse_spec(document, "tests")
    with pytest.raises(ConfigError, match=says):
        parse_spec(document | change, "tests")
