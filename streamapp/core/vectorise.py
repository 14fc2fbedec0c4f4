"""Feature columns to model inputs: scaled numerics beside hashed n-grams (ragged, one row after the other)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(slots=True, frozen=True)
class Ngrams:
    """Hashed n-grams of n texts, ragged: row i is `bucket[start[i]:start[i + 1]]`; buckets are unique within a row."""

    start: npt.NDArray[np.int64]  #     n + 1
    bucket: npt.NDArray[np.int32]  #    total
    weight: npt.NDArray[np.float32]  #  total; L2 norm 1 per non-empty row
    family: npt.NDArray[np.int8]  #     total; 0 word n-gram, 1 character n-gram


@dataclass(slots=True, frozen=True)
class Inputs:
    """What a model takes for n rows."""

    numeric: npt.NDArray[np.float32]  #  n x k, scaled by the card, in the card's order
    ngrams: Ngrams | None


@dataclass(slots=True, frozen=True)
class Contributions:
    """Signed shares of the margin, aligned with Inputs: `numeric` n x k, `ngram` total (ragged by Ngrams.start)."""

    numeric: npt.NDArray[np.float64]
    ngram: npt.NDArray[np.float64]
