"""What turned out to be true: labels read from their topic, and the delayed windows they move.

A label names its event, the event's time and entities, and what is true of it. It moves the windows of every entity it names at the time
of its *event*, whenever it comes; a window that ends `delay` before an event therefore holds what was known of that time when the event was
decided. Every worker reads the whole topic and keeps all of it that can still matter, so that no store and no partition lies between a
label and an event; the copy of a worker is rebuilt from the topic. Law: order, repetition and batch cuts of labels change no window.
docs/adr/0016-labels.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.cascade import Degraded
from streamapp.core.decode import Decoder
from streamapp.core.errors import Reject, RejectCode
from streamapp.core.events import Flag, Plan, Segment
from streamapp.core.label_book import NEGATIVE, POSITIVE, UNKNOWN, LabelBook
from streamapp.core.shared import SharedPlan, SharedRead, indicator
from streamapp.core.spec import UNKNOWN_LABEL, EventSection, FieldSpec, PipelineSection, PipelineSpec
from streamapp.core.state import Remembered, StatePlan
from streamapp.core.times import TIME_MAX_MS, TIME_MIN_MS, UNREADABLE, epoch_ms
from streamapp.core.velocity import LABEL_VALUES, StoreSpec, VelocityFeature, duration_ms, parse_velocity
from streamapp.core.windows import QUERY, WRITE, WindowStore, units
from streamapp.core.windows_entries import NEVER
from streamapp.core.windows_index import hash_bytes, hash_names

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

WEIGHT_DECIMALS = 3
_time: Any = msgspec.json.Decoder(int | float | str | None).decode


@dataclass(frozen=True, slots=True)
class Labels:
    """n good labels as `LabelBook.take` has them (ids [n, 2], said [n, 4], who [n, s, 2]), and why the others are none."""

    ids: Int64
    said: Int64
    who: Int64
    rejects: list[Reject] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, wanted: Bool | Int64) -> Labels:
        """Gives the chosen labels alone, without rejects."""
        return Labels(self.ids[wanted], self.said[wanted], self.who[wanted])


@dataclass(slots=True)
class LabelState:
    """One worker's copy of what is known. Moved by `take`, and by `LabelPlan.answer`, which lets go of what is too old."""

    stores: dict[str, WindowStore]
    book: LabelBook
    keep_ms: int
    high: int = NEVER  #    the newest mark that was asked for, ms
    new: int = 0  #         labels that changed something …
    repeated: int = 0  #    … that said nothing new …
    expired: int = 0  #     … and that no window can see any more

    def take(self, labels: Labels) -> None:
        """Takes labels in any order and any number of times; the windows of their entities hold them from here on."""
        if not len(labels):
            return
        changes = self.book.take(labels.ids, labels.said, labels.who, self.high - self.keep_ms if self.high > NEVER else NEVER)
        self.new += changes.new
        self.repeated += changes.repeated
        self.expired += changes.expired
        k = len(changes.entries)
        time, values = changes.entries[:, 0].copy(), changes.entries[:, 1:].copy()
        # The mark of a label is its own time: it is never late. Events that were not asked for yet may still need what is old by it.
        high = np.minimum(time, self.high)
        for place, store in enumerate(self.stores.values()):
            names = np.ascontiguousarray(changes.who[:, place])
            store.apply(names, time, high, values, np.empty((k, 0), np.int64), np.full(k, WRITE, np.int8))


@dataclass(frozen=True, slots=True)
class LabelRead:
    """What prefetch brought for a plan: the worker's copy, and what is wrong with it."""

    state: LabelState
    degraded: tuple[Degraded, ...] = ()


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the copy gave for n rows: feature columns [n, m] (NaN: nothing to go by), flags int32[n]."""

    values: Float64
    flags: Int32


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the features of one store are: their columns, their sums, which of them are risks, and what these are divided by."""

    columns: npt.NDArray[np.intp]
    positions: npt.NDArray[np.intp]
    risks: npt.NDArray[np.intp]  #    among `columns`
    weights: npt.NDArray[np.intp]  #  of the risks

    @classmethod
    def of(cls, store: StoreSpec, features: Sequence[VelocityFeature]) -> _Layout:
        """Takes a store and the features of all label stores in the order of their columns."""
        mine = [(column, one) for column, one in enumerate(features) if one.store == store.name]
        risks = [place for place, (_, one) in enumerate(mine) if one.aggregate == "risk"]
        weights = [mine[place][1].position - 1 for place in risks]
        columns, positions = [column for column, _ in mine], [one.position for _, one in mine]
        return cls(*(np.array(each, np.intp) for each in (columns, positions, risks, weights)))


class LabelPlan:
    """The label windows of one pipeline, and how its labels are read; `stores` is empty where it has none."""

    def __init__(self, spec: PipelineSpec) -> None:
        velocity, _ = parse_velocity(spec.velocity, {name: one.type for name, one in spec.event.fields.items()})
        self.stores: tuple[StoreSpec, ...] = tuple(store for store in velocity.stores if store.fed_by == "labels")
        names = {store.name for store in self.stores}
        self._answered = tuple(feature for feature in velocity.features if feature.store in names)
        self.features: tuple[VelocityFeature, ...] = (*self._answered, *map(indicator, self.stores))
        self.names = tuple(feature.name for feature in self.features)
        self.keep_ms = max((store.plan.keep_ms for store in self.stores), default=0)
        #: The least time from an event to the first window that sees its label, ms.
        self.delay_ms = min((feature.delay_ms for feature in self._answered), default=0)
        self._skew_max_ms = duration_ms(spec.state.skew_max)
        self._layouts = [_Layout.of(store, self._answered) for store in self.stores]
        if self.stores:
            self.spec = label_spec(spec, [store.entity for store in self.stores])
            self._decoder = Decoder(self.spec)
            meaning = spec.labels
            self._values = {UNKNOWN_LABEL: UNKNOWN}
            if meaning is not None:
                self._values |= dict.fromkeys(meaning.positive, POSITIVE) | dict.fromkeys(meaning.negative, NEGATIVE)

    def new(self) -> LabelState:
        """Gives the copy of a worker that knows nothing."""
        return LabelState({store.name: WindowStore(store.plan) for store in self.stores}, LabelBook(len(self.stores)), self.keep_ms)

    def decode(self, segments: Sequence[Segment]) -> Labels:
        """Takes records of the labels topic; gives the good ones as columns and the others as rejects. Total: no bytes make it raise."""
        plan = self._decoder.plan(segments)
        n = len(plan)
        told, wrong = _told(plan, self._skew_max_ms)
        for name, given in (("event_id", "whom it is about"), (self.spec.event.time_field, "when its event happened")):
            member = "event_id" if name == "event_id" else "event_time"
            for row, value in enumerate(map(attrgetter(member), plan.events)):
                if value is None and row not in wrong:
                    wrong[row] = RejectCode.MISSING_FIELD, f"$.{name}", f"is missing; a label says {given}"
        rejects = plan.rejects + [
            Reject(int(plan.segment[row]), int(plan.index[row]), code, path, f"{path} {message}", "label")
            for row, (code, path, message) in sorted(wrong.items())
        ]
        said = np.empty((n, 4), np.int64)
        said[:, 0], said[:, 1] = plan.event_time, told
        said[:, 2] = [self._values[label] for label in plan.column("label")]
        said[:, 3] = units(np.array(plan.column("weight"), np.float64), WEIGHT_DECIMALS)
        found = Labels(_ids(plan), said, self._who(plan), rejects)
        if not wrong:
            return found
        good = np.ones(n, np.bool_)
        good[list(wrong)] = False
        chosen = found.where(good)
        return Labels(chosen.ids, chosen.said, chosen.who, rejects)

    def known_of(self, plan: Plan, labelled: Bool, positive: Bool) -> Labels:
        """Takes events, which of them have a label [n] and where it is positive [n]; gives labels that came with the events."""
        said = np.empty((len(plan), 4), np.int64)
        said[:, 0] = said[:, 1] = plan.event_time
        said[:, 2], said[:, 3] = positive, 10**WEIGHT_DECIMALS
        return Labels(_ids(plan), said, self._who(plan)).where(labelled)

    def answer(self, plan: Plan, remembered: Remembered, read: LabelRead | None, shared: SharedRead | None) -> Labelled:
        """Takes a plan, what its partitions' states gave, and the worker's copy; None: nothing is known, all is missing.

        `shared` is what was asked of shared windows: the names of their entities are hashed there already.
        """
        n = len(plan)
        values, flags = np.full((n, len(self.features)), np.nan, order="F"), np.zeros(n, np.int32)
        if not n or read is None:
            return Labelled(values, flags)
        ticks = [step.moved.admission.ticks for step in remembered.steps]
        time = ticks[0].time if len(ticks) == 1 else np.concatenate([one.time for one in ticks])
        high = ticks[0].high if len(ticks) == 1 else np.concatenate([one.high for one in ticks])
        read.state.high = max(read.state.high, int(high.max()))
        mode, nothing, keyless = np.full(n, QUERY, np.int8), np.zeros((n, len(LABEL_VALUES)), np.int64), np.empty((n, 0), np.int64)
        for place, (store, layout) in enumerate(zip(self.stores, self._layouts, strict=True)):
            given = None if shared is None else shared.asks.entries.get(store.entity)
            name = _hashed(plan, store.entity) if given is None else given.name
            answers = read.state.stores[store.name].advance(name, time, high, nothing, keyless, mode)
            flags |= answers.flags & Flag.OVERFLOW
            values[:, len(self._answered) + place] = (name == 0).all(axis=1)
            found = answers.value[:, layout.positions]
            if layout.risks.size:
                weight = answers.value[:, layout.weights]
                known = weight > 0
                found[:, layout.risks] = np.where(known, found[:, layout.risks] / np.where(known, weight, 1.0), np.nan)
            values[:, layout.columns] = found
        return Labelled(values, flags)

    def _who(self, plan: Plan) -> Int64:
        return np.stack([_hashed(plan, store.entity) for store in self.stores], axis=1)


def window_features(spec: PipelineSpec) -> tuple[VelocityFeature, ...]:
    """Gives the features of all windows in the order of their columns: local ones, shared ones, those of labels."""
    return (*StatePlan(spec).features, *SharedPlan(spec).features, *LabelPlan(spec).features)


def label_spec(spec: PipelineSpec, entities: Sequence[str]) -> PipelineSpec:
    """Gives a label of the pipeline as the spec of an event: so it is read, checked and described by what does so for events."""
    meaning = spec.labels
    words = (UNKNOWN_LABEL,) if meaning is None else (*meaning.positive, *meaning.negative, UNKNOWN_LABEL)
    fields = {
        "label": FieldSpec(
            type="string", required=True, pattern=f"^({'|'.join(map(re.escape, words))})$",
            description=f"What is true of the event: one of {', '.join(words)}; {UNKNOWN_LABEL} takes back what was said before",
        ),
        "labelled_at": FieldSpec(
            type="json", description="When it was found out: RFC 3339 or epoch milliseconds, else the record's timestamp; the latest counts"
        ),
        "weight": FieldSpec(type="number", minimum=0.0, maximum=1.0, default=1.0, description="How sure it is; 0 counts as a label only"),
        "source": FieldSpec(type="string", max_length=64, description="Who says so: chargeback, analyst, customer"),
        **{name: spec.event.fields[name] for name in dict.fromkeys(entities) if name in spec.event.fields},
    }  # fmt: skip
    about = PipelineSection(
        name=spec.pipeline.name, version=spec.pipeline.version, key=next(iter(entities)), description="What turned out to be true"
    )
    event = EventSection(max_bytes=spec.event.max_bytes, time_field=spec.event.time_field, time_unit=spec.event.time_unit, fields=fields)
    return PipelineSpec(pipeline=about, event=event)


def _ids(plan: Plan) -> Int64:
    names = plan.identities()
    return hash_bytes(names.data, names.start)


def _hashed(plan: Plan, entity: str) -> Int64:
    return hash_names([text or "" for text in plan.column(entity)])


def _told(plan: Plan, skew_max_ms: int) -> tuple[Int64, dict[int, tuple[RejectCode, str, str]]]:
    """Gives when each label was found out, epoch ms, and by row what is wrong with it; one from the future takes the record's time."""
    told, wrong = plan.received_at.copy(), dict[int, tuple[RejectCode, str, str]]()
    for row, raw in enumerate(plan.column("labelled_at")):
        if len(raw) == 4 and bytes(raw) == b"null":
            continue
        try:
            given = _time(raw)
        except msgspec.MsgspecError:
            given = ""
        at = int(epoch_ms([given])[0]) if isinstance(given, str) else int(given) if TIME_MIN_MS <= given <= TIME_MAX_MS else UNREADABLE
        if at == UNREADABLE:
            wrong[row] = RejectCode.INVALID_TIME, "$.labelled_at", "is neither RFC 3339 (2026-01-31T12:00:00Z) nor epoch milliseconds"
        elif at <= plan.received_at[row] + skew_max_ms:
            told[row] = at
    return told, wrong
