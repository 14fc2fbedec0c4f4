"""`streamapp replay` beside live workers: equal events, state and versions, equal answers; what another pipeline answers is told apart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.partitioner import murmur2

from streamapp.bus.feed import feeder
from streamapp.bus.topics import Topics
from streamapp.cli.children import Children
from streamapp.config import shipped
from streamapp.control.generate import Mix, messages
from streamapp.control.payments import PaymentMix, payments
from tests.bus.kinds import KINDS, broker_of
from tests.bus.test_worker import feed, read_answers, worker


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The embedded broker, and a real Kafka where there is one, under both kinds of delivery."""
    return await broker_of(request, namespace, monkeypatch)


async def replay(broker: str, namespace: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamapp", "replay", "--bootstrap", broker, "--namespace", namespace, *options]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)


async def compared(broker: str, namespace: str, *options: str) -> dict[str, Any]:
    done = await replay(broker, namespace, "--compare", "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_what_a_worker_decided_is_decided_again_and_a_stricter_file_is_told_apart(
    broker: str, namespace: str, tmp_path: Path
) -> None:
    topics = Topics(namespace)
    values: list[bytes | None] = [one.value for one in messages(2500, Mix(seed=9, garbage=0.05, spam=0.3))]
    values += values[:300]  # copies
    with Children() as children:
        running = worker(children, broker, namespace)
        for first in range(0, len(values), 400):
            await feed(broker, topics, values[first : first + 400])
        answers = await read_answers(broker, topics, len(values), children)
        assert running.stop(12.0) == 0, running.last_words()
    found = await compared(broker, namespace)
    assert (found["events"], found["compared"], found["unanswered"]) == (len(values),) * 2 + (0,)
    assert found["equal"] == len(values), found["examples"]
    assert found["releases_then"] == [found["release_now"]]

    lines = [orjson.loads(line) for line in (await replay(broker, namespace)).stdout.splitlines()]
    assert {(one["source"]["partition"], one["source"]["offset"]) for one in lines} == set(answers)

    strict = tmp_path / "strict.toml"
    text = (shipped("pipelines") / "messages.toml").read_text()
    assert 'block = "card"' in text
    strict.write_text(text.replace('block = "card"', "block = 0.001").replace('approve = "card"', "approve = 0.0005"))
    other = await compared(broker, namespace, "--pipeline", str(strict))
    assert other["compared"] == len(values) and 0 < other["equal"] < len(values)
    assert sum(one["events"] for one in other["routes"]) > 0 and other["release_now"] not in other["releases_then"]


async def test_windows_of_one_partition_are_as_they_were_shared_ones_too(embedded: str, namespace: str) -> None:
    topics = Topics(namespace)
    rows = [orjson.loads(one.value) for one in payments(4000, PaymentMix(seed=4, customers=160, terminals=80))]
    rows = [row for row in rows if (murmur2(row["customer_id"].encode()) & 0x7FFFFFFF) % 4 == 1]
    with Children() as children:
        running = worker(children, embedded, namespace, "--pipeline", "payments")
        async with feeder(embedded, topics.events) as events:
            for first in range(0, len(rows), 200):
                part = rows[first : first + 200]
                await events.send([row["customer_id"].encode() for row in part], [orjson.dumps(row) for row in part])
        answers = await read_answers(embedded, topics, len(rows), children)
        assert running.stop(12.0) == 0, running.last_words()
    assert {partition for partition, _ in answers} == {1}
    found = await compared(embedded, namespace, "--pipeline", "payments")
    assert found["compared"] == found["equal"] == len(rows) > 800, found["examples"]


async def test_a_range_is_told_and_what_lies_before_it_is_remembered(embedded: str, namespace: str, tmp_path: Path) -> None:
    topics = Topics(namespace)
    values = [one.value for one in messages(40, Mix(seed=2, garbage=0))]
    await feed(embedded, topics, values)
    await asyncio.sleep(1.5)
    middle = await replay(embedded, namespace, "--from", "1s")
    assert middle.returncode == 0 and middle.stdout == "", middle.stderr
    old = tmp_path / "hour.jsonl"
    old.write_text("last week's")
    assert (await replay(embedded, namespace, "--from", "1s", "-o", str(old))).returncode == 0 and old.read_text() == ""
    since = datetime.now(UTC).isoformat()
    await feed(embedded, topics, values[:10])  # all of them copies of what came before
    done = await replay(embedded, namespace, "--from", since, "--to", "2099-01-01")
    flags = [flag for line in done.stdout.splitlines() for flag in orjson.loads(line)["flags"]]
    assert flags.count("duplicate") == 10
    nothing = await compared(embedded, namespace, "--from", "1970-01-01", "--warm-up", "1d")
    assert (nothing["events"], nothing["compared"], nothing["unanswered"]) == (50, 0, 50)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--from", "yesterday"], "is no time"),
        (["--warm-up", "1d"], "give --from"),
        (["--from", "2026-02-01", "--to", "2026-01-31"], "later than --to"),
        (["--from", "1d", "--warm-up", "soon"], "is no duration"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_a_way_out(embedded: str, namespace: str, options: list[str], says: str) -> None:
    refused = await replay(embedded, namespace, *options)
    assert refused.returncode == 2 and says in refused.stderr and "Traceback" not in refused.stderr, refused.stderr


@pytest.mark.kafka
async def test_a_topic_that_is_not_there_is_said(kafka: str) -> None:
    refused = await replay(kafka, "nobody.knows")
    assert refused.returncode == 2 and "knows no topic nobody.knows.lists.v1" in refused.stderr, refused.stderr
