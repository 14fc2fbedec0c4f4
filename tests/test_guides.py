"""What the guides say can be typed exists, and what they say can be sent is what the schemas say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import jsonschema
import pytest

from streamapp.cli.main import program

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guides").glob("*.md")), ROOT / "CONTRIBUTING.md"]
COMMANDS = [
    (page.name, line)
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("streamapp")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page} {line}" for page, line in COMMANDS])
def test_a_command_in_a_guide_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = program
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in known] == []


def test_the_guides_name_commands() -> None:
    assert {page for page, _ in COMMANDS} >= {"consumers.md", "models.md", "operations.md", "producers.md"}


def test_every_file_that_a_guide_links_to_exists() -> None:
    linked = [(page, name) for page in PAGES for name in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))]
    assert linked
    assert [(page.name, name) for page, name in linked if not (page.parent / name).exists()] == []


def test_the_label_that_is_shown_is_one() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/guides/producers.md").read_text(encoding="utf-8"), re.DOTALL)
    schema = json.loads((ROOT / "schemas/payments/label.v1.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(shown))
