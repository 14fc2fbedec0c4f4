"""The in-memory twin of the journal: states that live as long as the process. For tests, replays and scoring; nothing survives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from streamapp.core.events import Segment
from streamapp.core.outcome import Outcome
from streamapp.core.state import StatePlan
from streamapp.core.windows_partition import PartitionState
from streamapp.ports import Settled


class MemoryJournal:
    """Keeps one state per source partition and what was appended, in order."""

    def __init__(self, plan: StatePlan) -> None:
        self._plan = plan
        self._states: dict[tuple[str, int], PartitionState] = {}
        self.appended: list[Outcome] = []

    def states(self, segments: Sequence[Segment]) -> Sequence[PartitionState]:
        """Gives the state of each segment's partition, a new one where there was none."""
        return [self._states.setdefault((one.topic, one.partition), self._plan.new()) for one in segments]

    def moving(self) -> AbstractContextManager[None]:
        """Nothing is copied here."""
        return nullcontext()

    async def ready(self) -> None:
        """States may always move."""

    async def append(self, settled: Sequence[Settled]) -> None:
        """Keeps the outcomes."""
        self.appended += [one.outcome for one in settled]
