"""Workers killed with SIGKILL, at every numbered step and at random: nothing is lost, nothing answered twice, every window is right."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chaos.expect import Contract, Recount, Window
from chaos.verify import Asked, Output, Place, invented, judge
from streamapp.bus.feed import Places, feeder
from streamapp.bus.follow import follower
from streamapp.bus.topics import Topics, create_topics
from streamapp.cli.children import Child, Children
from tests.bus.kinds import KINDS, broker_of

DEADLINE_S = 90
SESSION = {"STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": "6000", "STREAMAPP_KAFKA_HEARTBEAT_INTERVAL_MS": "500"}
PIPELINE = """
[pipeline]
name = "counts"
version = "1"
description = "Counts the events of a user"
owner = "tests"
key = "user_id"

[event]
key_required = true

[event.fields.user_id]
type = "id"
required = true
description = "Whose events are counted"

[event.fields.amount]
type = "number"
required = true
description = "What is added up"

[velocity.user_1h]
entity = "user_id"
window = "1h"
aggregates = ["count", "sum:amount"]

[[rules]]
code = "many"
when = "user_1h_count >= 4"
route = "review"
decides = "always"
text = "many events"
hit = { features = { user_1h_count = 4 } }
miss = { features = { user_1h_count = 3 } }

[thresholds]
default_route = "approve"
"""
HOUR_MS = 3_600_000
WINDOWS = (Window("user_1h_count", "user_id", HOUR_MS, "count"), Window("user_1h_sum_amount", "user_id", HOUR_MS, "sum"))
CONTRACT = Contract("user_id", ("user_id",), WINDOWS, grace_ms=5 * 60_000, scored=False)
Answers = dict[Place, list[Output]]
BEGIN_MS = 1_700_000_000_000


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    path = tmp_path / "counts.toml"
    path.write_text(PIPELINE)
    return str(path)


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return await broker_of(request, namespace, monkeypatch)


def events(count: int, first: int, seed: int) -> list[dict[str, Any]]:
    """Events of 40 users over hours, each later than the one before; every seventh is sent a second time."""
    rng = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(first, first + count):
        if made and number % 7 == 0:
            made.append(dict(rng.choice(made[-20:])))
            continue
        event = {"event_id": f"e{number}", "event_time": BEGIN_MS + number * 9_000, "user_id": f"u{rng.randrange(40)}"}
        made.append({**event, "amount": rng.randrange(1, 10_000) / 100})
    return made


async def feed(broker: str, topics: Topics, given: Sequence[dict[str, Any]]) -> Places:
    async with feeder(broker, topics.events) as sender:
        return await sender.send([event["user_id"].encode() for event in given], [json.dumps(event).encode() for event in given])


def start(children: Children, broker: str, namespace: str, pipeline: str, **environment: str) -> Child:
    arguments = ["worker", "--pipeline", pipeline, "--bootstrap", broker, "--namespace", namespace, "--metrics-port", "0"]
    small = {"STREAMAPP_BATCH_MAX": "40", "STREAMAPP_IN_FLIGHT_BATCHES_MAX": "2", "STREAMAPP_STATE_SNAPSHOT_ROWS": "30"}
    return children.start("worker", arguments, {**SESSION, **small, **environment})


async def read_decisions(broker: str, topics: Topics, places: Places, runners: Sequence[Child] = ()) -> Answers:
    """Gives what was written for each event's place, once every one of them has a verdict and a decision record."""
    wanted = set(zip(places.partition.tolist(), places.offset.tolist(), strict=True))
    roles = {topics.approve: "approve", topics.review: "review", topics.block: "block", topics.decisions: "decisions"}
    found: Answers = defaultdict(list)
    give_up = time.monotonic() + DEADLINE_S
    async with follower(broker, [*roles, topics.dead_letters], fetch_wait_ms=10) as records:
        quiet = 0
        while quiet < 3:
            for one in runners:
                assert one.running, one.last_words()
            missing = sum(len({output.role for output in found.get(place, ())}) < 2 for place in wanted)
            assert time.monotonic() < give_up, f"{missing} places miss a verdict or a decision record"
            got = await records.poll(200)
            quiet = 0 if got or missing else quiet + 1
            for record in got:
                assert record.topic != topics.dead_letters, record.value
                place = record.partition, int(record.headers["source-offset"] or b"-1")
                found[place].append(Output(roles[record.topic], record.key, record.value, 0))
    return found


def verify(found: Answers, given: Sequence[dict[str, Any]], places: Places, *, repeats: bool = False) -> None:
    """Recounts by the judge of chaos, which shares no code with the program."""
    recount, asked = Recount(CONTRACT), {}
    for event, partition, offset in zip(given, places.partition.tolist(), places.offset.tolist(), strict=True):
        key, value = event["user_id"].encode(), json.dumps(event).encode()
        asked[partition, offset] = Asked(key, value, recount.take(partition, offset, key, value))
    tally = judge(asked, found)
    assert not tally.broken(repeats=repeats) and not invented(asked, found).invented, tally.examples
    for place, one in asked.items():
        count = one.expected.windows["user_1h_count"]
        assert {json.loads(output.value or b"")["verdict"] for output in found[place]} == {"review" if count >= 4 else "approve"}, place


def joined(one: Places, other: Places) -> Places:
    import numpy as np

    return Places(np.concatenate([one.partition, other.partition]), np.concatenate([one.offset, other.offset]))


@pytest.mark.parametrize("step", ["decided:2", "emitted:2", "acknowledged:2", "logged:2", "acked:2", "logged:4"])
async def test_a_worker_killed_at_a_numbered_step_loses_and_repeats_nothing(broker: str, namespace: str, pipeline: str, step: str) -> None:
    topics = Topics(namespace)
    first = events(500, 0, seed=3)
    with Children() as children:
        places = await feed(broker, topics, first)
        doomed = start(children, broker, namespace, pipeline, STREAMAPP_TEST_FAIL_AT=step)
        assert doomed.process.wait(DEADLINE_S) == 137, doomed.last_words()
    second = events(200, 500, seed=4)
    with Children() as children:
        places = joined(places, await feed(broker, topics, second))
        worker = start(children, broker, namespace, pipeline)
        found = await read_decisions(broker, topics, places, [worker])
        assert worker.stop(12) == 0, worker.last_words()
    verify(found, first + second, places)


async def test_workers_killed_again_and_again_lose_and_repeat_nothing(broker: str, namespace: str, pipeline: str) -> None:
    topics = Topics(namespace)
    given: list[dict[str, Any]] = []
    places: Places | None = None
    rng = random.Random(7)
    for life in range(4):
        fresh = events(600, 600 * life, seed=life)
        given += fresh
        more = await feed(broker, topics, fresh)
        places = more if places is None else joined(places, more)
        with Children() as children:
            worker = start(children, broker, namespace, pipeline)
            async with follower(broker, [topics.decisions], fetch_wait_ms=10, from_end=True) as decisions:
                answered, enough = 0, rng.randrange(1, 400)
                give_up = time.monotonic() + DEADLINE_S
                while answered < enough and worker.running and time.monotonic() < give_up:
                    answered += len(await decisions.poll(20))
            os.kill(worker.process.pid, signal.SIGKILL)
            assert worker.process.wait(10) == -signal.SIGKILL, worker.last_words()
    assert places is not None
    with Children() as children:
        worker = start(children, broker, namespace, pipeline)
        found = await read_decisions(broker, topics, places, [worker])
    verify(found, given, places)


async def test_a_second_worker_and_its_death_move_partitions_and_change_no_window(broker: str, namespace: str, pipeline: str) -> None:
    topics = Topics(namespace)
    first, second, third = events(400, 0, seed=1), events(400, 400, seed=2), events(400, 800, seed=3)
    with Children() as children:
        places = await feed(broker, topics, first)
        stays = start(children, broker, namespace, pipeline)
        await read_decisions(broker, topics, places, [stays])
        leaves = start(children, broker, namespace, pipeline)
        places = joined(places, await feed(broker, topics, second))
        await read_decisions(broker, topics, places, [stays, leaves])
        os.kill(leaves.process.pid, signal.SIGKILL)
        places = joined(places, await feed(broker, topics, third))
        found = await read_decisions(broker, topics, places, [stays])
    verify(found, first + second + third, places, repeats=os.environ["STREAMAPP_DELIVERY"] == "at_least_once")


async def settled(broker: str, namespace: str, pipeline: str, **environment: str) -> tuple[Topics, Places]:
    """Leaves a pipeline behind that has decided 100 events and stopped in order."""
    topics = Topics(namespace)
    with Children() as children:
        places = await feed(broker, topics, events(100, 0, seed=9))
        worker = start(children, broker, namespace, pipeline, **environment)
        await read_decisions(broker, topics, places, [worker])
        assert worker.stop(12) == 0, worker.last_words()
    return topics, places


def refusal(broker: str, namespace: str, pipeline: str) -> str:
    with Children() as children:
        worker = start(children, broker, namespace, pipeline)
        assert worker.process.wait(DEADLINE_S) != 0
        worker.stop(1)
        return "\n".join(worker.lines)


@pytest.mark.kafka
async def test_a_group_beyond_the_journal_is_refused_with_the_way_out(kafka: str, namespace: str, pipeline: str) -> None:
    broker = kafka
    await create_topics(broker, Topics(namespace), partitions=4)
    topics, places = await settled(broker, namespace, pipeline)
    partition = int(places.partition[0])
    reached = int(places.offset[places.partition == partition].max()) + 1
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    await producer.send_and_wait(topics.events, b"{}", key=b"u1", partition=partition)
    await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, group_id=f"{namespace}.counts", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topics.events, partition)])
    await consumer.commit({TopicPartition(topics.events, partition): reached + 1})
    await consumer.stop()
    words = refusal(broker, namespace, pipeline)
    assert f"committed offset {reached + 1}" in words and "streamapp state reset" in words, words


async def test_a_journal_of_another_partition_count_is_refused(broker: str, namespace: str, pipeline: str) -> None:
    from streamapp.core import journal as codec

    topics, _ = await settled(broker, namespace, pipeline)
    grown = codec.Head("reset", -1, 0, 1, 3, -1, 0, (0,) * 5)
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    for partition in range(4):
        await producer.send_and_wait(topics.state, codec.encode(grown, b""), partition=partition)
    await producer.stop()
    words = refusal(broker, namespace, pipeline)
    assert "written for 3 partitions" in words and "has 4 now" in words, words


@pytest.mark.kafka
async def test_a_journal_that_retention_has_overtaken_is_refused(kafka: str, namespace: str, pipeline: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

    await create_topics(kafka, Topics(namespace), partitions=4)
    # Many small deltas and no snapshot: every one since the first is needed.
    unsaved = {"STREAMAPP_STATE_SNAPSHOT_ROWS": "1000000", "STREAMAPP_BATCH_MAX": "8"}
    topics, places = await settled(kafka, namespace, pipeline, **unsaved)
    partition = int(places.partition[0])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(topics.state, partition): RecordsToDelete(2)})
    await admin.close()
    words = refusal(kafka, namespace, pipeline)
    assert "overtaken the journal" in words and "streamapp state reset" in words, words
