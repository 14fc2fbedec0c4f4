"""The demo accounts for every event, tells the truth about it, and leaves no process behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streamapp.cli.demo_view import bar, sparkline
from streamapp.core.errors import RejectCode

EVENTS = 3_000


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "streamapp", "demo", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMAPP_")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def children_of(demo: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Waits until the demo's broker and its worker run; gives them by these names."""
    parent = psutil.Process(demo.pid)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        # A child just forked still has its parent's command line, and one just ended has none.
        found = {name: child for child in parent.children() for name in ("broker", "worker") if name in command_of(child)}
        if len(found) == 2:
            return found
        assert demo.poll() is None, demo.communicate()
        time.sleep(0.05)
    demo.kill()
    pytest.fail(f"broker and worker did not start: {demo.communicate()}")


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def finished() -> Iterator[dict[str, object]]:
    """The figures of one short run."""
    demo = start("--events", str(EVENTS), "--json", "--seed", "3")
    output, errors = demo.communicate(timeout=300)
    assert demo.returncode == 0, errors
    return json.loads(output)


def test_events_are_verdicts_plus_dead_letters(finished: dict) -> None:
    assert finished["events"] == EVENTS == finished["verdicts"] + finished["dead_letters"]
    assert finished["accounted"] is True
    assert sum(finished["routes"].values()) == finished["verdicts"]
    assert sum(phase["events"] for phase in finished["phases"]) == EVENTS


def test_every_broken_event_got_the_reason_it_was_broken_for(finished: dict) -> None:
    assert finished["broken_on_purpose"] == finished["dead_letters_by_reason"]
    assert set(finished["dead_letters_by_reason"]) <= {code.value for code in RejectCode}
    assert finished["dead_letters"] > 0


def test_payments_are_fed_with_their_labels() -> None:
    demo = start("--pipeline", "payments", "--events", "20000", "--rate", "20000", "--json")
    output, errors = demo.communicate(timeout=300)
    assert demo.returncode == 0, errors
    found = json.loads(output)
    assert found["accounted"] is True and found["broken_on_purpose"] == found["dead_letters_by_reason"]
    assert found["quality"]["labelled"] == found["verdicts"] and found["quality"]["bad"] > 100
    assert found["quality"]["precision_block"] > 0.6 and found["quality"]["recall_block_or_review"] > 0.3
    assert found["labels"]["sent"] > 5_000 and found["labels"]["broken_on_purpose"] > 0


def test_a_pipeline_without_a_generator_asks_for_events() -> None:
    demo = start("--pipeline", "reference", "--events", "10")
    _, errors = demo.communicate(timeout=300)
    assert demo.returncode == 2 and "Nobody generates events of pipeline reference" in errors and "--input" in errors


def test_real_events_are_answered_and_compared_with_their_labels(tmp_path: Path) -> None:
    events = [{"event_id": f"e{number}", "user_id": number + 1, "text": f"see you at {number}", "label": "ham"} for number in range(300)]
    events += [
        {"event_id": f"s{number}", "user_id": number + 1, "text": f"URGENT! claim your prize, call 0909879{number:04}", "label": "spam"}
        for number in range(50)
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events) + "broken\n\n")
    demo = start("--input", str(path), "--json")
    output, errors = demo.communicate(timeout=300)
    assert demo.returncode == 0, errors
    found = json.loads(output)
    assert (found["events"], found["verdicts"], found["accounted"]) == (352, 350, True)
    assert found["dead_letters_by_reason"] == {"invalid_json": 1, "null_value": 1}
    assert (found["quality"]["labelled"], found["quality"]["bad"]) == (350, 50)


def test_the_end_is_told_in_words() -> None:
    demo = start("--events", "600")
    output, errors = demo.communicate(timeout=300)
    assert demo.returncode == 0, errors
    for words in ("Flow", "Answers", "Some of them in words", "600 events = "):
        assert words in output
    assert "Traceback" not in output + errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_whatever_ends_it(number: signal.Signals) -> None:
    demo = start("--events", "10000000")
    children = children_of(demo)
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode != 0
    _gone, alive = psutil.wait_procs(children.values(), timeout=30)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_worker_that_dies_ends_the_demo_with_what_it_said() -> None:
    demo = start("--events", "10000000")
    children = children_of(demo)
    children["worker"].kill()
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert "The worker ended with exit code -9" in errors
    assert "Traceback" not in errors
    _gone, alive = psutil.wait_procs(children.values(), timeout=30)
    assert alive == []


@pytest.mark.kafka
async def test_on_a_real_kafka_its_topics_are_its_own_and_gone_afterwards(kafka: str) -> None:
    demo = start("--bootstrap", kafka, "--events", "1500", "--json")
    output, errors = demo.communicate(timeout=300)
    assert demo.returncode == 0, errors
    assert json.loads(output)["accounted"] is True
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    left = [topic for topic in await admin.list_topics() if topic.startswith("messages-demo-")]
    await admin.close()
    assert left == []


def test_bars_and_sparklines_keep_their_proportions() -> None:
    assert bar(0.5, 10) == "█████░░░░░"
    assert bar(7.0, 4) == "████"
    assert sparkline([1, 4, 8], 10) == "▂▅█"
    assert sparkline([0, 0], 5) == "▁▁"
    assert len(sparkline(range(100), 20)) == 20
