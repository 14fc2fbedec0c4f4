"""What tests of commands share: a way to run them in this process, and events to run them on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streamapp.cli.main import program

Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `streamapp ARGUMENTS` in this process, away from the settings of whoever runs the tests; gives click's Result."""
    for name in list(os.environ):
        if name.startswith("STREAMAPP_") and not name.startswith(("STREAMAPP_TEST_", "STREAMAPP_DATA")):
            monkeypatch.delenv(name)

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(program, list(arguments), input=stdin, prog_name="streamapp", catch_exceptions=True)

    return run


@pytest.fixture
def no_models(tmp_path: Path) -> Path:
    """An empty registry: rules decide alone, on any checkout."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def events_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes events as JSON lines; bytes are written as they are."""

    def write(*events: Any) -> Path:
        path = tmp_path / "events.jsonl"
        path.write_bytes(b"".join((event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n" for event in events))
        return path

    return write
