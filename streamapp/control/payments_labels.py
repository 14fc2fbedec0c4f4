"""What turns out to be true of generated `payments`: labels that come days later, some late, some never, some wrong at first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count as numbers

import numpy as np
import orjson

from streamapp.control.generate import Generated
from streamapp.control.payments import DAY_MS, FRAUD, GENUINE, PaymentMix, day_of, event_name
from streamapp.control.payments_world import world_of


@dataclass(frozen=True, slots=True)
class LabelMix:
    """When labels come; days after their payment, uniform between the two ends. Shares are of all payments."""

    fraud_days: tuple[float, float] = (1.0, 6.5)
    genuine_days: tuple[float, float] = (4.0, 7.0)
    late: float = 0.02  #       come up to `late_days` later than that
    late_days: float = 10.0
    never: float = 0.02
    wrong_first: float = 0.003  #  are said to be the opposite a day before


@dataclass(frozen=True, slots=True)
class Told:
    """One label and when it is told, epoch ms."""

    told_ms: int
    label: Generated


def payment_labels(count: int, mix: PaymentMix, labels: LabelMix | None = None) -> Iterator[Told]:
    """Gives the labels of `payments(count, mix)` in the order in which they are told; equal arguments give equal bytes."""
    labels = labels or LabelMix()
    world = world_of(mix.seed, mix.customers, mix.terminals)
    waiting: list[tuple[int, int, bytes, bytes]] = []
    serial = numbers()
    first = 0
    for day in numbers():
        if first >= count:
            break
        made, source = day_of(world, mix, day), world.label_source(day)
        n = len(made.time_ms)
        fraud = made.scenario > 0
        low = np.where(fraud, labels.fraud_days[0], labels.genuine_days[0])
        high = np.where(fraud, labels.fraud_days[1], labels.genuine_days[1])
        days = source.uniform(low, high) + np.where(source.random(n) < labels.late, source.uniform(0, labels.late_days, n), 0)
        told = made.time_ms + np.rint(days * DAY_MS).astype(np.int64)
        never, wrong = source.random(n) < labels.never, source.random(n) < labels.wrong_first
        columns = (made.time_ms, told, fraud, never, wrong, world.terminal_name[made.terminal], world.customer_name[made.customer])
        for number, (time_ms, told_ms, is_fraud, is_never, is_wrong, terminal, customer) in enumerate(
            zip(*(column[: count - first].tolist() for column in columns), strict=True), first
        ):
            if is_never:
                continue
            said = {"event_id": event_name(mix, number), "event_time": time_ms, "terminal_id": terminal}
            words = [(told_ms, is_fraud, "chargeback" if is_fraud else "settled")]
            if is_wrong:
                words = [(max(time_ms, told_ms - DAY_MS), not is_fraud, "customer"), (told_ms, is_fraud, "analyst")]
            for at, positive, by in words:
                word = {**said, "label": FRAUD if positive else GENUINE, "labelled_at": at, "source": by}
                heappush(waiting, (at, next(serial), customer.encode(), orjson.dumps(word)))
        first += n
        known_ms = mix.start_ms + (day + 1) * DAY_MS  # nothing of a later day is told before it begins
        while waiting and waiting[0][0] < known_ms:
            yield _given(waiting)
    while waiting:
        yield _given(waiting)


def _given(waiting: list[tuple[int, int, bytes, bytes]]) -> Told:
    at, _, key, value = heappop(waiting)
    return Told(at, Generated(key, value, None))
