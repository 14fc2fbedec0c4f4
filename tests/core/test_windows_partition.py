"""A partition's clock, ids and stores as one: skew, copies, replay of deltas, refusal of rows out of order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.dedupe import DECISION, SeenIds
from streamapp.core.errors import InvariantBroken
from streamapp.core.events import Flag
from streamapp.core.windows import Aggregate, StorePlan, Window, WindowStore
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_index import hash_names
from streamapp.core.windows_partition import Entries, PartitionState, Rows

CARD = StorePlan((Window(100), Window(30)), (Aggregate("count", 0), Aggregate("sum", 1), Aggregate("max", 0)), (2,), 0, 20, 5, 3)
USER = StorePlan((Window(50, include_current=False),), (Aggregate("count", 0), Aggregate("distinct", 0)), (), 1, 20, 50, 0)


def fresh() -> PartitionState:
    return PartitionState(Clock(skew_max_ms=60), SeenIds(80), {"card": WindowStore(CARD), "user": WindowStore(USER)})


def rows(given: list[tuple[int, int, int, int]], first_offset: int = 0) -> Rows:
    """(time, id, card, user) in offset order; the broker's clock goes by five times the offset."""
    n = len(given)
    number, card = (np.array([row[at] for row in given], np.int64).reshape(n, 1) for at in (1, 2))
    nothing = np.empty((n, 0), np.int64)
    offset = first_offset + 2 * np.arange(n, dtype=np.int64)  # gaps are legal
    decision = np.zeros(n, DECISION)
    decision["offset"], decision["route"], decision["score"] = offset, offset % 3, offset / 7
    return Rows(
        offset, np.array([row[0] for row in given], np.int64), 5 * offset, hash_names([f"event {row[1]}" for row in given]),
        {
            "card": Entries(hash_names([f"c{row[2]}" for row in given]), number, nothing),
            "user": Entries(hash_names([f"u{row[3]}" for row in given]), nothing, card),
        },
        decision,
    )  # fmt: skip


def part(whole: Rows, begin: int, end: int) -> Rows:
    assert whole.decision is not None
    entries = {name: Entries(e.name[begin:end], e.value[begin:end], e.key[begin:end]) for name, e in whole.entries.items()}
    return Rows(
        whole.offset[begin:end], whole.event_time[begin:end], whole.broker_time[begin:end], whole.event_id[begin:end], entries,
        whole.decision[begin:end],
    )  # fmt: skip


def decide(state: PartitionState, batch: Rows) -> tuple[Any, ...]:
    moved = state.advance(batch)
    assert batch.decision is not None
    state.settle(moved.admission, batch.decision)
    repeated = state.seen.decisions(moved.admission)
    return moved.flags, moved.admission.ticks.time, moved.answers["card"].value, moved.answers["user"].value, repeated


def test_one_event_from_the_future_makes_nobody_late() -> None:
    state = fresh()
    flags, time, card, *_ = decide(state, rows([(0, 1, 1, 1), (10**15, 2, 1, 1), (20, 3, 1, 1), (71, 4, 1, 1)]))
    assert flags.tolist() == [Flag.COLD_ENTITY, Flag.CLOCK_SKEW | Flag.COLD_ENTITY, 0, 0]
    assert time.tolist() == [0, 10, 20, 71]
    assert card[:, 0].tolist() == [1, 2, 3, 4]


def test_copy_moves_no_window_and_repeats_the_first_decision() -> None:
    state = fresh()
    flags, _, card, user, repeated = decide(state, rows([(10, 1, 1, 1), (11, 2, 1, 1), (12, 1, 1, 1), (13, 3, 1, 1)]))
    assert [bool(flag & Flag.DUPLICATE) for flag in flags] == [False, False, True, False]
    assert card[[0, 1, 3], 0].tolist() == [1, 2, 3] and np.isnan(card[2]).all()
    assert user[[0, 1, 3], 0].tolist() == [0, 1, 2]
    assert repeated["offset"].tolist() == [0, 2, 0, 6]
    flags, *_, repeated = decide(state, rows([(90, 4, 1, 1), (92, 3, 1, 1), (94, 5, 1, 1), (95, 3, 1, 1)], 8))
    assert [bool(flag & Flag.DUPLICATE) for flag in flags] == [False, True, False, False], "remembered until the mark has moved on by 80"
    assert repeated["offset"].tolist() == [8, 6, 12, 14]


def test_rows_that_were_applied_are_refused_by_advance_and_skipped_by_apply() -> None:
    state, batch = fresh(), rows([(1, 1, 1, 1), (2, 2, 1, 1)])
    state.advance(batch)
    with pytest.raises(InvariantBroken):
        state.advance(batch)
    assert state.apply(batch) == 0
    assert state.apply(rows([(2, 2, 1, 1), (3, 3, 1, 1)], 2)) == 1
    assert state.applied == 4


steps = st.lists(st.tuples(st.integers(-40, 60), st.integers(0, 25), st.integers(0, 2), st.integers(0, 2)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(steps, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_crash_recovery_and_cuts_change_nothing(given: list[Any], cuts: list[int], saved_at: int, crashed_at: int, again: int) -> None:
    """Advance in one piece = cut, saved, crashed, restored from the snapshot, deltas replayed (some twice), gone on."""
    whole = rows([(10 * number + step, *rest) for number, (step, *rest) in enumerate(given)])
    n = len(given)
    expected = [decide(state, part(whole, i, i + 1)) for state in (fresh(),) for i in range(n)]
    saved_at, crashed_at = sorted((min(saved_at, n), min(crashed_at, n)))
    edges = sorted({0, saved_at, crashed_at, n, *(min(cut, n) for cut in cuts)})
    state, saved, got = fresh(), fresh().snapshot(), []
    for begin, end in itertools.pairwise(edges):
        if begin == saved_at:
            saved = state.snapshot()
        if begin == crashed_at:
            state = fresh()
            state.restore(saved)
            state.apply(part(whole, max(0, saved_at - again), crashed_at))
        batch = part(whole, begin, end)
        got.append(decide(state, batch))
    for column in range(5):
        if n:
            np.testing.assert_array_equal(
                np.concatenate([piece[column] for piece in got]), np.concatenate([piece[column] for piece in expected])
            )
