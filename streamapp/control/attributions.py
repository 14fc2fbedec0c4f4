"""How far the reasons that verdicts carry are from SHAP values, which are too dear to compute while events wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from streamapp.core.attribution import paths_of
from streamapp.core.explain import TOP_REASONS
from streamapp.core.trees import Trees

Float64 = npt.NDArray[np.float64]


def told_apart(booster: lightgbm.Booster, trees: Trees, values: npt.NDArray[np.float32], names: Sequence[str]) -> dict[str, Any]:
    """Takes rows [n, k]; gives what SHAP says of them (exact: TreeSHAP, Lundberg 2020, as LightGBM computes it) beside the paths.

    `mean_abs_shap` is each feature's, largest first; `mean_abs_difference` and `mean_abs` are of single shares of the margin, so that one
    can be read against the other; `top_1` and `top_3` are the mean shares of the strongest reasons that both name; `sign_of_top_3` is how
    often a reason that verdicts give points the same way in both. O(n x trees x leaves x depth^2).
    """
    exact: Float64 = np.asarray(booster.predict(values, pred_contrib=True))
    paths = paths_of(trees)
    told, shap = paths.contributions(values), exact[:, :-1]
    ours, theirs = (_strongest(shares, TOP_REASONS) for shares in (told, shap))
    common = (ours[:, :, None] == theirs[:, None, :]).any(axis=2)
    same_side = np.take_along_axis(told, ours, axis=1) * np.take_along_axis(shap, ours, axis=1) > 0
    mean = np.abs(shap).mean(axis=0)
    return {
        "rows": len(values),
        "mean_abs_difference": round(float(np.abs(told - shap).mean()), 6),
        "mean_abs": round(float(mean.mean()), 6),
        "base_difference": round(float(np.abs(exact[:, -1] - paths.bias).max(initial=0.0)), 9),
        "top_1": round(float((ours[:, 0] == theirs[:, 0]).mean()), 4),
        "top_3": round(float(common.mean()), 4),
        "sign_of_top_3": round(float(same_side.mean()), 4),
        "mean_abs_shap": {names[place]: round(float(mean[place]), 6) for place in np.argsort(-mean, kind="stable") if mean[place] > 0},
    }


def _strongest(shares: Float64, count: int) -> npt.NDArray[np.intp]:
    """Gives the places of the `count` largest shares by weight per row, strongest first."""
    return np.argsort(-np.abs(shares), axis=1, kind="stable")[:, :count]
