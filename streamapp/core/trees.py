"""Boosted trees as flat tables: what a trained booster is here, what its ONNX graph is made of, and its twin in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import InvariantBroken
from streamapp.core.vectorise import Inputs

Float64 = npt.NDArray[np.float64]
LEAF = -1


@dataclass(slots=True, frozen=True)
class Trees:
    """All nodes of all trees, m together; a row goes left where its feature <= threshold, and its margin is the sum of its leaves.

    Children stand behind their parent in the table. Thresholds are float32, as inputs are: no rounding lies between two programs.
    """

    root: npt.NDArray[np.int64]  #         one per tree, ascending
    feature: npt.NDArray[np.int64]  #      m; LEAF for a leaf
    threshold: npt.NDArray[np.float32]  #  m
    left: npt.NDArray[np.int64]  #         m
    right: npt.NDArray[np.int64]  #        m
    value: Float64  #                      m; 0 for an inner node
    features: int
    cover: npt.NDArray[np.int64] | None = None  # m: training rows that reached the node; None where nobody counted

    def __post_init__(self) -> None:
        m = len(self.feature)
        columns = (self.threshold, self.left, self.right, self.value, *(() if self.cover is None else (self.cover,)))
        if any(len(column) != m for column in columns) or ((self.root < 0) | (self.root >= m)).any():
            raise InvariantBroken("a tree's table has columns of different lengths, or a root that is not in it")
        inner = np.flatnonzero(self.feature != LEAF)
        feature, children = self.feature[inner], np.stack((self.left[inner], self.right[inner]))
        if ((feature < 0) | (feature >= self.features)).any() or ((children <= inner) | (children >= m)).any():
            raise InvariantBroken("a tree names a feature that is not there, or a child that stands before its parent")

    def leaves(self, numeric: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Takes n rows; gives the leaf each of them reaches in each tree, int64[n, trees]. O(n x trees x depth)."""
        node = np.tile(self.root, (len(numeric), 1))
        row = np.arange(len(numeric))[:, None]
        while True:
            feature = self.feature[node]
            inside = feature != LEAF
            if not inside.any():
                return node
            goes_left = numeric[row, np.where(inside, feature, 0)] <= self.threshold[node]
            node = np.where(inside, np.where(goes_left, self.left[node], self.right[node]), node)

    def margins(self, inputs: Inputs) -> Float64:
        """Gives the margins [n, 1], summed tree by tree in float64."""
        margins = np.empty((len(inputs.numeric), 1), np.float64)
        for first in range(0, len(margins), 4096):  # a slice's nodes stay in the cache
            part = self.leaves(inputs.numeric[first : first + 4096])
            margins[first : first + 4096, 0] = self.value[part].sum(axis=1)
        return margins


def below(thresholds: Float64) -> npt.NDArray[np.float32]:
    """Gives the largest float32 at or below each threshold: for every float32 x, x <= below(t) exactly where x <= t."""
    nearest = thresholds.astype(np.float32)
    smaller: npt.NDArray[np.float32] = np.where(
        nearest.astype(np.float64) > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest
    )
    return smaller
