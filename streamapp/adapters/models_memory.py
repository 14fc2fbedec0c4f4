"""The in-memory twins of a loaded model: a constant one, a linear one and trees in numpy, for tests, dry runs and parity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamapp.core.attribution import paths_of
from streamapp.core.card import Calibration, Card
from streamapp.core.linear import Linear
from streamapp.core.trees import Trees
from streamapp.core.vectorise import Contributions, Inputs


@dataclass(slots=True, frozen=True)
class ConstantModel:
    """Gives every row the same margins; nothing contributes."""

    card: Card
    calibration: Calibration
    margins: tuple[float, ...]  # one per label

    def logits(self, inputs: Inputs) -> npt.NDArray[np.float64]:
        """Gives the margins [n, classes]."""
        return np.tile(np.array(self.margins, np.float64), (len(inputs.numeric), 1))

    def contributions(self, inputs: Inputs) -> Contributions:
        """Gives zeros of the inputs' shape."""
        total = 0 if inputs.ngrams is None else len(inputs.ngrams.bucket)
        return Contributions(np.zeros(inputs.numeric.shape), np.zeros(total))


@dataclass(slots=True, frozen=True)
class LinearModel:
    """A linear model without a graph: the same margins as its ONNX twin, within the order of float64 sums."""

    card: Card
    calibration: Calibration
    linear: Linear

    def logits(self, inputs: Inputs) -> npt.NDArray[np.float64]:
        """Gives the margins [n, 1]."""
        return self.linear.margins(inputs)

    def contributions(self, inputs: Inputs) -> Contributions:
        """Gives each input's exact share of the margin."""
        return self.linear.contributions(inputs)


@dataclass(slots=True, frozen=True)
class TreeModel:
    """Boosted trees without a graph: the same margins as their ONNX twin, and contributions along their paths."""

    card: Card
    calibration: Calibration
    trees: Trees

    def logits(self, inputs: Inputs) -> npt.NDArray[np.float64]:
        """Gives the margins [n, 1]."""
        return self.trees.margins(inputs)

    def contributions(self, inputs: Inputs) -> Contributions:
        """Gives each input's share of the margin along the trees' paths."""
        return Contributions(paths_of(self.trees).contributions(inputs.numeric), np.empty(0))
