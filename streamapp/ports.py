"""The outside as small Protocols: what the line needs of models, profiles and metrics, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.card import Calibration, Card
from streamapp.core.events import Segment
from streamapp.core.journal import Release
from streamapp.core.outcome import Outcome
from streamapp.core.shared import Asks, SharedEntries, SharedRead
from streamapp.core.tiers import Answer, Question
from streamapp.core.vectorise import Contributions, Inputs
from streamapp.core.windows_partition import PartitionState

Float64 = npt.NDArray[np.float64]
#: Next offset of each output (topic, partition) after a micro-batch, of those it was sent to.
Outputs = Mapping[tuple[str, int], int]


class Model(Protocol):
    """A loaded, smoke-tested scorer; `logits` and `contributions` are pure functions of their inputs."""

    card: Card
    calibration: Calibration

    def logits(self, inputs: Inputs) -> Float64:
        """Takes n rows; gives raw margins [n, classes] float64. Raises on failure: the caller falls back and names it."""
        ...

    def contributions(self, inputs: Inputs) -> Contributions:
        """Takes n rows; gives each input's signed share of the margin (exact for linear models)."""
        ...


#: Answers a question beside the event loop, within its tier's `time_ms`; never fails, what is missing has its cause in the Answer.
Ask = Callable[[Question], Awaitable[Answer]]


class Journal(Protocol):
    """Where the states of the partitions are, and where their steps are written so that they survive (step 4 of the delivery order)."""

    async def ready(self) -> None:
        """Waits until states may move; `states` and the deciding follow without a pause in between."""
        ...

    def moving(self) -> AbstractContextManager[None]:
        """While it is open, states have moved and do not hold yet what was decided: no copy of them is taken."""
        ...

    def states(self, segments: Sequence[Segment]) -> Sequence[PartitionState]:
        """Gives the state of each segment's partition, loaded; raises InvariantBroken for a partition that is not."""
        ...

    async def append(self, outcome: Outcome, outputs: Outputs, release: Release) -> None:
        """Writes the steps of the oldest outcome, one record per partition, and waits for the acknowledgement. Raises BusError.

        Takes what its outputs' acknowledgements said, and the release that decided. Called once per call of `states`, in that order.
        """
        ...


class SharedWindows(Protocol):
    """The worker's copy of the windows of entities that cross partitions; both ways one round trip, within a deadline, and no failure."""

    async def read(self, asks: Asks) -> SharedRead:
        """Takes what a plan asks; gives the copy with what others acknowledged meanwhile, or `missing` and the cause in `degraded`."""
        ...

    async def write(self, written: Mapping[str, SharedEntries]) -> None:
        """Takes what the rows of an acknowledged outcome wrote, by store; idempotent by event id."""
        ...


class Profiles(Protocol):
    """User features by entity key; one round trip per micro-batch."""

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Takes unique keys; gives what is known (absent keys are unknown entities)."""
        ...
