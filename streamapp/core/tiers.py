"""One tier of the cascade: what it is asked, what it answers, and what its numbers mean for routes and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core import calibrate
from streamapp.core.card import Calibration, Card, Scaler
from streamapp.core.conditions import Columns
from streamapp.core.errors import InvariantBroken, ModelFailed
from streamapp.core.explain import group_contributions
from streamapp.core.formula import Formula
from streamapp.core.linear import Linear
from streamapp.core.vectorise import Contributions, Inputs, scale, take, take_ngrams

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
#: A cut for all rows, one for each, or none: a promise that was not reachable.
Cut = Float64 | float | None
UNCALIBRATED = Calibration("none")
LABEL_CUT = 0.5
"""From which probability on a label is named, where neither the pipeline file nor the card says otherwise."""


class Scorer(Protocol):
    """What a tier asks of a model."""

    card: Card
    calibration: Calibration

    def logits(self, inputs: Inputs) -> Float64: ...

    def contributions(self, inputs: Inputs) -> Contributions: ...


#: Takes columns of m rows by name (numbers float64[m] with NaN where missing, words as a list with None); gives m probabilities.
Call = Callable[[Mapping[str, Any]], Any]


@dataclass(slots=True, frozen=True)
class Plugin:
    """A tier that somebody wrote in Python: its entry point, its version, and which columns it is given (name -> is a number)."""

    entry: str
    version: str
    call: Call
    reads: Mapping[str, bool]

    def answers(self, columns: Mapping[str, Any], m: int) -> Float64:
        """Gives the probabilities [m, 1] of m rows, NaN where it has none; raises ModelFailed for what are no probabilities."""
        value = np.asarray(self.call(columns), np.float64)
        if value.shape != (m,):
            raise ModelFailed(f"{self.entry} gave {value.shape} for {m} rows", "give one probability per row")
        if ((value < 0.0) | (value > 1.0)).any():
            raise ModelFailed(f"{self.entry} gave {value[(value < 0.0) | (value > 1.0)][0]:g}, which is no probability")
        return value[:, None]


@dataclass(slots=True, frozen=True)
class View:
    """The numeric inputs of a tier that was trained on another vector or scale than the first model: which features, and its scaler."""

    places: Rows
    scaler: Scaler


@dataclass(slots=True, frozen=True)
class Labels:
    """Names of what a multi-class or multi-label model tells apart, and how they are told in a verdict."""

    names: tuple[str, ...]
    harmful: npt.NDArray[np.bool_]  #  per label: it speaks for holding the event back
    cuts: Float64  #                   per label, of multi-label: named from here on
    one: bool  #                       classes exclude one another: the likeliest is named

    def risk(self, probability: Float64) -> Float64:
        """Takes probabilities [m, C]; gives [m] of harm: that of all harmful classes together, or of the likeliest harmful label."""
        if self.one:
            total: Float64 = np.minimum(probability[:, self.harmful].sum(axis=1), 1.0)
            return total
        highest: Float64 = probability[:, self.harmful].max(axis=1)
        return highest

    def told(self, probability: Float64) -> npt.NDArray[np.object_]:
        """Takes probabilities [m, C]; gives the names of each row, a tuple each."""
        if self.one:
            single: npt.NDArray[np.object_] = tuples([(name,) for name in self.names])[np.argmax(probability, axis=1)]
            return single
        which, back = np.unique(probability >= self.cuts, axis=0, return_inverse=True)  # few combinations, many rows
        sets = [tuple(name for name, named in zip(self.names, row, strict=True) if named) for row in which.tolist()]
        several: npt.NDArray[np.object_] = tuples(sets)[back.ravel()]
        return several


class Belief(NamedTuple):
    """What a tier's numbers mean, per row: raw score, calibrated probability of harm, and names where it tells more than two apart."""

    raw: Float64
    probability: Float64
    labels: npt.NDArray[np.object_] | None


@dataclass(slots=True, frozen=True)
class Tier:
    """A model, a formula or a plug-in, with the cuts that hold for it; None is a cut that was not reachable or is not wanted."""

    name: str
    model: Scorer | None
    approve_below: float | None
    block_from: float | None
    formula: Formula | None = None
    review_from: float | None = None  #  people look, and no further tier is asked
    plugin: Plugin | None = None
    labels: Labels | None = None  #      None: one positive class, as all tiers of the cascade
    own: View | None = None  #           None: its inputs are those of the first model
    rows_max: int | None = None
    time_ms: int | None = None  #        None: it is asked on the spot
    rows_per_call: int = 32
    by_cost: tuple[bool, bool] = (False, False)  #    whether approve and block go by each row's costs instead
    base_rates: tuple[float, float] | None = None  #  of the data that calibrated, and now

    @property
    def said(self) -> list[object]:
        """All that its cuts come from, as it enters the version of the thresholds."""
        return [self.approve_below, self.review_from, self.block_from, self.by_cost, self.base_rates]

    def cuts(self, rows: Rows, cheapest: tuple[Float64, Float64] | None) -> tuple[Cut, Cut]:
        """Gives what `rows` are approved below and blocked from: one number for all, or each row's own by `cheapest` [n]."""
        if cheapest is None:
            return self.approve_below, self.block_from
        fixed = (self.approve_below, self.block_from)
        approve, block = (own[rows] if costed else cut for costed, own, cut in zip(self.by_cost, cheapest, fixed, strict=True))
        return approve, block

    @property
    def wording(self) -> tuple[str, str] | None:
        """What stands for it in the versions where there is no model: its kind, and the text or entry point with version."""
        if self.plugin is not None:
            return "callable", f"{self.plugin.entry}@{self.plugin.version}"
        return None if self.formula is None else ("expression", self.formula.text)

    @property
    def classes(self) -> int:
        """How many numbers it gives per row."""
        return 1 if self.model is None else len(self.model.card.labels)

    def inputs(self, inputs: Inputs, rows: Rows) -> Inputs:
        """Gives this tier's inputs of `rows`, of the inputs of all n rows."""
        if self.model is not None and not self.model.card.ngram_buckets and inputs.ngrams is not None:
            inputs = Inputs(inputs.numeric, None, inputs.raw)
        if self.own is None:
            every = rows.size == len(inputs.numeric) and self.time_ms is None  # a tier with a deadline is asked in another order
            return inputs if every else take(inputs, rows)
        if inputs.raw is None:
            raise InvariantBroken(f"tier {self.name} scales its inputs itself and was given none that are raw")
        numeric = scale(inputs.raw[np.ix_(rows, self.own.places)], self.own.scaler)
        return Inputs(numeric, None if inputs.ngrams is None else take_ngrams(inputs.ngrams, rows))

    def shares(self, inputs: Inputs, rows: Rows) -> Float64:
        """Takes the inputs of all n rows; gives for `rows` each input's share of the margin, as explain.group_contributions [m, k + 2].

        Raises ModelFailed where the model tells none.
        """
        if self.model is None:
            raise ModelFailed(f"tier {self.name} is a formula and tells no shares")
        whole: Linear | None = getattr(self.model, "whole", None)
        if whole is not None and self.own is None:
            return whole.grouped(inputs, rows)
        mine = self.inputs(inputs, rows)
        return group_contributions(self.model.contributions(mine), mine.ngrams)

    def believes(self, values: Float64) -> Belief:
        """Takes what it answered [m, C], finite; gives what that means."""
        if self.model is None:
            return Belief(values[:, 0], values[:, 0], None)
        task = self.model.card.task
        raw, calibrated = calibrate.with_raw(values, task, self.model.calibration)
        if task == "binary" or self.labels is None:
            if self.base_rates is not None:
                calibrated = calibrate.at_base_rate(calibrated, *self.base_rates)
            named = None if self.labels is None else self.labels.told(calibrated)
            return Belief(raw[:, 0], calibrated[:, 0], named)
        return Belief(self.labels.risk(raw), self.labels.risk(calibrated), self.labels.told(calibrated))


@dataclass(slots=True)
class Answer:
    """What came back: numbers [m, C] per row that was asked about, NaN where there is none, and why some are missing."""

    values: Float64
    cause: str | None = None


def _margins(given: Any, m: int, classes: int) -> Float64:
    """Gives what a model gave if it is margins [m, classes]; raises ModelFailed for anything else, so that it fails here and not later."""
    if not isinstance(given, np.ndarray) or given.dtype.kind != "f" or given.shape != (m, classes):
        raise ModelFailed(f"a model gave {getattr(given, 'shape', type(given).__name__)} for {m} rows of {classes}", "train it again")
    return given


@dataclass(slots=True, frozen=True)
class Question:
    """A tier and the m rows of a micro-batch it is asked about, the most urgent first.

    `values` may be called beside the event loop: it reads columns that nothing writes any more.
    """

    tier: Tier
    rows: Rows
    inputs: Inputs
    columns: Columns | None

    def values(self, low: int, high: int) -> Float64:
        """Gives the numbers [high - low, C] of the rows low:high of the question. Raises what the tier raises."""
        tier, rows = self.tier, self.rows[low:high]
        if tier.model is not None:
            return _margins(tier.model.logits(tier.inputs(self.inputs, rows)), rows.size, tier.classes)
        if self.columns is None or (tier.formula is None and tier.plugin is None):
            raise InvariantBroken(f"tier {tier.name} has neither a model nor columns to read")
        if tier.plugin is not None:
            return tier.plugin.answers({name: self._column(name, number, rows) for name, number in tier.plugin.reads.items()}, rows.size)
        assert tier.formula is not None  # noqa: S101 - said above
        value = tier.formula.probability(self.columns)
        return (value if rows.size == value.size else value[rows])[:, None]

    def here(self) -> Answer:
        """Gives the answer on the spot, without a deadline; whatever the tier raises becomes the cause."""
        try:
            return Answer(self.values(0, self.rows.size))
        except Exception as failure:  # noqa: BLE001 - whatever a tier throws, a cheaper path decides and the verdict names it
            return self.unanswered(type(failure).__name__)

    def unanswered(self, cause: str) -> Answer:
        """Gives the answer of a tier that has none."""
        return Answer(np.full((self.rows.size, self.tier.classes), np.nan), cause)

    def read_ahead(self) -> None:
        """Fetches and converts the columns a plug-in reads, so that nothing is written any more once another thread looks at them."""
        if self.columns is not None and self.tier.plugin is not None:
            for name, number in self.tier.plugin.reads.items():
                _ = self.columns.numbers(name) if number else self.columns.words(name)

    def _column(self, name: str, number: bool, rows: Rows) -> Any:
        assert self.columns is not None  # noqa: S101 - asked by `values`
        if number:
            return self.columns.numbers(name)[rows]
        words = self.columns.words(name)
        return [words[row] for row in rows.tolist()]


def labels_of(card: Card, cuts: Mapping[str, float]) -> Labels:
    """Takes a card and cuts by label that come before the card's; gives how its labels are told."""
    benign = set(card.benign)
    by_card = card.label_cuts or (LABEL_CUT,) * len(card.labels)
    return Labels(
        card.labels, np.array([name not in benign for name in card.labels], np.bool_),
        np.array([cuts.get(name, cut) for name, cut in zip(card.labels, by_card, strict=True)], np.float64), card.task == "multi_class",
    )  # fmt: skip


def strange_labels(card: Card, cuts: Mapping[str, float]) -> str | None:
    """Gives what is wrong with a card's labels, or with the cuts a pipeline file names for them; None for nothing."""
    unknown = [name for name in (*card.benign, *cuts) if name not in card.labels]
    if unknown:
        return f"{', '.join(unknown)} is no label of {card.name} {card.version}; it has {', '.join(card.labels)}"
    if card.task != "binary" and set(card.labels) == set(card.benign):
        return "all of its labels are benign, so it could never hold an event back"
    if card.task == "multi_class" and not card.benign:
        return "none of its classes is benign, so every event would be held back"
    if card.label_cuts and len(card.label_cuts) != len(card.labels):
        return f"{len(card.label_cuts)} label cuts for {len(card.labels)} labels"
    if cuts and card.task != "multi_label":
        return f"cuts by label are for a multi-label model, and this one is {card.task}"
    return None


def by_urgency(rows: Rows, probability: Float64) -> Rows:
    """Gives `rows` by falling probability [n] of an earlier tier; equal ones, and those without, stay in their order."""
    order: Rows = np.argsort(-np.nan_to_num(probability[rows], nan=-1.0), kind="stable")
    return rows[order]


def tuples(found: Sequence[tuple[str, ...]]) -> npt.NDArray[np.object_]:
    """Gives tuples as one column, which NumPy would take apart otherwise."""
    column: npt.NDArray[np.object_] = np.empty(len(found), object)
    for place, one in enumerate(found):
        column[place] = one
    return column
