"""What a partition's events must be answered with, said again in plain Python from the input alone.

Shares no code with the program: JSON from the standard library, whole cents, lists scanned from end to end.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
#: Bytes that no verdict can hold: the broker takes a megabyte at once.
MEMO_BYTES_MAX = 500_000


class Window(NamedTuple):
    """One windowed feature: `kind` over what `entity` did in (t - length, t]; `of` is the field that is summed or told apart."""

    name: str
    entity: str
    length_ms: int
    kind: str
    of: str = ""


@dataclass(frozen=True, slots=True)
class Contract:
    """What one pipeline promises: its key, what every event carries, its windows, how late is late, and whether it scores by formula."""

    key: str
    required: tuple[str, ...]
    windows: tuple[Window, ...]
    grace_ms: int
    scored: bool

    def keep_ms(self, entity: str) -> int:
        """Gives how long an entry of `entity` can matter."""
        return max(one.length_ms for one in self.windows if one.entity == entity) + self.grace_ms


COUNTS = Contract(
    "user_id",
    ("user_id", "card_id"),
    (
        Window("user_10m_count", "user_id", 10 * MINUTE_MS, "count"),
        Window("user_10m_sum_amount", "user_id", 10 * MINUTE_MS, "sum"),
        Window("user_10m_max_amount", "user_id", 10 * MINUTE_MS, "max"),
        Window("user_1h_count", "user_id", HOUR_MS, "count"),
        Window("user_1h_sum_amount", "user_id", HOUR_MS, "sum"),
        Window("user_1h_distinct_card_id", "user_id", HOUR_MS, "distinct", "card_id"),
        Window("card_10m_count", "card_id", 10 * MINUTE_MS, "count"),
    ),
    MINUTE_MS,
    scored=True,
)
#: The local windows of pipelines/payments.toml; those of terminal, ip and device are shared, and promised eventually only.
PAYMENTS = Contract(
    "customer_id",
    ("customer_id", "card_id", "terminal_id"),
    (
        Window("customer_10m_count", "customer_id", 10 * MINUTE_MS, "count"),
        Window("customer_1h_sum_amount", "customer_id", HOUR_MS, "sum"),
        Window("customer_24h_distinct_country", "customer_id", 24 * HOUR_MS, "distinct", "country"),
        Window("customer_30d_count", "customer_id", 720 * HOUR_MS, "count"),
        Window("card_10m_sum_amount", "card_id", 10 * MINUTE_MS, "sum"),
        Window("card_24h_count", "card_id", 24 * HOUR_MS, "count"),
        Window("card_30d_count", "card_id", 720 * HOUR_MS, "count"),
    ),
    5 * MINUTE_MS,
    scored=False,
)


@dataclass(frozen=True, slots=True)
class Expected:
    """The right answer to one record: a dead letter, or a verdict; of a copy, that of the first one."""

    event_id: str = ""
    dead: bool = False
    copy_of: int | None = None  #          source offset of the first one
    late: bool = False
    windows: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None  #          None: not to be compared
    route: str = ""  #                     empty: not to be compared


@dataclass(slots=True)
class _Partition:
    high_ms: int = -1
    first: dict[str, tuple[int, Expected]] = field(default_factory=dict)
    entries: dict[tuple[str, str], list[tuple[int, int, Any]]] = field(default_factory=lambda: defaultdict(list))


class Recount:
    """Takes the records of every partition in the order of their offsets; gives what each must be answered with."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._partitions: dict[int, _Partition] = defaultdict(_Partition)

    def take(self, partition: int, offset: int, key: bytes | None, value: bytes | None) -> Expected:
        """Cost is linear in what the event's entities have in their windows."""
        event = self._readable(key, value)
        if event is None:
            return Expected(dead=True)
        here = self._partitions[partition]
        known = here.first.get(event["event_id"])
        if known is not None:
            first, said = known
            return Expected(said.event_id, said.dead, first, windows=said.windows, score=said.score, route=said.route)
        answer = self._decided(here, offset, event)
        here.first[event["event_id"]] = offset, answer
        return answer

    def _readable(self, key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
        try:
            event = json.loads((value or b"").decode("utf-8"))
        except ValueError:
            return None
        if not isinstance(event, dict) or not isinstance(event.get("amount"), int | float) or event["amount"] < 0:
            return None
        if not all(isinstance(event.get(name), str) for name in self._contract.required):
            return None
        return event if key == event[self._contract.key].encode() else None

    def _decided(self, here: _Partition, offset: int, event: Mapping[str, Any]) -> Expected:
        at_ms, cents = int(event["event_time"]), round(event["amount"] * 100)
        here.high_ms = max(here.high_ms, at_ms)
        late = at_ms < here.high_ms - self._contract.grace_ms
        windows: dict[str, float] = {}
        for entity in {window.entity for window in self._contract.windows}:
            entries = here.entries[entity, event[entity]]
            oldest_ms = here.high_ms - self._contract.keep_ms(entity)
            mine = (at_ms, cents, event)
            for window in self._contract.windows:
                if window.entity == entity:
                    since_ms = max(at_ms - window.length_ms, oldest_ms)
                    windows[window.name] = _value(window, [one for one in entries if since_ms < one[0] <= at_ms] + [mine])
            if not late:
                entries.append(mine)
        if not self._contract.scored:
            return Expected(event["event_id"], late=late, windows=windows)
        if len(event.get("memo") or "") > MEMO_BYTES_MAX:
            return Expected(event["event_id"], dead=True, late=late)
        score = 1 / (1 + math.exp(-(0.6 * windows["user_10m_count"] + 0.004 * windows["user_1h_sum_amount"] - 5)))
        route = "approve" if score < 0.5 else "review" if score < 0.8 else "block"
        return Expected(event["event_id"], late=late, windows=windows, score=score, route=route)


def _value(window: Window, inside: Sequence[tuple[int, int, Mapping[str, Any]]]) -> float:
    if window.kind == "count":
        return len(inside)
    if window.kind == "distinct":
        return len({event.get(window.of) for _, _, event in inside})
    cents = [one[1] for one in inside]
    return (max(cents) if window.kind == "max" else sum(cents)) / 100
