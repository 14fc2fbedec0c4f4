"""Laws of the window store: it equals the plain twin, whatever the cuts, the order, the cap, and whether it was stopped in between."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.windows import KINDS, Aggregate, StorePlan, Window, WindowStore
from streamapp.core.windows_clock import Clock
from tests.oracle.window_twin import TwinStore

DECIMALS = 2


@st.composite
def plans(draw: st.DrawFn) -> StorePlan:
    windows = tuple(
        Window(draw(st.integers(1, 40)), draw(st.one_of(st.just(0), st.integers(0, 30))), draw(st.booleans()))
        for _ in range(draw(st.integers(1, 4)))
    )
    priors = st.one_of(st.none(), st.floats(-5, 5))
    chosen = draw(
        st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, len(windows) - 1), st.integers(0, 1), priors), max_size=8)
    )
    aggregates = [Aggregate(kind, window, 0 if kind == "activity" else column, prior) for kind, window, column, prior in chosen]
    aggregates += [Aggregate(kind, window) for window in range(len(windows)) for kind in ("max", "distinct")]
    return StorePlan(
        windows, tuple(aggregates), (DECIMALS, 0), 2, draw(st.integers(0, 30)), draw(st.integers(1, 12)), draw(st.integers(0, 6))
    )


steps = st.lists(
    st.tuples(
        st.integers(-25, 12),  # how far from the high mark
        st.sampled_from([None, "a", "b", "b", "c"]),
        st.integers(0, 500),
        st.integers(-3, 3),
        st.integers(0, 3),
        st.sampled_from([3, 3, 3, 3, 3, 1, 2, 0]),
    ),
    max_size=90,
)
NAMES = {None: (0, 0), "a": (1, 7), "b": (65, 9), "c": (129, 0)}  # all three want the same place of a 64-place table


def columns(rows: list[Any]) -> tuple[Any, ...]:
    """Gives the rows as the store's columns; times follow a mark that wanders forward, sometimes far."""
    time, mark = [], 1_000
    for step, *_ in rows:
        time.append(mark + step * (10 if step > 10 else 1))
        mark = max(mark, time[-1])
    ticks = Clock(1 << 40).advance(np.array(time, np.int64), np.array(time, np.int64))
    names = np.array([NAMES[row[1]] for row in rows], np.int64).reshape(-1, 2)
    values = np.array([(row[2], row[3]) for row in rows], np.int64).reshape(-1, 2)
    keys = np.array([(row[4], row[3] + row[4]) for row in rows], np.int64).reshape(-1, 2)
    return names, ticks.time, ticks.high, values, keys, np.array([row[5] for row in rows], np.int8)


def cut(columns: tuple[Any, ...], places: list[int]) -> list[tuple[Any, ...]]:
    edges = sorted({0, len(columns[0]), *(place % (len(columns[0]) + 1) for place in places)})
    return [tuple(column[a:b] for column in columns) for a, b in itertools.pairwise(edges)]


def run(store: WindowStore, parts: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    answers = [store.advance(*part) for part in parts]
    k = len(store.plan.aggregates)
    return (
        np.concatenate([np.empty((0, k), np.int64), *(a.exact for a in answers)]),
        np.concatenate([np.empty((0, k)), *(a.value for a in answers)]),
        np.concatenate([np.empty(0, np.int32), *(a.flags for a in answers)]),
    )


def assert_equal(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=150, deadline=None)
@given(plans(), steps, st.lists(st.integers(0, 1000), max_size=5))
def test_store_equals_brute_force_twin(plan: StorePlan, rows: list[Any], cuts: list[int]) -> None:
    data = columns(rows)
    exact, value, flags = run(WindowStore(plan, slots=2, entries=16), cut(data, cuts))
    twin = TwinStore(
        [(w.length_ms, w.delay_ms, w.include_current) for w in plan.windows],
        [(a.kind, a.window, a.column, a.prior) for a in plan.aggregates],
        plan.grace_ms,
        plan.cap,
        plan.cold_below,
    )
    for i, (_, name, cents, whole, _, mode) in enumerate(rows):
        values = (Decimal(cents) / 100, Decimal(whole))
        expected, expected_flags = twin.row(name, int(data[1][i]), int(data[2][i]), values, tuple(data[4][i].tolist()), mode)
        assert flags[i] == expected_flags, (i, rows[i])
        for a, (aggregate, (want_exact, want_value)) in enumerate(zip(plan.aggregates, expected, strict=True)):
            scale = 10 ** plan.decimals[aggregate.column] if isinstance(want_exact, Decimal) else 1
            assert exact[i, a] == want_exact * scale, (i, aggregate)
            if aggregate.kind in ("mean", "activity"):
                np.testing.assert_allclose(value[i, a], want_value, rtol=1e-15)
            else:
                np.testing.assert_array_equal(value[i, a], want_value)


@settings(max_examples=100, deadline=None)
@given(plans(), steps, st.lists(st.integers(0, 1000), max_size=8), st.integers(0, 1000))
def test_cuts_and_other_entities_change_nothing(plan: StorePlan, rows: list[Any], cuts: list[int], seed: int) -> None:
    data = columns(rows)
    whole = run(WindowStore(plan), [data])
    assert_equal(run(WindowStore(plan, slots=2, entries=16), cut(data, cuts)), whole)
    mine = data[0][:, 0] == 65
    alone = run(WindowStore(plan), [tuple(column[mine] for column in data)])
    assert_equal(tuple(part[mine] for part in whole), alone)


@settings(max_examples=100, deadline=None)
@given(plans(), steps, st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_stopping_changes_nothing(plan: StorePlan, rows: list[Any], cuts: list[int]) -> None:
    data = columns(rows)
    expected = run(WindowStore(plan), [data])
    store, answers = WindowStore(plan), []
    for part in cut(data, cuts):
        answers.append(run(store, [part]))
        if len(part[2]):
            saved = {name: array.copy() for name, array in store.snapshot(int(part[2][-1])).items()}
            for array in saved.values():
                array.flags.writeable = False
            store = WindowStore(plan)
            store.restore(saved)
    assert_equal(tuple(np.concatenate(parts) for parts in zip(*answers, strict=True)) if answers else expected, expected)


@settings(max_examples=100, deadline=None)
@given(plans(), steps, st.integers(0, 1000), st.lists(st.integers(0, 1000), max_size=3))
def test_applying_equals_advancing(plan: StorePlan, rows: list[Any], middle: int, cuts: list[int]) -> None:
    data = columns(rows)
    parts = cut(data, [middle])
    expected = run(WindowStore(plan), parts)
    if len(parts) < 2:
        return
    store = WindowStore(plan, slots=2, entries=16)
    for part in cut(parts[0], cuts):
        store.apply(*part)
    after = run(store, parts[1:])
    assert_equal(after, tuple(part[len(parts[0][0]) :] for part in expected))
