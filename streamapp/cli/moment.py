"""A point in time as a person writes it: RFC 3339, or how long ago."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click


class Moment(click.ParamType):
    """Gives epoch milliseconds for "2026-01-31T12:00:00Z", "2026-01-31" (midnight, UTC) or "2h" (that long ago)."""

    name = "WHEN"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Raises click.BadParameter for anything else."""
        from streamapp.core.errors import ConfigError
        from streamapp.core.velocity import duration_ms

        if isinstance(value, int):
            return value
        try:
            return time.time_ns() // 1_000_000 - duration_ms(value)
        except ConfigError:
            pass
        try:
            given = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-01-31T12:00:00Z, or how long ago: 2h, 7d", parameter, context)
        return round((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
