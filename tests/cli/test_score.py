"""`score` and `trace` answer every line, in order, with what the line decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamapp.core.route import ROUTE_NAMES

GOOD = {"event_id": "e1", "user_id": "u1", "text": "see you tomorrow"}


def test_one_line_in_is_one_line_out_in_order(call, events_file, no_models: Path) -> None:
    path = events_file(GOOD, b"{", {**GOOD, "event_id": "e3"}, b"", {"user_id": 5, "text": "hi", "event_id": "e5"}, b"\xff\xfe")
    answer = call("score", "--models", str(no_models), str(path))
    assert answer.exit_code == 0
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line.get("event_id", line.get("dead_letter")) for line in lines] == [
        "e1",
        "invalid_json",
        "e3",
        "null_value",
        "e5",
        "invalid_utf8",
    ]
    assert [line["source"]["offset"] for line in lines] == list(range(6))
    assert {line["verdict"] for line in lines if "verdict" in line} <= set(ROUTE_NAMES)


def test_features_are_added_on_request(call, events_file, no_models: Path) -> None:
    path = events_file({**GOOD, "text": "go to http://a.example now"})
    plain = json.loads(call("score", "--models", str(no_models), str(path)).stdout)
    rich = json.loads(call("score", "--models", str(no_models), "--features", str(path)).stdout)
    assert "features" not in plain
    assert rich["features"]["url_count"] == 1
    assert "a.example" not in json.dumps(rich), "no text leaves, not even with features"


def test_a_file_of_nothing_leaves_no_older_answers(call, events_file, no_models: Path, tmp_path: Path) -> None:
    old = tmp_path / "answers.jsonl"
    old.write_text("last week's\n")
    assert call("score", "--models", str(no_models), "-o", str(old), str(events_file())).exit_code == 0
    assert old.read_text() == ""


def test_more_than_one_chunk_is_decided_like_one(call, no_models: Path) -> None:
    events = "".join(json.dumps({**GOOD, "event_id": f"e{number}", "text": "word " * (number % 50 + 1)}) + "\n" for number in range(5_000))
    lines = [json.loads(line) for line in call("score", "--models", str(no_models), "--features", "-", stdin=events).stdout.splitlines()]
    assert [line["event_id"] for line in lines] == [f"e{number}" for number in range(5_000)]
    assert all(line["features"]["word_count"] == number % 50 + 1 for number, line in enumerate(lines))


def test_an_empty_registry_is_named_in_every_verdict(call, events_file, no_models: Path) -> None:
    verdict = json.loads(call("score", "--models", str(no_models), str(events_file(GOOD))).stdout)
    assert verdict["degraded"] == [{"component": "model", "cause": "none"}]
    assert verdict["verdict"] == "review"


def test_a_trace_tells_the_stages_in_order_and_shows_hidden_text(call, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({**GOOD, "text": "WINNER!!!! cl\u0430im y\u200bour prize"}))
    answer = call("trace", str(event))
    assert answer.exit_code == 0
    places = [answer.stdout.index(word) for word in ("Event", "Text", "Features", "Rules", "Verdict")]
    assert places == sorted(places)
    assert "winner!! claim your prize" in answer.stdout
    assert "contains 4 exclamation marks" in answer.stdout


def test_a_trace_of_no_event_says_what_is_wrong_with_it(call) -> None:
    answer = call("trace", "-", stdin='{"user_id": "u"}')
    assert answer.exit_code == 0
    assert "missing_field at $.text" in answer.stdout
    assert call("trace", "-", stdin="").exit_code == 2


def test_a_trace_of_several_lines_says_that_it_takes_one(call, events_file) -> None:
    answer = call("trace", str(events_file(GOOD, b"no event", GOOD)))
    assert answer.exit_code == 2 and "There are 3 lines, and one event is traced" in answer.stderr and "head -1" in answer.stderr
    for one in (json.dumps(GOOD, indent=2), json.dumps(GOOD) + "\n\n", '{"user_id":\n"u"'):
        assert call("trace", "-", stdin=one).exit_code == 0


def test_a_trace_adds_up_and_agrees_with_score(call, events_file) -> None:
    path = events_file({**GOOD, "text": "URGENT! claim your cash prize, call 09098790123 now"})
    found = json.loads(call("trace", "--json", str(path)).stdout)
    if not found["models"]:
        pytest.skip("no model was trained in this checkout: models/messages")
    model = found["models"][0]
    assert model["intercept"] + model["ngrams"] + sum(model["numeric"].values()) == pytest.approx(model["margin"], abs=1e-6)
    assert all(entry["token"] for side in model["tokens"].values() for entry in side), "every token has a name"
    scored = json.loads(call("score", "--features", str(path)).stdout)
    assert scored["score"] == pytest.approx(found["verdict"]["score"], abs=1e-6)
    assert scored["verdict"] == found["verdict"]["verdict"]
    assert {name: row["value"] for name, row in found["features"].items()} == scored["features"]


def test_the_shipped_model_tells_generated_spam_from_chat(call) -> None:
    events = call("generate", "--events", "2000", "--no-drift", "--garbage", "0").stdout
    labels = [json.loads(line)["label"] for line in events.splitlines()]
    verdicts = [json.loads(line) for line in call("score", "-", stdin=events).stdout.splitlines()]
    if verdicts[0]["degraded"]:
        pytest.skip("no model was trained in this checkout: models/messages")
    spam = [verdict["verdict"] for verdict, label in zip(verdicts, labels, strict=True) if label == "spam"]
    ham = [verdict["verdict"] for verdict, label in zip(verdicts, labels, strict=True) if label == "ham"]
    assert spam.count("approve") <= 0.05 * len(spam)
    assert ham.count("approve") >= 0.95 * len(ham)
