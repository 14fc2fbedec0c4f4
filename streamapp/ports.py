"""The outside as small Protocols: what the line needs of models, profiles and metrics, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.card import Calibration, Card
from streamapp.core.cascade import Degraded
from streamapp.core.events import Segment
from streamapp.core.journal import Release
from streamapp.core.labels import LabelRead
from streamapp.core.lists_table import ListTable
from streamapp.core.outcome import Outcome
from streamapp.core.profiles import Part, ProfileRead
from streamapp.core.shared import Asks, SharedEntries, SharedRead
from streamapp.core.tiers import Answer, Question
from streamapp.core.vectorise import Contributions, Inputs
from streamapp.core.windows_partition import PartitionState

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
#: Next offset of each output (topic, partition) after a micro-batch, of those it was sent to.
Outputs = Mapping[tuple[str, int], int]


class Settled(NamedTuple):
    """A micro-batch whose outputs are acknowledged: what the next journal record tells of."""

    outcome: Outcome
    outputs: Outputs
    release: Release


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
#: Called between steps 3 and 4, so that a crash in between repeats it; it is idempotent, keeps to a deadline and does not fail.
Share = Callable[[Mapping[str, SharedEntries]], Awaitable[None]]
#: Called after step 5 with the Outcome, its release and the epoch ms of its acknowledgement: metrics and drift, never delivery.
Observe = Callable[[Outcome, str, int], None]
#: Called with the name of each step that is done (decided, emitted, acknowledged, logged, counted, acked): where tests end the process.
Reached = Callable[[str], None]


# What stands where a worker has nothing plugged in.


def nothing_happens(step: str) -> None:
    """Reached of a worker that is not under test."""


async def tell_nobody(written: Mapping[str, SharedEntries]) -> None:
    """Share of a pipeline in which no entity crosses partitions."""


async def ask_here(question: Question) -> Answer:
    """Ask of a worker without slow tiers: on the spot."""
    return question.here()


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

    async def append(self, settled: Sequence[Settled]) -> Awaitable[None] | None:
        """Writes the steps of the oldest micro-batches, one record for each of their segments, and waits for the acknowledgement.

        Gives None where the acknowledgement counts, else what to wait for until the transaction around it does. Raises BusError.
        Law: each call of `states` is followed by one `Settled`, in that order.
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


class KnownLists(Protocol):
    """The worker's copy of what is on the lists; it moves between two micro-batches, never in one."""

    def read(self) -> tuple[ListTable, Sequence[Degraded]]:
        """Gives the copy, and what is wrong with it. Takes no time."""
        ...


class KnownLabels(Protocol):
    """The worker's copy of what turned out to be true; it moves between two micro-batches, never in one."""

    def read(self) -> LabelRead:
        """Gives the copy, and what is wrong with it in `degraded`. Takes no time."""
        ...


class Profiles(Protocol):
    """User features by entity key; one round trip per micro-batch, which is under way while the texts are looked at."""

    async def ask(self, keys: Sequence[str]) -> Any:
        """Takes the entity of each of n rows; asks for what is not known in the process, and waits for nothing. Gives a question."""
        ...

    async def answer(self, question: Any) -> ProfileRead:
        """Gives what is known of the n rows, waiting no longer than the deadline; what could not be read is named in `degraded`."""
        ...


class ProfileStore(Protocol):
    """Where profiles are kept; the side of the batch job that writes them."""

    async def write(self, part: Part, keys: Sequence[str], values: Float64, updated_ms: Int64, ttl_s: float) -> None:
        """Puts the values [n, columns] of n entities; they are gone after `ttl_s`, each a little sooner or later than the others."""
        ...

    async def loaded(self, now_ms: int, ttl_s: float) -> None:
        """Notes that a whole load came to its end: the freshness of the store."""
        ...

    async def find(self, part: Part, key: str) -> bytes | None:
        """Gives the value of one entity as it is stored."""
        ...
