"""The heavy tier of a text cascade: trained beside the fast one, written as one file, told as one sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamapp.adapters.models import load_model
from streamapp.config import load_pipeline
from streamapp.control.release import assemble, inputs_of
from streamapp.control.stack import StackRecipe, cascade_cuts
from streamapp.control.train import TrainingReport
from streamapp.control.train_stack import train_stack
from streamapp.control.versions import version_directory
from streamapp.core.errors import ConfigError, ModelRejected
from tests.control.test_train import RECIPE, messages, write

SPEC = load_pipeline("messages_cascade")
OWN = StackRecipe(columns=60, trees=15, positives_min=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    directory = tmp_path_factory.mktemp("stack")
    data = write(directory / "messages.jsonl", messages(500))
    return train_stack(SPEC, [data], directory / "models", load_model=load_model, recipe=RECIPE, own=OWN)


def test_the_file_is_the_last_tiers_and_its_card_says_what_it_is_made_of(trained: TrainingReport) -> None:
    card = trained.card
    assert (card.name, card.version, card.task, card.linear) == ("messages_heavy", "1", "binary", True)
    assert set(card.hyper_parameters["members"]) == {"linear", "trees", "constant"}
    assert card.hyper_parameters["stack"]["approve"] == 0.05 and card.hyper_parameters["stack"]["block"] == 0.95
    assert card.parity_max_abs <= 1e-6 and card.trees_sha256 is not None
    assert trained.parts["test"].pr_auc is not None and trained.parts["test"].pr_auc > 0.9
    assert card.approve.promise.startswith("miss rate of the cascade")


def test_what_it_says_of_its_inputs_adds_up_to_what_it_says(trained: TrainingReport) -> None:
    serving = assemble(SPEC, {}, b"test")
    model = load_model(trained.directory, feature_spec=serving.features.hash)
    events = [{"user_id": "u", "text": one["text"]} for one in messages(40, seed=3)]
    inputs = inputs_of(serving, trained.card, events)
    assert inputs.ngrams is not None
    shares, margins = model.contributions(inputs), model.logits(inputs)[:, 0]
    total = shares.numeric.sum(axis=1) + np.add.reduceat(shares.ngram, inputs.ngrams.start[:-1])
    assert np.ptp(margins - total) < 1e-6


def test_tables_that_are_not_the_graphs_are_refused(trained: TrainingReport, tmp_path: Path) -> None:
    import hashlib
    import io

    import msgspec

    version = tmp_path / "1"
    version.mkdir()
    for file in trained.directory.iterdir():
        (version / file.name).write_bytes(file.read_bytes())
    with np.load(version / "trees.npz") as arrays:
        tables = dict(arrays)
    tables["bucket"] = tables["bucket"][::-1].copy()
    changed = io.BytesIO()
    np.savez(changed, **tables)
    (version / "trees.npz").write_bytes(changed.getvalue())
    card = msgspec.structs.replace(trained.card, trees_sha256=hashlib.sha256(changed.getvalue()).hexdigest())
    (version / "card.json").write_bytes(msgspec.json.encode(card))
    serving = assemble(SPEC, {}, b"test")
    with pytest.raises(ModelRejected):
        load_model(version, feature_spec=serving.features.hash, vectorise=lambda card, events: inputs_of(serving, card, events))


def test_cuts_keep_the_promise_for_the_cascade_not_for_the_heavy_tier_alone() -> None:
    fast = np.array([0.01] * 97 + [0.01] + [0.5] * 40 + [0.99] * 60)
    heavy = np.concatenate((np.zeros(98), np.linspace(0.0, 1.0, 40), np.ones(60)))
    positive = np.concatenate((np.zeros(97, bool), [True], np.arange(40) % 2 == 1, np.ones(60, bool)))
    recipe = replace(RECIPE, miss_rate=0.05, precision=0.95, precision_slack=0.95)
    block, approve = cascade_cuts(fast, heavy, positive, (0.05, 0.95), recipe, 1)
    # 81 positives allow 4 misses; the fast tier made one of them, so three of the heavy tier's twenty may pass.
    assert approve.value is not None and int((positive & (fast == 0.5) & (heavy < approve.value)).sum()) == 3
    assert block.value is not None and positive[(fast == 0.5) & (heavy >= block.value)].mean() >= 0.95
    assert cascade_cuts(fast, heavy, positive, (0.05, 0.95), recipe, 21)[0].value is None
    # 90 % of 81 are 73 to be blocked; the fast tier blocks 60 of them, so 13 of the heavy tier's twenty are wanted.
    aimed = cascade_cuts(fast, heavy, positive, (0.05, 0.95), replace(recipe, precision=0.5, recall=0.9), 1)[0]
    assert aimed.value is not None and int(positive[(fast == 0.5) & (heavy >= aimed.value)].sum()) == 13
    assert aimed.promise == "recall of the cascade >= 0.9 with precision >= 0.5"


def test_a_tier_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    assert version_directory(SPEC, tmp_path, None)[0] == "messages_sieve"
    assert version_directory(SPEC, tmp_path, None, "heavy") == ("messages_heavy", tmp_path / "messages_heavy" / "1")
    with pytest.raises(ConfigError, match="no tier 'hevy' with a model"):
        version_directory(SPEC, tmp_path, None, "hevy")
    with pytest.raises(ConfigError, match="declares no n-grams"):
        train_stack(load_pipeline("payments"), [], tmp_path, load_model=load_model)
