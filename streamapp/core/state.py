"""What a pipeline remembers of the past, prepared once: rows of a plan move the states of their partitions and come back as features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from streamapp.core.dedupe import DECISION, NoIds, SeenIds
from streamapp.core.events import Flag, Plan
from streamapp.core.spec import PipelineSpec, local_entities
from streamapp.core.velocity import StoreSpec, VelocityFeature, duration_ms, parse_velocity
from streamapp.core.velocity_entries import entries
from streamapp.core.windows import WindowStore
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_index import hash_bytes
from streamapp.core.windows_moves import move_all
from streamapp.core.windows_partition import Entries, Moved, PartitionState, Rows

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]


@dataclass(slots=True)
class Step:
    """One segment's move: its rows low:high of the plan, the state they moved, what it answered; `rows.decision` follows once decided."""

    segment: int
    low: int
    high: int
    state: PartitionState
    rows: Rows
    moved: Moved


@dataclass(slots=True)
class Remembered:
    """What the states gave for the n rows of a plan: feature columns n x m (NaN: nothing to go by), flags, and one step per segment."""

    values: Float64
    flags: Int32
    steps: list[Step]

    @property
    def duplicate(self) -> npt.NDArray[np.bool_]:
        """True where an earlier copy of the event is remembered."""
        found: npt.NDArray[np.bool_] = (self.flags & Flag.DUPLICATE) != 0
        return found

    def first_offsets(self) -> list[tuple[int, int]]:
        """Gives (row, source offset of the first copy) of every copy; known once the plan is settled."""
        found: list[tuple[int, int]] = []
        for step in self.steps:
            if step.moved.admission.copies and step.rows.decision is not None:
                (copies,) = step.moved.admission.duplicate.nonzero()
                found += zip((step.low + copies).tolist(), step.rows.decision["offset"][copies].tolist(), strict=True)
        return found


class StatePlan:
    """The local state of one pipeline: which stores a partition keeps, how long ids are remembered, which features come of it."""

    def __init__(self, spec: PipelineSpec) -> None:
        velocity, _ = parse_velocity(spec.velocity, {name: field.type for name, field in spec.event.fields.items()})
        local = local_entities(spec)
        self.stores: tuple[StoreSpec, ...] = tuple(store for store in velocity.stores if store.fed_by == "events" and store.entity in local)
        names = {store.name for store in self.stores}
        self.features: tuple[VelocityFeature, ...] = tuple(feature for feature in velocity.features if feature.store in names)
        self.names = tuple(feature.name for feature in self.features)
        self._horizon_ms, self._skew_max_ms = duration_ms(spec.state.horizon), duration_ms(spec.state.skew_max)
        self._dedupe = spec.state.dedupe
        at = {store.name: place for place, store in enumerate(self.stores)}
        self._wanted = np.array([(at[one.store], one.position) for one in self.features], np.int64).reshape(-1, 2)

    def new(self) -> PartitionState:
        """Gives the state of a partition of which nothing is known."""
        stores = {store.name: WindowStore(store.plan) for store in self.stores}
        return PartitionState(Clock(self._skew_max_ms), SeenIds(self._horizon_ms) if self._dedupe else NoIds(), stores)

    def advance(self, plan: Plan, states: Sequence[PartitionState]) -> Remembered:
        """Takes a plan and the state of each of its segments' partitions; moves them past the plan's rows, in place.

        Law: however rows are cut into plans, values and flags are equal. Raises InvariantBroken for rows a state is already past.
        """
        n = len(plan)
        values = np.full((n, len(self.features)), np.nan, order="F")
        flags = np.zeros(n, np.int32)
        steps: list[Step] = []
        ids = np.empty((n, 0), np.int64)
        if self._dedupe:
            names = plan.identities()
            ids = hash_bytes(names.data, names.start)
        mine = {store.name: Entries(*entries(store, plan, plan.hashed)) for store in self.stores}
        bounds = np.searchsorted(plan.segment, np.arange(len(plan.segments) + 1)).tolist()
        spans = [(place, low, high) for place, (low, high) in enumerate(pairwise(bounds)) if low < high]
        if spans:
            offsets = np.concatenate([plan.segments[place].offsets[plan.index[low:high]] for place, low, high in spans])
            rows = Rows(offsets, plan.event_time, plan.received_at, ids, mine)
            moved = move_all(
                [states[place] for place, *_ in spans], [(low, high) for _, low, high in spans], rows, self._wanted, values, flags
            )
            steps = [Step(place, low, high, states[place], *one) for (place, low, high), one in zip(spans, moved, strict=True)]
        return Remembered(values, flags, steps)

    def settle(
        self, remembered: Remembered, route: npt.NDArray[np.int8], decided_by: npt.NDArray[np.int8], score: Float64, release: int
    ) -> None:
        """Takes what was decided [n]; keeps it with each new id, and puts it into the steps' rows, which then are the delta of the log.

        A copy, also one beside its original in this plan, takes the first decision: `route`, `decided_by` and `score` are changed in place.
        """
        if not self._dedupe:
            return
        decisions = np.empty(len(route), DECISION)
        decisions["score"], decisions["release"], decisions["settled"] = score, release, True
        decisions["route"], decisions["decided_by"] = route, decided_by
        for step in remembered.steps:
            decision, admission, rows = decisions[step.low : step.high], step.moved.admission, step.rows
            decision["offset"] = rows.offset
            step.state.settle(admission, decision)
            repeat_first(step, decision, route, decided_by, score)
            step.rows = Rows(rows.offset, rows.event_time, rows.broker_time, rows.event_id, rows.entries, decision)

    def defaults(self) -> Mapping[str, float]:
        """Gives what stands for NaN, by feature name."""
        return {feature.name: feature.default for feature in self.features}


def repeat_first(
    step: Step, decision: npt.NDArray[np.void], route: npt.NDArray[np.int8], decided_by: npt.NDArray[np.int8], score: Float64
) -> None:
    """Takes the step's decisions (dedupe.DECISION) and the plan's columns [n]; puts into both, for copies, what is kept of the first."""
    admission = step.moved.admission
    if admission.copies:
        (copies,) = admission.duplicate.nonzero()
        first = step.state.seen.decisions(admission)[copies]
        decision[copies] = first
        at = step.low + copies
        route[at], decided_by[at], score[at] = first["route"], first["decided_by"], first["score"]
