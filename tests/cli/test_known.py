"""Labels and lists from files: `score` and `trace` know of each event what a worker would have known when it came."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamapp.cli.known import Known
from streamapp.cli.lines import key_of
from streamapp.cli.score import answers
from streamapp.config import load_pipeline
from streamapp.control.release import assemble
from streamapp.core.errors import ConfigError
from tests.bus.test_worker_labels import FILE as LABELLED

FILE = (
    LABELLED
    + """
[lists.banned]
effect = "deny"
fields = ["customer_id"]
owner = "desk"
text = "banned, says {owner}"
"""
)
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "known.toml"
    path.write_text(FILE)
    return path


def label(number: int, at_ms: int, word: str, told_ms: int, terminal: str = "t") -> dict[str, Any]:
    return {"event_id": f"paid-{number}", "event_time": at_ms, "label": word, "labelled_at": told_ms, "terminal_id": terminal}


def event(number: int, at_ms: int, customer: str = "c", terminal: str = "t") -> dict[str, Any]:
    return {"event_id": f"asks-{number}", "event_time": at_ms, "customer_id": customer, "terminal_id": terminal}


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def scored(known: Known, serving: Any, values: list[bytes], size: int) -> list[dict[str, Any]]:
    """Decides the values, `size` of them at a time, as the command does."""
    state, shared, found = serving.state.new(), serving.shared.new(), list[dict[str, Any]]()
    for first in range(0, len(values), size):
        chunk = values[first : first + size]
        keys = [key_of(value, "customer_id") for value in chunk]
        for low, high in pairwise(known.edges(chunk, keys)):
            told = answers(chunk[low:high], keys[low:high], first + low, serving, state=state, shared=shared, features=True, known=known)
            found += map(json.loads, told)
    return found


@pytest.mark.parametrize("size", [1, 7, 200])
def test_each_event_sees_the_labels_that_were_told_when_it_came(pipeline: Path, tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(11)
    paid = START_MS + rng.integers(0, 20 * DAY_MS, 150)
    told = paid + rng.integers(0, 14 * DAY_MS, 150)
    words, places = rng.choice(["fraud", "genuine"], 150), rng.choice(["t", "u"], 150)
    labels = [label(row, int(paid[row]), str(words[row]), int(told[row]), str(places[row])) for row in range(150)]
    times = np.sort(START_MS + rng.integers(8 * DAY_MS, 34 * DAY_MS, 120))
    events: list[Any] = [event(row, int(times[row]), terminal=str(rng.choice(["t", "u"]))) for row in range(120)]
    serving = assemble(load_pipeline(str(pipeline)), {}, b"test-key-of-16-b")
    values = [json.dumps(one).encode() for one in events]
    values[50] = b"no event"  # stands in between and changes nothing
    known = Known(serving, [lines(tmp_path / "told.jsonl", labels)], ())
    found = scored(known, serving, values, size)
    assert len(found) == 120 and found[50]["dead_letter"] == "invalid_json"
    for row in (*range(50), *range(51, 120)):
        asked, features = events[row], found[row]["features"]
        inside = (paid > times[row] - 14 * DAY_MS) & (paid <= times[row] - 7 * DAY_MS) & (told <= times[row])
        inside &= places == asked["terminal_id"]
        assert features["known_7d_count"] == inside.sum()
        if inside.any():
            assert features["known_7d_risk"] == pytest.approx((words[inside] == "fraud").mean())
    assert len({one["features"]["known_7d_count"] for row, one in enumerate(found) if row != 50}) > 5, "the labels matter here"


def test_an_event_that_comes_late_knows_what_was_told_when_it_came(pipeline: Path, tmp_path: Path) -> None:
    serving = assemble(load_pipeline(str(pipeline)), {}, b"test-key-of-16-b")
    now = START_MS + 30 * DAY_MS
    told = lines(tmp_path / "told.jsonl", [label(1, now - 8 * DAY_MS, "fraud", now + 1000)])
    for size in (1, 3):
        values = [json.dumps(event(row, at)).encode() for row, at in enumerate((now, now + 2000, now + 500))]
        found = scored(Known(serving, [told], ()), serving, values, size)
        assert [one["features"]["known_7d_count"] for one in found] == [0, 1, 1]


def test_score_and_trace_take_labels_and_lists_and_agree(
    call: Callable[..., Any], pipeline: Path, events_file: Callable[..., Path], tmp_path: Path
) -> None:
    now = START_MS
    told = lines(tmp_path / "told.jsonl", [label(row, now - 8 * DAY_MS, "fraud", now - row) for row in range(4)] + [{"event_id": "x"}])
    banned = tmp_path / "banned.csv"
    banned.write_text("entry,owner,expires_in\nmallory,fraud desk,30d\neve,,\n")
    beside = ("--pipeline", str(pipeline), "--labels", str(told), "--list", f"banned={banned}")
    asked = [event(1, now), event(2, now, customer="mallory"), event(3, now, customer="eve"), event(4, now, terminal="elsewhere")]
    answer = call("score", *beside, str(events_file(*asked)))
    assert answer.exit_code == 0 and "left out: 1 label rejected" in answer.stderr
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(one["verdict"], one["decided_by"]) for one in found] == [
        ("block", "rule"), ("block", "list:banned"), ("block", "list:banned"), ("approve", "default"),
    ]  # fmt: skip
    assert [one["reasons"][0]["text"] for one in found[1:3]] == ["banned, says fraud desk", "banned, says desk"]
    alone = [json.loads(line) for line in call("score", "--pipeline", str(pipeline), str(events_file(*asked))).stdout.splitlines()]
    assert [one["verdict"] for one in alone] == ["approve"] * 4
    for one, verdict in zip(asked, found, strict=True):
        traced = json.loads(call("trace", *beside, "--json", "-", stdin=json.dumps(one)).stdout)
        assert {name: traced["verdict"][name] for name in ("verdict", "decided_by", "reasons")} == {
            name: verdict[name] for name in ("verdict", "decided_by", "reasons")
        }
    traced = json.loads(call("trace", *beside, "--json", "-", stdin=json.dumps(asked[0])).stdout)
    assert traced["features"]["known_7d_count"]["value"] == 4


def test_labels_of_which_none_can_be_read_are_refused_with_the_reason(call: Callable[..., Any], pipeline: Path, tmp_path: Path) -> None:
    told, asked = (
        lines(tmp_path / "told.jsonl", [{"event_id": "x"}, b"no label", b"none"]),
        lines(tmp_path / "a.jsonl", [event(1, START_MS)]),
    )
    answer = call("score", "--pipeline", str(pipeline), "--labels", str(told), str(asked))
    assert answer.exit_code == 2 and answer.stdout == ""
    assert "None of the labels can be read; left out: 2 label rejected: invalid_json, 1 label rejected: missing_field" in answer.stderr
    assert call("score", "--pipeline", str(pipeline), "--labels", str(lines(tmp_path / "none", [])), str(asked)).exit_code == 0


@pytest.mark.parametrize(
    ("labels", "lists", "says"),
    [
        ([{"event_id": "a", "event_time": 5, "label": "fraud", "terminal_id": "t"}], (), "names no labelled_at"),
        ([], ("baned=x",), "has no list baned, did you mean `banned`"),
        ([], ("banned=nowhere.txt",), "there is no file nowhere.txt"),
        ([], ("banned",), "there is no file banned"),
    ],
)
def test_what_cannot_be_known_is_refused(pipeline: Path, tmp_path: Path, labels: list[Any], lists: tuple[str, ...], says: str) -> None:
    serving = assemble(load_pipeline(str(pipeline)), {}, b"test-key-of-16-b")
    with pytest.raises(ConfigError) as refused:
        Known(serving, [lines(tmp_path / "told.jsonl", labels)], lists)
    assert says in str(refused.value).replace(" (did", ", did")


def test_a_line_that_is_no_entry_and_a_pipeline_without_either_are_refused(pipeline: Path, tmp_path: Path) -> None:
    serving = assemble(load_pipeline(str(pipeline)), {}, b"test-key-of-16-b")
    wrong = tmp_path / "banned.csv"
    wrong.write_text("entry,expires_in\neve,soon\n")
    with pytest.raises(ConfigError, match=r"banned.csv: line 2"):
        Known(serving, (), [f"banned={wrong}"])
    bare = assemble(load_pipeline("reference"), {}, b"test-key-of-16-b")
    with pytest.raises(ConfigError, match="no window that labels move"):
        Known(bare, [wrong], ())
    with pytest.raises(ConfigError, match="declares no lists"):
        Known(bare, (), [f"banned={wrong}"])


def test_a_cascade_is_traced_through_all_of_its_models(call: Callable[..., Any]) -> None:
    said = {"event_id": "e", "user_id": "u", "text": "URGENT! claim your cash prize, call 09098790123 now"}
    traced = json.loads(call("trace", "--pipeline", "messages_cascade", "--json", "-", stdin=json.dumps(said)).stdout)
    assert [model["tier"] for model in traced["models"]] == ["sieve", "fast", "heavy"]
    for model in traced["models"]:
        assert model["intercept"] + model["ngrams"] + sum(model["numeric"].values()) == pytest.approx(model["margin"], abs=1e-6)
    assert not traced["models"][0]["ngrams"] and traced["models"][1]["tokens"]["for"]
    assert traced["features"]["question_count"]["enters_model"], "of any tier"
