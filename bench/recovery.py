"""How long does a partition take to come back? One partition of many live entities, through the log's own records, without a broker.

    python bench/recovery.py [--entities 1000000] [--events 3000000] [--rounds 5] [--json]

Two stores with three windows each; a snapshot and then deltas of 2,048 rows, a third of the events. What a broker adds is reading as many
bytes; the kill tests show it working on one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from streamapp.core import journal as codec
from streamapp.core.dedupe import DECISION, SeenIds
from streamapp.core.journal import Head
from streamapp.core.replay import Replay
from streamapp.core.windows import Aggregate, StorePlan, Window, WindowStore
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_partition import Entries, PartitionState, Rows

HOUR_MS = 3_600_000
WINDOWS = (Window(HOUR_MS), Window(24 * HOUR_MS), Window(7 * 24 * HOUR_MS))
ASKED = tuple(Aggregate(kind, window) for window in range(3) for kind in ("count", "sum"))
PLANS = {"customer_id": StorePlan(WINDOWS, ASKED, (2,)), "card_id": StorePlan(WINDOWS, ASKED, (2,))}
DELTA_ROWS = 2048


def new_state() -> PartitionState:
    return PartitionState(Clock(HOUR_MS), SeenIds(24 * HOUR_MS), {name: WindowStore(plan) for name, plan in PLANS.items()})


def rows(first: int, n: int, names: np.ndarray, rng: np.random.Generator) -> Rows:
    offset = np.arange(first, first + n)
    # Every entity is met in the first rounds; after that they come at random.
    name = names[np.where(offset < len(names), offset, rng.integers(0, len(names), n))]
    at = 1_700_000_000_000 + offset // 10
    decision = np.zeros(n, DECISION)
    decision["offset"], decision["score"], decision["settled"] = offset, rng.random(n), True
    amount = rng.integers(100, 100_000, (n, 1))
    none = np.empty((n, 0), np.int64)
    entries = {"customer_id": Entries(name[:, :2], amount, none), "card_id": Entries(name[:, 2:], amount, none)}
    return Rows(offset, at, at + rng.integers(0, 500, n), rng.integers(1, 2**62, (n, 2)), entries, decision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    names = rng.integers(1, 2**62, (given.entities, 4))
    state, saved_at = new_state(), given.events * 2 // 3
    for first in range(0, saved_at, 1 << 16):
        state.apply(rows(first, min(1 << 16, saved_at - first), names, rng))
    state.snapshot()  # compiles
    began = time.perf_counter()
    copied = state.snapshot()
    held_s = time.perf_counter() - began
    cut = codec.cut(copied)
    cut_s = time.perf_counter() - began - held_s
    log = list(cut.records(Head("snapshot", -1, saved_at, 1, 4, 0, cut.high, (0,) * 5)))
    snapshot_bytes, delta_bytes, encode_s = sum(map(len, log)), 0, 0.0
    for first in range(saved_at, given.events, DELTA_ROWS):
        some = rows(first, min(DELTA_ROWS, given.events - first), names, rng)
        began = time.perf_counter()
        head = Head("delta", first, first + len(some.offset), 1, 4, 0, 0, (0,) * 5, **codec.shape_of(some))
        log.append(codec.encode(head, codec.pack_rows(some)))
        encode_s += time.perf_counter() - began
        delta_bytes += len(log[-1])
    del state, copied
    took = []
    for _ in range(given.rounds):
        began = time.perf_counter()
        replay = Replay(new_state)
        replay.take(enumerate(log))
        replay.finish()
        took.append(time.perf_counter() - began)
        if replay.position != given.events:
            raise SystemExit(f"the replay ended at {replay.position}")
    after = given.events - saved_at
    figures = {
        "entities_per_store": given.entities,
        "recovery_s": round(statistics.median(took), 2),
        "recovery_s_spread": [round(min(took), 2), round(max(took), 2)],
        "events_in_deltas": after,
        "snapshot_mb": round(snapshot_bytes / 1e6, 1),
        "delta_bytes_per_event": round(delta_bytes / after, 1),
        "encode_us_per_event": round(encode_s / after * 1e6, 3),
        "state_held_ms": round(held_s * 1e3, 1),
        "snapshot_packed_s": round(cut_s, 2),
    }
    print(json.dumps(figures) if given.json else "\n".join(f"{name:24} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
