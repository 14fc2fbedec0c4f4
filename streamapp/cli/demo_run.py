"""One run of the demo, without its looks: events out at a bounded lag, answers in, everything measured on the way."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from streamapp.bus.feed import Feeder
from streamapp.bus.follow import Follower, Record
from streamapp.bus.topics import Topics
from streamapp.cli.demo_source import LabelFeed, Source
from streamapp.control.ledger import Ledger
from streamapp.core.deadletter import SOURCE_TOPIC
from streamapp.core.errors import BusError
from streamapp.core.route import ROUTE_NAMES

#: Events sent and not yet answered, at most: the embedded broker keeps 5 MiB per partition, and verdicts must fit as well.
WAITING_MAX = 6_000
CHUNK = 400  # events per send while as much as possible is sent
#: The run fails when nothing is answered for so long.
SILENCE_MAX_S = 30.0
_TICK_S = 0.02
_PACE_S = 0.01  # between two sends of a steady flow: a producer that lingers a little, as most do
Ticks = Sequence[Callable[[], None]]
_SECOND = 1.0
_KEPT_TEXTS = 4 * WAITING_MAX


class VerdictTimes(msgspec.Struct):
    """What is read of every verdict; the rest is read of samples only."""

    received_at: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the run: so many events at so many per second; rate None sends as fast as they are answered."""

    name: str
    events: int | None  # None: all that are left
    rate: float | None


@dataclass(slots=True)
class Timing:
    """Answers of one phase and how long each took, ms from append to when it was read here."""

    name: str
    rate: float | None
    events: int = 0
    started: float = 0.0
    ended: float = 0.0
    latency_ms: list[int] = field(default_factory=list)

    @property
    def events_per_s(self) -> float:
        """Answers per second over the phase."""
        return self.events / (self.ended - self.started) if self.ended > self.started else 0.0

    def figures(self) -> dict[str, Any]:
        """Gives the phase as one JSON-ready object."""
        p50, p99 = percentiles(self.latency_ms)
        return {
            "phase": self.name,
            "events": self.events,
            "seconds": round(self.ended - self.started, 3),
            "events_per_s": round(self.events_per_s),
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """A verdict or dead letter with the event it answers."""

    kind: str  #       approve, review, block or dead_letter
    event: bytes
    answer: Mapping[str, Any]
    opposite: str | None = None  # the label that would say otherwise

    @property
    def mistake(self) -> bool:
        """Whether the event's label says otherwise: what is good was blocked, what is bad was approved."""
        if self.opposite is None:
            return False
        event = msgspec.json.decode(self.event)
        return isinstance(event, dict) and event.get("label") == self.opposite

    @property
    def text(self) -> str:
        """What the event said, as far as it can be read."""
        try:
            event = msgspec.json.decode(self.event)
            return str(event["text"]) if "text" in event else f"{event['amount']:,.2f} dollars at terminal {event['terminal_id']}"
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            return self.event.decode("utf-8", "replace")


def percentiles(latency_ms: Sequence[int]) -> tuple[float | None, float | None]:
    """Gives median and 99th percentile, None without values."""
    if not latency_ms:
        return None, None
    p50, p99 = np.percentile(np.asarray(latency_ms), (50, 99)).tolist()
    return round(p50, 1), round(p99, 1)


class Run:
    """Feeds, follows and counts."""

    def __init__(
        self, feed: Feeder, follow: Follower, topics: Topics, source: Source, phases: Sequence[Phase], labels: LabelFeed | None = None
    ) -> None:
        self.ledger = Ledger(source.good, source.bad)
        self.good, self.bad = source.good, source.bad
        self.labels = labels
        self.label_letters = 0  # dead letters of what was no label
        self.timings: list[Timing] = []
        self.samples: list[Sample] = []
        self.reports: list[dict[str, Any]] = []  # of drift, by count windows
        self.seconds: deque[tuple[float, int, list[int]]] = deque(maxlen=120)  # (when, answers, latencies) of each past second
        self.peak_per_s = 0.0
        self.peak_waiting = 0
        self.started = time.monotonic()
        self._feed, self._follow, self._source, self._phases = feed, follow, source.events, phases
        self._route = {topics.approve: 0, topics.review: 1, topics.block: 2}
        self._dead_letters, self._monitoring, self._events = topics.dead_letters, topics.monitoring, topics.events.encode()
        self._texts: dict[tuple[int, int], bytes | None] = {}
        self._second: tuple[float, int, list[int]] = (self.started, 0, [])
        self._last_answer = self.started
        self._times = msgspec.json.Decoder(VerdictTimes)

    async def go(self, *ticks: Callable[[], None]) -> None:
        """Runs every phase and waits until all is answered, calling `ticks` some fifty times a second; raises BusError on silence."""
        reading = asyncio.create_task(self._read_for_ever())
        try:
            for phase in self._phases:
                timing = Timing(phase.name, phase.rate, started=time.monotonic())
                self.timings.append(timing)
                self._last_answer = timing.started
                await self._send(phase, ticks, reading)
                while self.ledger.waiting > 0:
                    await self._pause(ticks, reading)
                timing.ended = max(self._last_answer, timing.started)
            await self._linger(ticks, reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first event could have been sent."""
        return time.monotonic() - self.started

    async def _send(self, phase: Phase, ticks: Ticks, reading: asyncio.Task[None]) -> None:
        began, sent = time.monotonic(), 0
        while phase.events is None or sent < phase.events:
            due = CHUNK if phase.rate is None else int((time.monotonic() - began) * phase.rate) - sent
            room = min(due, WAITING_MAX - self.ledger.waiting, CHUNK)
            if phase.events is not None:
                room = min(room, phase.events - sent)
            if room <= 0:
                await self._pause(ticks, reading)
                continue
            events = list(islice(self._source, room))
            if not events:
                return
            if self.labels is not None:
                await self.labels.until(events)
            places = await self._feed.send([event.key for event in events], [event.value for event in events])
            for event, partition, offset in zip(events, places.partition.tolist(), places.offset.tolist(), strict=True):
                self.ledger.send(partition, offset, event.label, event.expected, drifted=event.drifted)
                self._texts[partition, offset] = event.value
            sent += len(events)
            self._forget()
            self.peak_waiting = max(self.peak_waiting, self.ledger.waiting)
            await self._pause(ticks, reading, seconds=0.0 if phase.rate is None else _PACE_S)

    async def _pause(self, ticks: Ticks, reading: asyncio.Task[None], seconds: float = _TICK_S) -> None:
        if reading.done():
            reading.result()
        if self.ledger.waiting > 0 and time.monotonic() - self._last_answer > SILENCE_MAX_S:
            raise BusError(
                f"{self.ledger.waiting:,} events have had no answer for {SILENCE_MAX_S:g} s",
                "the worker's own output says more (--log DIRECTORY); `streamapp doctor` checks broker and topics",
            )
        for tick in ticks:
            tick()
        await asyncio.sleep(seconds)

    async def _linger(self, ticks: Ticks, reading: asyncio.Task[None]) -> None:
        """Answers beyond the last one would be repeats; monitoring records of the last windows follow the verdicts."""
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            await self._pause(ticks, reading)

    async def _read_for_ever(self) -> None:
        while True:
            records = await self._follow.poll(wait_ms=200)
            now_ms = time.time_ns() // 1_000_000
            for record in records:
                self._take(record, now_ms)
            self._count_second()
            await asyncio.sleep(0)

    def _take(self, record: Record, now_ms: int) -> None:
        if record.topic == self._monitoring:
            report = msgspec.json.decode(record.value or b"{}")
            if report.get("type") == "drift" and report["window"]["kind"] == "count":
                self.reports.append(report)
            return
        if record.headers.get(SOURCE_TOPIC, self._events) != self._events:
            self.label_letters += 1
            return
        offset = int(record.headers.get("source-offset") or -1)
        if record.topic == self._dead_letters:
            reason = (record.headers.get("dlq.reason") or b"?").decode()
            first = self.ledger.reject(record.partition, offset, reason)
            if first and sum(self.ledger.dead_letters.values()) % 97 == 1:
                self._sample(
                    "dead_letter", record, {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers.items()}
                )
        else:
            route = self._route[record.topic]
            first = self.ledger.decide(record.partition, offset, route)
            latency_ms = now_ms - self._times.decode(record.value or b"").received_at
            self._second[2].append(latency_ms)
            if first and self.timings:
                self.timings[-1].latency_ms.append(latency_ms)
            if first and self.ledger.routes[ROUTE_NAMES[route]] % 61 == 7:
                self._sample(ROUTE_NAMES[route], record, msgspec.json.decode(record.value or b"{}"))
        if first:
            self._last_answer = time.monotonic()
            self._second = (self._second[0], self._second[1] + 1, self._second[2])
            if self.timings:
                self.timings[-1].events += 1

    def _sample(self, kind: str, record: Record, answer: Mapping[str, Any]) -> None:
        offset = int(record.headers.get("source-offset") or -1)
        event = self._texts.get((record.partition, offset))
        if event is not None:
            self.samples.append(Sample(kind, event, answer, {"block": self.good, "approve": self.bad}.get(kind)))
            del self.samples[:-200]

    def _count_second(self) -> None:
        began, answers, latencies = self._second
        now = time.monotonic()
        if now - began >= _SECOND:
            self.seconds.append((now, answers, latencies))
            self.peak_per_s = max(self.peak_per_s, answers / (now - began))
            self._second = (now, 0, [])

    def _forget(self) -> None:
        for place in list(islice(self._texts, max(0, len(self._texts) - _KEPT_TEXTS))):
            del self._texts[place]
