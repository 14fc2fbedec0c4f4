"""Partials against a brute-force count in plain Python, and the rules for when a window closes."""

from __future__ import annotations

import numpy as np
import pytest

from streamapp.core import observe
from streamapp.core.card import Reference
from streamapp.core.errors import InvariantBroken, RejectCode
from streamapp.core.observe import Rejected, WindowedObservations, warm_up
from streamapp.core.partials import REJECT_NAMES, Layout, Observations

FEATURES = ("length", "ratio")
REFERENCES = {
    "length": Reference(edges=(1.0, 2.0, 5.0), counts=(10, 20, 30, 40), n=100, mean=3.0, std=2.0),
    "score": Reference(edges=(0.1, 0.5), counts=(50, 30, 20), n=100, mean=0.2, std=0.3),
}
LAYOUT = Layout.of(FEATURES, ("rule", "fast", "default"), REFERENCES)


def feed(
    windows: WindowedObservations, times: list[int], partition: int = 0, first: int = 0, now_ms: int = 0, rejected: Rejected | None = None
) -> list[Observations]:
    """Adds one row per time; a row's values follow from its offset, so that any cut of a stream is the same stream."""
    offset = np.arange(first, first + len(times))
    values = np.column_stack([offset % 7, np.where(offset % 5 == 0, np.nan, offset % 3)]).astype(np.float64).reshape(-1, 2)
    probability = np.where(offset % 11 == 0, np.nan, offset % 10 / 10)
    more = {} if rejected is None else {"rejected": rejected}
    return windows.add(
        partition=np.full(len(times), partition), offset=offset, event_time=np.array(times, np.int64), values=values, score=probability,
        probability=probability, route=(offset % 3).astype(np.int8), decided_by=(offset % 2).astype(np.int8),
        flags=(offset % 4).astype(np.int32), missing=np.array([0, (offset % 5 == 0).sum()]), clipped=np.array([len(times), 0]),
        now_ms=now_ms, **more,
    )  # fmt: skip


def test_counts_equal_a_count_by_hand() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=1000)
    feed(windows, [10] * 40)
    (seen,) = windows.flush()
    rows = range(40)
    assert seen.n == 40 and (seen.first_offset, seen.last_offset, seen.first_time, seen.last_time) == (0, 39, 10, 10)
    assert seen.of("route").tolist() == [sum(i % 3 == r for i in rows) for r in range(3)]
    assert seen.of("decided_by").tolist() == [20, 20, 0]
    assert seen.of("flags").tolist() == [20, 20, 0, 0, 0, 0]
    # Right-closed: a value on an edge belongs to the bin that ends there.
    v = [i % 7 for i in rows]
    assert seen.bins("length").tolist() == [sum(x <= 1 for x in v), v.count(2), sum(2 < x <= 5 for x in v), v.count(6)]
    # No reference: one bin. NaN is in none.
    assert seen.bins("ratio").tolist() == [32] and seen.of("unknown").tolist() == [0, 8, 4]
    assert seen.of("missing").tolist() == [0, 8] and seen.of("clipped").tolist() == [40, 0]
    p = [i % 10 / 10 for i in rows if i % 11]
    assert seen.bins("score").tolist() == [sum(x <= 0.1 for x in p), sum(0.1 < x <= 0.5 for x in p), sum(x > 0.5 for x in p)]
    assert seen.of("confidence").tolist() == [sum(min(9, int(max(x, 1 - x) * 20 - 10)) == b for x in p) for b in range(10)]
    mean, std, n = seen.moments("length")
    assert n == 40 and mean == pytest.approx(np.mean(v), abs=2e-6) and std == pytest.approx(np.std(v), abs=2e-6)


def test_values_far_out_are_counted_and_cannot_overflow() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=10_000)
    values = np.array([[np.inf, 0.0], [-np.inf, 1e300], [1e300, -1e300], [9.1, 0.0], [9.0, 0.0]])
    five, none = np.zeros(5), np.zeros(2, np.int64)
    windows.add(
        partition=np.zeros(5, np.int64), offset=np.arange(5), event_time=np.zeros(5, np.int64), values=values, score=five,
        probability=five, route=np.zeros(5, np.int8), decided_by=np.zeros(5, np.int8), flags=np.zeros(5, np.int32), missing=none,
        clipped=none,
    )  # fmt: skip
    (seen,) = windows.flush()
    # length has mean 3 and deviation 2: 9.0 lies exactly three deviations out and is not beyond them.
    assert seen.of("outlying").tolist() == [4, 2, 0]
    assert seen.bins("length").tolist() == [1, 0, 0, 4]
    assert np.isfinite(seen.moments("length")[:2]).all()


def test_a_window_closes_when_event_time_is_past_its_grace() -> None:
    #  window    |0 ........ 1000|........ 2000|     grace 100
    #  row        0   999   1050 (still open)   1100 closes the first
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=1000, grace_ms=100)
    assert feed(windows, [0, 999, 1050, 1099]) == []
    (first,) = feed(windows, [1100], first=4)
    assert (first.start_ms, first.end_ms, first.n, first.final) == (0, 1000, 2, True)
    # What comes for a window that has ended counts, as late, in the oldest open one.
    assert feed(windows, [5, 1200], first=5) == []
    (second,) = windows.flush()
    assert (second.start_ms, second.n, second.of("late").tolist(), second.final) == (1000, 5, [1], False)
    assert second.last_offset == 6 and windows.flush() == []


def test_a_partial_closes_after_part_n_events() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=3)
    closed = feed(windows, [1] * 8)
    assert [(c.n, c.first_offset, c.last_offset, c.final) for c in closed] == [(3, 0, 2, False), (3, 3, 5, False)]
    assert [c.n for c in windows.flush()] == [2]


def test_one_event_from_the_future_opens_no_more_than_a_few_windows() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=1_000_000, grace_ms=100)
    times = [4_102_444_800_000 if i == 50 else (i * 7919) % 100_000 for i in range(5000)]
    closed = feed(windows, times) + windows.flush()
    assert sum(c.n for c in closed) == 5000 and len(closed) < 120


def test_idle_and_revoked_partials_are_flushed_alone() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=100)
    feed(windows, [1, 2], partition=0, now_ms=1000)
    feed(windows, [1, 2, 3], partition=1, now_ms=5000)
    feed(windows, [4], partition=2, now_ms=5000)
    assert [c.partition for c in windows.idle(now_ms=6000, idle_ms=5000)] == [0]
    assert [c.partition for c in windows.flush(1)] == [1]
    # Whoever comes back starts anew: its old times are not late.
    assert feed(windows, [1], partition=1) == []
    assert sorted((c.partition, c.n, int(c.of("late")[0])) for c in windows.flush()) == [(1, 1, 0), (2, 1, 0)]


def test_rejects_count_where_their_partition_is_and_move_nothing() -> None:
    windows = WindowedObservations(LAYOUT, window_ms=1000, part_n=100, grace_ms=0)
    codes = [RejectCode.INVALID_JSON, RejectCode.BLANK_TEXT, RejectCode.BLANK_TEXT]
    # The broker's clock is years ahead of the event times: a backfill.
    rejected = Rejected.of([0, 1, 2], [0, 0, 0], [9_000_000] * 3, codes)
    assert feed(windows, [10, 20], rejected=rejected) == []
    closed = windows.flush()
    by_code = {name: sum(int(c.of("rejects")[i]) for c in closed) for i, name in enumerate(REJECT_NAMES)}
    assert {name: count for name, count in by_code.items() if count} == {"invalid_json": 1, "blank_text": 2}
    # Before the partition's first event only the broker's clock is known.
    assert [(c.start_ms, c.n, int(c.of("rejects").sum())) for c in closed] == [(0, 2, 2), (9_000_000, 0, 1)]


def test_different_bins_do_not_merge() -> None:
    other = Layout.of(FEATURES, ("rule", "fast", "default"), {})
    a, b = WindowedObservations(LAYOUT, 1000, 10), WindowedObservations(other, 1000, 10)
    feed(a, [1])
    feed(b, [1])
    with pytest.raises(InvariantBroken):
        a.flush()[0] + b.flush()[0]


def test_warming_up_compiles_what_a_batch_needs() -> None:
    warm_up()
    compiled = len(observe._place.signatures), len(observe._count.signatures)
    windows = WindowedObservations(LAYOUT, 1000, 10)
    feed(windows, [1, 2], rejected=Rejected.of([0], [0], [1], [RejectCode.BLANK_TEXT]))
    # The same types: nothing is left to compile once micro-batches flow.
    assert (len(observe._place.signatures), len(observe._count.signatures)) == compiled
