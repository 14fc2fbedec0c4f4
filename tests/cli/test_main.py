"""Every command is listed, helps with examples, starts light, and fails in one sentence with its fix."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from streamapp import __version__
from streamapp.cli.main import COMMANDS, as_sentence, program
from streamapp.config import load_pipeline

HEAVY = ("numba", "numpy", "onnxruntime", "sklearn", "scipy", "faust", "aiokafka", "rich", "confluent_kafka")


def leaves(name: str) -> list[list[str]]:
    """The command's name, or for a group those of its commands."""
    command = program.get_command(click.Context(program), name)
    assert command is not None
    return [[name, leaf] for leaf in command.commands] if isinstance(command, click.Group) else [[name]]


def test_help_lists_every_command_with_one_line(call) -> None:
    listed = call("--help").output
    for name, line in COMMANDS.items():
        assert f"  {name}" in listed
        assert line.split()[0] in listed


def test_the_version_is_told(call) -> None:
    assert __version__ in call("--version").output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_gives_examples_that_exist(call, name: str) -> None:
    for path in leaves(name):
        shown = call(*path, "--help")
        assert shown.exit_code == 0
        assert "Examples:" in shown.output
        command = program.get_command(click.Context(program), name)
        for part in path[1:]:
            command = command.commands[part]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        examples = shown.output.split("Examples:")[1]
        used = [
            word.split("=")[0] for line in examples.splitlines() if f"streamapp {' '.join(path)} " in line for word in words_of(line, path)
        ]
        assert [word for word in used if word not in known] == []


@pytest.mark.parametrize("verb", ["add", "show", "remove", "import"])
def test_examples_name_lists_that_their_pipeline_declares(call, verb: str) -> None:
    examples = call("lists", verb, "--help").output.split("Examples:")[1]
    shown = [shlex.split(line)[3:] for line in examples.splitlines() if line.strip()]
    named = [(words[0], words[words.index("--pipeline") + 1] if "--pipeline" in words else "messages") for words in shown]
    assert named
    assert [(name, of) for name, of in named if not name.startswith("--") and name not in load_pipeline(of).lists] == []


def words_of(line: str, path: list[str]) -> list[str]:
    """Options in the part of an example that calls this command."""
    own = line.partition(f"streamapp {' '.join(path)} ")[2].partition("|")[0].partition("#")[0]
    return [word for word in own.split() if word.startswith("-") and word != "-"]


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; from streamapp.cli.main import program; program(['--help'], standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print([m for m in {HEAVY} if m in sys.modules])"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "streamapp", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(__version__)


def test_a_mistyped_command_is_answered_with_the_nearest_one(call) -> None:
    answer = call("scroe")
    assert answer.exit_code == 2
    assert "Did you mean 'score'?" in answer.output


def test_a_failure_is_one_sentence_and_its_fix_without_a_trace(call, events_file) -> None:
    answer = call("score", "--pipeline", "no-such-pipeline", str(events_file({})))
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[0].endswith(".")
    assert "no-such-pipeline" in answer.stderr


def test_a_sentence_that_begins_with_a_path_or_a_command_leaves_it_as_it_is(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "typo1.toml").write_text('extends = "messages"\n[pipelin]\nname = "mine"\n')
    monkeypatch.chdir(tmp_path)
    answer = call("config", "check", "--pipeline", "typo1.toml")
    assert answer.exit_code == 2 and answer.stderr.startswith("typo1.toml: 1 mistake"), answer.stderr


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("mine/file.toml: wrong", "mine/file.toml: wrong."),
        ("events.jsonl is empty", "events.jsonl is empty."),
        ("streamapp train messages --data FILE", "streamapp train messages --data FILE."),
        ("pip install 'streamapp[train]'", "pip install 'streamapp[train]'."),
        ("batch_max is no number", "batch_max is no number."),
        ("no, never: it is", "No, never: it is."),
        ("well-known. See there", "Well-known. See there."),
        ("", "."),
    ],
)
def test_the_first_letter_of_a_word_is_made_large(said: str, shown: str) -> None:
    assert as_sentence(said) == shown


def test_every_wrong_setting_is_told_at_once(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMAPP_BATCH_MAX", "none")
    monkeypatch.setenv("STREAMAPP_BATCH_WAIT", "4")
    answer = call("config", "show")
    assert answer.exit_code == 2
    assert "batch_max" in answer.stderr
    assert "STREAMAPP_BATCH_WAIT_MS" in answer.stderr


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    command = f"{sys.executable} -m streamapp generate --events 20000 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
