"""Contracts, settings and training from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_exported_schemas_are_found_in_order_until_one_changes(call, tmp_path: Path) -> None:
    folder = ("--directory", str(tmp_path))
    assert call("schema", "check", *folder).exit_code == 1
    written = json.loads(call("schema", "export", *folder, "--json").stdout)["written"]
    assert len(written) >= 4
    assert call("schema", "check", *folder).exit_code == 0
    Path(written[0]).write_text("{}")
    answer = call("schema", "check", *folder)
    assert answer.exit_code == 1
    assert "Fix: streamapp schema export" in answer.stdout


def test_committed_schemas_are_what_the_pipeline_file_says(call) -> None:
    assert call("schema", "check").exit_code == 0


def test_settings_are_shown_with_their_origin_and_secrets_stay_hidden(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMAPP_ENTITY_KEY", "0123456789abcdef-secret")
    monkeypatch.setenv("STREAMAPP_BATCH_WAIT_MS", "2")
    answer = call("config", "show", "--json")
    found = json.loads(answer.stdout)
    assert (found["batch_wait_ms"]["value"], found["batch_wait_ms"]["origin"]) == ("2", "STREAMAPP_BATCH_WAIT_MS")
    assert found["entity_key"]["value"] == "***"
    assert "0123456789abcdef" not in answer.output + call("config", "show").output


def test_a_pipeline_is_checked_with_its_rules_and_model(call, no_models: Path) -> None:
    answer = call("config", "check", "--models", str(no_models), "--json")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["models"] == []
    assert "rules decide alone" in call("config", "check", "--models", str(no_models)).output


def test_a_mistake_in_a_pipeline_file_is_named_with_its_nearest_right_key(call, tmp_path: Path) -> None:
    from streamapp.config import shipped

    text = (shipped("pipelines") / "messages.toml").read_text().replace("psi_alarm", "psi_alrm")
    path = tmp_path / "mine.toml"
    path.write_text(text)
    answer = call("config", "check", "--pipeline", str(path))
    assert answer.exit_code == 2
    assert "psi_alarm" in answer.stderr


def test_a_model_is_trained_from_labelled_lines_and_serves(call, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="training needs the train extra")
    data = tmp_path / "labelled.jsonl"
    assert call("generate", "-n", "3000", "--garbage", "0", "--no-drift", "-o", str(data)).exit_code == 0
    models = ("--models", str(tmp_path / "models"))
    answer = call("train", "messages", "--data", str(data), *models, "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["version"] == "1" and found["served"]
    assert (Path(found["directory"]) / "model.onnx").is_file()
    assert json.loads(call("config", "check", *models, "--json").stdout)["models"] == ["messages/1"]
    again = call("train", "messages", "--data", str(data), *models, "--version", "1")
    assert again.exit_code == 2
    assert "immutable" in again.stderr
    older = call("train", "messages", "--data", str(data), *models, "--version", "candidate")
    assert older.exit_code == 0 and "version 1 is served, which counts as newer" in " ".join(older.stdout.split())
    assert "SIGHUP" not in older.stdout


@pytest.mark.parametrize("version", ["../../escaped", ".hid", "a/b", "", "x" * 64, "1\n"])
def test_a_version_that_would_lie_elsewhere_or_be_overlooked_is_refused(call, tmp_path: Path, version: str) -> None:
    data, models = tmp_path / "labelled.jsonl", tmp_path / "models"
    data.write_text('{"user_id": "u", "text": "hello", "label": "ham"}\n')
    pytest.importorskip("sklearn", reason="training needs the train extra")
    answer = call("train", "messages", "--data", str(data), "--models", str(models), "--version", version)
    assert answer.exit_code == 2 and "is no name of a version" in answer.stderr and "Fix: Take letters" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["labelled.jsonl"]


def test_decision_rows_are_no_training_data_and_are_told_so(call, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="training needs the train extra")
    events, rows = tmp_path / "events.jsonl", tmp_path / "rows.jsonl"
    assert call("generate", "-n", "50", "--garbage", "0", "-o", str(events)).exit_code == 0
    assert call("score", "--features", str(events), "-o", str(rows)).exit_code == 0
    rows.write_text("".join(json.dumps({**json.loads(line), "label": "spam"}) + "\n" for line in rows.read_text().splitlines()))
    answer = call("train", "messages", "--data", str(rows), "--models", str(tmp_path / "models"))
    assert answer.exit_code == 2 and "0 usable events" in answer.stderr
    assert "left out: 50 rejected: missing_field" in answer.stderr and not (tmp_path / "models").exists()


def test_what_a_sieve_is_told_by_is_told_once_and_to_nobody_else(call, tmp_path: Path) -> None:
    data = tmp_path / "labelled.jsonl"
    data.write_text('{"user_id": "u", "text": "hello", "label": "ham"}\n')
    answer = call("train", "messages", "--data", str(data), "--share", "0.5")
    assert answer.exit_code == 2 and "Write --kind sieve" in answer.stderr
    pytest.importorskip("sklearn", reason="training needs the train extra")
    answer = call("train", "messages", "--data", str(data), "--kind", "sieve", "--share", "0.5", "--miss-rate", "0.01")
    assert answer.exit_code == 2 and "not by both" in answer.stderr
