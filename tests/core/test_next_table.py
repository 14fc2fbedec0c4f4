"""The table made ready: what it holds after it was taken, and that making it ready is spread over what comes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.next_table import PAGE, NextTable
from streamapp.core.windows_index import find, insert, table_for


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 600), st.integers(1, 700)), max_size=20), st.integers(1, 600))
def test_whatever_was_made_ready_the_table_taken_finds_every_name(prepared: list[tuple[int, int]], slots: int) -> None:
    names = np.random.default_rng(slots).integers(1, 1 << 62, (slots, 2))
    table, ahead = table_for(slots), NextTable()
    for slot in range(slots):
        insert(table, names[slot, 0], slot)
    for given_slots, used in prepared:
        ahead.prepare(given_slots, used)
    for _ in range(2):
        table = ahead.take(table, 2 * slots)
        assert [find(table, names, *name) for name in names] == list(range(slots))
        assert np.count_nonzero(table) == slots


def test_pages_are_touched_as_the_last_quarter_fills() -> None:
    slots, ahead = 1 << 16, NextTable()
    ahead.prepare(slots, 3 * slots // 4)
    assert ahead._touched == 0 == len(ahead._table)
    seen = []
    for used in range(3 * slots // 4 + 512, slots + 1, 512):
        ahead.prepare(slots, used)
        seen.append(ahead._touched)
    steps = np.diff(seen)
    assert seen[-1] == len(ahead._table) == 4 * slots and steps.max() <= 16 * 512 + PAGE and (steps > 0).all()
