"""The outside as small Protocols: what the line needs of models, profiles and metrics, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.card import Calibration, Card
from streamapp.core.vectorise import Contributions, Inputs

Float64 = npt.NDArray[np.float64]


class Model(Protocol):
    """A loaded, smoke-tested scorer; `logits` and `contributions` are pure functions of their inputs."""

    card: Card
    calibration: Calibration

    def logits(self, inputs: Inputs) -> Float64:
        """Takes n rows; gives raw margins [n, classes] float64. Raises on failure: the caller falls back and names it."""
        ...

    def contributions(self, inputs: Inputs) -> Contributions:
        """Takes n rows; gives each input's signed share of the margin (exact for linear models)."""
        ...


class Profiles(Protocol):
    """User features by entity key; one round trip per micro-batch."""

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Takes unique keys; gives what is known (absent keys are unknown entities)."""
        ...
