"""Event time of one partition: effective times and the high mark, row by row in offset order, so that batch cuts change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.events import Flag
from streamapp.core.windows_entries import NEVER
from streamapp.core.windows_index import compiled

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

CLOCK_SKEW = Flag.CLOCK_SKEW  # a module constant is what a kernel can read


@compiled
def tick(event_time: int, broker_time: int, skew_max: int) -> int:
    """Gives the effective time of a row: its event time, or the broker's where that is more than skew_max behind it."""
    return broker_time if event_time > broker_time + skew_max else event_time


@compiled
def _run(event_time: Any, broker_time: Any, moves: Any, skew_max: int, high: int, time: Any, highs: Any, flags: Any) -> int:
    for i in range(len(event_time)):
        t = tick(event_time[i], broker_time[i], skew_max)
        flags[i] = CLOCK_SKEW if t != event_time[i] else 0
        if moves[i] and t > high:
            high = t
        time[i], highs[i] = t, high
    return high


@dataclass(frozen=True, slots=True)
class Ticks:
    """n rows: effective event time and high mark after the row, int64 ms; flags int32 (clock_skew)."""

    time: Int64
    high: Int64
    flags: Int32


@dataclass(slots=True)
class Clock:
    """The high mark of one partition, ms; it never goes back."""

    skew_max_ms: int
    high: int = NEVER

    def advance(self, event_time: Int64, broker_time: Int64, moves: Bool | None = None) -> Ticks:
        """Takes n rows in offset order, ms; gives their times and marks. Rows with `moves` False (duplicates) leave the mark alone."""
        n = len(event_time)
        ticks = Ticks(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int32))
        if moves is None:
            moves = np.ones(n, np.bool_)
        self.high = int(_run(event_time, broker_time, moves, self.skew_max_ms, self.high, ticks.time, ticks.high, ticks.flags))
        return ticks
