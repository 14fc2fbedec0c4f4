"""Micro-batches grow as far as the event loop may be held, and no further."""

from __future__ import annotations

import pytest

from streamapp.bus.pace import ROWS_MIN, Pace


@pytest.mark.parametrize(("each_us", "rows"), [(1.0, 8192), (4.0, 5000), (9.0, 2222), (50.0, ROWS_MIN)])
def test_a_micro_batch_has_as_many_rows_as_the_time_is_enough_for(each_us: float, rows: int) -> None:
    pace = Pace(8192, 20)
    for _ in range(50):
        pace.took(pace.rows, pace.rows * each_us / 1e6)
    assert pace.rows == pytest.approx(rows, abs=1)


def test_one_slow_micro_batch_is_not_believed_at_once_and_small_ones_say_nothing() -> None:
    pace = Pace(8192, 20)
    pace.took(2048, 2048 * 2e-6)
    assert pace.rows == 8192
    pace.took(8192, 8192 * 8e-6)
    assert ROWS_MIN < pace.rows < 8192
    before = pace.rows
    pace.took(100, 1.0)
    pace.took(4096, 0.0)
    assert pace.rows == before


def test_a_smaller_bound_holds_whatever_was_seen() -> None:
    pace = Pace(24, 20)
    pace.took(24, 1e-6)
    assert pace.rows == 24
    pace.took(24, 10.0)
    assert pace.rows == 24
