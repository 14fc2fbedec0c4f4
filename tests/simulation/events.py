"""The events of a simulation and the pipeline that decides them: payments of a few customers, some late, skewed, copied or broken."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp import pipeline
from streamapp.control.release import assemble
from streamapp.core.card import Calibration, Card, Scaler, Threshold
from streamapp.core.spec import parse_spec
from streamapp.core.vectorise import Contributions, Inputs
from tests.simulation.loop import MIND

GRACE_MS, SKEW_MS = 2_000, 60_000
TERMINALS = 4
TIER_MS = 200
NUMERIC = ("customer_10s_count", "customer_10s_sum_amount", "card_40s_distinct_terminal_id", "amount")
MEANS, SCALES, WEIGHTS, BIAS = (2.0, 60.0, 1.0, 20.0), (2.0, 80.0, 1.0, 15.0), (0.9, 0.6, 0.4, 0.7), -0.4
APPROVE_BELOW, BLOCK_FROM = 0.4, 0.8

DOCUMENT: dict[str, Any] = {
    "pipeline": {"name": "simulated", "version": "1", "description": "windows under faults", "owner": "tests", "key": "customer_id"},
    "event": {
        "key_required": True,
        "fields": {
            "customer_id": {"type": "id", "required": True},
            "card_id": {"type": "id", "required": True},
            "terminal_id": {"type": "id", "required": True},
            "amount": {"type": "number", "required": True},
        },
    },
    "entities": {"colocated": ["card_id"]},
    "state": {"horizon": "1h", "skew_max": "1m"},
    "features": {"fields": {"amount": {"default": 0.0, "low": 0.0, "high": 1e6}}},
    "velocity": {
        "customer_10s": {
            "entity": "customer_id", "window": "10s", "grace": "2s", "cold_below": 0, "aggregates": ["count", "sum:amount", "max:amount"],
        },
        "customer_early": {
            "entity": "customer_id", "window": "20s", "delay": "5s", "grace": "2s", "cold_below": 0, "aggregates": ["count"],
        },
        "card_40s": {"entity": "card_id", "window": "40s", "grace": "2s", "cold_below": 0, "aggregates": ["count", "distinct:terminal_id"]},
        "terminal_1h": {"entity": "terminal_id", "window": "1h", "cold_below": 0, "aggregates": ["count"]},
    },
    "vector": {"numeric": list(NUMERIC)},
    "verdict": {"fields": ["decision_id", "event_id", "verdict", "decided_by", "score", "degraded", "flags", "source"]},
}  # fmt: skip


class Scorer:
    """A linear model that fails when the process it runs in is told to."""

    calibration = Calibration("none")

    def __init__(self) -> None:
        cut = [Threshold(value, "test", value, value, value, 100) for value in (BLOCK_FROM, APPROVE_BELOW)]
        self.card = Card(
            name="simulated", version="1", task="binary", labels=("fraud",), framework="none", created_at="", created_by="",
            feature_spec="", scaler=Scaler(NUMERIC, MEANS, SCALES), ngram_buckets=0, onnx_sha256="", calibration_sha256="",
            linear=False, block=cut[0], approve=cut[1],
        )  # fmt: skip

    def logits(self, inputs: Inputs) -> npt.NDArray[np.float64]:
        """Gives margins [n, 1], or fails as its process is told."""
        mind = MIND.get()
        fault = "" if mind is None else mind.model_fault
        if fault == "raises":
            raise RuntimeError("the model is broken")
        margins = (inputs.numeric.astype(np.float64) @ np.array(WEIGHTS) + BIAS)[:, None]
        return np.full_like(margins, np.nan) if fault == "nan" else margins

    def contributions(self, inputs: Inputs) -> Contributions:
        """Gives nothing: nobody asks."""
        return Contributions(np.zeros(inputs.numeric.shape), np.zeros(0))


def serving(*, slow: bool) -> pipeline.Serving:
    """Gives the Serving of the simulated pipeline; a slow one asks its model beside the loop."""
    tiers = [{"name": "fast", "model": "simulated"} | ({"time_ms": TIER_MS} if slow else {})]
    return assemble(parse_spec(DOCUMENT | {"tiers": tiers}, "simulation"), {"fast": Scorer()}, b"key-of-sixteen-b")


@dataclass(slots=True)
class Event:
    """One record of the input and what is true of it; `reason` is that of the dead letter it has to become, "" for a verdict."""

    key: bytes | None
    value: bytes | None
    reason: str = ""
    event_id: str = ""  #   given id; "" where the place in the log is the id
    time_ms: int | None = None
    customer: str = ""
    card: str = ""
    terminal: str = ""
    cents: int = 0


class Producers:
    """Makes events, seeded; what it made of a partition may be sent again."""

    def __init__(self, random: Random, partitions: int) -> None:
        self._random, self._partitions = random, partitions
        self._customers = [f"c{number}" for number in range(3 * partitions)]
        self._made: dict[int, list[Event]] = {number: [] for number in range(partitions)}
        self._count = 0

    def event(self, now_ms: int) -> tuple[int, Event]:
        """Gives a partition and an event for it."""
        random = self._random
        place = random.randrange(len(self._customers))
        partition, customer = place % self._partitions, self._customers[place]
        made = self._made[partition]
        kind = random.random()
        if made and kind < 0.07:
            return partition, random.choice(made[-12:])
        event = self._good(now_ms, customer)
        if kind < 0.11:
            return partition, self._broken(event)
        made.append(event)
        return partition, event

    def probes(self, now_ms: int) -> list[tuple[int, Event]]:
        """Gives an event of every customer and card: what their windows answer is what the state has become."""
        found = []
        for place, customer in enumerate(self._customers):
            for card in range(2):
                event = self._good(now_ms, customer, card, plain=True)
                found.append((place % self._partitions, event))
        return found

    def last(self, now_ms: int) -> list[Event]:
        """Gives an event of every terminal, all of one customer of partition 0."""
        found = [self._good(now_ms, self._customers[0], 0, plain=True) for _ in range(TERMINALS)]
        for number, event in enumerate(found):
            assert event.value is not None
            document = json.loads(event.value) | {"terminal_id": f"t{number}", "event_time": now_ms}  # after all that was before
            event.value, event.terminal, event.time_ms = json.dumps(document).encode(), f"t{number}", now_ms
        return found

    def _good(self, now_ms: int, customer: str, card: int | None = None, *, plain: bool = False) -> Event:
        random = self._random
        self._count += 1
        kind = 1.0 if plain else random.random()
        event_id = f"e{self._count}"
        time_ms: int | None = now_ms - random.randint(0, 1_500)
        if kind < 0.03:
            time_ms = now_ms - random.randint(4_000, 30_000)  # late
        elif kind < 0.05:
            time_ms = now_ms + random.randint(2 * SKEW_MS, 10 * SKEW_MS)  # a clock that is wrong
        elif kind < 0.08:
            time_ms = None  # takes the broker's
        elif kind < 0.10:
            event_id = ""
        elif kind < 0.11:
            event_id += "x" * 190  # its verdict is larger than the broker takes
        number = random.randrange(2) if card is None else card
        event = Event(customer.encode(), None, "", event_id, time_ms, customer, f"{customer}-{number}", f"t{random.randrange(TERMINALS)}")
        event.cents = random.randint(100, 9_000)
        event.reason = "verdict_too_large" if len(event_id) > 100 else ""
        document = {"customer_id": customer, "card_id": event.card, "terminal_id": event.terminal, "amount": event.cents / 100}
        document |= {} if time_ms is None else {"event_time": time_ms}
        document |= {"event_id": event_id} if event_id else {}
        event.value = json.dumps(document).encode()
        return event

    def _broken(self, event: Event) -> Event:
        assert event.value is not None
        return self._random.choice(
            [
                Event(event.key, event.value[:-5], "invalid_json"),
                Event(b"somebody", event.value, "key_mismatch"),
                Event(event.key, event.value.replace(b'"amount"', b'"amnt"'), "missing_field"),
                Event(event.key, None, "null_value"),
            ]
        )
