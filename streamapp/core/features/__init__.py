"""All feature families together: which columns a pipeline has, their values for a micro-batch, and what was missing or clipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.features import profile, text
from streamapp.core.features.catalogue import FeatureDef, feature_spec_hash
from streamapp.core.fold import FOLDING_VERSION
from streamapp.core.ngrams import NGRAMS_VERSION
from streamapp.core.text import CLEANING_VERSION
from streamapp.core.windows_index import compiled

CATALOGUE: tuple[FeatureDef, ...] = (*text.FEATURES, *profile.FEATURES)
Float64 = npt.NDArray[np.float64]
_PROFILE = {definition.name: definition for definition in profile.FEATURES}


class FeaturesLike(Protocol):
    """The `[features]` table of a pipeline: `text` is None without a text family; `profile` maps names to default, low, high."""

    @property
    def text(self) -> Any: ...
    @property
    def profile(self) -> Mapping[str, Any] | None: ...


class SpecLike(Protocol):
    """What of a PipelineSpec decides its features."""

    @property
    def features(self) -> Any: ...
    @property
    def ngrams(self) -> Any: ...


@dataclass(slots=True, frozen=True)
class FeatureSet:
    """Feature columns of n rows, and how many values of each were missing or clipped."""

    names: tuple[str, ...]  #                     k, in catalogue order
    values: npt.NDArray[np.float64]  #            n x k, column-major: a column is contiguous
    missing: npt.NDArray[np.int64]  #             k
    clipped: npt.NDArray[np.int64]  #             k

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Gives one feature of all rows, float64[n]; raises KeyError for a name that is not there."""
        try:
            return self.values[:, self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None


@cache
def _defined(has_text: bool, wanted: tuple[tuple[str, float, float, float], ...]) -> tuple[FeatureDef, ...]:
    template = profile.FEATURES[0]
    rank = {name: k for k, name in enumerate(_PROFILE)}
    values: list[FeatureDef] = []
    indicators: list[FeatureDef] = []
    for name, default, low, high in sorted(wanted, key=lambda entry: rank.get(entry[0], len(rank))):
        known = _PROFILE.get(name) or replace(template, name=name, description=f"`{name}` as the profile store gives it")
        values.append(replace(known, default=default, low=low, high=high))
        indicators.append(_PROFILE.get(f"{name}_missing") or profile.indicator(name))
    return (*(text.FEATURES if has_text else ()), *values, *indicators)


def definitions(features: FeaturesLike) -> tuple[FeatureDef, ...]:
    """Gives the pipeline's features in catalogue order, with the defaults and bounds of its file.

    A profile value that the catalogue does not know is allowed: it gets a definition and an indicator of its own, behind the others.
    """
    wanted = tuple((name, float(b.default), float(b.low), float(b.high)) for name, b in (features.profile or {}).items())
    return _defined(features.text is not None, wanted)


def spec_hash(spec: SpecLike) -> str:
    """Gives the hash that a model card and its pipeline must share: features, their bounds, n-gram parameters, versions of the code."""
    params = {"text": spec.features.text, "ngrams": spec.ngrams}
    return feature_spec_hash(
        definitions(spec.features),
        msgspec.to_builtins(params),
        {"cleaning": CLEANING_VERSION, "folding": FOLDING_VERSION, "ngrams": NGRAMS_VERSION},
    )


class Bounds:
    """Names, defaults and bounds of a pipeline's features, in order: what their values are filled up with and kept within."""

    def __init__(self, defined: Sequence[FeatureDef]) -> None:
        """Takes the definitions: text and profile (`definitions`), then what else there is."""
        self.names = tuple(one.name for one in defined)
        self._default, self._low, self._high = (np.array([getattr(one, side) for one in defined]) for side in ("default", "low", "high"))

    def room(self, texts: Mapping[str, Float64], profiles: Mapping[str, Float64], n: int) -> Float64:
        """Takes the families' columns, float64[n] by name: text (`text.compute`) and profile (`profile.compute`).

        Gives [k, n] with those and, for each profile value, whether it is missing; the features behind them are still to be written.
        """
        given = np.empty((len(self.names), n))
        row, values = len(texts), len(profiles)
        for place, name in enumerate(self.names[: row + values]):
            given[place] = texts[name] if place < row else profiles[name]
        np.isnan(given[row : row + values], out=given[row + values : row + 2 * values])
        return given

    def applied(self, given: Float64) -> FeatureSet:
        """Takes values [k, n], which become the features: missing ones (NaN) take the default, then all are clipped; both are counted.

        Laws: every value is within its bounds, and finite where they are; a row does not depend on the others.
        """
        missing, clipped = np.zeros((2, len(given)), np.int64)
        _bound(given, self._default, self._low, self._high, missing, clipped)
        return FeatureSet(self.names, given.T, missing, clipped)


@compiled
def _bound(given: Any, default: Any, low: Any, high: Any, missing: Any, clipped: Any) -> None:
    for place in range(len(given)):
        for row in range(given.shape[1]):
            value = given[place, row]
            if np.isnan(value):
                value = default[place]
                missing[place] += 1
            if value < low[place]:
                value = low[place]
                clipped[place] += 1
            elif value > high[place]:
                value = high[place]
                clipped[place] += 1
            given[place, row] = value
