"""Logs that stay readable while a broker is away: what a library says again and again is said a few times, and then how often."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

#: So many records of one kind are written in one period; the client library has two for each attempt to connect, thousands a second.
EACH_MAX = 5
PERIOD_S = 10.0


class _Kind(NamedTuple):
    logger: str
    level: int
    words: str  # without what is filled in


class Sparing(logging.Filter):
    """Lets the first records of a kind through in each period, and with the first of a later one says how many were left out.

    Law: whatever is not of the named libraries is written, however often it is said.
    """

    def __init__(self, libraries: Collection[str]) -> None:
        """`libraries` are the roots of their loggers' names."""
        super().__init__()
        self._libraries = frozenset(libraries)
        self._begun_s = 0.0
        self._said: Counter[_Kind] = Counter()
        self._left_out: Counter[_Kind] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Gives whether a record is written. Law: every kind that occurs in a period is written in it."""
        if record.name.partition(".")[0] not in self._libraries:
            return True
        if not 0 <= record.created - self._begun_s < PERIOD_S:
            self._left_out.update({kind: count - EACH_MAX for kind, count in self._said.items() if count > EACH_MAX})
            self._begun_s, self._said = record.created, Counter()
        kind = _Kind(record.name, record.levelno, str(record.msg))
        self._said[kind] += 1
        if self._said[kind] > EACH_MAX:
            return False
        silent = self._left_out.pop(kind, 0)
        if silent:
            record.msg, record.args = f"{record.getMessage()} ({silent:,} more like it were left out)", None
        return True
