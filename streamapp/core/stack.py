"""Several models as one: a linear one and boosted trees over the same inputs, weighed by a logistic and added up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.attribution import Paths
from streamapp.core.linear import Linear
from streamapp.core.trees import Trees
from streamapp.core.vectorise import Contributions, Inputs

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Columns:
    """Some buckets of hashed n-grams as columns behind the numeric inputs: trees look at few of them, and at all rows alike."""

    def __init__(self, bucket: Int32, buckets: int) -> None:
        """Takes the buckets that are columns, in the order of the columns, and how many buckets there are."""
        self.bucket = bucket
        self._column = np.full(buckets, -1, np.int32)
        self._column[bucket] = np.arange(len(bucket), dtype=np.int32)

    def of(self, inputs: Inputs) -> Float32:
        """Gives [n, k + columns]: the numeric inputs, then the weight of each n-gram that is a column, 0 where the row has it not."""
        n, k = inputs.numeric.shape
        dense = np.zeros((n, k + len(self.bucket)), np.float32)
        dense[:, :k] = inputs.numeric
        if inputs.ngrams is not None:
            _fill(inputs.ngrams.start, inputs.ngrams.bucket, inputs.ngrams.weight, self._column, k, dense)
        return dense

    def add(self, shares: Contributions, inputs: Inputs, paths: Paths) -> Contributions:
        """Gives the shares of a linear part with those of the trees added.

        What speaks through an n-gram's absence is told with the n-grams that are there, spread evenly. Law: a row's shares grow by its
        trees' margin less `paths.bias`, but for a row without any n-gram.
        """
        k = inputs.numeric.shape[1]
        told = paths.contributions(self.of(inputs))
        each = shares.ngram.copy()
        if inputs.ngrams is not None:
            _spread(inputs.ngrams.start, inputs.ngrams.bucket, self._column, k, told, each)
        return Contributions(shares.numeric + told[:, :k], each)


@dataclass(slots=True, frozen=True)
class Stack:
    """margin = linear + trees, both already weighed: a stacked ensemble whose members and logistic are one sum."""

    linear: Linear
    trees: Trees  #      over the k numeric inputs, then `columns`
    columns: Columns

    def margins(self, inputs: Inputs) -> Float64:
        """Gives the margins [n, 1]."""
        return self.linear.margins(inputs) + self.trees.margins(Inputs(self.columns.of(inputs), None))


@njit(cache=True, nogil=True)
def _fill(start: Int64, bucket: Int32, weight: Float32, column: Int32, k: int, dense: Float32) -> None:
    for row in range(len(start) - 1):
        for place in range(start[row], start[row + 1]):
            at = column[bucket[place]]
            if at >= 0:
                dense[row, k + at] = weight[place]


@njit(cache=True, nogil=True)
def _spread(start: Int64, bucket: Int32, column: Int32, k: int, told: Float64, each: Float64) -> None:
    """Gives each n-gram the share of its column; what is left belongs to columns the row has not, and goes to all evenly."""
    for row in range(len(start) - 1):
        absent = 0.0
        for at in range(k, told.shape[1]):
            absent += told[row, at]
        for place in range(start[row], start[row + 1]):
            at = column[bucket[place]]
            if at >= 0:
                each[place] += told[row, k + at]
                absent -= told[row, k + at]
        for place in range(start[row], start[row + 1]):
            each[place] += absent / (start[row + 1] - start[row])
