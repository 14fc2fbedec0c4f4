"""The in-memory twin of the shared windows: one worker that is alone. For the embedded broker, tests, replays and scoring."""

from __future__ import annotations

from collections.abc import Mapping

from streamapp.core.shared import Asks, SharedEntries, SharedPlan, SharedRead


class MemoryShared:
    """Keeps the copy for as long as the process lives; there is nobody to tell and nobody to hear from."""

    def __init__(self, plan: SharedPlan) -> None:
        self._state = plan.new()

    async def read(self, asks: Asks) -> SharedRead:
        """Gives the copy."""
        return SharedRead(asks, self._state)

    async def write(self, written: Mapping[str, SharedEntries]) -> None:
        """Does nothing: the rows have moved the copy already."""

    async def close(self) -> None:
        """Does nothing: there is nothing to end."""
