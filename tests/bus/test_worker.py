"""The worker as a process on a broker: every event is answered once, a stop is clean, a failure of ours is loud and loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamapp.adapters.journal_memory import MemoryJournal
from streamapp.bus.app import attach, build_app, run
from streamapp.bus.batch import BatchLimits
from streamapp.bus.emit import Delivery
from streamapp.bus.feed import Places, feeder
from streamapp.bus.follow import Record, follower
from streamapp.bus.producer import producing
from streamapp.bus.topics import Topics
from streamapp.cli.children import Child, Children
from streamapp.cli.score import answers
from streamapp.cli.serve import load
from streamapp.config import load_settings, shipped
from streamapp.control.generate import Mix, messages
from streamapp.core.errors import BusError
from streamapp.core.outcome import Outcome
from streamapp.prefetch import nothing_to_read
from streamapp.worker import Line
from tests.bus.kinds import KINDS, broker_of
from tests.line import SPEC, serving_of

DEADLINE_S = 60


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The embedded broker, and a real Kafka where there is one, under both kinds of delivery."""
    return await broker_of(request, namespace, monkeypatch)


def worker(children: Children, broker: str, namespace: str, *options: str) -> Child:
    arguments = ["worker", "--pipeline", "messages", "--bootstrap", broker, "--namespace", namespace, "--metrics-port", "0"]
    return children.start("worker", [*arguments, *options])


async def feed(broker: str, topics: Topics, values: Sequence[bytes | None]) -> Places:
    async with feeder(broker, topics.events) as events:
        return await events.send([None] * len(values), values)


async def read_answers(broker: str, topics: Topics, count: int, children: Children) -> dict[tuple[int, int], Record]:
    """Gives every verdict and dead letter by the place of its event; waits for `count` of them and fails on a second one."""
    outputs = [topics.approve, topics.review, topics.block, topics.dead_letters]
    found: dict[tuple[int, int], Record] = {}
    give_up = time.monotonic() + DEADLINE_S
    async with follower(broker, outputs, fetch_wait_ms=10) as records:
        while len(found) < count:
            children.check()
            assert time.monotonic() < give_up, f"{len(found)} of {count} answers"
            for record in await records.poll(200):
                place = record.partition, int(record.headers["source-offset"] or b"-1")
                assert place not in found, f"{place} was answered twice"
                found[place] = record
    return found


async def uncommitted(broker: str, topics: Topics, namespace: str) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, group_id=f"{namespace}.messages", enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topics.events, number) for number in range(4)]
        ends = await consumer.end_offsets(partitions)
        return sum([end - (await consumer.committed(partition) or 0) for partition, end in ends.items()])
    finally:
        await consumer.stop()


def expected(values: Sequence[bytes | None]) -> list[dict[str, Any]]:
    serving = load(load_settings({}, environ={}), SPEC)
    return [json.loads(line) for line in answers(values, [None] * len(values), 0, serving)]


def agree(record: Record, wanted: dict[str, Any], topics: Topics) -> bool:
    if "dead_letter" in wanted:
        return record.topic == topics.dead_letters and (record.headers["dlq.reason"] or b"").decode() == wanted["dead_letter"]
    given = json.loads(record.value or b"null")
    if record.topic != getattr(topics, wanted["verdict"]) or given["degraded"] != wanted["degraded"]:
        return False
    close = all(
        (given[name] is None and wanted[name] is None) or abs(given[name] - wanted[name]) <= 1e-6 for name in ("score", "probability")
    )
    return bool(close and given["decided_by"] == wanted["decided_by"] and given["versions"] == wanted["versions"])


async def test_the_worker_decides_as_score_does_and_a_stop_leaves_nothing_uncommitted(broker: str, namespace: str) -> None:
    topics = Topics(namespace)
    values = [one.value for one in messages(3000, Mix(seed=5, garbage=0.05, spam=0.3))]
    with Children() as children:
        running = worker(children, broker, namespace)
        places = await feed(broker, topics, values)
        found = await read_answers(broker, topics, len(values), children)
        began = time.monotonic()
        assert running.stop(12.0) == 0, running.last_words()
        assert time.monotonic() - began < 10
    for wanted, partition, offset in zip(expected(values), places.partition.tolist(), places.offset.tolist(), strict=True):
        assert agree(found[partition, offset], wanted, topics), (wanted, found[partition, offset])
    assert await uncommitted(broker, topics, namespace) == 0


async def test_broken_json_of_every_kind_is_answered_and_the_worker_goes_on(broker: str, namespace: str, shared_data: Path) -> None:
    topics = Topics(namespace)
    broken = [path.read_bytes() for path in sorted((shared_data / "jsontestsuite" / "test_parsing").iterdir())]
    naughty = [json.dumps({"user_id": "u", "text": text}).encode() for text in json.loads((shared_data / "blns" / "blns.json").read_text())]
    good = [one.value for one in messages(len(broken) + len(naughty), Mix(seed=8, garbage=0))]
    values = [value for pair in zip(good, [*broken, *naughty], strict=True) for value in pair]
    with Children() as children:
        running = worker(children, broker, namespace)
        places = await feed(broker, topics, values)
        found = await read_answers(broker, topics, len(values), children)
        assert running.running
    wanted = expected(values)
    for one, partition, offset in zip(wanted, places.partition.tolist(), places.offset.tolist(), strict=True):
        assert agree(found[partition, offset], one, topics), (one, found[partition, offset])
    assert all("verdict" in one for one in wanted[::2])


async def test_sigterm_under_load_loses_and_repeats_nothing(broker: str, namespace: str) -> None:
    topics = Topics(namespace)
    values = [one.value for one in messages(9000, Mix(seed=6, garbage=0.01))]
    with Children() as children:
        first = worker(children, broker, namespace)
        await feed(broker, topics, values[:3000])
        async with follower(broker, [topics.decisions], fetch_wait_ms=10) as decisions:
            while not await decisions.poll(200):
                children.check()
        await feed(broker, topics, values[3000:])
        os.kill(first.process.pid, signal.SIGTERM)
        assert first.process.wait(12) == 0, first.last_words()
        worker(children, broker, namespace)
        await read_answers(broker, topics, len(values), Children())
    assert await uncommitted(broker, topics, namespace) == 0


async def test_sighup_swaps_the_models_in_and_a_refused_one_leaves_what_serves(embedded: str, namespace: str, tmp_path: Path) -> None:
    topics = Topics(namespace)
    values = [one.value for one in messages(60, Mix(seed=4, garbage=0))]
    shipped_version = shipped("models") / "messages" / "1"
    shutil.copytree(shipped_version, tmp_path / "messages" / "1")

    async def answered(after: int) -> list[dict[str, Any]]:
        async with follower(embedded, [topics.decisions], fetch_wait_ms=10) as records:
            found: list[dict[str, Any]] = []
            while len(found) < after + len(values):
                children.check()
                found += [json.loads(record.value or b"") for record in await records.poll(200)]
        mine = [one for one in found if one["event_id"].startswith(f"{after}-")]
        return sorted(mine, key=lambda one: int(one["event_id"].partition("-")[2]))

    async def decide(after: int) -> list[dict[str, Any]]:
        named = [json.dumps({**json.loads(value or b""), "event_id": f"{after}-{place}"}).encode() for place, value in enumerate(values)]
        await feed(embedded, topics, named)
        return await answered(after)

    async def said(words: str) -> None:
        give_up = time.monotonic() + DEADLINE_S
        while not any(words in line for line in running.lines):
            children.check()
            assert time.monotonic() < give_up, running.last_words()
            await asyncio.sleep(0.05)

    with Children() as children:
        running = worker(children, embedded, namespace, "--models", str(tmp_path))
        first = await decide(0)
        shutil.copytree(shipped_version, tmp_path / "messages" / "2")
        card = tmp_path / "messages" / "2" / "card.json"
        card.write_text(json.dumps(json.loads(card.read_text()) | {"version": "2"}))
        running.process.send_signal(signal.SIGHUP)
        await said("serves instead of")
        second = await decide(len(values))
        shutil.copytree(shipped_version, tmp_path / "messages" / "3")
        (tmp_path / "messages" / "3" / "model.onnx").write_bytes(b"not a graph")
        running.process.send_signal(signal.SIGHUP)
        await said("were not swapped")
        third = await decide(2 * len(values))
    models = [{one["versions"]["models"]["fast"] for one in found} for found in (first, second, third)]
    assert models == [{"messages/1"}, {"messages/2"}, {"messages/2"}]
    assert [one["score"] for one in first] == pytest.approx([one["score"] for one in third], abs=1e-6)


class Refusing(Delivery):
    """A delivery whose broker refuses the third micro-batch."""

    calls = 0

    def emit(self, outcome: Outcome, verdicts: Sequence[bytes], decisions: Sequence[bytes]) -> Awaitable[None]:
        self.calls += 1
        if self.calls == 3:
            raise BusError("the broker does not take outputs")
        return super().emit(outcome, verdicts, decisions)


async def test_a_failure_of_ours_ends_the_worker_with_its_reason_and_the_batch_unacked(embedded: str, namespace: str) -> None:
    topics = Topics(namespace)
    app = build_app(f"{namespace}.messages", embedded, limits=BatchLimits(batch_max=100))
    async with producing(embedded, {}) as producer:
        attach(
            app,
            topics.events,
            Line(
                serving_of(),
                Refusing(producer, topics),
                nothing_to_read,
                MemoryJournal(serving_of().state),
                lambda outcome, release, acked_ms: None,
            ).run,
        )
        await feed(embedded, topics, [one.value for one in messages(1000, Mix(seed=9))])
        with pytest.raises(BusError, match="does not take outputs"):
            await asyncio.wait_for(run(app, asyncio.Event()), DEADLINE_S)
    assert await uncommitted(embedded, topics, namespace) >= 1000 - 2 * 100
