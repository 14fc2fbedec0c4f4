"""What do exact windows cost? Time per event by batch, windows and aggregates; memory of a million entities; recovery in rows/s.

Each figure is the median of five runs, with the lowest and highest beside it; time is wall time of the calls alone, growth included.
`--memory` adds the million entities (about a minute).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.dedupe import DECISION, SeenIds
from streamapp.core.windows import Aggregate, StorePlan, Window, WindowStore, warm_up
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_index import hash_names

Int64 = npt.NDArray[np.int64]
LENGTHS_MS = (60_000, 3_600_000, 86_400_000, 604_800_000, 2_592_000_000)
RUNS = 5


def plan_of(windows: int, *, rich: bool) -> StorePlan:
    kinds = ("count", "sum", "mean", "max", "distinct") if rich else ("count", "sum")
    aggregates = tuple(Aggregate(kind, window) for window in range(windows) for kind in kinds)
    return StorePlan(tuple(Window(length) for length in LENGTHS_MS[:windows]), aggregates, (2,), 1 if rich else 0)


class Traffic:
    """Endless seeded rows: entities drawn evenly, `gap_ms` of event time between rows, times in order within a batch."""

    def __init__(self, entities: int, gap_ms: int, keys: int) -> None:
        self._rng, self._gap_ms, self._keys, self._now = np.random.default_rng(7), gap_ms, keys, 1_700_000_000_000
        self._names = self._rng.integers(-(1 << 62), 1 << 62, (entities, 2))

    def rows(self, n: int) -> tuple[Int64, ...]:
        at = self._now + np.sort(self._rng.integers(0, n * self._gap_ms, n))
        self._now += n * self._gap_ms
        names = self._names[self._rng.integers(0, len(self._names), n)]
        return names, at, at, self._rng.integers(1, 10_000, (n, 1)), self._rng.integers(0, 50, (n, self._keys))

    def ids(self, n: int) -> Int64:
        return self._rng.integers(-(1 << 62), 1 << 62, (n, 2))


def timed(work: Callable[..., Any], batches: list[tuple[Any, ...]]) -> float:
    started = time.perf_counter()
    for batch in batches:
        work(*batch)
    return time.perf_counter() - started


def spread(figures: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(figures), 4), "low": round(min(figures), 4), "high": round(max(figures), 4)}


def cost(entities: int, windows: int, batch: int, *, rich: bool) -> dict[str, Any]:
    """Microseconds per event once the store has seen eight rows per entity."""
    store, traffic = WindowStore(plan_of(windows, rich=rich)), Traffic(entities, 20, int(rich))
    for _ in range(8 * entities // 4096 + 1):
        store.advance(*traffic.rows(4096))
    n = 100_000 if batch > 1 else 5_000
    figures = [1e6 * timed(store.advance, [traffic.rows(batch) for _ in range(n // batch)]) / (n // batch * batch) for _ in range(RUNS)]
    return {
        "entities": entities,
        "windows": windows,
        "aggregates": len(store.plan.aggregates),
        "batch": batch,
        "us_per_event": spread(figures),
    }


def recovery(entities: int) -> dict[str, Any]:
    """Deltas applied without answers, and a snapshot taken and planted."""
    store, traffic = WindowStore(plan_of(3, rich=False)), Traffic(entities, 20, 0)
    applied = []
    for _ in range(RUNS):
        batches = [traffic.rows(2048) for _ in range(200)]
        applied.append(200 * 2048 / timed(store.apply, batches) / 1e6)
    high = int(batches[-1][2][-1])
    started = time.perf_counter()
    saved = store.snapshot(high)
    taken = time.perf_counter()
    WindowStore(store.plan).restore(saved)
    planted = time.perf_counter()
    return {
        "entities": len(store),
        "entries": store.held,
        "applied_million_rows_per_s": spread(applied),
        "snapshot_s": round(taken - started, 3),
        "restore_s": round(planted - taken, 3),
        "snapshot_bytes_per_entity": round(sum(a.nbytes for a in saved.values()) / len(store)),
    }


def ids() -> dict[str, Any]:
    """Event ids: hashing them, and admitting and settling them over a horizon of a million rows."""
    names = [f"evt-{number:024d}" for number in range(2048)]
    seen, clock, now = SeenIds(1_000_000), Clock(60_000), 0
    traffic, hashing, admitting, settling = Traffic(1, 1, 0), [], [], []
    decided = np.zeros(2048, DECISION)
    for run in range(RUNS + 1):
        totals = [0.0, 0.0]
        batches = [traffic.ids(2048) for _ in range(250)]
        for batch in batches:
            at = now + np.arange(2048)
            now += 2048
            started = time.perf_counter()
            admission = seen.admit(batch, at, at, clock)
            between = time.perf_counter()
            seen.settle(admission, decided)
            totals[0], totals[1] = totals[0] + between - started, totals[1] + time.perf_counter() - between
        if run:  # the first run fills the horizon
            hashing.append(1e6 * timed(hash_names, [(names,)] * 50) / (50 * 2048))
            admitting.append(1e6 * totals[0] / (250 * 2048))
            settling.append(1e6 * totals[1] / (250 * 2048))
    return {"hash_us": spread(hashing), "admit_us": spread(admitting), "settle_us": spread(settling)}


def growth(rows: int = 600_000, batch: int = 256) -> dict[str, Any]:
    """The longest calls, in ms, while one partition takes `rows` rows: how long an event may wait for memory that doubles."""
    store, seen, clock = WindowStore(plan_of(5, rich=True)), SeenIds(1 << 40), Clock(60_000)
    traffic = Traffic(rows, 10, 1)
    advancing, admitting = [], []
    for _ in range(rows // batch):
        columns, ids = traffic.rows(batch), traffic.ids(batch)
        advancing.append(1e3 * timed(store.advance, [columns]))
        admitting.append(1e3 * timed(seen.admit, [(ids, columns[1], columns[1], clock)]))
    told = {"entities": len(store), "entries": store.held, "ids": len(seen), "batch": batch}
    for name, calls in (("windows", advancing), ("ids", admitting)):
        told[f"{name}_ms"] = {"median": round(statistics.median(calls), 2), "longest": [round(ms, 1) for ms in sorted(calls)[:-6:-1]]}
    return told


def million() -> dict[str, Any]:
    """A million entities, three windows of up to an hour, memory after every window length of traffic."""
    lengths = (60_000, 600_000, 3_600_000)
    plan = StorePlan(
        tuple(Window(x) for x in lengths), tuple(Aggregate(k, w) for w in range(3) for k in ("count", "sum", "max", "distinct")), (2,), 1
    )
    traffic, rounds, figures = Traffic(1_000_000, 1, 1), [], []
    store = WindowStore(plan)
    for _ in range(4):  # 3.6 million rows to an hour: every entity 3.6 times
        started = time.perf_counter()
        for _ in range(3_600_000 // 2048 + 1):
            store.advance(*traffic.rows(2048))
        figures.append(time.perf_counter() - started)
        rounds.append(
            {
                "entities": len(store),
                "entries": store.held,
                "arrays_MB": store.memory_bytes // 1_000_000,
                "peak_rss_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
            }
        )
    return {"after_each_hour": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true", help="also a million entities")
    wanted = parser.parse_args()
    started = time.perf_counter()
    warm_up()
    figures: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "warm_up_s": round(time.perf_counter() - started, 2)}
    figures["cost"] = [
        cost(entities, windows, batch, rich=rich)
        for entities, windows, rich in ((50_000, 3, False), (50_000, 5, False), (50_000, 5, True), (200_000, 3, False))
        for batch in (1, 64, 512, 2048)
    ]
    figures["recovery"] = recovery(200_000)
    figures["ids"] = ids()
    figures["growth"] = growth()
    if wanted.memory:
        figures["million"] = million()
    for name, figure in figures.items():
        for line in figure if isinstance(figure, list) else [figure]:
            print(name, json.dumps(line))


if __name__ == "__main__":
    main()
