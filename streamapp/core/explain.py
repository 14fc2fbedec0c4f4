"""Why: the rules that hit and the largest signed contributions of the model, as reasons a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.vectorise import Contributions, Inputs, Ngrams

#: How many model reasons one verdict carries (MO10).
TOP_REASONS = 3

#: Codes of reasons that neither a rule nor a contribution gives.
LAST_RESORTS = ("default_route", "model_probability")

#: Names of the n-gram groups; an n-gram itself is text and is named by `trace` only.
NGRAM_GROUPS = ("word_ngrams", "character_ngrams")
_GROUP_WORDS = {
    "word_ngrams": "the choice of words",
    "character_ngrams": "the spelling",
}


class Reason(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One reason of a verdict: closed code, sentence, the feature with its value and its limit, its weight in the margin."""

    code: str
    text: str
    feature: str | None = None
    value: float | str | None = None
    limit: float | str | None = None
    weight: float | None = None


def group_contributions(shares: Contributions, ngrams: Ngrams | None) -> npt.NDArray[np.float64]:
    """Takes contributions of m rows; gives [m, k + 2]: the k numeric inputs, then the sum over word and over character n-grams.

    Law: each row sums to margin minus intercept, as the shares do.
    """
    rows, numeric = shares.numeric.shape
    grouped = np.zeros((rows, numeric + len(NGRAM_GROUPS)))
    grouped[:, :numeric] = shares.numeric
    if ngrams is not None:
        _add_by_family(ngrams.start, ngrams.family, shares.ngram, numeric, grouped)
    return grouped


@njit(cache=True, nogil=True)
def _add_by_family(
    start: npt.NDArray[np.int64], family: npt.NDArray[np.int8], share: npt.NDArray[np.float64], first: int, grouped: npt.NDArray[np.float64]
) -> None:
    for row in range(start.size - 1):
        for place in range(start[row], start[row + 1]):
            grouped[row, first + family[place]] += share[place]


class Explainable(Protocol):
    """What explaining asks of a model."""

    def contributions(self, inputs: Inputs) -> Contributions: ...


class ModelReasons:
    """Turns grouped contributions into reasons; built once per model, since sentences and usual values come from its card."""

    def __init__(self, label: str, names: Sequence[str], words: Sequence[str], usual: Sequence[float]) -> None:
        """Takes the numeric inputs' names, the words for them, and their training means (the `limit` a value is compared with)."""
        self._names = (*names, *NGRAM_GROUPS)
        self._words = (*words, *(_GROUP_WORDS[group] for group in NGRAM_GROUPS))
        self._usual = tuple(round(mean, 4) for mean in usual)
        self._codes = tuple(f"model_{name}" for name in self._names)
        self._sides = (f"speaks against {label}", f"speaks for {label}")

    @property
    def codes(self) -> tuple[str, ...]:
        """The closed list of reason codes this model can give."""
        return self._codes

    def of(self, model: Explainable, inputs: Inputs, values: npt.NDArray[np.float64]) -> list[list[Reason]]:
        """Takes inputs of m rows and the raw values [m, k] behind them; gives each row's reasons, strongest first."""
        return self.top(group_contributions(model.contributions(inputs), inputs.ngrams), values)

    def top(self, grouped: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> list[list[Reason]]:
        """Takes contributions [m, g] and raw values of the numeric inputs [m, k]; gives the TOP_REASONS largest by weight per row."""
        count = min(TOP_REASONS, grouped.shape[1])
        strongest = np.argsort(-np.abs(grouped), axis=1, kind="stable")[:, :count]
        weights = np.take_along_axis(grouped, strongest, axis=1).round(4).tolist()
        numeric = values.shape[1]
        rows: list[list[Reason]] = []
        for places, shares, row in zip(strongest.tolist(), weights, values.round(4).tolist(), strict=True):
            reasons: list[Reason] = []
            for place, share in zip(places, shares, strict=True):
                if share == 0.0:
                    continue
                side = self._sides[share > 0]
                if place < numeric:
                    value, limit = row[place], self._usual[place]
                    text = f"{self._words[place]} is {value:.3g} (usual: {limit:.3g}), which {side}"
                    reasons.append(Reason(self._codes[place], text, self._names[place], value, limit, share))
                else:
                    reasons.append(Reason(self._codes[place], f"{self._words[place]} {side}", self._names[place], weight=share))
            rows.append(reasons)
        return rows


def reason_of_last_resort(probability: float, threshold: float, route: str) -> Reason:
    """Gives the reason of a row that neither a rule nor a contribution explains: the probability itself, or that nothing decided."""
    if np.isnan(probability):
        return Reason("default_route", f"no rule and no model decided, so the default applies: {route}")
    shown, limit = round(float(probability), 4), None if np.isnan(threshold) else round(float(threshold), 4)
    compared = "" if limit is None else f" against a block threshold of {limit:g}"
    return Reason("model_probability", f"the model's probability is {shown:g}{compared}", value=shown, limit=limit)
