"""What the README says can be done is done here: every command in it runs, every file it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
BROKERLESS = [line for line in COMMANDS if "HOST:PORT" not in line and not line.startswith("make") and line != "streamapp broker"]
ON_A_BROKER = [line for line in COMMANDS if "HOST:PORT" in line]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A directory to run in, and an environment in which `streamapp` is this checkout's."""
    folder = tmp_path_factory.mktemp("readme")
    program = folder / "bin" / "streamapp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m streamapp "$@"\n')
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMAPP_")}
    return folder, environment | {"PATH": f"{program.parent}:{environment['PATH']}", "PYTHONPATH": str(ROOT)}


def run(command: str, shell: tuple[Path, dict[str, str]]) -> subprocess.CompletedProcess[str]:
    folder, environment = shell
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_every_block_of_commands_is_known_to_these_tests() -> None:
    assert ["make demo", "make test", *BROKERLESS, "streamapp broker", *ON_A_BROKER] == COMMANDS


@pytest.mark.parametrize("target", ["demo", "test", "setup", "bench", "kafka"])
def test_make_targets_that_are_named_exist(target: str) -> None:
    assert f"make {target}" in README
    assert subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_commands_without_a_broker_do_what_they_say(shell: tuple[Path, dict[str, str]]) -> None:
    for command in BROKERLESS:
        done = run(command, shell)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    verdicts = (shell[0] / "verdicts.jsonl").read_text().splitlines()
    assert len(verdicts) == 1_000
    assert all("features" in line or "dead_letter" in line for line in (shell[0] / "features.jsonl").read_text().splitlines())


@pytest.fixture
def terminals(shell: tuple[Path, dict[str, str]]) -> Iterator[str]:
    """The two commands that take a terminal each; gives the broker's HOST:PORT."""
    folder, environment = shell
    started: list[subprocess.Popen[str]] = []

    def terminal(command: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                shlex.split(command), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        return started[-1]

    broker = terminal("streamapp broker")
    assert broker.stdout is not None
    address = broker.stdout.readline().strip()
    terminal(f"{ON_A_BROKER[0].replace('HOST:PORT', address)} --metrics-port 0")
    yield address
    for process in reversed(started):
        process.terminate()
        assert process.wait(30) == 0, "asked to end, it ends well"
        assert process.stdout is not None
        process.stdout.close()


def test_commands_on_a_broker_do_what_they_say(shell: tuple[Path, dict[str, str]], terminals: str) -> None:
    assert ON_A_BROKER[0].startswith("streamapp worker")
    (shell[0] / "events.jsonl").write_text("".join(json.dumps({"user_id": number, "text": "see you"}) + "\n" for number in range(1, 51)))
    produce, consume, replay, doctor = (command.replace("HOST:PORT", terminals) for command in ON_A_BROKER[1:])
    assert run(produce, shell).returncode == 0
    found = ""
    deadline = time.monotonic() + 120
    while found.count("\n") < 50 and time.monotonic() < deadline:  # the worker may still be loading
        found = run(consume, shell).stdout
    assert found.count("\n") == 50
    assert "50 events compared: 50 decided as then, 0 by another route" in run(replay, shell).stdout
    assert run(doctor, shell).returncode == 0


def test_every_file_that_is_named_exists() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []


def test_the_shown_event_gets_the_shown_verdict(shell: tuple[Path, dict[str, str]]) -> None:
    event, shown = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-m", "streamapp", "score", "-"], input=json.dumps(event), capture_output=True, text=True, check=True, env=shell[1]
    )
    verdict = json.loads(done.stdout)
    if verdict["degraded"]:
        pytest.skip("no model was trained in this checkout: models/messages")
    for name in ("decision_id", "event_id", "entity", "pipeline", "verdict", "decided_by", "labels"):
        assert verdict[name] == shown[name]
    assert verdict["probability"] == pytest.approx(shown["probability"], abs=1e-3)
    assert [reason["text"] for reason in verdict["reasons"]][: len(shown["reasons"])] == [reason["text"] for reason in shown["reasons"]]
