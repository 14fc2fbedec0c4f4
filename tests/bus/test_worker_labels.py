"""Labels on the bus: they move a running worker, what is none becomes a dead letter once, and a new worker knows them all."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from streamapp.bus.columns import fill
from streamapp.bus.feed import Feeder, feeder
from streamapp.bus.follow import Follower, follower
from streamapp.bus.producer import producing
from streamapp.bus.recovery import answered
from streamapp.bus.statelog import log_reader
from streamapp.bus.topics import Topics, create_topics
from streamapp.cli.children import Child, Children
from streamapp.core.deadletter import dead_letter
from streamapp.core.errors import Reject, RejectCode
from tests.label_line import records

DEADLINE_S = 60
FILE = """
[pipeline]
name = "known"
version = "1"
key = "customer_id"
[event]
key_required = true
[event.fields]
customer_id = { type = "id", required = true }
terminal_id = { type = "id", required = true }
[labels]
positive = ["fraud"]
negative = ["genuine"]
[velocity.known_7d]
entity = "terminal_id"
window = "7d"
delay = "7d"
fed_by = "labels"
aggregates = ["count", "risk"]
[velocity.customer_1h]
entity = "customer_id"
window = "1h"
aggregates = ["count"]
[[rules]]
code = "bad_terminal"
when = "known_7d_count >= 4 and known_7d_risk >= 0.5"
route = "block"
text = "{value} of the payments at this terminal were fraud"
hit = { features = { known_7d_count = 4, known_7d_risk = 0.5 } }
miss = { features = { known_7d_count = 4, known_7d_risk = 0.49 } }
[thresholds]
default_route = "approve"
"""
WEEK_MS = 7 * 86_400_000


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def broker(request: pytest.FixtureRequest, namespace: str) -> str:
    """The embedded broker, and a real Kafka where there is one."""
    address: str = request.getfixturevalue(request.param)
    if request.param == "kafka":
        await create_topics(address, Topics(namespace), partitions=4)
    return address


class Bus:
    """What goes in and what comes out; every event asks about terminal "t" and has a number of its own."""

    def __init__(self, worker: Child, events: Feeder, labels: Feeder, out: Follower, topics: Topics, now_ms: int) -> None:
        self.worker = worker
        self._events, self._labels, self._out, self._topics, self._now_ms = events, labels, out, topics, now_ms
        self.decided: dict[str, dict[str, Any]] = {}
        self.letters: list[tuple[str, str]] = []
        self._asked = 0

    async def tell(self, *labels: tuple[str, str] | bytes) -> None:
        """Sends labels of (event, word), all a week old at terminal "t", or bytes as they are."""
        values = [
            label if isinstance(label, bytes) else json.dumps(
                {"event_id": label[0], "event_time": self._now_ms - WEEK_MS - 1000, "label": label[1], "terminal_id": "t"}
            ).encode()
            for label in labels
        ]  # fmt: skip
        await self._labels.send([b"k"] * len(values), values)

    async def ask(self) -> dict[str, Any]:
        """Sends one event and waits for its decision."""
        self._asked += 1
        name = f"asks-{self._asked}"
        value = {"event_id": name, "event_time": self._now_ms + self._asked, "customer_id": "k", "terminal_id": "t"}
        await self._events.send([b"k"], [json.dumps(value).encode()])
        await self.wait(lambda: name in self.decided)
        return self.decided[name]

    async def until(self, count: int) -> dict[str, Any]:
        """Asks until the terminal has `count` labels."""
        give_up = time.monotonic() + DEADLINE_S
        while (decision := await self.ask())["features"]["known_7d_count"] != count:
            assert time.monotonic() < give_up, decision["features"]
        return decision

    async def wait(self, done: Any) -> None:
        give_up = time.monotonic() + DEADLINE_S
        while not done():
            assert self.worker.running, self.worker.last_words()
            assert time.monotonic() < give_up, (self.letters, len(self.decided))
            for record in await self._out.poll(50):
                if record.topic == self._topics.decisions:
                    decision = json.loads(record.value or b"")
                    assert decision["event_id"] not in self.decided, "answered twice"
                    self.decided[decision["event_id"]] = decision
                else:
                    told = {name: (value or b"").decode() for name, value in record.headers.items()}
                    assert told["__streams.errors.topic"] == self._topics.labels
                    self.letters.append((told["dlq.reason"], told["dlq.path"]))


def worker(children: Children, broker: str, namespace: str, file: Path) -> Child:
    arguments = ["worker", "--pipeline", str(file), "--bootstrap", broker, "--namespace", namespace, "--metrics-port", "0"]
    return children.start("worker", arguments)


async def test_labels_move_a_running_worker_and_the_next_one_knows_them(broker: str, namespace: str, tmp_path: Path) -> None:
    file, topics = tmp_path / "known.toml", Topics(namespace)
    file.write_text(FILE)
    with Children() as children:
        running = worker(children, broker, namespace, file)
        async with (
            feeder(broker, topics.events) as events,
            feeder(broker, topics.labels) as labels,
            follower(broker, [topics.decisions, topics.dead_letters], fetch_wait_ms=10) as out,
        ):
            bus = Bus(running, events, labels, out, topics, int(time.time() * 1000))
            assert (await bus.ask())["features"]["known_7d_count"] == 0
            await bus.tell(("a", "fraud"), ("b", "genuine"), b"no label", ("b", "genuine"), ("c", "who knows"), ("c", "genuine"))
            found = await bus.until(3)
            assert found["features"]["known_7d_risk"] == pytest.approx(1 / 3)
            assert (found["verdict"], found["features"]["terminal_id_labels_windows_missing"]) == ("approve", 0)
            await bus.tell(("c", "fraud"), ("d", "genuine"))  # c is corrected: the later record says more
            found = await bus.until(4)
            assert (found["features"]["known_7d_risk"], found["verdict"], found["reasons"][0]["code"]) == (0.5, "block", "bad_terminal")
            await bus.wait(lambda: len(bus.letters) == 2)
            assert sorted(bus.letters) == [("invalid_json", "$"), ("pattern_mismatch", "$.label")]
            asked = found["features"]["customer_1h_count"]
            assert running.stop(12.0) == 0, running.last_words()
            bus.worker = worker(children, broker, namespace, file)
            found = await bus.ask()
            assert (found["features"]["known_7d_count"], found["features"]["known_7d_risk"]) == (4, 0.5)
            assert found["features"]["customer_1h_count"] == asked + 1
            await bus.tell(b"[]")
            await bus.wait(lambda: ("not_an_object", "$") in bus.letters)
            assert "labels" not in {part["component"] for one in bus.decided.values() for part in one["degraded"]}
            assert sorted(bus.letters).count(("not_an_object", "$")) == 1


async def test_the_dead_letter_of_a_label_answers_no_event(embedded: str, namespace: str) -> None:
    """Both lie in one partition with offsets of their own; a worker that recovers must not take one for the other."""
    topics, reject = Topics(namespace), Reject(0, 0, RejectCode.INVALID_JSON, "$", "is not JSON")
    letters = [dead_letter(reject, records([b"{", b"["], [1, 2], topic), 3) for topic in (topics.labels, topics.events)]
    letters.append(dead_letter(Reject(0, 1, RejectCode.INVALID_JSON, "$", ""), records([b"{", b"["], [1, 2], topics.labels), 3))
    async with producing(embedded, {}) as producer:
        for batch in fill(letters, 100_000, 4):
            await (await producer.send_batch(batch, topics.dead_letters, partition=0))
    async with log_reader(embedded, {}) as reader:
        for topic in topics.outputs():
            await reader.partitions(topic)
        found = await answered(reader, topics, 0, 0, [0] * len(topics.outputs()))
    assert (found.verdicts.tolist(), found.decisions.tolist()) == ([0], [])
