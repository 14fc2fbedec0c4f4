"""The features of one pipeline, prepared once and computed per micro-batch: the only way from a Plan to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.events import Plan
from streamapp.core.features import FeatureSet, compute_features, definitions, spec_hash
from streamapp.core.ngrams import hash_ngrams
from streamapp.core.spec import PipelineSpec
from streamapp.core.text import TextColumn, text_column
from streamapp.core.vectorise import Ngrams


class FeaturePlan:
    """Which features a pipeline has, in which order, under which hash; `measure` is the same function online and offline."""

    def __init__(self, spec: PipelineSpec) -> None:
        self.definitions = definitions(spec.features)
        self.names = tuple(definition.name for definition in self.definitions)
        self.place = {name: place for place, name in enumerate(self.names)}
        self.hash = spec_hash(spec)
        self._spec = spec
        self._text = spec.features.text.field if spec.features.text is not None else None
        self._ngrams = spec.ngrams

    def measure(self, plan: Plan, profiles: Mapping[str, Mapping[str, Any]]) -> tuple[FeatureSet, Ngrams | None]:
        """Takes a plan's rows and the profiles found for their entities; gives the features and the hashed n-grams of the text."""
        texts: TextColumn | None = None
        if self._text is not None:
            texts = text_column(plan.column(self._text))
        keys: Sequence[str] = plan.column(self._spec.pipeline.key) if profiles else ()
        features = compute_features(self._spec, texts, profiles, len(plan), keys)
        if self._ngrams is None or texts is None:
            return features, None
        wanted = self._ngrams
        return features, hash_ngrams(texts, wanted.word, wanted.char, wanted.buckets, wanted.seed)

    def places(self, names: Sequence[str]) -> npt.NDArray[np.intp]:
        """Gives where `names` stand among the feature columns; raises KeyError for one that this pipeline does not compute."""
        return np.array([self.place[name] for name in names], np.intp)
