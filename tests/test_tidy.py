"""House rules that a machine can check: one theme per file, names from the field, nothing that only holds on one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 400
#: Words that say nothing about what a thing does.
EMPTY_WORDS = re.compile(r"(?:^|_)(?:manager|handler|helper|util|processor|service)s?(?:$|_)")
#: Paths of one machine, and notes to oneself. In two pieces, so that this file does not break its own rule.
UNWANTED = {
    "the path of one machine": re.compile(r"(?<![\w.])/(?:wo" + "rk|ro" + "ot|ho" + r"me)/[\w.-]"),
    "a note to oneself": re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b"),
}
FOLDERS = (".ci", "bench", "chaos", "docs", "examples", "languages", "models", "ops", "pipelines", "schemas", "streamapp", "tests")
TEXT_SUFFIXES = {"", ".cfg", ".json", ".md", ".py", ".properties", ".sh", ".toml", ".txt", ".xml", ".yaml", ".yml", ".lock"}


def files() -> Iterator[Path]:
    """Gives every text file of the tree that somebody wrote."""
    for folder in FOLDERS:
        yield from (file for file in sorted((ROOT / folder).rglob("*")) if file.is_file() and _written(file))
    yield from (file for file in sorted(ROOT.glob("*")) if file.is_file() and _written(file))


def _written(file: Path) -> bool:
    """`.git` is a file in a second work tree; git wrote it."""
    return file.suffix in TEXT_SUFFIXES and file.name != ".git" and "__pycache__" not in file.parts and ".egg-info" not in str(file)


def in_words(name: str) -> str:
    """Gives a name as lower-case words with underscores: `TableManager` is table_manager."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def breaches(place: str, source: str) -> list[str]:
    """Takes a file's place in the tree and its text; gives every house rule that it breaks."""
    found = []
    for number, line in enumerate(source.splitlines(), 1):
        found += [f"{place}:{number}: {what}" for what, pattern in UNWANTED.items() if pattern.search(line)]
    if place.endswith(".py"):
        lines = source.count("\n")
        if lines > LINES_MAX:
            found.append(f"{place}: {lines} lines are two themes ({LINES_MAX} at most)")
        defined = (
            node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        )
        spoken = (name for name in defined if not name.startswith("test_"))  # a test's name is a sentence
        names = [Path(place).stem, *Path(place).parent.parts, *spoken]
        found += [f"{place}: {name} does not say what it does" for name in names if EMPTY_WORDS.search(in_words(name))]
    return found


def test_the_tree_keeps_the_house_rules() -> None:
    found = [breach for file in files() for breach in breaches(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))]
    assert not found, "\n".join(["", *found])


def test_the_tree_is_looked_at() -> None:
    places = {str(file.relative_to(ROOT)) for file in files()}
    assert {"streamapp/core/events.py", "tests/test_tidy.py", ".ci/run", "ops/kafka/kafka", "Makefile", "pipelines/messages.toml"} <= places


@pytest.mark.parametrize(
    ("place", "source", "breach"),
    [
        ("streamapp/core/long.py", "x = 1\n" * 401, "401 lines are two themes"),
        ("streamapp/bus/message_handler.py", "", "message_handler does not say what it does"),
        ("streamapp/utils/text.py", "", "utils does not say what it does"),
        ("streamapp/x.py", "class TableManager: ...", "TableManager does not say"),
        ("streamapp/x.py", "def run():\n    def event_processor(): ...", "event_processor does not say"),
        ("docs/x.md", "see /ho" + "me/me/notes", "docs/x.md:1: the path of one machine"),
        ("ops/x.yml", "a: 1\nb: /wo" + "rk/x", "ops/x.yml:2: the path of one machine"),
        ("streamapp/x.py", "# TO" + "DO later", "streamapp/x.py:1: a note to oneself"),
    ],
)
def test_a_breach_is_found(place: str, source: str, breach: str) -> None:
    (found,) = breaches(place, source)
    assert breach in found


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("streamapp/x.py", "x = 1\n" * 400),
        ("streamapp/x.py", "from mode.services import Service\nclass Loop(Service): ...\ndef manage(): ..."),
        ("tests/test_x.py", "def test_a_model_in_service_answers(): ..."),
        ("docs/x.md", "put it at /network/x or ./work/x"),
    ],
)
def test_what_the_rules_allow_is_let_be(place: str, source: str) -> None:
    assert breaches(place, source) == []
