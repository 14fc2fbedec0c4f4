"""Fits the map from margins to probabilities on margins the model did not train on, and chooses the one to be believed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression

from streamapp.core.calibrate import logistic, probability
from streamapp.core.card import Calibration
from streamapp.core.reliability import log_loss

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
METHODS = ("sigmoid", "isotonic", "temperature")


def fit_calibration(method: str, margins: Float64, positive: Labels) -> Calibration:
    """Gives the calibration of `method` with the least log loss on margins [n] and labels [n]."""
    if method == "temperature":
        found = minimize_scalar(lambda log_t: log_loss(logistic(margins / np.exp(log_t)), positive), bounds=(-5.0, 5.0), method="bounded")
        return Calibration("temperature", t=float(np.exp(found.x)))
    if method == "isotonic":
        return _isotonic(margins, positive)
    return _platt(margins, positive)


def choose_calibration(
    margins: Float64, positive: Labels, judge_margins: Float64, judge_positive: Labels
) -> tuple[Calibration, dict[str, float]]:
    """Fits every method on the first rows; gives the one with the least log loss on the judging rows, and all their losses."""
    fitted = {method: fit_calibration(method, margins, positive) for method in METHODS}
    losses = {
        method: log_loss(probability(judge_margins[:, None], "binary", calibration)[:, 0], judge_positive)
        for method, calibration in fitted.items()
    }
    return fitted[min(losses, key=lambda method: losses[method])], losses


def _platt(margins: Float64, positive: Labels) -> Calibration:
    """Sigmoid with smoothed targets, as in Platt 1999: a few rows without an error do not make it certain."""
    yes, no = positive.sum(), (~positive).sum()
    target = np.where(positive, (yes + 1.0) / (yes + 2.0), 1.0 / (no + 2.0))

    def loss(parameters: Float64) -> tuple[float, Float64]:
        z = parameters[0] * margins + parameters[1]
        gradient = target - logistic(-z)
        each = np.logaddexp(0.0, z) - (1.0 - target) * z
        return float(each.mean()), np.array([(gradient * margins).mean(), gradient.mean()])

    found = minimize(loss, np.array([-1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(None, -1e-6), (None, None)])
    return Calibration("sigmoid", a=float(found.x[0]), b=float(found.x[1]))


def _isotonic(margins: Float64, positive: Labels) -> Calibration:
    """Pool-adjacent-violators; 0 and 1 are pulled in by one row in n + 2, since no finite sample shows certainty."""
    least = 1.0 / (len(margins) + 2.0)
    fitted = IsotonicRegression(y_min=least, y_max=1.0 - least, out_of_bounds="clip").fit(margins, positive.astype(np.float64))
    x, first = np.unique(fitted.X_thresholds_, return_index=True)
    return Calibration("isotonic", x=tuple(x.tolist()), y=tuple(np.maximum.accumulate(fitted.y_thresholds_[first]).tolist()))
