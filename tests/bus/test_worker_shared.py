"""Workers of `payments` on one broker and one Redis: what one of them saw of a terminal counts in the features of the next."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from streamapp.bus.feed import feeder
from streamapp.bus.follow import follower
from streamapp.bus.topics import Topics, create_topics
from streamapp.cli.children import Children

pytestmark = pytest.mark.redis
DEADLINE_S = 60


def payment(number: int, start_ms: int) -> tuple[bytes, bytes]:
    customer = f"c{number}"
    event = {
        "event_id": f"e{number}", "event_time": start_ms + number, "customer_id": customer, "card_id": f"card{number}",
        "terminal_id": "one", "amount": 10.0,
    }  # fmt: skip
    return customer.encode(), json.dumps(event).encode()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.kafka)])
async def test_workers_count_one_terminal_together(
    request: pytest.FixtureRequest, redis_address: str, namespace: str, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """One after the other on the embedded broker, which has room for one member; on a real Kafka two at a time."""
    broker: str = request.getfixturevalue("embedded" if workers == 1 else "kafka")
    topics, start_ms, count = Topics(namespace), int(time.time() * 1000), 40
    if workers == 2:
        await create_topics(broker, topics, partitions=4)
    monkeypatch.setenv("STREAMAPP_REDIS", f"redis://{redis_address}/0")
    monkeypatch.setenv("STREAMAPP_REDIS_DEADLINE_MS", "1000")
    arguments = ["worker", "--pipeline", "payments", "--bootstrap", broker, "--namespace", namespace, "--metrics-port", "0"]
    decided: dict[str, dict[str, Any]] = {}
    with Children() as children:
        running = [children.start(f"worker {number}", arguments) for number in range(workers)]
        give_up = time.monotonic() + DEADLINE_S
        async with feeder(broker, topics.events) as events, follower(broker, [topics.decisions], fetch_wait_ms=10) as decisions:
            for number in range(count):  # the next one is sent when the last one is decided
                if number == count // 2 and workers == 1:
                    assert running[0].stop(12.0) == 0, running[0].last_words()
                    running = [children.start("the next worker", arguments)]
                key, value = payment(number, start_ms)
                await events.send([key], [value])
                while f"e{number}" not in decided:
                    assert all(one.running for one in running), [one.last_words() for one in running]
                    assert time.monotonic() < give_up, f"{number} of {count} payments decided"
                    for record in await decisions.poll(100):
                        decision = json.loads(record.value or b"")
                        decided[decision["event_id"]] = decision
        for one in running:
            one.stop(12.0)
    counts = [decided[f"e{number}"]["features"]["terminal_24h_count"] for number in range(count)]
    assert len({one["source"]["partition"] for one in decided.values()}) > 1
    assert all(one["features"]["terminal_id_windows_missing"] == 0 for one in decided.values())
    # A decision is read before what it wrote is told: with two workers the very last one may be in flight, no other.
    assert all(number + 2 - workers <= counted <= number + 1 for number, counted in enumerate(counts)), counts
    assert {cause for one in decided.values() for cause in (part["cause"] for part in one["degraded"])} == {"redis_warming"}
