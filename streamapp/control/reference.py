"""The yardstick for drift: how each feature and the score were distributed when the model was made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamapp.core.card import Reference


def reference(values: npt.NDArray[np.float64], bins: int = 10, missing: int = 0) -> Reference:
    """Gives about `bins` right-closed bins of equal share for values [n]; NaN counts as missing beside `missing`.

    Edges are values that occur, each once: a feature that is nearly always 0 gets few bins, a constant one gets two.
    """
    present = values[~np.isnan(values)]
    if not present.size:
        return Reference((), (0,), 0, 0.0, 0.0, missing + len(values))
    shares = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(present, shares, method="inverted_cdf"))
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    return Reference(
        tuple(edges.tolist()), tuple(counts.tolist()), int(present.size), float(present.mean()), float(present.std()),
        missing + int(len(values) - present.size),
    )  # fmt: skip
