"""Events at an even rate, each sent in a phase, and what their verdicts say: waits by the broker's clock, routes, what was degraded."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer

from streamapp.bus.feed import Feeder
from streamapp.bus.topics import Topics


@dataclass(slots=True)
class Seen:
    """What one phase's events were answered with."""

    waits_ms: list[int] = field(default_factory=list)
    routes: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    sent: int = 0

    def told(self) -> dict[str, Any]:
        n = len(self.waits_ms)
        p50, p99 = np.percentile(self.waits_ms, [50, 99]).tolist() if n else (float("nan"), float("nan"))
        shares = {name: round(count / n, 3) for name, count in self.degraded.most_common()} if n else {}
        routes = {name: round(count / n, 3) for name, count in sorted(self.routes.items())} if n else {}
        return {
            "sent": self.sent, "verdicts": n, "p50_ms": p50, "p99_ms": p99, "worst_ms": max(self.waits_ms, default=0), "routes": routes,
            "degraded": shares, "missing_share": round(self.missing / n, 3) if n else 0.0,
        }  # fmt: skip


class Stream:
    """Events at an even rate, each sent in a phase, and what comes back of them."""

    def __init__(
        self, feed: Feeder, consumer: AIOKafkaConsumer, topics: Topics, keys: list[Any], bodies: list[dict[str, Any]], rate: int
    ) -> None:
        self._feed, self._consumer, self._topics, self.rate = feed, consumer, topics, rate
        self._keys, self._bodies = keys, bodies
        self.phase, self.seen, self.indicator = "start", {"start": Seen()}, ""
        self._sent: dict[str, str] = {}  #  phase by event
        self._open: set[str] = set()
        self.twice = 0
        self.last_named: frozenset[str] = frozenset()
        self._number = 0

    def enter(self, phase: str) -> None:
        """Begins a phase."""
        self.seen[phase] = Seen()
        self.phase = phase

    async def feed(self) -> None:
        """Sends for ever."""
        last, due = time.perf_counter(), 0.0
        while True:
            now = time.perf_counter()
            due, last = due + (now - last) * self.rate, now
            if due >= 1:
                values, keys = [], []
                for _ in range(int(due)):
                    place = self._number % len(self._bodies)
                    event_id = f"f{self._number}"
                    self._sent[event_id] = self.phase
                    self._open.add(event_id)
                    self.seen[self.phase].sent += 1
                    values.append(orjson.dumps(self._bodies[place] | {"event_id": event_id}))
                    keys.append(self._keys[place])
                    self._number += 1
                due %= 1
                await self._feed.send(keys, values)
            await asyncio.sleep(0.005)

    async def collect(self) -> None:
        """Takes verdicts and decision records for ever."""
        while True:
            for place, records in (await self._consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    self._take(place.topic, record)

    def _take(self, topic: str, record: Any) -> None:
        if topic == self._topics.dead_letters:
            raise SystemExit(f"a good event became a dead letter: {dict(record.headers)}")
        told = orjson.loads(record.value)
        if topic == self._topics.decisions:
            if self.indicator:
                self.seen[self._sent[told["event_id"]]].missing += int(told["features"].get(self.indicator, 0))
            return
        if told["event_id"] not in self._open:
            self.twice += 1
            return
        self._open.remove(told["event_id"])
        seen = self.seen[self._sent[told["event_id"]]]
        seen.waits_ms.append(record.timestamp - told["received_at"])
        seen.routes[told["verdict"]] += 1
        named = frozenset(f"{one['component']}:{one['cause']}" for one in told["degraded"])
        seen.degraded.update(named)
        self.last_named = named

    def open(self) -> int:
        """Gives how many events have no verdict yet."""
        return len(self._open)
