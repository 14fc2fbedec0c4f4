"""Labelled events in their order, moved through the state as the line moves them: what training sees is what serving would have seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp import pipeline, policy
from streamapp.control.dataset import batches, fault_of, is_positive, reasons_left_out
from streamapp.control.profiles import GivenProfiles
from streamapp.control.release import measured
from streamapp.control.told import ToldLabels
from streamapp.core.errors import ConfigError
from streamapp.core.events import Plan, Segment
from streamapp.core.features import FeatureSet
from streamapp.core.labels import LabelState
from streamapp.core.state import Remembered
from streamapp.core.times import TIME_MAX_MS, TIME_MIN_MS, epoch_ms
from streamapp.core.windows_partition import PartitionState


@dataclass(slots=True, frozen=True)
class History:
    """n labelled events with the features they had when they came, by time where some are cold; and what was left out, by reason."""

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]  #     n x len(names), raw; float32 is what models take
    rule_hits: npt.NDArray[np.float64]  #  n: how many of the pipeline's rules hit
    positive: npt.NDArray[np.bool_]
    time_ms: npt.NDArray[np.int64]
    cold: npt.NDArray[np.bool_]  #         n: seen by a second state that has just begun; these rows repeat others
    files: list[dict[str, Any]]  #         name, sha256, rows
    left_out: dict[str, int]

    def of(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Gives the columns `names` [n, len(names)] in that order."""
        return self.values[:, [self.names.index(name) for name in names]]


def read_history(
    files: Sequence[Path],
    serving: pipeline.Serving,
    label_field: str,
    positive_label: str,
    cold_ms: int | None = None,
    told_files: Sequence[Path] = (),
    profiles: GivenProfiles | None = None,
) -> History:
    """Reads JSON lines (.gz too), one partition's worth, in the order in which they would have come.

    Events without label move the windows and are left out afterwards; so are copies and rejects, which move nothing. With `cold_ms`
    each event is also seen by a state that forgets everything so often: a worker's first days look like that.
    Label windows know the labels of `told_files` from when they were told on; without such files the label of each event itself, from
    the window's delay on. With `profiles` each event has that of its entity, the same at all times.
    A line that is no JSON object, and an event without a time, is left out too. Raises ConfigError for data in which a class is missing.
    """
    reader = _Reader(serving, label_field, positive_label, cold_ms, told_files, profiles)
    for path in files:
        rows = sum(map(reader.read, batches(path)))
        reader.files.append({"name": path.name, "sha256": _sha256(path), "rows": rows})
    reader.files += [{"name": path.name, "sha256": _sha256(path), "labels": True} for path in told_files]
    reader.files += [] if profiles is None else [profiles.file]
    return reader.history()


class _Track:
    """One life of the state, from empty."""

    def __init__(self, serving: pipeline.Serving) -> None:
        self._serving = serving
        self.states: list[PartitionState] = []
        self.parts: list[tuple[npt.NDArray[Any], ...]] = []
        self.forget()

    def forget(self) -> None:
        """Begins anew with an empty state; what was measured stays."""
        self.states, self._shared = [self._serving.state.new()], self._serving.shared.new()

    def move(self, plan: Plan, labels: LabelState, profiles: npt.NDArray[np.float64] | None) -> tuple[FeatureSet, Remembered]:
        """Moves past the plan; gives its features and what the state said of its rows."""
        features, _, remembered = measured(plan, self.states, self._shared, self._serving, labels, profiles)
        return features, remembered


class _Reader:
    """One pass over the files; the states go with it."""

    def __init__(
        self, serving: pipeline.Serving, label_field: str, positive_label: str, cold_ms: int | None, told: Sequence[Path],
        profiles: GivenProfiles | None,
    ) -> None:  # fmt: skip
        key = serving.spec.pipeline.key
        if told and not serving.labels.stores:
            raise ConfigError("the pipeline has no window that labels move", 'leave the labels out, or declare one with fed_by = "labels"')
        self._labels = serving.labels.new()  # a worker reads what is known before it decides: no cold track forgets it
        self._told = ToldLabels(serving.labels, told) if told else None
        self._serving, self._positive_label, self._cold_ms, self._profiles = serving, positive_label, cold_ms, profiles
        wanted = [("label", Any, None), ("event_time", Any, None), ("key", Any, None)]
        beside: Any = msgspec.defstruct("Beside", wanted, rename={"label": label_field, "key": key}, gc=False)
        self._beside: Callable[[bytes], Any] = msgspec.json.Decoder(beside).decode
        self._warm, self._cold = _Track(serving), _Track(serving)
        self._row, self._forget_at = 0, 0
        self._left_out: Counter[str] = Counter() if self._told is None else self._told.left_out.copy()
        self.files: list[dict[str, Any]] = []

    def read(self, lines: list[bytes]) -> int:
        """Takes lines; moves on past them and keeps the labelled ones. Gives how many there were."""
        found = [(line, one) for line in lines if (one := self._said_beside(line)) is not None]
        if not found:
            return len(lines)
        usable, beside, n = [line for line, _ in found], [one for _, one in found], len(found)
        times = _times([one.event_time for one in beside])
        keys = [None if one.key is None else str(one.key).encode() for one in beside]
        edges = [0, *(() if self._told is None else self._told.cuts(times)), n]
        for low, high in pairwise(edges):
            part = slice(low, high)
            self._move(usable[part], times[part], keys[part], [one.label for one in beside[part]])
        return len(lines)

    def _said_beside(self, line: bytes) -> Any:
        """Gives label, time and key of an event; None of what is none, or has no time, counted: windows are windows of time."""
        try:
            found = self._beside(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._left_out[f"rejected: {fault_of(line).value}"] += 1
            return None
        if found.event_time is None:
            self._left_out["without event_time"] += 1
            return None
        return found

    def _move(self, lines: list[bytes], times: npt.NDArray[np.int64], keys: list[bytes | None], given: list[Any]) -> None:
        n = len(lines)
        offsets = np.arange(self._row, self._row + n, dtype=np.int64)
        self._row += n
        # Received when it happened: how late a record came is known to nobody any more, and nothing may count as from the future.
        plan = pipeline.plan([Segment("training", 0, 0, offsets, times, keys, lines, [()] * n)], self._serving)
        self._left_out.update(f"rejected: {reject.code.value}" for reject in plan.rejects)
        labels = [given[row] for row in plan.index.tolist()]
        labelled = np.array([label is not None for label in labels], np.bool_)
        truth = np.array([label is not None and is_positive(label, self._positive_label) for label in labels], np.bool_)
        if self._told is not None:
            self._told.into(self._labels, int(times[0]), int(times.max()))
        elif self._serving.labels.stores:
            self._labels.take(self._serving.labels.known_of(plan, labelled, truth))
        known = None if self._profiles is None else self._profiles.of(plan, self._serving.spec.pipeline.key)
        features, remembered = self._warm.move(plan, self._labels, known)
        copy = remembered.duplicate
        self._left_out.update({"unlabelled": int((~labelled).sum()), "duplicate": int((labelled & copy).sum())})
        kept = np.flatnonzero(labelled & ~copy)
        self._keep(self._warm, plan, features, kept, truth[kept])
        if self._cold_ms is not None:
            if times[0] >= self._forget_at:
                self._cold.forget()
                self._forget_at = int(times[0]) + self._cold_ms
            features, _ = self._cold.move(plan, self._labels, known)
            self._keep(self._cold, plan, features, kept, truth[kept])

    def _keep(self, track: _Track, plan: Plan, features: FeatureSet, kept: npt.NDArray[np.intp], positive: npt.NDArray[np.bool_]) -> None:
        hits = _rule_hits(features, plan, self._serving)
        cold = np.full(len(kept), track is self._cold)
        track.parts.append((features.values[kept].astype(np.float32), hits[kept], positive, plan.event_time[kept], cold))

    def history(self) -> History:
        """Gives everything that was kept."""
        parts = self._warm.parts + self._cold.parts
        if not parts:
            raise ConfigError(f"there is no event in these files{reasons_left_out(self._left_out)}", "bring labelled events as JSON lines")
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if self._cold.parts:
            order = np.argsort(columns[3], kind="stable")
            columns = [column[order] for column in columns]
        values, hits, positive, times, cold = columns
        if not 0 < positive.sum() < len(positive):
            raise ConfigError(
                f"{len(positive)} usable events, of which {int(positive.sum())} are {self._positive_label!r}: both classes are needed"
                + reasons_left_out(self._left_out),
                f"is {self._positive_label!r} the positive label?",
            )
        left_out = {reason: times for reason, times in self._left_out.items() if times}
        return History(self._serving.features.names, values, hits, positive, times, cold, self.files, left_out)


def _rule_hits(features: FeatureSet, plan: Plan, serving: pipeline.Serving) -> npt.NDArray[np.float64]:
    rules = policy.evaluate(plan, features, serving)
    count: npt.NDArray[np.float64] = rules.hit.sum(axis=1).astype(np.float64)
    return count


def _times(given: list[Any]) -> npt.NDArray[np.int64]:
    """A time nobody can read is the decoder's business: here it only must not stand ahead of the others."""
    texts = [time if isinstance(time, str) else "" for time in given]
    parsed = epoch_ms(texts) if any(texts) else np.zeros(len(given), np.int64)
    read = [int(time) if isinstance(time, (int, float)) else at for time, at in zip(given, parsed.tolist(), strict=True)]
    return np.array([time if TIME_MIN_MS <= time <= TIME_MAX_MS else 0 for time in read], np.int64)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
