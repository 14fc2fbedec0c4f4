"""What the demo sends: generated events of the pipeline, or given ones, and beside payments the labels that come days later."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import IO

import orjson

from streamapp.bus.feed import Feeder
from streamapp.cli.lines import chunks, field_of, key_of
from streamapp.control.garbage import PAYMENTS, Breaker
from streamapp.control.generate import Generated, Mix, messages
from streamapp.control.payments import DAY_MS, PaymentMix, payments
from streamapp.control.payments_labels import Told, payment_labels
from streamapp.core.errors import ConfigError

#: Pipelines with a generator.
GENERATED = ("messages", "payments")
#: Customers of the generated payments: few, so that the demo's events are weeks, and labels come in time to matter.
CUSTOMERS, PER_CUSTOMER_A_DAY = 1_000, 2.0
BROKEN, BROKEN_LABELS = 0.01, 0.002
BAD_LABELS = (b"", b"no label", b'{"label": "fraud"}', b'{"event_id": "x", "event_time": 1, "terminal_id": "t", "label": "guilty"}')


@dataclass(frozen=True, slots=True)
class Source:
    """Events, and labels in the order in which they are told; None where the pipeline has none."""

    events: Iterator[Generated]
    labels: Iterator[Told] | None = None
    good: str = "ham"
    bad: str = "spam"


def source_of(pipeline: str, key: str, given: IO[bytes] | None, count: int, seed: int) -> Source:
    """Gives what is sent; event time of generated events ends about now. Raises ConfigError for a pipeline nobody generates for."""
    now_ms = int(time.time() * 1000)
    if given is not None:
        return Source(_given(given, key)) if pipeline != "payments" else Source(_given(given, key), None, "genuine", "fraud")
    if pipeline == "messages":
        mix = Mix(seed=seed)
        return Source(messages(count, replace(mix, start_ms=int(now_ms - count / mix.events_per_s * 1000))))
    if pipeline == "payments":
        days = int(count / (CUSTOMERS * PER_CUSTOMER_A_DAY)) + 1
        paid = PaymentMix(seed=seed, customers=CUSTOMERS, terminals=2 * CUSTOMERS, start_ms=now_ms - days * DAY_MS)
        events, labels = spoiled(payments(count, paid), BROKEN, seed), payment_labels(count, paid)
        return Source(events, spoiled_labels(labels, BROKEN_LABELS, seed), "genuine", "fraud")
    raise no_generator(pipeline)


def no_generator(pipeline: str) -> ConfigError:
    """Gives the refusal of a pipeline that nobody generates events for."""
    return ConfigError(f"nobody generates events of pipeline {pipeline}", "bring some: --input FILE")


def spoiled(records: Iterator[Generated], share: float, seed: int) -> Iterator[Generated]:
    """Breaks a share of good payments, each in one way with one right answer; equal arguments give equal bytes."""
    source = Random(seed)
    breaker = Breaker(lambda: source.getrandbits(16), PAYMENTS)
    for record in records:
        if source.random() < share and record.value is not None:
            key, value, code = breaker.broken(orjson.loads(record.value))
            yield replace(record, key=key, value=value, label=None, expected=code)
        else:
            yield record


def spoiled_labels(labels: Iterator[Told], share: float, seed: int) -> Iterator[Told]:
    """Puts what is no label between the labels."""
    source = Random(seed)
    for told in labels:
        yield told
        if source.random() < share:
            yield Told(told.told_ms, Generated(None, source.choice(BAD_LABELS), None, "no label"))


class LabelFeed:
    """Sends labels as event time passes the moment they are told."""

    def __init__(self, feed: Feeder, labels: Iterator[Told]) -> None:
        self._feed, self._labels = feed, labels
        self._next: Told | None = next(labels, None)
        self.sent = self.broken = 0

    async def until(self, events: Sequence[Generated]) -> None:
        """Sends what is told before the newest of the events that says when it happened."""
        times = (field_of(event.value, "event_time") for event in reversed(events))
        newest = next((at for at in times if isinstance(at, int)), None)
        if newest is None:
            return
        due: list[Generated] = []
        while self._next is not None and self._next.told_ms <= newest:
            due.append(self._next.label)
            self._next = next(self._labels, None)
        self.sent += len(due)
        self.broken += sum(label.expected is not None for label in due)
        if due:
            await self._feed.send([label.key for label in due], [label.value for label in due])


def _given(source: IO[bytes], key: str) -> Iterator[Generated]:
    for chunk in chunks(source, 1_000):
        for value in chunk:
            label = field_of(value, "label")
            yield Generated(key_of(value, key), value, label if isinstance(label, str) else None)
