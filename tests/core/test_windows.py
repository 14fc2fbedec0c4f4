"""The window store's edges, each by hand: open left end, ties, lateness, delay, cap, cold entities, expiry, memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from streamapp.core import growing
from streamapp.core.errors import ConfigError, InvariantBroken
from streamapp.core.events import Flag
from streamapp.core.windows import (
    CAP_MAX,
    EVENT,
    QUERY,
    UNITS_MAX,
    WRITE,
    Aggregate,
    StorePlan,
    Window,
    WindowStore,
    activity_units,
    units,
    warm_up,
)  # fmt: skip
from streamapp.core.windows_index import hash_names

HOUR = 3_600_000


def store(*aggregates: Aggregate, windows: tuple[Window, ...] = (Window(HOUR),), **plan: Any) -> WindowStore:
    return WindowStore(StorePlan(windows, aggregates, **{"decimals": (2,), "keys": 1, "cold_below": 0, **plan}))


def rows(*given: tuple[Any, ...]) -> tuple[Any, ...]:
    """(name, time, amount, key[, mode]) to columns; the high mark is the largest time so far."""
    time = np.array([row[1] for row in given], np.int64)
    return (
        hash_names([row[0] for row in given]),
        time,
        np.maximum.accumulate(time),
        units([row[2] for row in given], 2)[:, None],
        np.array([[row[3]] for row in given], np.int64),
        np.array([row[4] if len(row) > 4 else EVENT for row in given], np.int8),
    )


def test_left_end_is_open_and_right_end_holds_the_row_itself() -> None:
    answers = store(Aggregate("count", 0), Aggregate("sum", 0)).advance(
        *rows(("a", 0, 1.10, 0), ("a", HOUR - 1, 2.20, 0), ("a", HOUR, 3.30, 0), ("b", HOUR, 9, 0))
    )
    assert answers.exact.tolist() == [[1, 110], [2, 330], [2, 550], [1, 900]]
    assert answers.value[:, 1].tolist() == [1.1, 3.3, 5.5, 9.0]


def test_ties_go_by_arrival_and_the_row_may_be_left_out() -> None:
    answers = store(Aggregate("count", 0), Aggregate("count", 1), windows=(Window(10), Window(10, include_current=False))).advance(
        *rows(("a", 5, 0, 0), ("a", 5, 0, 0), ("a", 5, 0, 0))
    )
    assert answers.exact.tolist() == [[1, 0], [2, 1], [3, 2]]


def test_row_within_grace_counts_at_its_own_time_and_later_rows_see_it() -> None:
    answers = store(Aggregate("count", 0), Aggregate("max", 0), Aggregate("since", 0), grace_ms=100).advance(
        *rows(("a", 1000, 1, 0), ("a", 900, 7, 0), ("a", 1001, 2, 0))
    )
    assert answers.exact.tolist() == [[1, 100, -1], [1, 700, -1], [3, 700, 1]]
    assert answers.flags.tolist() == [0, 0, 0]


def test_late_row_is_flagged_answered_as_of_its_time_and_changes_nothing() -> None:
    answers = store(Aggregate("count", 0), Aggregate("distinct", 0), Aggregate("sum", 0), grace_ms=100).advance(
        *rows(("a", 800, 1, 5), ("a", 1000, 1, 6), ("a", 899, 4, 7), ("a", 1000, 1, 7))
    )
    assert answers.exact.tolist() == [[1, 1, 100], [2, 2, 200], [2, 2, 500], [3, 3, 300]]
    assert answers.flags.tolist() == [0, 0, Flag.LATE, 0]


def test_delayed_window_forgets_the_last_days_and_asks_without_writing() -> None:
    answers = store(Aggregate("count", 0), Aggregate("mean", 0), windows=(Window(10, delay_ms=5),)).advance(
        *rows(
            ("t", 0, 1, 0, WRITE),
            ("t", 3, 0, 0, WRITE),
            ("t", 4, 0, 0, QUERY),
            ("t", 5, 0, 0, QUERY),
            ("t", 8, 0, 0, QUERY),
            ("t", 15, 0, 0, QUERY),
        )
    )
    assert answers.exact[2:, 0].tolist() == [0, 1, 2, 1]
    assert math.isnan(answers.value[2, 1])
    assert answers.value[3:, 1].tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(answers.value[:2]).all()


def test_more_than_cap_is_said_until_the_dropped_entry_no_longer_matters() -> None:
    answers = store(Aggregate("count", 0), windows=(Window(10),), cap=3).advance(
        *rows(*(("a", t, 0, 0) for t in (1, 2, 3, 4, 5, 11, 12, 13, 14)))
    )
    assert answers.exact[:, 0].tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert [bool(flag & Flag.OVERFLOW) for flag in answers.flags] == [False, False, False, False, True, True, True, True, True]
    after = store(Aggregate("count", 0), windows=(Window(10),), cap=3)
    after.advance(*rows(*(("a", t, 0, 0) for t in (1, 2, 3, 4, 5))))
    assert not after.advance(*rows(("a", 12, 0, 0))).flags[0] & Flag.OVERFLOW


def test_cold_entity_gets_its_prior_and_keeps_its_counts() -> None:
    answers = store(Aggregate("count", 0), Aggregate("mean", 0, prior=42.0), cold_below=3).advance(
        *rows(*(("a", t, 8, 0) for t in range(4)))
    )
    assert answers.value.tolist() == [[1, 42.0], [2, 42.0], [3, 8.0], [4, 8.0]]
    assert answers.flags.tolist() == [Flag.COLD_ENTITY, Flag.COLD_ENTITY, 0, 0]


def test_nobody_and_rows_without_mode_take_no_part() -> None:
    one = store(Aggregate("count", 0))
    answers = one.advance(*rows(("", 1, 1, 0), ("a", 2, 1, 0, 0), ("a", 3, 1, 0, QUERY)))
    assert np.isnan(answers.value[:2]).all() and answers.exact[2, 0] == 0
    assert len(one) == 0


def test_weighted_activity_is_log1p_of_the_weights() -> None:
    weights = activity_units(["login", "purchase", "share", "scroll"], {"login": 1, "purchase": 5, "share": 3}, 0.5)
    assert weights.tolist() == [1000, 5000, 3000, 500]
    plan = StorePlan((Window(HOUR),), (Aggregate("activity", 0),), decimals=(3,), cold_below=0)
    names, time = hash_names(["u"] * 4), np.arange(4, dtype=np.int64)
    answers = WindowStore(plan).advance(names, time, time, weights[:, None], np.empty((4, 0), np.int64))
    assert answers.value[:, 0].tolist() == pytest.approx([math.log1p(x) for x in (1, 6, 9, 9.5)], rel=1e-15)
    nobody = WindowStore(plan).advance(
        names[:1], time[:1], time[:1], weights[:1, None], np.empty((1, 0), np.int64), np.array([QUERY], np.int8)
    )
    assert nobody.value[0, 0] == 0.0


def test_units_are_the_decimals_that_were_written() -> None:
    assert units([0.1, 1.005, -57.16, math.nan, math.inf, -1e300], 2).tolist() == [10, 100, -5716, 0, UNITS_MAX, -UNITS_MAX]
    written = np.random.default_rng(3).integers(-(10**12), 10**12, 20_000)
    assert units([float(f"{cents / 100:.2f}") for cents in written.tolist()], 2).tolist() == written.tolist()


def test_sums_stay_exact_at_the_largest_values() -> None:
    one = store(Aggregate("sum", 0), windows=(Window(1 << 40),), cap=CAP_MAX)
    n = 5000
    time, names = np.arange(n, dtype=np.int64), hash_names(["a"] * n)
    answers = one.advance(names, time, time, np.full((n, 1), UNITS_MAX), np.zeros((n, 1), np.int64))
    assert int(answers.exact[-1, 0]) == n * UNITS_MAX


def test_idle_entities_are_freed_by_event_time_and_memory_stays_flat() -> None:
    one, sizes = store(Aggregate("count", 0), windows=(Window(1000),)), []
    for batch in range(60):
        n = 1000
        time = np.arange(batch * n, (batch + 1) * n, dtype=np.int64)
        names = np.stack([time * 2654435761 + 1, time], axis=1)  # every row a new entity
        one.advance(names, time, time, np.ones((n, 1), np.int64), np.ones((n, 1), np.int64))
        sizes.append((one.memory_bytes, len(one)))
    assert sizes[-1][0] == sizes[10][0]
    assert max(held for _, held in sizes) <= 2100


@pytest.mark.parametrize("reserved_from", [1, growing.RESERVED_FROM])
def test_a_store_that_grew_answers_as_one_that_was_large(monkeypatch: pytest.MonkeyPatch, reserved_from: int) -> None:
    monkeypatch.setattr(growing, "RESERVED_FROM", reserved_from)
    plan = StorePlan((Window(HOUR),), (Aggregate("sum", 0), Aggregate("max", 0), Aggregate("distinct", 0)), decimals=(2,), keys=1)
    small, large = WindowStore(plan, slots=2, entries=16), WindowStore(plan, slots=5000, entries=100_000)
    rng = np.random.default_rng(3)
    for batch in range(30):
        time = batch * 200 + np.sort(rng.integers(0, 200, 200))
        names, values = np.tile(rng.integers(1, 3000, (200, 1)), 2), rng.integers(-500, 500, (200, 1))
        columns = (names, time, time, values, rng.integers(0, 9, (200, 1)))
        answers = [one.advance(*columns) for one in (small, large)]
        assert (answers[0].exact == answers[1].exact).all() and (answers[0].flags == answers[1].flags).all()
    assert small.held == large.held == 6000 and small.memory_bytes < large.memory_bytes
    high = int(time[-1])
    assert all((part == other).all() for part, other in zip(small.snapshot(high).values(), large.snapshot(high).values(), strict=True))


def test_what_one_busy_entity_needed_serves_the_next_one() -> None:
    one, sizes = store(Aggregate("count", 0), windows=(Window(1000),), cap=CAP_MAX), []
    for start in range(0, 40_000, 5000):
        busy = one.advance(*rows(*((f"busy{start}", start + t // 20, 1, t) for t in range(16_000))))
        assert busy.exact[-1, 0] == 16_000
        one.advance(*rows(*(("quiet", start + 800 + t, 1, t) for t in range(0, 4000, 100))))
        sizes.append(one.memory_bytes)
        assert len(one) == 1
    assert sizes[1] == sizes[-1]


@pytest.mark.parametrize(
    "plan",
    [
        StorePlan((), ()),
        StorePlan((Window(0),), ()),
        StorePlan((Window(5, delay_ms=-1),), ()),
        StorePlan((Window(5),), (), cap=0),
        StorePlan((Window(5),), (), cap=CAP_MAX + 1),
        StorePlan((Window(5),), (), grace_ms=-1),
        StorePlan((Window(5),), (Aggregate("median", 0),)),
        StorePlan((Window(5),), (Aggregate("sum", 0),)),
        StorePlan((Window(5),), (Aggregate("distinct", 0),), decimals=(2,)),
        StorePlan((Window(5),), (Aggregate("count", 1),)),
    ],
)
def test_plan_that_cannot_be_kept_is_refused(plan: StorePlan) -> None:
    with pytest.raises(ConfigError):
        WindowStore(plan)


def test_columns_of_another_shape_are_refused() -> None:
    names, time, high, values, keys, mode = rows(("a", 1, 1, 0), ("a", 2, 1, 0))
    with pytest.raises(InvariantBroken):
        store(Aggregate("count", 0)).advance(names, time, high[:1], values, keys, mode)


def test_state_of_other_columns_or_shorter_reach_is_refused() -> None:
    one = store(Aggregate("count", 0))
    one.advance(*rows(("a", 1, 1, 0)))
    saved = one.snapshot(1)
    with pytest.raises(ConfigError, match="reach back"):
        store(Aggregate("count", 0), windows=(Window(2 * HOUR),)).restore(saved)
    with pytest.raises(ConfigError, match="columns"):
        store(Aggregate("count", 0), keys=0).restore(saved)
    shorter = store(Aggregate("count", 0), windows=(Window(HOUR // 2),))
    shorter.restore(saved)
    assert shorter.advance(*rows(("a", 2, 1, 0))).exact.tolist() == [[2]]


def test_snapshot_holds_what_is_alive_and_nothing_else() -> None:
    one = store(Aggregate("count", 0), windows=(Window(10),))
    one.advance(*rows(("gone", 1, 1, 0), ("a", 5, 1, 3), ("a", 14, 2.5, 4), ("b", 14, 1, 5)))
    saved = one.snapshot(15)
    assert sorted(zip(saved["time"].tolist(), saved["value"].tolist(), saved["key"].tolist(), strict=True)) == [
        (14, [100], [5]),
        (14, [250], [4]),
    ]
    assert (saved["high"].tolist(), saved["keep_ms"].tolist()) == ([15], [10])
    assert sorted(saved["name"].tolist()) == sorted(hash_names(["a", "b"]).tolist())
    assert sorted(saved["about"][:, :2].tolist()) == [[1, 1], [1, 2]]
    empty = store(Aggregate("count", 0))
    empty.restore(empty.snapshot(0))
    assert len(empty) == 0


def test_warm_up_compiles_what_the_first_event_needs() -> None:
    warm_up()
    from streamapp.core.windows_kernel import advance

    known = len(advance.signatures)
    store(Aggregate("count", 0)).advance(*rows(("a", 1, 1, 0)))
    assert len(advance.signatures) == known
