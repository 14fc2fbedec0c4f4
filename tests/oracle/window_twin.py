"""The contract of the windows said again in plain Python, row by row: lists and Decimal, nothing shared with the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

LATE, COLD, OVERFLOW = 2, 8, 32


@dataclass
class TwinEntity:
    entries: list[tuple[int, int, tuple[Decimal, ...], tuple[int, ...]]] = field(default_factory=list)  # time, arrival, values, keys
    seen: int = 0
    dropped: int | None = None


@dataclass
class TwinStore:
    """windows: (length, delay, include_current); aggregates: (kind, window, column, prior)."""

    windows: list[tuple[int, int, bool]]
    aggregates: list[tuple[str, int, int, float | None]]
    grace: int
    cap: int
    cold_below: int
    entities: dict[Any, TwinEntity] = field(default_factory=dict)
    arrival: int = 0

    @property
    def keep(self) -> int:
        return max(length + delay for length, delay, _ in self.windows) + self.grace

    def row(
        self, name: Any, t: int, high: int, values: tuple[Decimal, ...], keys: tuple[int, ...], mode: int
    ) -> tuple[list[tuple[Decimal | int, float]], int]:
        """Gives ([(exact, value)], flags) of one row and moves past it."""
        self.arrival += 1
        nothing: list[tuple[Decimal | int, float]] = [(0, math.nan)] * len(self.aggregates)
        if name is None or mode == 0:
            return nothing, 0
        limit = high - self.keep
        for key in [key for key, entity in self.entities.items() if all(e[0] <= limit for e in entity.entries)]:
            del self.entities[key]
        event = bool(mode & 2)
        late = event and t < high - self.grace
        entity = self.entities.get(name)
        if entity is None:
            entity = TwinEntity()
            if event and not late:
                self.entities[name] = entity
        entity.entries = [e for e in entity.entries if e[0] > limit]
        earlier = [e for e in entity.entries if e[0] <= t]
        mine = (t, self.arrival, values, keys)
        if event and not late:
            entity.entries.append(mine)
            entity.entries.sort(key=lambda e: (e[0], e[1]))
            entity.seen += 1
        flags = LATE if late else 0
        out = nothing
        if mode & 1:
            cold = entity.seen + (1 if late else 0) < self.cold_below
            flags |= COLD if cold else 0
            out = []
            for kind, w, column, prior in self.aggregates:
                length, delay, include = self.windows[w]
                low = max(t - delay - length, limit)
                if entity.dropped is not None and entity.dropped > low:
                    flags |= OVERFLOW
                if delay:
                    inside = [e for e in entity.entries if low < e[0] <= t - delay]
                else:
                    inside = [e for e in earlier if low < e[0]] + ([mine] if include and event else [])
                out.append(self._aggregate(kind, column, inside, mine, t, prior if cold else None))
            for w in range(len(self.windows)):
                low = max(t - self.windows[w][0] - self.windows[w][1], limit)
                if entity.dropped is not None and entity.dropped > low:
                    flags |= OVERFLOW
        if event and not late and len(entity.entries) > self.cap:
            gone = entity.entries.pop(0)
            entity.dropped = gone[0] if entity.dropped is None else max(entity.dropped, gone[0])
        return out, flags

    def _aggregate(self, kind: str, column: int, inside: list[Any], mine: Any, t: int, prior: float | None) -> tuple[Decimal | int, float]:
        exact: Decimal | int
        if kind == "count":
            exact, value = len(inside), float(len(inside))
        elif kind == "distinct":
            exact = len({e[3][column] for e in inside})
            value = float(exact)
        elif kind == "since":
            before = [e[0] for e in inside if e is not mine]
            exact, value = (t - max(before), float(t - max(before))) if before else (-1, math.nan)
        elif kind == "max":
            exact = max((e[2][column] for e in inside), default=Decimal(0))
            value = float(exact) if inside else math.nan
        else:
            exact = sum((e[2][column] for e in inside), Decimal(0))
            if kind == "sum":
                value = float(exact)
            elif kind == "activity":
                value = math.log1p(float(exact))
            else:
                value = float(exact / len(inside)) if inside else math.nan
        return exact, value if prior is None else prior
