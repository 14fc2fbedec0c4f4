"""An Outcome becomes partials, and a partial a record on the monitoring topic: the worker's side of drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.drift import named
from streamapp.core.events import FLAG_NAMES
from streamapp.core.observe import Rejected, WindowedObservations
from streamapp.core.partials import REJECT_NAMES, SCORE, Layout, Observations
from streamapp.core.route import ROUTE_NAMES

if TYPE_CHECKING:
    from streamapp.core.outcome import Outcome

_NONE = np.iinfo(np.int64).max


class FeatureCounts(msgspec.Struct, frozen=True):
    """One feature's part of a partial; `sum` and `square` are in 2^-20 reference deviations from the reference mean."""

    bins: list[int]
    unknown: int
    outlying: int
    sum: int
    square: int
    missing: int = 0
    clipped: int = 0


class Partial(msgspec.Struct, frozen=True, tag_field="type", tag="partial"):
    """The record one worker emits for one partition's window (or a part of it)."""

    pipeline: str
    release: str
    layout: str
    partition: int
    start_ms: int
    end_ms: int
    n: int
    final: bool
    offsets: tuple[int, int] | None  # first and last; None: rejects only
    times: tuple[int, int] | None
    scored: int
    late: int
    routes: dict[str, int]
    decided_by: dict[str, int]
    flags: dict[str, int]
    rejects: dict[str, int]
    features: dict[str, FeatureCounts]
    score: FeatureCounts
    confidence: list[int]


def to_record(observed: Observations, pipeline: str, release: str) -> bytes:
    """Gives the JSON of a partial; `from_record` reads it back without loss."""
    layout = observed.layout
    groups = {name: observed.of(name).tolist() for name in ("unknown", "outlying", "sum", "square", "missing", "clipped")}

    def counts(place: int, name: str) -> FeatureCounts:
        row = {group: values[place] for group, values in groups.items() if place < len(values)}
        return FeatureCounts(bins=observed.bins(name).tolist(), **row)

    record = Partial(
        pipeline, release, layout.key, observed.partition, observed.start_ms, observed.end_ms, observed.n, observed.final,
        (observed.first_offset, observed.last_offset) if observed.n else None,
        (observed.first_time, observed.last_time) if observed.n else None,
        int(observed.of("scored")[0]), int(observed.of("late")[0]),
        named(ROUTE_NAMES, observed, "route"), named(layout.deciders, observed, "decided_by"),
        named(FLAG_NAMES.values(), observed, "flags"),
        {code: count for code, count in named(REJECT_NAMES, observed, "rejects").items() if count},
        {name: counts(place, name) for place, name in enumerate(layout.features)}, counts(len(layout.features), SCORE),
        observed.of("confidence").tolist(),
    )  # fmt: skip
    return msgspec.json.encode(record)


def from_record(record: Partial, layout: Layout) -> Observations:
    """Takes a partial of this layout; gives its observations. Raises KeyError or ValueError where the record does not fit."""
    if record.layout != layout.key:
        raise ValueError(f"the partial has layout {record.layout}, not {layout.key}")
    totals = np.zeros(layout.width, np.int64)

    def put(group: str, values: int | list[int]) -> None:
        totals[layout.place[group]] = values

    put("rows", record.n)
    put("scored", record.scored)
    put("late", record.late)
    put("route", [record.routes[name] for name in ROUTE_NAMES])
    put("decided_by", [record.decided_by[name] for name in layout.deciders])
    put("flags", [record.flags.get(name, 0) for name in FLAG_NAMES.values()])
    put("rejects", [record.rejects.get(name, 0) for name in REJECT_NAMES])
    put("confidence", record.confidence)
    rows = [*(record.features[name] for name in layout.features), record.score]
    for group in ("unknown", "outlying", "sum", "square"):
        put(group, [getattr(row, group) for row in rows])
    for group in ("missing", "clipped"):
        put(group, [getattr(row, group) for row in rows[:-1]])
    for place, row in enumerate(rows):
        totals[layout.bin_start[place] : layout.bin_start[place + 1]] = row.bins
    return Observations(
        layout, record.partition, record.start_ms, record.end_ms, record.final, *(record.offsets or (_NONE, -1)),
        *(record.times or (_NONE, -1)), totals,
    )  # fmt: skip


def observe(windows: WindowedObservations, outcome: Outcome, now_ms: int) -> list[Observations]:
    """Adds one micro-batch's Outcome; gives the partials that closed."""
    plan = outcome.plan
    partitions = np.array([segment.partition for segment in plan.segments], np.int64)
    starts = np.concatenate([[0], np.cumsum([len(segment) for segment in plan.segments])]).astype(np.int64)
    offsets = np.concatenate([segment.offsets for segment in plan.segments]) if plan.segments else np.zeros(0, np.int64)
    at = starts[plan.segment] + plan.index
    told = outcome.route >= 0  # a verdict that the broker refused for its size counts among the rejects
    return windows.add(
        partition=partitions[plan.segment[told]], offset=offsets[at[told]], event_time=plan.event_time[told],
        values=outcome.features.values[told], score=(outcome.score if outcome.watched is None else outcome.watched)[told],
        probability=outcome.probability[told], route=outcome.route[told], decided_by=outcome.decided_by[told], flags=plan.flags[told],
        missing=outcome.features.missing, clipped=outcome.features.clipped, now_ms=now_ms, rejected=_rejected(outcome, starts, at[told]),
    )  # fmt: skip


def _rejected(outcome: Outcome, starts: npt.NDArray[np.int64], at: npt.NDArray[np.int64]) -> Rejected:
    rejects = sorted(outcome.plan.rejects, key=lambda reject: (reject.segment, reject.index))
    segments = [outcome.plan.segments[reject.segment] for reject in rejects]
    places = [int(starts[reject.segment]) + reject.index for reject in rejects]
    return Rejected.of(
        np.searchsorted(at, places).tolist(), [segment.partition for segment in segments],
        [int(segment.timestamps[reject.index]) for segment, reject in zip(segments, rejects, strict=True)],
        [reject.code for reject in rejects],
    )  # fmt: skip


def part_n(window_n: int, partitions: int) -> int:
    """Gives the events after which a partition's partial is sent: all partitions together send `window_n`, each at least 500."""
    return max(min(500, window_n), window_n // max(1, partitions))
