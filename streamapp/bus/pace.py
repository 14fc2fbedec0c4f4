"""How large a micro-batch may be before a backlog: what it costs whatever its size is shared by many events where each costs little."""

from __future__ import annotations

#: Every micro-batch may have so many rows; smaller ones say nothing of what a row costs in a large one.
ROWS_MIN, TELLING_ROWS = 2048, 1024
_NEWS = 0.25  # share of the last micro-batch in what is believed


class Pace:
    """Rows that are decided within `hold_ms` by what the last micro-batches took: never more than `rows_max`, nor fewer than ROWS_MIN."""

    def __init__(self, rows_max: int, hold_ms: int) -> None:
        self._most, self._least, self._hold_s = rows_max, min(rows_max, ROWS_MIN), hold_ms / 1000
        self._each_s: float | None = None
        self.rows = self._least

    def took(self, rows: int, seconds: float) -> None:
        """Notes how long the event loop was held by a micro-batch."""
        if rows < min(self._least, TELLING_ROWS) or seconds <= 0:
            return
        each_s = seconds / rows
        self._each_s = each_s if self._each_s is None else (1 - _NEWS) * self._each_s + _NEWS * each_s
        self.rows = max(self._least, min(self._most, int(self._hold_s / self._each_s)))
