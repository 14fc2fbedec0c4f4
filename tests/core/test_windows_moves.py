"""Several partitions moved in one call end where each of them ends alone, whatever had to grow on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.dedupe import NoIds, SeenIds
from streamapp.core.errors import InvariantBroken
from streamapp.core.windows import WindowStore
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_moves import move_all
from streamapp.core.windows_partition import Entries, Moved, PartitionState, Rows
from tests.core.test_windows_partition import CARD, USER, rows

Given = list[tuple[int, int, int, int]]
#: Features in another order than the answers, and one answer twice: (store, place).
WANTED = np.array([(1, 1), (0, 2), (0, 0), (1, 0), (0, 1), (0, 0)], np.int64)


def fresh(*, dedupe: bool = True) -> PartitionState:
    stores = {"card": WindowStore(CARD, slots=2, entries=16), "user": WindowStore(USER, slots=2, entries=16)}
    return PartitionState(Clock(skew_max_ms=60), SeenIds(80) if dedupe else NoIds(), stores)


def together(states: list[PartitionState], parts: list[Rows]) -> tuple[list[tuple[Rows, Moved]], Any, Any]:
    n, ends = sum(len(one.offset) for one in parts), np.cumsum([len(one.offset) for one in parts]).tolist()

    def all_of(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in parts])

    entries = {
        name: Entries(*(np.concatenate([getattr(one.entries[name], column) for one in parts]) for column in ("name", "value", "key")))
        for name in ("card", "user")
    }
    whole = Rows(all_of("offset"), all_of("event_time"), all_of("broker_time"), all_of("event_id"), entries)
    values, flags = np.full((n, len(WANTED)), np.nan, order="F"), np.zeros(n, np.int32)
    return move_all(states, list(zip([0, *ends], ends, strict=False)), whole, WANTED, values, flags), values, flags


def assert_as_alone(given: list[list[Given]], *, dedupe: bool) -> None:
    ours, alone = ([fresh(dedupe=dedupe) for _ in given[0]] for _ in range(2))
    for number, batch in enumerate(given):
        parts = [rows(one, 1000 * number) for one in batch]
        moved, values, flags = together(ours, parts)
        low = 0
        for state, other, (taken, mine), part in zip(alone, ours, moved, parts, strict=True):
            theirs, high = state.advance(part), low + len(part.offset)
            answers = [theirs.answers[("card", "user")[store]].value[:, place] for store, place in WANTED.tolist()]
            np.testing.assert_array_equal(values[low:high], np.column_stack(answers))
            np.testing.assert_array_equal(flags[low:high], theirs.flags)
            np.testing.assert_array_equal(mine.flags, theirs.flags)
            np.testing.assert_array_equal(mine.admission.ticks.time, theirs.admission.ticks.time)
            np.testing.assert_array_equal(mine.admission.ticks.high, theirs.admission.ticks.high)
            np.testing.assert_array_equal(mine.admission.duplicate, theirs.admission.duplicate)
            assert mine.admission.copies == theirs.admission.copies
            np.testing.assert_array_equal(taken.offset, part.offset)
            assert part.decision is not None
            for one, met in ((state, theirs), (other, mine)):
                one.settle(met.admission, part.decision)
            low = high
    for one, other in zip(ours, alone, strict=True):
        left, right = one.snapshot(), other.snapshot()
        assert left.keys() == right.keys() and one.applied == other.applied
        for name, column in left.items():
            np.testing.assert_array_equal(column, right[name], err_msg=name)


ROW = st.tuples(st.integers(0, 300), st.integers(0, 9), st.integers(0, 3), st.integers(0, 3))
BATCH = st.lists(st.lists(ROW, min_size=1, max_size=7), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(BATCH, min_size=1, max_size=4), st.booleans())
def test_partitions_moved_together_end_where_they_end_alone(given: list[list[Given]], dedupe: bool) -> None:
    assert_as_alone(given, dedupe=dedupe)


@pytest.mark.parametrize("dedupe", [True, False])
def test_every_store_may_have_to_grow_several_times(dedupe: bool) -> None:
    random = np.random.default_rng(5)

    def drawn(count: int) -> Given:
        columns = [np.sort(random.integers(0, 100, count)), *(random.integers(0, most, count) for most in (10**6, 40, 150))]
        return list(zip(*(column.tolist() for column in columns), strict=True))

    assert_as_alone([[drawn(300) for _ in range(3)] for _ in range(2)], dedupe=dedupe)


def test_rows_a_state_is_past_are_refused() -> None:
    states = [fresh(), fresh()]
    good, again = rows([(1, 1, 1, 1)]), rows([(1, 2, 1, 1), (2, 3, 1, 1)])
    together(states, [good, good])
    with pytest.raises(InvariantBroken, match="rows from offset 0 came out of order or twice; offset 0 is applied"):
        together(states, [rows([(1, 2, 1, 1)], 2), again])
