"""A worker whose heavy tier is slow, fails or hangs: each event is answered, and the verdict says what was missing."""

from __future__ import annotations

import asyncio
import json
import threading
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from streamapp import pipeline
from streamapp.adapters.aside import Aside
from streamapp.adapters.journal_memory import MemoryJournal
from streamapp.bus.app import build_app, run
from streamapp.bus.batch import BatchLimits
from streamapp.bus.emit import Delivery
from streamapp.bus.feed import feeder
from streamapp.bus.follow import follower
from streamapp.bus.producer import producing
from streamapp.bus.topics import Topics
from streamapp.cli.serve import nothing_to_read
from streamapp.control.release import assemble
from streamapp.core.errors import BusError
from streamapp.core.outcome import Outcome
from streamapp.core.spec import parse_spec
from streamapp.worker import Line, attach
from tests.line import segment

FILE = """
[pipeline]
name = "slow"
version = "1"
key = "id"

[event.fields.id]
type = "id"
required = true

[event.fields.amount]
type = "number"
required = true

[features.fields]
amount = { default = 0.0, low = 0.0, high = 1e6 }

[[tiers]]
name = "fast"
expression = "amount"
approve = 0.05
block = 0.95

[[tiers]]
name = "heavy"
callable = "tests.bus.test_worker_cascade:heavy"
version = "7"
reads = ["amount", "id"]
time_ms = 200
rows_per_call = 4
review = 0.7
block = "never"
"""
let_go = threading.Event()


def heavy(columns: Mapping[str, Any]) -> Any:
    """Somebody's own Python: fails, hangs or has no number where the id says so, and turns the amount round elsewhere."""
    if any(name.startswith("fail") for name in columns["id"]):
        raise RuntimeError("no answer from there")
    if any(name.startswith("hang") for name in columns["id"]):
        let_go.wait()
    return [np.nan if name.startswith("none") else 1.0 - amount for name, amount in zip(columns["id"], columns["amount"], strict=True)]


def serving_of_file() -> pipeline.Serving:
    return assemble(parse_spec(tomllib.loads(FILE), "slow.toml", FILE), {}, b"test-key-of-16-b")


@pytest.fixture
def released() -> Any:
    let_go.clear()
    yield
    let_go.set()


async def test_whatever_the_heavy_tier_does_each_event_has_one_verdict_and_it_says_what_was_missing(
    embedded: str, namespace: str, released: None
) -> None:
    topics, serving, seen = Topics(namespace), serving_of_file(), list[Outcome]()
    groups = [
        [(f"ok-{i}", amount) for i, amount in enumerate((0.01, 0.2, 0.5, 0.99))],
        [("none-1", 0.5), ("ok-9", 0.6)],
        [("fail-1", 0.5), ("sure", 0.99)],
        [("hang-1", 0.5), ("sure-2", 0.01)],
        [("after", 0.5)],
    ]
    app = build_app(f"{namespace}.slow", embedded, limits=BatchLimits(batch_max=100))
    stop = asyncio.Event()
    async with producing(embedded, {}) as producer, follower(embedded, [topics.approve, topics.review, topics.block]) as verdicts:
        journal = MemoryJournal(serving.state)
        line = Line(
            serving, Delivery(producer, topics), nothing_to_read, journal, lambda outcome, *_: seen.append(outcome), ask=Aside().ask
        )
        attach(app, topics.events, line)
        working = asyncio.create_task(run(app, stop))
        found: dict[str, dict[str, Any]] = {}
        async with feeder(embedded, topics.events) as events:
            for group in groups:  # one micro-batch each: the next is sent when the last one is answered
                values = [json.dumps({"event_id": name, "id": name, "amount": amount}).encode() for name, amount in group]
                await events.send([b"key"] * len(values), values)
                async with asyncio.timeout(30):
                    while any(name not in found for name, _ in group):
                        found |= {one["event_id"]: one for one in (json.loads(record.value or b"") for record in await verdicts.poll(200))}
        stop.set()
        await working
    told = {
        name: (one["verdict"], one["decided_by"], [(d["component"], d["cause"]) for d in one["degraded"]]) for name, one in found.items()
    }
    heavy_is = "model:heavy"
    assert told == {
        "ok-0": ("approve", "fast", []), "ok-1": ("review", "heavy", []), "ok-2": ("approve", "heavy", []), "ok-3": ("block", "fast", []),
        "none-1": ("review", "fast", [(heavy_is, "not_a_number")]), "ok-9": ("approve", "heavy", [(heavy_is, "not_a_number")]),
        "fail-1": ("review", "fast", [(heavy_is, "RuntimeError")]), "sure": ("block", "fast", [(heavy_is, "RuntimeError")]),
        "hang-1": ("review", "fast", [(heavy_is, "time_budget")]), "sure-2": ("approve", "fast", [(heavy_is, "time_budget")]),
        "after": ("review", "fast", [(heavy_is, "busy")]),
    }  # fmt: skip
    assert found["ok-1"]["versions"]["models"]["heavy"] == "callable/tests.bus.test_worker_cascade:heavy@7"
    assert found["ok-1"]["threshold"] == 0.7 and found["ok-1"]["probability"] == pytest.approx(0.8)
    assert set(found["ok-1"]["stages"]) >= {"tier:fast", "tier:heavy"}
    assert [use[:4] for use in seen[0].uses] == [("fast", 4, 4, 2), ("heavy", 2, 2, 2)]


class Lost:
    """A micro-batch whose partition is taken away while the heavy tier is asked."""

    def __init__(self) -> None:
        self.taken = False

    def only_owned(self) -> Lost:
        return Lost() if self.taken else self


async def test_a_partition_taken_away_while_a_tier_was_asked_stops_the_worker_unacked() -> None:
    serving, batch = serving_of_file(), Lost()
    steps = pipeline.deciding(
        pipeline.plan([segment([b'{"event_id": "e", "id": "ok", "amount": 0.5}'])], serving), pipeline.Read(), [serving.state.new()],
        serving, 0, lambda: 0.0,
    )  # fmt: skip

    async def ask(question: Any) -> Any:
        batch.taken = True
        return question.here()

    line = Line(serving, None, nothing_to_read, MemoryJournal(serving.state), lambda *_: None, ask=ask)  # type: ignore[arg-type]
    with pytest.raises(BusError, match="taken away while a slow tier was asked"):
        await line._waiting(steps, batch)  # type: ignore[arg-type]
