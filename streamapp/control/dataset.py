"""Labelled events from files to model inputs, through the same plan and features that serve; duplicates count once."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from streamapp import pipeline, policy
from streamapp.control.profiles import GivenProfiles
from streamapp.core.errors import ConfigError, RejectCode
from streamapp.core.events import Plan
from streamapp.core.examples import segment_of
from streamapp.core.features import FeatureSet
from streamapp.core.text import text_column
from streamapp.core.vectorise import Ngrams

Float64 = npt.NDArray[np.float64]
YES = frozenset({"true", "yes", "1"})
BATCH_ROWS = 2048


@dataclass(slots=True, frozen=True)
class Examples:
    """Labelled events that can be decided, each text once, in file order; and what was left out, by reason."""

    events: list[dict[str, Any]]
    positive: npt.NDArray[np.bool_]  #       n
    time_ms: npt.NDArray[np.int64] | None  # n; None unless every event names its time
    files: list[dict[str, Any]]  #           name, sha256, rows
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.events)


@dataclass(slots=True, frozen=True)
class Columns:
    """Features of n events: all of them by name, and the hashed n-grams."""

    names: tuple[str, ...]
    values: Float64  #                       n x len(names), raw
    ngrams: Ngrams | None
    rule_hits: Float64  #                    n: how many of the pipeline's rules hit

    def of(self, names: Sequence[str]) -> Float64:
        """Gives the columns `names` [n, len(names)] in that order."""
        place = {name: i for i, name in enumerate(self.names)}
        return self.values[:, [place[name] for name in names]]


def read_examples(files: Sequence[Path], serving: pipeline.Serving, label_field: str, positive_label: str) -> Examples:
    """Reads JSON lines (.gz too); an event without label, without a verdict to be had, or with a text seen before is left out.

    A label is positive when it is `positive_label` (case does not matter), true, or a number other than 0. Texts are compared
    cleaned and folded; a text with both labels is left out whole, since nobody knows which one is right.
    A line that is no JSON object is left out and counted. Raises ConfigError for data in which a class is missing.
    """
    events: list[dict[str, Any]] = []
    labels: list[bool] = []
    left_out: Counter[str] = Counter()
    sources = []
    for path in files:
        rows = 0
        for event in _json_lines(path):
            rows += 1
            if isinstance(event, RejectCode):
                left_out[f"rejected: {event.value}"] += 1
                continue
            label = event.pop(label_field, None)
            if label is None:
                left_out["unlabelled"] += 1
                continue
            events.append(event)
            labels.append(is_positive(label, positive_label))
        sources.append({"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rows": rows})
    kept, times = _decidable_once(events, labels, serving, left_out)
    positive = np.array([labels[i] for i in kept], np.bool_)
    if not 0 < positive.sum() < len(positive):
        raise ConfigError(
            f"{len(positive)} usable events, of which {int(positive.sum())} are {positive_label!r}: both classes are needed"
            + reasons_left_out(left_out),
            f"is {label_field!r} the label field, and {positive_label!r} the positive label?",
        )
    timed = all("event_time" in events[i] for i in kept)
    return Examples([events[i] for i in kept], positive, np.array(times, np.int64) if timed else None, sources, dict(left_out))


def reasons_left_out(left_out: Counter[str], most: int = 3) -> str:
    """Gives the commonest reasons why events were left out, as the end of a sentence; nothing where none was."""
    told = [f"{count:,} {reason}" for reason, count in left_out.most_common(most) if count]
    return f"; left out: {', '.join(told)}" if told else ""


def is_positive(label: object, positive_label: str) -> bool:
    """Tells whether a label means the positive class; see `read_examples`."""
    if isinstance(label, str):
        return label.strip().lower() in (YES | {positive_label.lower()})
    return bool(label)


def columns(events: Sequence[dict[str, Any]], serving: pipeline.Serving, profiles: GivenProfiles | None = None) -> Columns:
    """Gives the features of events that can all be decided, computed as the worker computes them, in batches.

    With `profiles` each row has that of its entity, and an event that names no time is of the time they are of.
    Raises ConfigError when one of them is rejected: rows would no longer line up with labels.
    """
    values, ngrams, hits = [], [], []
    names: tuple[str, ...] = ()
    for first in range(0, len(events), BATCH_ROWS):
        plan = plan_of(events[first : first + BATCH_ROWS], serving, 0 if profiles is None else profiles.time_ms)
        if plan.rejects:
            raise ConfigError(f"event {first + plan.rejects[0].index} cannot be decided: {plan.rejects[0].message}")
        features, grams = serving.features.measure(plan, None if profiles is None else profiles.of(plan, serving.spec.pipeline.key))
        names = features.names
        values.append(features.values)
        if grams is not None:
            ngrams.append(grams)
        hits.append(_rule_hits(features, plan, serving))
    return Columns(names, np.concatenate(values), join_ngrams(ngrams) if ngrams else None, np.concatenate(hits))


def plan_of(events: Sequence[dict[str, Any]], serving: pipeline.Serving, time_ms: int = 0) -> Plan:
    """Plans events as if they had come in one poll, at `time_ms`."""
    return pipeline.plan([segment_of(events, "training", serving.spec.pipeline.key, time_ms)], serving)


def join_ngrams(parts: Sequence[Ngrams]) -> Ngrams:
    """Gives the rows of all parts, one part after the other."""
    lengths = np.concatenate([np.diff(part.start) for part in parts])
    start = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    return Ngrams(
        start, np.concatenate([part.bucket for part in parts]), np.concatenate([part.weight for part in parts]),
        np.concatenate([part.family for part in parts]),
    )  # fmt: skip


def _rule_hits(features: FeatureSet, plan: Plan, serving: pipeline.Serving) -> Float64:
    rules = policy.evaluate(plan, features, serving)
    count: Float64 = rules.hit.sum(axis=1).astype(np.float64)
    return count


def batches(path: Path, rows: int = 4096) -> Iterator[list[bytes]]:
    """Gives the lines of a file (.gz too) that are not blank, at most `rows` at once."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        lines = (line for line in file if line.strip())
        while batch := list(islice(lines, rows)):
            yield batch


def _json_lines(path: Path) -> Iterator[dict[str, Any] | RejectCode]:
    for line in chain.from_iterable(batches(path)):
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            event = None
        yield event if isinstance(event, dict) else fault_of(line)


def fault_of(line: bytes) -> RejectCode:
    """Gives what is wrong with a line that is no JSON object, as a worker would call it."""
    try:
        orjson.loads(line.decode())
    except UnicodeDecodeError:
        return RejectCode.INVALID_UTF8
    except orjson.JSONDecodeError:
        return RejectCode.INVALID_JSON
    return RejectCode.NOT_AN_OBJECT


def _decidable_once(
    events: list[dict[str, Any]], labels: list[bool], serving: pipeline.Serving, left_out: Counter[str]
) -> tuple[list[int], list[int]]:
    """Gives which events stay and when they were; the first event of a text stands for all of them."""
    first_of: dict[bytes, int] = {}
    times: dict[int, int] = {}
    contradicted: set[int] = set()
    for start in range(0, len(events), BATCH_ROWS):
        plan = plan_of(events[start : start + BATCH_ROWS], serving)
        left_out.update(f"rejected: {reject.code.value}" for reject in plan.rejects)
        for row, key in enumerate(text_keys(plan, serving)):
            here = start + int(plan.index[row])
            first = first_of.setdefault(key, here)
            if first == here:
                times[here] = int(plan.event_time[row])
                continue
            left_out["duplicate"] += 1
            if labels[first] != labels[here]:
                contradicted.add(first)
    if contradicted:
        left_out["contradicting labels"] += len(contradicted)
    kept = sorted(set(first_of.values()) - contradicted)
    return kept, [times[i] for i in kept]


def text_keys(plan: Plan, serving: pipeline.Serving) -> list[bytes]:
    """What makes two events the same example: their folded text, or the whole event where the pipeline has no text."""
    text = serving.spec.ngrams
    if text is None:
        return [orjson.dumps([plan.event_id[row]]) for row in range(len(plan))]
    column = text_column(plan.column(text.field))
    folded, bounds = column.folded.tobytes(), column.folded_start.tolist()
    return [folded[low:high].lower() for low, high in pairwise(bounds)]
