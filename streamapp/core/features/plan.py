"""The features of one pipeline, prepared once and computed per micro-batch: the only way from a Plan to numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.events import Plan
from streamapp.core.features import Bounds, FeatureSet, calendar, definitions, profile, spec_hash, text
from streamapp.core.features.catalogue import FeatureDef
from streamapp.core.ngrams import hash_ngrams
from streamapp.core.profiles import ProfilePlan
from streamapp.core.spec import PipelineSpec
from streamapp.core.vectorise import Ngrams
from streamapp.core.velocity import VelocityFeature

Float64 = npt.NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Texts:
    """What the texts of n rows say: their features, float64[n] by name, and hashed n-grams."""

    features: Mapping[str, Float64]
    ngrams: Ngrams | None


class FeaturePlan:
    """Which features a pipeline has, in which order, under which hash; `measure` is the same function online and offline."""

    def __init__(self, spec: PipelineSpec, velocity: Sequence[VelocityFeature] = ()) -> None:
        """`velocity` are the features of the windows, in the order in which their columns are given to `measure`."""
        base = definitions(spec.features)
        numbers = tuple(_number_definition(spec, name) for name in spec.features.fields)
        times = calendar.FEATURES if spec.features.calendar else ()
        windows = tuple(_velocity_definition(feature) for feature in velocity)
        self._more: tuple[FeatureDef, ...] = (*numbers, *times, *windows)
        self.definitions = (*base, *self._more)
        self.names = tuple(definition.name for definition in self.definitions)
        self.place = {name: place for place, name in enumerate(self.names)}
        self.hash = spec_hash(spec) if not self._more else _extended_hash(spec_hash(spec), self._more, spec)
        self._spec = spec
        self.profiles = ProfilePlan.of(spec.features.profile)
        self._text = spec.features.text.field if spec.features.text is not None else None
        self._ngrams = spec.ngrams
        self._bounds = Bounds(self.definitions)

    @property
    def reads_texts(self) -> bool:
        """Whether there are features of a text."""
        return self._text is not None

    def read_texts(self, plan: Plan) -> Texts:
        """Takes a plan's rows; gives all that is known from their texts alone: what can be done ahead, or in another thread. Kept."""
        if self._text is None:
            return Texts({}, None)
        if not plan.said or plan.said[0] is not self:
            column, wanted = plan.text(self._text), self._ngrams
            ngrams = None if wanted is None else hash_ngrams(column, wanted.word, wanted.char, wanted.buckets, wanted.seed)
            plan.said = self, Texts(text.compute(column), ngrams)
        said: Texts = plan.said[1]
        return said

    def measure(
        self, plan: Plan, profiles: Float64 | None, windows: Float64 | None = None, texts: Texts | None = None
    ) -> tuple[FeatureSet, Ngrams | None]:
        """Takes a plan's rows, their profiles [n, `profiles.columns`] (None: none were read), the windows' answers [n, m] (NaN: nothing to
        go by) and what was read of the texts, if that is done already.

        Local windows come before shared ones; the last of them may be left out and are missing then.
        Gives the features and the hashed n-grams of the text.
        """
        read = texts or self.read_texts(plan)
        names = self._spec.features.profile
        known = profile.compute(names, self.profiles.columns, profiles, plan.event_time) if names else {}
        given = self._bounds.room(read.features, known, len(plan))
        if self._more:
            self._write_more(given[-len(self._more) :], plan, windows)
        return self._bounds.applied(given), read.ngrams

    def places(self, names: Sequence[str]) -> npt.NDArray[np.intp]:
        """Gives where `names` stand among the feature columns; raises KeyError for one that this pipeline does not compute."""
        return np.array([self.place[name] for name in names], np.intp)

    def _write_more(self, given: Float64, plan: Plan, windows: Float64 | None) -> None:
        row = 0
        for name in self._spec.features.fields:
            given[row] = plan.numbers(name)
            row += 1
        if self._spec.features.calendar:
            given[row : row + len(calendar.FEATURES)] = calendar.compute(plan.event_time)
            row += len(calendar.FEATURES)
        if windows is not None:
            given[row : row + windows.shape[1]] = windows.T
            row += windows.shape[1]
        given[row:] = np.nan


def _number_definition(spec: PipelineSpec, name: str) -> FeatureDef:
    bounds, told = spec.features.fields[name], spec.event.fields[name].description or f"`{name}` of the event"
    return FeatureDef(
        name=name, version=1, description=told, created_at="2026-11-21", tags=("event",),
        default=bounds.default, low=bounds.low, high=bounds.high,
    )  # fmt: skip


def _velocity_definition(feature: VelocityFeature) -> FeatureDef:
    return FeatureDef(
        name=feature.name, version=1, description=feature.description, created_at="2026-11-21", tags=("velocity", feature.entity),
        default=feature.default, low=-np.inf, high=np.inf,
        whole=feature.aggregate.partition(":")[0] in ("count", "distinct") and feature.default.is_integer(),
    )  # fmt: skip


def _extended_hash(base: str, more: Sequence[FeatureDef], spec: PipelineSpec) -> str:
    rest = [[one.name, one.version, repr(one.default), repr(one.low), repr(one.high)] for one in more]
    content = [base, rest, spec.velocity, *((spec.labels,) if spec.labels is not None else ())]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()
