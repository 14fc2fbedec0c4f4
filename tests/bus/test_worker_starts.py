"""A worker that starts with state to load, as its probes tell it: not ready, how far and how fast, ready with all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamapp.bus.feed import feeder
from streamapp.bus.follow import follower
from streamapp.bus.recovery import Loading
from streamapp.bus.topics import Topics
from streamapp.cli.children import Children
from tests.worker_pages import address_of, page

EVENTS = 20_000
STARTS = 3  # progress is a matter of milliseconds here, and a busy machine may look away for as long
PIPELINE = """
[pipeline]
name = "counted"
version = "1"
key = "user"
[event]
key_required = true
[event.fields.user]
type = "id"
required = true
[velocity.user_1h]
entity = "user"
window = "1h"
aggregates = ["count"]
[thresholds]
default_route = "approve"
"""


async def test_a_worker_tells_how_far_its_state_is_loaded_and_is_ready_with_all_of_it(
    embedded: str, namespace: str, tmp_path: Path
) -> None:
    file, topics = tmp_path / "counted.toml", Topics(namespace)
    file.write_text(PIPELINE)
    arguments = ["worker", "--pipeline", str(file), "--bootstrap", embedded, "--namespace", namespace, "--metrics-port", "0"]
    users = [b"%d" % (number % 5000) for number in range(EVENTS)]
    async with feeder(embedded, topics.events) as events:
        await events.send(users, [b'{"user":"%b"}' % user for user in users])
    progress: list[dict[str, Any]] = []
    with Children() as children:
        first = children.start("worker", arguments)
        async with follower(embedded, [topics.decisions]) as verdicts:
            decided = 0
            while decided < EVENTS:
                decided += len(await verdicts.poll(100))
                children.check()
        assert first.stop(12.0) == 0, first.last_words()
    for _ in range(STARTS):
        with Children() as children:
            worker = children.start("worker", arguments)
            address = address_of(worker)
            status, why = page(address, "/healthz/ready")
            assert (status, why) == (503, "no partitions are assigned\n") or "is loaded to" in why
            while status != 200:
                children.check()
                detail = json.loads(page(address, "/healthz/detail")[1])
                progress += detail["state"]["loading"].values()
                status, why = page(address, "/healthz/ready")
            detail = json.loads(page(address, "/healthz/detail")[1])
            assert sum(one["position"] for one in detail["state"]["partitions"].values()) == EVENTS
            assert detail["ready"] and detail["state"]["loading"] == {}
            assert worker.stop(12.0) == 0, worker.last_words()
        if progress:
            break
    assert progress, "no look at it found a partition that was being loaded"
    assert all(set(one) == {"share", "rows_per_s", "seconds_left"} and 0 <= one["share"] <= 1 for one in progress), progress


def test_the_pace_and_what_is_left_follow_from_what_is_loaded() -> None:
    assert Loading(10.0, 0.25, 500).figures(12.0) == {"share": 0.25, "rows_per_s": 250, "seconds_left": 6.0}
    assert Loading(10.0).figures(12.0) == {"share": 0.0, "rows_per_s": 0, "seconds_left": None}, "nothing came yet"
