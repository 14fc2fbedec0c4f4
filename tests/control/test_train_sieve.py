"""The first tier of a text cascade: trained on what is counted in a text, it approves, and nobody is asked about what it lets pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamapp.adapters.models import load_model
from streamapp.config import load_pipeline
from streamapp.control.release import assemble, inputs_of
from streamapp.control.sieve import NAMES, SieveRecipe
from streamapp.control.train import TrainingReport, train
from streamapp.core.errors import ConfigError
from streamapp.core.outcome import Outcome, merged
from streamapp.core.route import APPROVE, REVIEW
from streamapp.core.tier_spec import TierSpec
from streamapp.core.vectorise import Contributions, Inputs
from streamapp.pipeline import Serving
from tests.control.test_train import RECIPE, messages, write
from tests.line import linear_model, run, segment

MESSAGES = load_pipeline("messages")
SPEC = msgspec.structs.replace(
    MESSAGES, tiers=(TierSpec(name="sieve", model="messages_sieve", block="never"), TierSpec(name="fast", model="messages"))
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sieve") / "messages.jsonl", messages(500))


@pytest.fixture(scope="module")
def trained(data: Path) -> TrainingReport:
    return train(SPEC, [data], data.parent / "models", load_model=load_model, recipe=RECIPE, sieve=SieveRecipe(share=0.4))


def serving_of(trained: TrainingReport, fast: Any) -> Serving:
    bare = assemble(SPEC, {}, b"test-key-of-16-b")
    sieve = load_model(trained.directory, feature_spec=bare.features.hash, vectorise=lambda card, events: inputs_of(bare, card, events))
    return assemble(SPEC, {"sieve": sieve, "fast": fast}, b"test-key-of-16-b")


def decided(serving: Serving, count: int = 120) -> Outcome:
    return run(serving, [segment([json.dumps(one).encode() for one in messages(count, seed=5)])])


class Counting:
    """A model that keeps how many rows it was asked about."""

    def __init__(self, failure: Exception | None = None) -> None:
        self._model, self._failure, self.rows = linear_model(), failure, 0
        self.card, self.calibration = self._model.card, self._model.calibration

    def logits(self, inputs: Inputs) -> np.ndarray:
        self.rows += len(inputs.numeric)
        if self._failure is not None:
            raise self._failure
        return self._model.logits(inputs)

    def contributions(self, inputs: Inputs) -> Contributions:
        return self._model.contributions(inputs)


def test_its_card_says_what_it_sees_and_what_it_promises(trained: TrainingReport) -> None:
    card = trained.card
    assert (card.name, card.scaler.names, card.ngram_buckets, card.linear) == ("messages_sieve", NAMES, 0, True)
    assert card.hyper_parameters["share"] == 0.4 and card.approve.promise == "approves 0.4 of all"
    observed, low, high = card.approve.observed, card.approve.low, card.approve.high
    assert observed is not None and low is not None and high is not None and low <= observed <= high
    assert [rung["name"] for rung in card.metrics["ladder"]] == ["rules", "numeric logistic"]


def test_what_it_lets_pass_reaches_no_other_tier_and_the_rest_goes_on(trained: TrainingReport) -> None:
    fast = Counting()
    serving = serving_of(trained, fast)
    fast.rows = 0
    outcome = decided(serving)
    by = [serving.deciders[one] for one in outcome.decided_by]
    passed = by.count("sieve")
    assert 0 < passed < len(by) and fast.rows == len(by) - passed == by.count("fast")
    assert all(route == APPROVE for route, who in zip(outcome.route.tolist(), by, strict=True) if who == "sieve")
    cut = serving.tiers[0].approve_below
    assert cut is not None and all(outcome.probability[row] < cut for row, who in enumerate(by) if who == "sieve")


def test_a_micro_batch_of_one_is_decided_as_in_a_large_one(trained: TrainingReport) -> None:
    serving = serving_of(trained, linear_model())
    whole = decided(serving, 30)
    for row, one in enumerate(messages(30, seed=5)):
        alone = run(serving, [segment([json.dumps(one).encode()])])
        assert (alone.route[0], alone.decided_by[0]) == (whole.route[row], whole.decided_by[row])
        assert alone.score[0] == pytest.approx(whole.score[row], abs=1e-6)


def test_without_the_models_behind_it_people_look_and_are_told_what_it_saw(trained: TrainingReport) -> None:
    serving = serving_of(trained, Counting(RuntimeError("gone")))
    outcome = decided(serving)
    assert [(one.component, one.cause) for one in outcome.degraded] == [("model:fast", "RuntimeError")]
    assert {serving.deciders[one] for one in outcome.decided_by} == {"sieve"}
    left = np.flatnonzero(outcome.route == REVIEW)
    assert left.size and all(outcome.reasons[row] for row in left)


def test_drift_is_measured_on_the_score_of_the_first_model_which_its_card_knows(trained: TrainingReport) -> None:
    serving = serving_of(trained, linear_model())
    outcome = decided(serving)
    alone = decided(assemble(msgspec.structs.replace(SPEC, tiers=SPEC.tiers[:1]), {"sieve": serving.tiers[0].model}, b"test-key-of-16-b"))
    assert alone.watched is None and outcome.watched is not None
    assert outcome.watched == pytest.approx(alone.score) and not np.allclose(outcome.score, alone.score)
    assert merged([outcome, outcome]).watched == pytest.approx(np.tile(alone.score, 2))


def test_the_model_before_the_last_is_the_linear_one_and_the_first_the_sieve(data: Path, tmp_path: Path) -> None:
    three = msgspec.structs.replace(SPEC, tiers=(*SPEC.tiers, TierSpec(name="heavy", model="messages_heavy")))
    quick = replace(RECIPE, folds=2)
    for sieve, name in ((SieveRecipe(), "messages_sieve"), (None, "messages")):
        report = train(three, [data], tmp_path, load_model=load_model, recipe=quick, sieve=sieve)
        assert report.card.name == name and (report.card.ngram_buckets == 0) == (sieve is not None)
    with pytest.raises(ConfigError, match=r"declares no \[features.text\]"):
        train(load_pipeline("payments"), [data], tmp_path, load_model=load_model, sieve=SieveRecipe())
