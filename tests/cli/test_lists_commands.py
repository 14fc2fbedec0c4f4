"""`streamapp lists` on a broker: what is put on a list is shown, replaced, taken off and put together again as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call

PIPELINE = """
[pipeline]
name = "posts"
version = "1"
owner = "safety"
key = "user"
[event.fields.user]
type = "id"
required = true
[event.fields.text]
type = "text"
[lists.banned]
effect = "deny"
fields = ["user"]
entries = ["mallory"]
[lists.known_bad]
kind = "content"
effect = "deny"
fields = ["text"]
"""


class Lists:
    """The command on one namespace."""

    def __init__(self, call: Call, file: Path, broker: str, namespace: str) -> None:
        file.write_text(PIPELINE)
        self._call, self._where = call, ("--pipeline", str(file), "--bootstrap", broker, "--namespace", namespace)

    def __call__(self, *arguments: str, wrong: int = 0) -> Any:
        result = self._call("lists", *arguments, *self._where, "--json")
        assert result.exit_code == wrong, result.output
        return json.loads(result.stdout) if result.stdout else result.stderr

    def on(self, name: str, *options: str) -> list[tuple[str, str, str]]:
        return [(one["entry"], one["owner"], one["ends"]) for one in self("show", name, *options)["entries"] if "in_the_file" not in one]


@pytest.fixture
def lists(call: Call, tmp_path: Path, embedded: str, namespace: str) -> Lists:
    return Lists(call, tmp_path / "posts.toml", embedded, namespace)


def test_entries_are_put_on_replaced_taken_off_and_shown_as_they_were(lists: Lists) -> None:
    assert lists("add", "banned", "bob", "eve")["version"] == 2
    assert lists("add", "banned", "eve", "--owner", "raid team", "--expires-in", "1ms")["version"] == 3
    assert lists("show")["banned"] == {"effect": "deny", "kind": "values", "fixed": 1, "entries": 2}
    assert lists.on("banned") == [("bob", "safety", ""), ("eve", "raid team", "expired")]
    gone = lists("remove", "banned", "bob", "carol", wrong=1)
    assert (gone["records"], gone["missing"]) == (1, ["carol"])
    assert lists("remove", "banned", "--expired")["records"] == 1
    assert lists.on("banned") == []
    assert lists.on("banned", "--at", "2") == [("bob", "safety", ""), ("eve", "safety", "")]
    assert [one["entry"] for one in lists("show", "banned")["entries"]] == ["mallory"]


def test_a_file_is_imported_and_what_cannot_be_an_entry_is_told(lists: Lists, tmp_path: Path) -> None:
    lines, table = tmp_path / "bad.txt", tmp_path / "bad.csv"
    lines.write_text("one\n\ntwo\n!!!\n")
    table.write_text('entry,match,expires_in,owner\n"free, money",similar,30d,desk\nx,loud,,\ny,,soon,\n')
    assert lists("import", "banned", str(lines))["records"] == 3
    told = lists("import", "known_bad", str(table), "--reason", "raid", wrong=1)
    assert (told["records"], told["left_out"]) == (1, 2)
    assert [one[0] for one in lists.on("banned")] == ["one", "two", "!!!"]
    (entry,) = lists("show", "known_bad")["entries"]
    assert entry["entry"].startswith("sha256 ")
    assert (entry["match"], entry["owner"], entry["reason"]) == ("similar", "desk", "raid")
    assert entry["expires_at"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "baned", "x"), "has no list baned (did you mean `banned`?)"),
        (("add", "known_bad", "!!!"), "nothing of it is left to compare"),
        (("add", "banned", "x", "--match", "similar"), "never compared as 'similar'"),
        (("remove", "banned"), "othing is named to take off"),
        (("remove", "banned", "x", "--expired"), "othing is named to take off"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_fix(lists: Lists, arguments: tuple[str, ...], says: str) -> None:
    assert says in lists(*arguments, wrong=2)


def test_a_table_without_entries_is_refused(lists: Lists, tmp_path: Path) -> None:
    table = tmp_path / "bad.csv"
    table.write_text("name\nbob\n")
    assert "has the columns name" in lists("import", "banned", str(table), wrong=2)
