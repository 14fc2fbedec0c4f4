"""The linear model in plain numpy, float64: what training fits, what the ONNX graph must agree with, the twin used in tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.vectorise import Contributions, Inputs
from streamapp.core.windows_index import compiled

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Linear:
    """margin = intercept + numeric . numeric_weight + sum over a row's n-grams of weight * bucket_weight[bucket].

    Weights are float32, as they are stored; sums are float64, so that a row's margin does not depend on its neighbours.
    """

    bucket_weight: Float32  #   buckets; empty where the model takes no n-grams
    numeric_weight: Float32  #  k
    intercept: float

    def contributions(self, inputs: Inputs) -> Contributions:
        """Gives each input's signed share of the margin; with the intercept they sum to it."""
        numeric = inputs.numeric.astype(np.float64) * self.numeric_weight.astype(np.float64)
        if inputs.ngrams is None:
            return Contributions(numeric, np.empty(0, np.float64))
        each = self.bucket_weight[inputs.ngrams.bucket].astype(np.float64) * inputs.ngrams.weight.astype(np.float64)
        return Contributions(numeric, each)

    def margins(self, inputs: Inputs) -> Float64:
        """Gives the margins [n, 1]; linear in the number of n-grams."""
        shares = self.contributions(inputs)
        total: Float64 = self.intercept + shares.numeric.sum(axis=1)
        if inputs.ngrams is not None:
            start = inputs.ngrams.start
            row = np.repeat(np.arange(len(total)), np.diff(start))
            total += np.bincount(row, weights=shares.ngram, minlength=len(total))
        return total[:, None]

    def added_up(self, inputs: Inputs) -> Float64:
        """Gives `margins` by a kernel: equal but for the order of the sums; linear in the number of n-grams, whatever else a call costs."""
        numeric, ngrams = np.ascontiguousarray(inputs.numeric), inputs.ngrams
        total = np.empty((len(numeric), 1), np.float64)
        if ngrams is None:
            _add_up(numeric, self.numeric_weight, np.zeros(len(numeric) + 1, np.int64), *_NO_NGRAMS, self.intercept, total)
        else:
            _add_up(numeric, self.numeric_weight, ngrams.start, ngrams.bucket, ngrams.weight, self.bucket_weight, self.intercept, total)
        return total

    def grouped(self, inputs: Inputs, rows: npt.NDArray[np.intp]) -> Float64:
        """Gives explain.group_contributions of `contributions` for `rows` alone [m, k + 2], to the last bit and in one go."""
        numeric, ngrams = np.ascontiguousarray(inputs.numeric), inputs.ngrams
        shares = np.zeros((len(rows), len(self.numeric_weight) + 2))
        if ngrams is None or not len(self.bucket_weight):
            start = np.zeros(len(numeric) + 1, np.int64)
            _group(rows, numeric, self.numeric_weight, start, *_NO_NGRAMS, _NO_FAMILY, shares)
        else:
            _group(
                rows, numeric, self.numeric_weight, ngrams.start, ngrams.bucket, ngrams.weight, self.bucket_weight, ngrams.family, shares
            )
        return shares


_NO_FAMILY = np.zeros(0, np.int8)
_NO_NGRAMS = np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32)


@compiled
def _add_up(
    numeric: Any, numeric_weight: Any, start: Any, bucket: Any, weight: Any, bucket_weight: Any, intercept: float, total: Any
) -> None:
    for row in range(len(total)):
        margin = intercept
        for place in range(len(numeric_weight)):
            margin += np.float64(numeric[row, place]) * np.float64(numeric_weight[place])
        for at in range(start[row], start[row + 1]):
            margin += np.float64(bucket_weight[bucket[at]]) * np.float64(weight[at])
        total[row, 0] = margin


@compiled
def _group(
    rows: Any, numeric: Any, numeric_weight: Any, start: Any, bucket: Any, weight: Any, bucket_weight: Any, family: Any, shares: Any
) -> None:
    behind = len(numeric_weight)
    for line in range(len(rows)):
        row = rows[line]
        for place in range(behind):
            shares[line, place] = np.float64(numeric[row, place]) * np.float64(numeric_weight[place])
        for at in range(start[row], start[row + 1]):
            shares[line, behind + family[at]] += np.float64(bucket_weight[bucket[at]]) * np.float64(weight[at])
