"""A pipeline of which every window is of a shared entity, and a worker of it without a bus; no broker, no files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamapp import pipeline
from streamapp.control.release import assemble
from streamapp.core.events import Segment
from streamapp.core.outcome import Outcome
from streamapp.core.spec import parse_spec
from streamapp.ports import SharedWindows
from tests.line import ENTITY_KEY

DOCUMENT: dict[str, Any] = {
    "pipeline": {"name": "shared", "version": "1", "description": "shared windows", "owner": "tests", "key": "customer_id"},
    "event": {
        "key_required": True,
        "fields": {
            "customer_id": {"type": "id", "required": True},
            "terminal_id": {"type": "id"},
            "ip": {"type": "id"},
            "amount": {"type": "number", "required": True},
        },
    },
    "velocity": {
        "terminal_10s": {
            "entity": "terminal_id", "window": "10s", "cold_below": 0,
            "aggregates": ["count", "sum:amount", "max:amount", "distinct:customer_id"],
        },
        "terminal_early": {
            "entity": "terminal_id", "window": "20s", "delay": "5s", "aggregates": ["count", "mean:amount"], "cold_below": 0,
        },
        "ip_1m": {"entity": "ip", "window": "1m", "aggregates": ["count", "since"], "cold_below": 0},
    },
}  # fmt: skip
SERVING = assemble(parse_spec(DOCUMENT, "tests"), {}, ENTITY_KEY)


class Event:
    """One payment: time in ms, who, where, and how much in cents."""

    def __init__(self, time: int, customer: int, terminal: str | None, ip: str | None, cents: int, event_id: str | None = None) -> None:
        self.time, self.customer, self.terminal, self.ip, self.cents = time, customer, terminal, ip, cents
        self.event_id = event_id or f"e{time}-{customer}"

    def value(self) -> bytes:
        given = {"event_id": self.event_id, "event_time": self.time, "customer_id": str(self.customer), "amount": self.cents / 100}
        given |= {name: text for name, text in (("terminal_id", self.terminal), ("ip", self.ip)) if text is not None}
        return json.dumps(given).encode()


class Worker:
    """Decides batches of events; customers are spread over `partitions` partitions, all of them this worker's."""

    def __init__(self, windows: SharedWindows, partitions: int = 2) -> None:
        self.windows, self._partitions = windows, partitions
        self._states = [SERVING.state.new() for _ in range(partitions)]
        self._next = [0] * partitions

    async def decide(self, events: Sequence[Event]) -> Outcome:
        """Gives the outcome of one micro-batch, not yet acknowledged."""
        segments = []
        for partition in range(self._partitions):
            mine = [event for event in events if event.customer % self._partitions == partition]
            offsets = np.arange(self._next[partition], self._next[partition] + len(mine), dtype=np.int64)
            self._next[partition] += len(mine)
            keys = [str(event.customer).encode() for event in mine]
            stamps = np.array([event.time for event in mine], np.int64)
            segments.append(Segment("t", partition, 1, offsets, stamps, keys, [event.value() for event in mine], [()] * len(mine)))
        plan = pipeline.plan(segments, SERVING)
        assert not plan.rejects
        read = await self.windows.read(SERVING.shared.asks(plan))
        return pipeline.decide(
            plan, pipeline.Read(degraded=read.degraded, shared=read), self._states, SERVING, 0, lambda: 0.0
        )  # fmt: skip

    async def run(self, events: Sequence[Event]) -> Outcome:
        """Decides and acknowledges."""
        outcome = await self.decide(events)
        await self.windows.write(outcome.shared)
        return outcome


def features(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Gives every row's features by event id."""
    return {
        event_id: dict(zip(outcome.features.names, row, strict=True))
        for event_id, row in zip(outcome.plan.event_id, outcome.features.values.tolist(), strict=True)
    }


def causes(outcome: Outcome) -> list[str]:
    """Gives why Redis is named in the verdicts."""
    return [one.cause for one in outcome.degraded if one.component == "redis"]


def brute(events: Sequence[Event]) -> dict[str, dict[str, float]]:
    """Gives what the windows are by their definition; events in event-time order, every one at a time of its own."""
    found = {}
    for event in events:

        def before(event: Event, name: str, length: int, delay: int = 0) -> list[Event]:
            who = getattr(event, name)
            return [
                one
                for one in events
                if who is not None and getattr(one, name) == who and event.time - delay - length < one.time <= event.time - delay
            ]

        ten, early, ip = before(event, "terminal", 10_000), before(event, "terminal", 20_000, 5_000), before(event, "ip", 60_000)
        earlier = [one.time for one in ip if one.time < event.time]
        found[event.event_id] = {
            "terminal_10s_count": float(len(ten)),
            "terminal_10s_sum_amount": sum(one.cents for one in ten) / 100,
            "terminal_10s_max_amount": max((one.cents for one in ten), default=0) / 100,
            "terminal_10s_distinct_customer_id": float(len({one.customer for one in ten})),
            "terminal_early_count": float(len(early)),
            "terminal_early_mean_amount": sum(one.cents for one in early) / (100 * max(1, len(early))),
            "ip_1m_count": float(len(ip)),
            "ip_1m_since": float(event.time - max(earlier)) if earlier else 60_000.0,
            "terminal_id_windows_missing": float(event.terminal is None),
            "ip_windows_missing": float(event.ip is None),
        }  # fmt: skip
    return found
