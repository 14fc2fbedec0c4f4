"""How good are these probabilities: ranking, belief, and what the routes would have done; a ladder shows what a model is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from streamapp.core.reliability import brier, expected_calibration_error, log_loss
from streamapp.core.route import APPROVE, BLOCK, REVIEW, route_by_thresholds

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
UPLIFT_MIN = 0.01
"""A rung that adds less PR-AUC than this over the best simpler one is flagged: it does not pay for its weight."""


@dataclass(slots=True, frozen=True)
class Quality:
    """Figures of one part of the data; a share without rows behind it is None."""

    rows: int
    positives: int
    pr_auc: float | None
    roc_auc: float | None
    log_loss: float
    brier: float
    ece: float
    block_precision: float | None  #     of what is blocked, the share that is positive
    block_recall: float | None  #        of the positives, the share that is blocked
    caught_recall: float | None  #       of the positives, the share that is blocked or held for people
    negatives_in_review: float | None
    negatives_blocked: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """Gives the figures by name, rounded to 6 places."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(slots=True, frozen=True)
class Rung:
    """One step of the ladder of baselines, and whether it is worth more than the best one below it."""

    name: str
    pr_auc: float | None
    uplift: float | None
    worth_it: bool


def quality(probability: Float64, positive: Labels, approve_below: float | None, block_from: float | None) -> Quality:
    """Takes calibrated probabilities [n], labels [n] and the cuts; gives the figures of these rows."""
    route = route_by_thresholds(probability, approve_below, block_from)
    blocked, held = route == BLOCK, route == REVIEW
    return Quality(
        len(positive), int(positive.sum()), pr_auc(probability, positive),
        float(roc_auc_score(positive, probability)) if 0 < positive.sum() < len(positive) else None,
        log_loss(probability, positive), brier(probability, positive), expected_calibration_error(probability, positive),
        _share(positive[blocked]), _share(blocked[positive]), _share((route != APPROVE)[positive]),
        _share(held[~positive]), _share(blocked[~positive]),
    )  # fmt: skip


def pr_auc(score: Float64, positive: Labels) -> float | None:
    """Gives the average precision of a ranking, None without a positive."""
    return float(average_precision_score(positive, score)) if positive.any() else None


def ladder(scores: dict[str, Float64], positive: Labels) -> list[Rung]:
    """Takes scores [n] of ever heavier models by name, simplest first; gives each rung's PR-AUC and its uplift."""
    rungs: list[Rung] = []
    best: float | None = None
    for name, score in scores.items():
        area = pr_auc(score, positive)
        uplift = None if best is None or area is None else area - best
        rungs.append(Rung(name, area, uplift, uplift is None or uplift >= UPLIFT_MIN))
        best = area if best is None else max(best, area or 0.0)
    return rungs


def never_varied(values: npt.NDArray[np.floating[Any]], names: Sequence[str]) -> list[str]:
    """Takes raw model inputs of the rows that trained [n, k]; gives those with one value only, of which a model can know nothing.

    A scaler keeps a linear model's inputs within what it was trained on, so that whatever such an input says later changes no margin.
    """
    return [name for name, low, high in zip(names, values.min(axis=0), values.max(axis=0), strict=True) if low == high]


def suspicious_features(values: Float64, names: tuple[str, ...], positive: Labels, limit: float = 0.95) -> dict[str, float]:
    """Gives every single feature [n, k] whose ROC-AUC alone is beyond `limit` in either direction: it may know the answer."""
    if not 0 < positive.sum() < len(positive):
        return {}
    areas = {name: float(roc_auc_score(positive, values[:, i])) for i, name in enumerate(names)}
    return {name: round(area, 4) for name, area in areas.items() if max(area, 1 - area) > limit}


def _share(flags: npt.NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if flags.size else None
