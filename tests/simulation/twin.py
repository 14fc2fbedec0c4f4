"""What the answers have to be, worked out from the input alone, row by row in plain Python; nothing here is shared with the pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.broker import Record
from tests.simulation.events import APPROVE_BELOW, BIAS, BLOCK_FROM, GRACE_MS, MEANS, SCALES, SKEW_MS, WEIGHTS, Event

CUSTOMER_KEEP_MS, CARD_KEEP_MS = 25_000 + GRACE_MS, 40_000 + GRACE_MS


@dataclass(frozen=True, slots=True)
class Expected:
    """What is true of one event: the offset of its first copy, its windows, and the score they lead to."""

    first: int
    features: dict[str, float]
    score: float
    terminal: str

    @property
    def route(self) -> str:
        """The route of the score; "" where it lies too near to a threshold to tell."""
        if min(abs(self.score - APPROVE_BELOW), abs(self.score - BLOCK_FROM)) < 1e-4:
            return ""
        return "approve" if self.score < APPROVE_BELOW else "block" if self.score >= BLOCK_FROM else "review"


@dataclass(frozen=True, slots=True)
class _Entry:
    time: int
    cents: int
    terminal: str


@dataclass(slots=True)
class Twin:
    """One partition, moved past its events in offset order."""

    partition: int
    high: int = -(1 << 62)
    seen: dict[str, int] = field(default_factory=dict)
    customers: dict[str, list[_Entry]] = field(default_factory=dict)
    cards: dict[str, list[_Entry]] = field(default_factory=dict)
    found: dict[int, Expected] = field(default_factory=dict)

    def take(self, record: Record, event: Event) -> None:
        """Moves past one good event."""
        time = record.timestamp if event.time_ms is None else event.time_ms
        if time > record.timestamp + SKEW_MS:
            time = record.timestamp
        name = event.event_id or f"{self.partition}-{record.offset}"
        first = self.seen.setdefault(name, record.offset)
        if first != record.offset:
            self.found[record.offset] = self._copy(first)
            return
        self.high = max(self.high, time)
        mine = _Entry(time, event.cents, event.terminal)
        customer, card = self.customers.setdefault(event.customer, []), self.cards.setdefault(event.card, [])
        earliest = self.high - CUSTOMER_KEEP_MS
        ten = [entry for entry in customer if max(time - 10_000, earliest) < entry.time <= time] + [mine]
        early = [entry for entry in customer if max(time - 25_000, earliest) < entry.time <= time - 5_000]
        forty = [entry for entry in card if max(time - 40_000, self.high - CARD_KEEP_MS) < entry.time <= time] + [mine]
        features = {
            "customer_10s_count": float(len(ten)),
            "customer_10s_sum_amount": sum(entry.cents for entry in ten) / 100,
            "customer_10s_max_amount": max(entry.cents for entry in ten) / 100,
            "customer_early_count": float(len(early)),
            "card_40s_count": float(len(forty)),
            "card_40s_distinct_terminal_id": float(len({entry.terminal for entry in forty})),
            "amount": event.cents / 100,
        }
        if time >= self.high - GRACE_MS:
            customer.append(mine)
            card.append(mine)
        inputs = (features[name] for name in ("customer_10s_count", "customer_10s_sum_amount", "card_40s_distinct_terminal_id", "amount"))
        margin = BIAS + sum(weight * (x - mean) / scale for x, mean, scale, weight in zip(inputs, MEANS, SCALES, WEIGHTS, strict=True))
        self.found[record.offset] = Expected(record.offset, features, 1 / (1 + math.exp(-margin)), event.terminal)

    def _copy(self, first: int) -> Expected:
        original = self.found[first]
        return Expected(first, {}, original.score, original.terminal)


def expect(partition: int, records: Sequence[Record], events: dict[int, Event]) -> dict[int, Expected]:
    """Takes a partition's records in offset order and what is true of them by offset; gives what every good event has to be answered."""
    twin = Twin(partition)
    for record in records:
        if events[record.offset].reason in ("", "verdict_too_large"):
            twin.take(record, events[record.offset])
    return twin.found
