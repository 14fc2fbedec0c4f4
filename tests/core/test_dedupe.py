"""Remembered ids against a plain dict with the same words: horizon, marks, copies within a batch, growth, snapshots."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core import growing, next_table
from streamapp.core.dedupe import DECISION, SeenIds
from streamapp.core.errors import ConfigError, InvariantBroken
from streamapp.core.events import Flag
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_index import hash_names


class TwinIds:
    """id -> (mark when seen, number of the row that was first)."""

    def __init__(self, horizon: int, skew_max: int) -> None:
        self.horizon, self.skew_max, self.high, self.seen = horizon, skew_max, -(1 << 62), dict[int, tuple[int, int]]()

    def row(self, number: int, name: int, time: int, broker: int) -> tuple[int, int, int, int]:
        skewed = time > broker + self.skew_max
        time = broker if skewed else time
        flag = Flag.CLOCK_SKEW if skewed else 0
        if name in self.seen:
            return time, self.high, flag | Flag.DUPLICATE, self.seen[name][1]
        self.high = max(self.high, time)
        self.seen = {name: kept for name, kept in self.seen.items() if kept[0] > self.high - self.horizon}
        self.seen[name] = (self.high, number)
        return time, self.high, flag, number


def decided(offset: Any, score: Any, release: Any, route: Any, decided_by: Any) -> Any:
    decision = np.zeros(len(offset), DECISION)
    given = {"offset": offset, "score": score, "release": release, "route": route, "decided_by": decided_by, "settled": True}
    for name, column in given.items():
        decision[name] = column
    return decision


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(-20, 40)), max_size=120),
    st.integers(1, 120),
    st.lists(st.integers(0, 120), max_size=6),
    st.booleans(),
)
def test_admission_equals_the_twin_however_it_is_cut(steps: list[Any], horizon: int, cuts: list[int], stop: bool) -> None:
    n = len(steps)
    broker = 10 * np.arange(n, dtype=np.int64)
    time = broker + np.array([step[1] for step in steps], np.int64).reshape(n)
    names = hash_names([f"id{step[0]}" for step in steps])
    twin, clock, seen = TwinIds(horizon, 30), Clock(30), SeenIds(horizon)
    edges = sorted({0, n, *(min(cut, n) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        part = slice(begin, end)
        admission = seen.admit(names[part], time[part], broker[part], clock)
        number = np.arange(begin, end)
        seen.settle(admission, decided(number, number / 3, 4, number % 3, 5))
        decisions = seen.decisions(admission)
        for i in range(begin, end):
            wanted = twin.row(i, steps[i][0], int(time[i]), int(broker[i]))
            row = i - begin
            ticks = admission.ticks
            assert (ticks.time[row], ticks.high[row], ticks.flags[row], decisions["offset"][row]) == wanted
            first = wanted[3]
            assert decisions[row].tolist() == (first, first / 3, 4, first % 3, 5, True)
        if stop:
            saved, seen = seen.snapshot(), SeenIds(horizon)
            seen.restore(saved)
    assert len(seen) == len(twin.seen)


def test_without_memory_for_more_what_was_remembered_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(low: int, high: int) -> tuple[Any, Any, Any]:
        return hash_names([f"id{number}" for number in range(low, high)]), np.full(high - low, 5), np.full(high - low, 5)

    seen, clock, real = SeenIds(1 << 50), Clock(0), next_table.table_for

    def refuse(slots: int) -> Any:
        if slots >= 512:
            raise MemoryError
        return real(slots)

    seen.admit(*rows(0, 40), clock)
    monkeypatch.setattr(next_table, "table_for", refuse)
    with pytest.raises(MemoryError):
        seen.admit(*rows(40, 300), clock)
    monkeypatch.setattr(next_table, "table_for", real)
    assert not seen.admit(*rows(40, 300), clock).duplicate.any()
    assert seen.admit(*rows(0, 300), clock).duplicate.all()


def test_ring_grows_and_goes_round_for_ever() -> None:
    seen, clock = SeenIds(1000), Clock(0)
    rng, sizes = np.random.default_rng(1), []
    for batch in range(80):
        time = np.arange(batch * 300, (batch + 1) * 300, dtype=np.int64)
        admission = seen.admit(rng.integers(-(1 << 62), 1 << 62, (300, 2)), time, time, clock)
        seen.settle(admission, decided(time, 0.0, 0, 0, 0))
        sizes.append(seen.size)
    assert len(seen) == 1000 and sizes[-1] == sizes[5] == 2048


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(0, 400)), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, growing.RESERVED_FROM]),
)
def test_a_ring_grown_at_any_turn_keeps_every_decision(batches: list[tuple[int, int]], seed: int, reserved_from: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "RESERVED_FROM", reserved_from)
        grows_at_any_turn(batches, seed)


def grows_at_any_turn(batches: list[tuple[int, int]], seed: int) -> None:
    horizon = 1000
    seen, clock, rng = SeenIds(horizon), Clock(0), np.random.default_rng(seed)
    ids, since, now = np.zeros((0, 2), np.int64), np.zeros(0, np.int64), 0
    for n, later in batches:
        now += later
        new, time = rng.integers(-(1 << 62), 1 << 62, (n, 2)), np.full(n, now, np.int64)
        admission = seen.admit(new, time, time, clock)
        seen.settle(admission, decided(np.arange(len(ids), len(ids) + n), 0.5, 1, 2, 3))
        ids, since = np.concatenate((ids, new)), np.concatenate((since, time))
    alive = np.flatnonzero(since > now - horizon)
    assert len(seen) == len(alive)
    again = seen.admit(ids[alive], since[alive], since[alive], clock)
    assert again.duplicate.all() and (seen.decisions(again)["offset"] == alive).all() and seen.decisions(again)["settled"].all()


def test_horizon_form_and_shape_are_checked() -> None:
    with pytest.raises(ConfigError):
        SeenIds(0)
    seen = SeenIds(10)
    with pytest.raises(InvariantBroken):
        seen.admit(np.zeros((3, 2), np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64), Clock(0))
    with pytest.raises(ConfigError, match="another form"):
        seen.restore({**seen.snapshot(), "decision": np.zeros(0, np.int64)})
