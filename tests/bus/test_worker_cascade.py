"""A worker whose heavy tier is slow, fails or hangs: each event is answered, and the verdict says what was missing."""

from __future__ import annotations

import asyncio
import json
import threading
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamapp import pipeline
from streamapp.adapters.journal_memory import MemoryJournal
from streamapp.bus.feed import feeder
from streamapp.bus.follow import follower
from streamapp.bus.topics import Topics
from streamapp.cli.children import Children
from streamapp.control.release import assemble
from streamapp.core.errors import BusError
from streamapp.core.spec import parse_spec
from streamapp.prefetch import nothing_to_read
from streamapp.worker import Line
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
time_ms = 400
rows_per_call = 4
review = 0.7
block = "never"
"""


def heavy(columns: Mapping[str, Any]) -> Any:
    """Somebody's own Python: fails, hangs or has no number where the id says so, and turns the amount round elsewhere."""
    if any(name.startswith("fail") for name in columns["id"]):
        raise RuntimeError("no answer from there")
    if any(name.startswith("hang") for name in columns["id"]):
        threading.Event().wait()
    return [np.nan if name.startswith("none") else 1.0 - amount for name, amount in zip(columns["id"], columns["amount"], strict=True)]


def serving_of_file() -> pipeline.Serving:
    return assemble(parse_spec(tomllib.loads(FILE), "slow.toml", FILE), {}, b"test-key-of-16-b")


async def test_whatever_the_heavy_tier_does_each_event_has_one_verdict_and_it_says_what_was_missing(
    embedded: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "slow.toml").write_text(FILE)
    topics = Topics(namespace)
    groups = [
        [("ok-0", 0.01), ("ok-1", 0.2), ("ok-2", 0.5), ("ok-3", 0.99)],
        [("none-1", 0.5), ("ok-9", 0.6)],
        [("fail-1", 0.5), ("sure", 0.99)],
        [("hang-1", 0.5), ("sure-2", 0.01)],
        [("after", 0.5)],
    ]
    found: dict[str, dict[str, Any]] = {}
    arguments = ["worker", "--pipeline", str(tmp_path / "slow.toml"), "--bootstrap", embedded, "--namespace", namespace]
    with Children() as children:
        running = children.start("worker", [*arguments, "--metrics-port", "0"])
        async with (
            follower(embedded, [topics.approve, topics.review, topics.block]) as verdicts,
            feeder(embedded, topics.events) as events,
        ):
            for group in groups:  # one micro-batch each: the next is sent when the last one is answered
                values = [json.dumps({"event_id": name, "id": name, "amount": amount}).encode() for name, amount in group]
                await events.send([b"key"] * len(values), values)
                async with asyncio.timeout(60):
                    while any(name not in found for name, _ in group):
                        children.check()
                        found |= {one["event_id"]: one for one in (json.loads(record.value or b"") for record in await verdicts.poll(200))}
        assert running.stop(30) == 0, "a call that never comes back holds up no exit"
    told = {
        name: (one["verdict"], one["decided_by"], [(part["component"], part["cause"]) for part in one["degraded"]])
        for name, one in found.items()
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


class Lost:
    """A micro-batch whose partition is taken away while the heavy tier is asked."""

    def __init__(self) -> None:
        self.taken = False

    async def heard(self) -> None:
        """The group has nothing to say."""

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
