"""Commands that talk to a broker, on the embedded one: what is produced is what is consumed, and a doctor says what he sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.bus.feed import feeder
from streamapp.bus.topics import Topics

VERDICTS = [
    {"event_id": "a", "verdict": "approve", "decided_at": 1_700_000_000_000, "probability": 0.01, "reasons": []},
    {
        "event_id": "b",
        "verdict": "block",
        "decided_at": 1_700_000_000_001,
        "probability": 0.99,
        "reasons": [{"code": "x", "text": "too many links"}],
    },
]
HEADERS = {"dlq.reason": b"invalid_json", "dlq.path": b"$", "__streams.errors.message": b"not JSON"}


def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamapp", *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


async def answered(address: str, namespace: str) -> None:
    """Puts one verdict on the approve topic and one on the block topic."""
    topics = Topics(namespace)
    for verdict, topic in zip(VERDICTS, (topics.approve, topics.block), strict=True):
        async with feeder(address, topic) as feed:
            await feed.send([b"k"], [json.dumps(verdict).encode()])


async def test_what_is_produced_is_on_the_topic_with_its_key(embedded: str, namespace: str) -> None:
    from streamapp.bus.follow import follower

    lines = ['{"user_id": 7, "text": "hi"}', "{broken", "", '{"user_id": "ü", "text": "yo"}']
    done = run("produce", "--bootstrap", embedded, "--namespace", namespace, "--json", "-", stdin="\n".join(lines) + "\n")
    assert json.loads(done.stdout)["events"] == 4, done.stderr
    found = []
    async with follower(embedded, [Topics(namespace).events], fetch_wait_ms=10) as records:
        while len(found) < 4:
            found += await records.poll(100)
    expected = {(b"7", lines[0].encode()), (None, b"{broken"), (None, None), ("ü".encode(), lines[3].encode())}
    assert {(record.key, record.value) for record in found} == expected


async def test_verdicts_are_read_in_words_or_as_they_stand(embedded: str, namespace: str) -> None:
    await answered(embedded, namespace)
    common = ("consume", "--bootstrap", embedded, "--namespace", namespace, "--from-beginning", "--idle", "5")
    machine = run(*common, "--most", "2", "--json")
    assert machine.returncode == 0, machine.stderr
    assert sorted((json.loads(line) for line in machine.stdout.splitlines()), key=lambda verdict: verdict["event_id"]) == VERDICTS
    words = run(*common, "--most", "1", "--route", "block")
    assert "BLOCK" in words.stdout
    assert "too many links" in words.stdout
    assert "APPROVE" not in words.stdout


def test_a_doctor_on_the_embedded_broker_warns_that_nothing_can_be_checked(call, embedded: str) -> None:
    found = json.loads(call("doctor", "--bootstrap", embedded, "--json").stdout)
    state = {row["what"]: row["state"] for row in found["rows"]}
    assert state["broker"] == "ok"
    assert state["topics"] == "warn"
    assert state["pipeline"] == state["python"] == state["libraries"] == "ok"


def test_a_doctor_asks_the_broker_also_where_the_pipeline_file_is_broken(call, embedded: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[pipeline\n")
    answer = call("doctor", "--bootstrap", embedded, "--pipeline", str(broken), "--json")
    rows = [(row["what"], row["state"]) for row in json.loads(answer.stdout)["rows"]]
    assert answer.exit_code == 1 and [row for row in rows if row[1] == "fail"] == [("pipeline", "fail")]
    assert rows[-2:] == [("broker", "ok"), ("topics", "warn")]


@pytest.mark.parametrize(("pipeline", "words"), [("messages", "as the pipeline file says"), ("messages_cascade", "none are kept for")])
def test_a_doctor_misses_no_schemas_where_none_are_kept(call, pipeline: str, words: str) -> None:
    rows = json.loads(call("doctor", "--bootstrap", "127.0.0.1:1", "--pipeline", pipeline, "--json").stdout)["rows"]
    ((state, found),) = [(row["state"], row["found"]) for row in rows if row["what"] == "schemas"]
    assert state == "ok" and words in found


def test_a_doctor_without_a_broker_fails_with_the_way_out_and_still_tells_the_rest(call) -> None:
    answer = call("doctor", "--bootstrap", "127.0.0.1:1")
    assert answer.exit_code == 1
    assert "no broker answers at 127.0.0.1:1" in answer.output.replace("\n", " ").replace("              ", "")
    assert "pipeline" in answer.output
    assert "→" in answer.output


@pytest.mark.parametrize("command", [("produce", "-"), ("consume",), ("topics", "create"), ("topics", "check")])
def test_no_broker_is_one_sentence_with_its_fix(call, command: tuple[str, ...]) -> None:
    answer = call(*command, "--bootstrap", "127.0.0.1:1", stdin="{}\n")
    assert answer.exit_code == 2
    assert "127.0.0.1:1" in answer.stderr
    assert "Fix: " in answer.stderr
    assert "Traceback" not in answer.output


def test_topics_cannot_be_made_on_the_embedded_broker_and_it_says_so(call, embedded: str) -> None:
    answer = call("topics", "create", "--bootstrap", embedded)
    assert answer.exit_code == 2
    assert "no topic administration" in answer.stderr


@pytest.mark.kafka
def test_topics_are_created_checked_and_found_in_order_on_kafka(call, kafka: str, namespace: str) -> None:
    common = ("--bootstrap", kafka, "--namespace", namespace)
    assert call("topics", "check", *common).exit_code == 1
    created = json.loads(call("topics", "create", *common, "--partitions", "2", "--replicas", "1", "--json").stdout)
    assert len(created["created"]) == len(Topics(namespace).names())
    assert call("topics", "check", *common).exit_code == 0
    assert json.loads(call("topics", "create", *common, "--json").stdout)["created"] == []
    rows = json.loads(call("doctor", *common, "--json").stdout)["rows"]
    assert {row["what"]: row["state"] for row in rows if row["what"] in ("broker", "topics", "permissions")} == {
        "broker": "ok",
        "topics": "ok",
        "permissions": "ok",
    }
