"""Why: the rules that hit and the largest signed contributions of the model, as reasons a person can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.language import Words, shown
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.vectorise import Contributions, Inputs, Ngrams

#: How many model reasons one verdict carries (MO10).
TOP_REASONS = 3

#: Codes of reasons that neither a rule nor a contribution gives.
LAST_RESORTS = ("default_route", "model_probability", "expected_cost")

#: Names of the n-gram groups; an n-gram itself is text and is named by `trace` only.
NGRAM_GROUPS = ("word_ngrams", "character_ngrams")
PROBABILITIES = ("model_probability", "model_probability_limit")
#: Name -> what is normal for the entity of each row, NaN where not known.
Normal = Mapping[str, Sequence[float]]
NOTHING: Normal = MappingProxyType({})
Float64 = npt.NDArray[np.float64]


class Reason(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One reason of a verdict: closed code, sentence, the feature with its value and its limit, its weight in the margin."""

    code: str
    text: str
    feature: str | None = None
    value: float | str | None = None
    limit: float | str | None = None
    weight: float | None = None
    normal: float | None = None  # what the value is with this entity otherwise


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


def strongest_of(grouped: Float64, values: Float64, count: int) -> tuple[npt.NDArray[np.int64], Float64, Float64]:
    """Takes contributions [m, g] and values of the first k inputs [m, k]; gives the `count` largest by weight of each row, strongest first.

    Their places, their weights and their values (0 where the place has none), each [m, count], numbers to 4 decimals; of equal ones the
    first comes first.
    """
    place = np.empty((len(grouped), count), np.int64)
    weight, told = np.empty((len(grouped), count)), np.zeros((len(grouped), count))
    _strongest(grouped, np.ascontiguousarray(values), place, weight, told)
    return place, weight, told


@njit(cache=True, nogil=True)
def _strongest(grouped: Float64, values: Float64, place: npt.NDArray[np.int64], weight: Float64, told: Float64) -> None:
    rows, count = place.shape
    for row in range(rows):
        for rank in range(count):
            best, size = -1, -1.0
            for at in range(grouped.shape[1]):
                share = abs(grouped[row, at])
                if (0.0 if np.isnan(share) else share) > size:
                    taken = False
                    for before in range(rank):
                        taken |= place[row, before] == at
                    if not taken:
                        best, size = at, 0.0 if np.isnan(share) else share
            place[row, rank] = best
            weight[row, rank] = np.rint(grouped[row, best] * 1e4) / 1e4
            if best < values.shape[1]:
                told[row, rank] = np.rint(values[row, best] * 1e4) / 1e4


class Explainable(Protocol):
    """What explaining asks of a model."""

    def contributions(self, inputs: Inputs) -> Contributions: ...


class ModelReasons:
    """Turns grouped contributions into reasons; built once per model, since sentences and usual values are the same for all rows."""

    def __init__(self, label: str, names: Sequence[str], usual: Sequence[float], words: Words) -> None:
        """Takes the positive label, the numeric inputs' names, and their training means (the `limit` a value is compared with)."""
        self._names = (*names, *NGRAM_GROUPS)
        self._usual = tuple(round(float(mean), 4) for mean in usual)
        self._codes = tuple(f"model_{name}" for name in self._names)
        said, sides = words.label(label), ("against", "for")
        fixed = [{"feature": words.feature(name), "limit": shown(mean)} for name, mean in zip(names, self._usual, strict=True)]
        self._plain, self._beside_normal = (
            [[words.template(f"model_{side}{kind}", label=said, **one) for side in sides] for one in fixed] for kind in ("", "_normal")
        )
        self._group = [
            [words.template(f"input_{side}", label=said, feature=words.feature(name)) % {} for side in sides] for name in NGRAM_GROUPS
        ]

    @property
    def codes(self) -> tuple[str, ...]:
        """The closed list of reason codes this model can give."""
        return self._codes

    def top(self, grouped: Float64, values: Float64, normals: Normal = NOTHING) -> list[list[Reason]]:
        """Takes grouped contributions [m, g], raw values of the numeric inputs [m, k] and what is normal for the entities of the rows.

        Gives each row's TOP_REASONS largest by weight, strongest first.
        """
        numeric = values.shape[1]
        strongest, weights, told = strongest_of(grouped, values, min(TOP_REASONS, grouped.shape[1]))
        return [
            [
                self._reason(place, share, value, row, normals) if place < numeric else self._group_reason(place - numeric, share)
                for place, share, value in zip(*line, strict=True)
                if share != 0.0
            ]
            for row, line in enumerate(zip(strongest.tolist(), weights.tolist(), told.tolist(), strict=True))
        ]

    def _reason(self, place: int, share: float, value: float, row: int, normals: Normal) -> Reason:
        name = self._names[place]
        normal = normals[name][row] if name in normals else np.nan
        if normal != normal:
            text = self._plain[place][share > 0] % {"value": shown(value)}
            return Reason(self._codes[place], text, name, value, self._usual[place], share)
        text = self._beside_normal[place][share > 0] % {"value": shown(value), "normal": shown(normal)}
        return Reason(self._codes[place], text, name, value, self._usual[place], share, normal)

    def _group_reason(self, group: int, share: float) -> Reason:
        place = len(self._usual) + group
        return Reason(self._codes[place], self._group[group][share > 0], self._names[place], weight=share)


class Sentences:
    """The reasons that are the program's own, in the language of the pipeline."""

    def __init__(self, words: Words) -> None:
        """Takes the pipeline's words."""
        self._routes = {name: words.route(name) for name in ROUTE_NAMES}
        self._said = {code: words.template(code) for code in ("default_route", *PROBABILITIES, "expected_cost", "duplicate")}

    def last_resort(self, probability: float, threshold: float, route: str) -> Reason:
        """Gives the reason of a row that neither a rule nor a contribution explains: the probability itself, or that nothing decided."""
        if np.isnan(probability):
            return Reason("default_route", self._said["default_route"] % {"route": self._routes[route]})
        value = round(float(probability), 4)
        if np.isnan(threshold):
            return Reason("model_probability", self._said["model_probability"] % {"value": shown(value)}, value=value)
        limit = round(float(threshold), 4)
        text = self._said["model_probability_limit"] % {"value": shown(value), "limit": shown(limit)}
        return Reason("model_probability", text, value=value, limit=limit)

    def duplicate(self, first_offset: int) -> Reason:
        """Gives the reason of a copy: the offset of the event whose decision it repeats."""
        return Reason("duplicate", self._said["duplicate"] % {"value": first_offset}, value=first_offset)

    def cheapest(self, route: str, cost: float, approving: float) -> Reason:
        """Gives the reason of a row that costs decided: what its route is expected to cost (`value`), and approving it (`limit`)."""
        value, limit = round(cost, 2), round(approving, 2)
        text = self._said["expected_cost"] % {"route": self._routes[route], "value": shown(value), "limit": shown(limit)}
        return Reason("expected_cost", text, value=value, limit=limit)


def beside_normal(reasons: Sequence[Reason], normals: Normal, row: int) -> list[Reason]:
    """Gives the reasons with what is normal for the entity, where it is known; `row` counts within `normals`."""
    found: list[Reason] = []
    for one in reasons:
        normal = normals[one.feature][row] if one.feature is not None and one.feature in normals else np.nan
        found.append(one if normal != normal else msgspec.structs.replace(one, normal=normal))
    return found
