import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from streamapp.adapters.models import load_model
from streamapp.adapters.models_memory import ConstantModel
from streamapp.cli.generate import command as generate
from streamapp.config import load_pipeline
from streamapp.control.dataset import columns, is_positive, join_ngrams, read_examples
from streamapp.control.fit import Recipe
from streamapp.control.release import assemble, inputs_of
from streamapp.control.train import TrainingReport, train
from streamapp.core.card import Calibration, Card
from streamapp.core.errors import ConfigError, ModelRejected
from streamapp.core.vectorise import take_ngrams
from streamapp.pipeline import Serving

SPEC = load_pipeline("messages")
CHAT = "see you at noon near the river with bread and tea we walk home late my friend said it rains again today"
ADS = "claim free prize cash winner urgent call now offer voucher loan credit click win bonus reply stop text"
RECIPE = Recipe(folds=3, penalties=(1.0,), augment=False, positives_min=10, precision_slack=0.45)


def messages(n: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Chat and advertising of our own making; every fifth message mixes both, so that the classes touch."""
    rng = np.random.default_rng(seed)
    chat, ads = CHAT.split(), ADS.split()
    for i in range(n):
        spam = bool(rng.random() < 0.35)
        words = list(rng.choice(ads if spam else chat, rng.integers(4, 12)))
        if i % 5 == 0:
            words += list(rng.choice(chat if spam else ads, 2))
        yield {"event_id": f"m{i}", "user_id": f"u{i % 40}", "text": " ".join(words) + f" {i}", "label": "spam" if spam else "ham"}


def write(path: Path, events: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> Path:
    content = "".join(json.dumps(event) + "\n" for event in events).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture(scope="module")
def serving() -> Serving:
    return assemble(SPEC, {}, b"test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingReport, Path]:
    directory = tmp_path_factory.mktemp("trained")
    data = write(directory / "messages.jsonl.gz", messages(500))
    return train(SPEC, [data], directory / "models", load_model=load_model, recipe=RECIPE), data


def test_a_version_serves_as_soon_as_it_is_written(trained: tuple[TrainingReport, Path], serving: Serving) -> None:
    report, _ = trained
    assert report.directory.parts[-3:] == ("models", "messages", "1")
    assert sorted(path.name for path in report.directory.iterdir()) == ["calibration.json", "card.json", "model.onnx"]
    assert [path.name for path in report.directory.parent.iterdir()] == ["1"]
    model = load_model(
        report.directory, feature_spec=serving.features.hash, vectorise=lambda card, events: inputs_of(serving, card, events)
    )
    good, bad = model.logits(inputs_of(serving, model.card, [event("we walk home late with tea"), event("claim free cash prize now")]))
    assert good[0] < 0.0 < bad[0]


def event(text: str) -> dict[str, Any]:
    return {"user_id": "u", "text": text}


def test_the_card_says_what_was_done_with_which_data(trained: tuple[TrainingReport, Path]) -> None:
    report, data = trained
    card = msgspec.json.decode((report.directory / "card.json").read_bytes(), type=Card)
    assert card == report.card
    assert card.training["files"][0]["name"] == data.name
    assert card.training["files"][0]["rows"] == 500
    assert sum(card.training["rows"].values()) == 500 - sum(report.left_out.values())
    assert card.parity_max_abs < 1e-6
    assert card.hyper_parameters["seed"] == 17
    assert set(card.reference) >= {"score", "char_count", "account_age_days"}
    assert card.reference["char_count"].n == card.training["rows"]["train"]
    assert card.metrics["test"]["pr_auc"] > 0.9
    assert [rung["name"] for rung in card.metrics["ladder"]] == ["rules", "numeric logistic", "text logistic"]
    assert card.block.value is not None and card.approve.value is not None and card.approve.value <= card.block.value
    assert card.block.low is not None and card.block.observed is not None and card.block.low <= card.block.observed
    assert sum(row["n"] for row in card.reliability) == card.training["rows"]["test"]


def test_no_word_of_the_data_is_in_the_version(trained: tuple[TrainingReport, Path]) -> None:
    report, _ = trained
    content = b"".join(path.read_bytes() for path in report.directory.iterdir())
    assert not [word for word in ("voucher", "urgent", "river", "friend", "rains") if word.encode() in content]


def test_versions_count_up_and_are_never_overwritten(trained: tuple[TrainingReport, Path], tmp_path: Path) -> None:
    _, data = trained
    names = [train(SPEC, [data], tmp_path, load_model=load_model, recipe=RECIPE).directory.name for _ in range(2)]
    assert names == ["1", "2"]
    assert (tmp_path / "messages/1/model.onnx").read_bytes() == (tmp_path / "messages/2/model.onnx").read_bytes()
    with pytest.raises(ModelRejected, match="immutable"):
        train(SPEC, [data], tmp_path, load_model=load_model, recipe=RECIPE, version="2")


def test_a_file_that_is_not_equal_to_python_leaves_nothing_behind(trained: tuple[TrainingReport, Path], tmp_path: Path) -> None:
    report, data = trained

    def another_model(directory: Path, **_: Any) -> ConstantModel:
        return ConstantModel(report.card, Calibration("none"), (0.0,))

    with pytest.raises(ModelRejected, match="differ from Python's by"):
        train(SPEC, [data], tmp_path, load_model=another_model, recipe=RECIPE)
    assert list((tmp_path / "messages").iterdir()) == []


def test_progress_is_told_stage_by_stage_and_augmentation_is_weighed(trained: tuple[TrainingReport, Path], tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    report = train(
        SPEC, [trained[1]], tmp_path, load_model=load_model, recipe=replace(RECIPE, augment=None),
        progress=lambda stage, share: told.append((stage, share)),
    )  # fmt: skip
    assert [stage for stage, share in told if share == 1.0] == ["read", "features", "fit plain", "fit hardened", "write"]
    assert {"attacked_recall_plain", "attacked_recall_hardened"} <= set(report.card.metrics["notes"])


def test_events_with_times_are_split_by_time(tmp_path: Path) -> None:
    events = [{**event, "event_time": 1_700_000_000_000 + 1000 * i} for i, event in enumerate(messages(500))]
    report = train(SPEC, [write(tmp_path / "timed.jsonl", events)], tmp_path / "m", load_model=load_model, recipe=RECIPE)
    assert report.card.training["split"] == "time"
    assert report.card.training["window_ms"] == [1_700_000_000_000, 1_700_000_499_000]
    events[3].pop("event_time")
    some_without = write(tmp_path / "gap.jsonl", events)
    with pytest.raises(ConfigError, match="event_time in every event"):
        train(SPEC, [some_without], tmp_path / "m", load_model=load_model, recipe=RECIPE, split="time")


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, serving: Serving) -> None:
    lines = [
        {"user_id": "a", "text": "hello there", "label": "ham"},
        {"user_id": "b", "text": "  HELLO\u200b there ", "label": "ham"},  # the same once cleaned and folded
        {"user_id": "c", "text": "is it so", "label": "ham"},
        {"user_id": "d", "text": "is it so", "label": "spam"},  # nobody knows which label is right
        {"user_id": "e", "text": "buy", "label": "spam"},
        {"user_id": "f", "text": "who knows"},
        {"user_id": "g", "text": 5, "label": "spam"},
    ]
    found = read_examples([write(tmp_path / "few.jsonl", lines)], serving, "label", "spam")
    assert [event["user_id"] for event in found.events] == ["a", "e"]
    assert found.positive.tolist() == [False, True]
    assert found.time_ms is None
    assert found.left_out == {"unlabelled": 1, "rejected: wrong_type": 1, "duplicate": 2, "contradicting labels": 1}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([{"user_id": "a", "text": "hello", "label": "ham"}], "both classes are needed"),
        ([{"user_id": "a", "text": "hello"}], "both classes are needed"),
        ([[1]], "0 usable events.* both classes are needed; left out: 1 rejected: not_an_object"),
        ([*[{"user_id": "a", "text": 5, "label": "ham"}] * 3, {"user_id": "a"}], "left out: 3 rejected: wrong_type, 1 unlabelled"),
        ([{"user_id": str(i), "text": f"word {i}", "label": i % 2} for i in range(8)], "part has"),
    ],
)
def test_data_that_cannot_train_is_refused_with_the_fix(tmp_path: Path, lines: list[Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        train(SPEC, [write(tmp_path / "lines.jsonl", lines)], tmp_path / "m", load_model=load_model, recipe=RECIPE)


def test_lines_that_are_no_events_are_counted_and_the_others_train(tmp_path: Path, serving: Serving) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b'{"user_id":"a","text":"b","label":1}\n\n{"user_id"\n[1]\n"\xff"\n{"user_id":"a","text":"c","label":0}\n')
    found = read_examples([path], serving, "label", "spam")
    assert found.positive.tolist() == [True, False] and found.files[0]["rows"] == 5
    assert found.left_out == {"rejected: invalid_json": 1, "rejected: not_an_object": 1, "rejected: invalid_utf8": 1}


def test_what_generate_writes_by_default_trains_as_it_is(tmp_path: Path, serving: Serving) -> None:
    path = tmp_path / "generated.jsonl"
    assert CliRunner().invoke(generate, ["-n", "3000", "-o", str(path)]).exit_code == 0
    found = read_examples([path], serving, "label", "spam")
    assert len(found) > 1_000 and sum(count for reason, count in found.left_out.items() if reason.startswith("rejected")) > 10


@pytest.mark.parametrize(
    ("label", "positive"),
    [("spam", True), (" SPAM", True), ("ham", False), (True, True), (False, False), (1, True), (0, False), ("1", True), ("no", False)],
)
def test_labels_as_people_write_them(label: object, positive: bool) -> None:
    assert is_positive(label, "spam") is positive


def test_columns_do_not_depend_on_the_batch_they_came_in(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    events = list(messages(50))
    whole = columns(events, serving)
    monkeypatch.setattr("streamapp.control.dataset.BATCH_ROWS", 7)
    pieces = columns(events, serving)
    assert (whole.values == pieces.values).all()
    assert (whole.rule_hits == pieces.rule_hits).all()
    assert whole.ngrams is not None and pieces.ngrams is not None
    assert (whole.ngrams.bucket == pieces.ngrams.bucket).all()
    assert (whole.ngrams.start == pieces.ngrams.start).all()
    first, rest = take_ngrams(whole.ngrams, np.arange(3)), take_ngrams(whole.ngrams, np.arange(3, 50))
    assert (join_ngrams([first, rest]).weight == whole.ngrams.weight).all()


def test_an_event_that_cannot_be_decided_has_no_columns(serving: Serving) -> None:
    with pytest.raises(ConfigError, match="event 1 cannot be decided"):
        columns([event("fine"), {"text": "nobody wrote this"}], serving)
