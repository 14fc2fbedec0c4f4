"""How far probabilities can be believed, apart from how well they rank: Brier score, reliability bins, ECE, log loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


def brier(probability: Float64, positive: Labels) -> float:
    """Gives the mean squared distance of probability [n] and outcome [n] (Brier 1950); 0 is perfect, nan without rows."""
    return float(np.mean((probability - positive) ** 2)) if len(probability) else float("nan")


def log_loss(probability: Float64, positive: Labels) -> float:
    """Gives the mean -log of the probability of what happened, in nats; certainty counts as 1e-15, so one miss stays finite."""
    held = np.clip(np.where(positive, probability, 1.0 - probability), 1e-15, 1.0)
    return float(-np.mean(np.log(held))) if len(held) else float("nan")


def reliability_bins(probability: Float64, positive: Labels, bins: int = 15) -> list[dict[str, float]]:
    """Gives the non-empty ones of `bins` equal-width, right-closed bins of [0, 1]: low, high, n, mean probability, share of positives."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.searchsorted(edges[1:-1], probability, side="left")
    n = np.bincount(place, minlength=bins)
    claimed = np.bincount(place, weights=probability, minlength=bins)
    seen = np.bincount(place, weights=positive.astype(np.float64), minlength=bins)
    return [
        dict(zip(("low", "high", "n", "mean", "positive"), map(float, row), strict=True))
        for row in zip(edges[:-1][n > 0], edges[1:][n > 0], n[n > 0], claimed[n > 0] / n[n > 0], seen[n > 0] / n[n > 0], strict=True)
    ]


def expected_calibration_error(probability: Float64, positive: Labels, bins: int = 15) -> float:
    """Gives the mean gap of claimed and seen share over the reliability bins, by their rows (Naeini et al. 2015); nan without rows."""
    if not len(probability):
        return float("nan")
    gaps = (row["n"] * abs(row["mean"] - row["positive"]) for row in reliability_bins(probability, positive, bins))
    return float(sum(gaps) / len(probability))
