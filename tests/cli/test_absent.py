"""Models that are not there are told before anything is decided without them: a wrong directory, a tier without one, a mistyped name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamapp.config import shipped

EVENT = {"event_id": "e1", "user_id": "u1", "text": "call me when you are free to talk about the offer for your flat"}


@pytest.fixture
def sieve_alone(tmp_path: Path) -> Path:
    """A registry that holds the first of three models."""
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "messages_sieve").symlink_to(shipped("models") / "messages_sieve")
    return folder


@pytest.mark.parametrize("command", [("score", "FILE"), ("trace", "FILE"), ("config", "check"), ("replay",), ("demo",)])
def test_a_models_directory_that_is_none_is_refused(call, events_file, tmp_path: Path, command: tuple[str, ...]) -> None:
    events = str(events_file(EVENT))
    answer = call(*(events if word == "FILE" else word for word in command), "--models", str(tmp_path / "modles"))
    assert answer.exit_code == 2 and answer.stdout == ""
    assert f"{tmp_path / 'modles'} (--models) is no directory" in answer.stderr and "Fix:" in answer.stderr


def test_so_is_one_that_the_environment_names(call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAMAPP_MODELS", str(tmp_path / "modles"))
    answer = call("config", "check")
    assert answer.exit_code == 2 and "(STREAMAPP_MODELS) is no directory" in answer.stderr


@pytest.mark.parametrize("command", [("score", "FILE"), ("trace", "FILE"), ("config", "check")])
def test_tiers_without_a_model_are_told_where_others_have_one(call, events_file, sieve_alone: Path, command: tuple[str, ...]) -> None:
    events = str(events_file(EVENT))
    which = ("--pipeline", "messages_cascade", "--models", str(sieve_alone))
    answer = call(*(events if word == "FILE" else word for word in command), *which)
    assert answer.exit_code == 0
    told = [line.split(":")[0] for line in answer.stderr.splitlines() if "entity_key" not in line]
    assert told == ["tier fast is passed over", "tier heavy is passed over"]
    assert "did you mean" not in answer.stderr, "the sieve has its tier"


def test_a_verdict_names_the_tiers_it_was_given_without(call, events_file, sieve_alone: Path) -> None:
    which = ("--pipeline", "messages_cascade", "--models", str(sieve_alone))
    verdict = json.loads(call("score", str(events_file(EVENT)), *which).stdout)
    assert verdict["degraded"] == [{"component": "model:fast", "cause": "none"}, {"component": "model:heavy", "cause": "none"}]


def test_a_mistyped_model_is_told_with_the_nearest_name(call, events_file, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "messages"\n[pipeline]\nname = "mine"\n[[tiers]]\nname = "fast"\nmodel = "mesages"\n')
    for command in (("score", str(events_file(EVENT))), ("trace", str(events_file(EVENT))), ("config", "check")):
        answer = call(*command, "--pipeline", str(file))
        assert answer.exit_code == 0 and "(did you mean `messages`?)" in answer.stderr, command


def test_a_replay_tells_it_before_it_asks_a_broker(call, sieve_alone: Path) -> None:
    answer = call("replay", "--pipeline", "messages_cascade", "--models", str(sieve_alone), "--bootstrap", "127.0.0.1:1")
    assert answer.exit_code == 2 and answer.stderr.splitlines()[0].startswith("tier fast is passed over")


def test_an_empty_registry_is_no_reason_to_warn(call, events_file, no_models: Path) -> None:
    assert call("score", "--models", str(no_models), str(events_file(EVENT))).stderr == ""
    answer = call("config", "check", "--models", str(no_models), "--json")
    assert "tier" not in answer.stderr and json.loads(answer.stdout)["absent"] == ["messages"]


def test_a_doctor_says_which_tiers_are_passed_over_and_not_that_rules_decide_alone(call, sieve_alone: Path, no_models: Path) -> None:
    where = ("--bootstrap", "127.0.0.1:1", "--pipeline", "messages_cascade", "--json")
    rows = {"some": call("doctor", *where, "--models", str(sieve_alone)), "none": call("doctor", *where, "--models", str(no_models))}
    told = {
        name: [row["found"] for row in json.loads(answer.stdout)["rows"] if (row["what"], row["state"]) == ("model", "warn")]
        for name, answer in rows.items()
    }
    assert [sentence.split(":")[0] for sentence in told["some"]] == ["tier fast is passed over", "tier heavy is passed over"]
    assert told["none"] == ["no messages_sieve, messages, messages_heavy: rules decide alone"]
