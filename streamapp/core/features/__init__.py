"""All feature families together: which columns a pipeline has, their values for a micro-batch, and what was missing or clipped."""

from __future__ import annotations

from collections.abc import Mapping
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


@cache
def _bounds(defined: tuple[FeatureDef, ...]) -> tuple[Float64, Float64, Float64]:
    return (
        np.array([definition.default for definition in defined]),
        np.array([definition.low for definition in defined]),
        np.array([definition.high for definition in defined]),
    )


def spec_hash(spec: SpecLike) -> str:
    """Gives the hash that a model card and its pipeline must share: features, their bounds, n-gram parameters, versions of the code."""
    params = {"text": spec.features.text, "ngrams": spec.ngrams}
    return feature_spec_hash(
        definitions(spec.features),
        msgspec.to_builtins(params),
        {"cleaning": CLEANING_VERSION, "folding": FOLDING_VERSION, "ngrams": NGRAMS_VERSION},
    )


def compute_features(spec: SpecLike, texts: Mapping[str, Float64], profiles: Mapping[str, Float64], n: int) -> FeatureSet:
    """Takes the families' columns, float64[n] by name: text (`text.compute`) and profile (`profile.compute`).

    Gives the features: missing values (NaN) take the default, then all are clipped; both are counted per feature. Laws: every value is
    finite and within bounds; a row does not depend on the others.
    """
    defined = definitions(spec.features)
    names = tuple(definition.name for definition in defined)
    measured = dict(texts)
    for name, read in profiles.items():
        measured[name] = read
        measured[f"{name}_missing"] = np.isnan(read)
    default, low, high = _bounds(defined)
    values = np.empty((len(defined), n), np.float64)
    for k, name in enumerate(names):
        values[k] = measured[name]
    unknown = np.isnan(values)
    np.copyto(values, default[:, None], where=unknown)
    bounded = np.clip(values, low[:, None], high[:, None])
    return FeatureSet(names, bounded.T, np.count_nonzero(unknown, axis=1), np.count_nonzero(bounded != values, axis=1))
