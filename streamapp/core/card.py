"""The model card: everything about a model that is data, as typed records (`card.json`, `calibration.json`)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Scaler(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """numeric = (clip(value, low, high) - mean) / scale, per numeric input, in `names` order; without bounds nothing is clipped.

    The bounds are the training data's range, so that a linear model does not reason about what it never saw.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Training distribution of one feature (or of "score"): the yardstick for drift. Bins are right-closed."""

    edges: tuple[float, ...]  #   inner edges, strictly increasing; outer bins are open to -inf and +inf
    counts: tuple[int, ...]  #    len(edges) + 1
    n: int
    mean: float
    std: float
    missing: int = 0


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A probability cut with its evidence; `value` None says the promise is not reachable on the validation data."""

    value: float | None
    promise: str  #               "precision >= 0.95" or "miss rate <= 0.05"
    observed: float | None  #     on the validation split
    low: float | None  #          95 % interval of `observed`
    high: float | None
    positives: int


class Smoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input with its expected margin, run before a model may serve."""

    event: dict[str, Any]
    logits: tuple[float, ...]


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """probability = f(margin), float64. sigmoid: 1/(1+exp(a*margin+b)); temperature: softmax(margin/t); isotonic: linear between x -> y."""

    method: Literal["none", "sigmoid", "isotonic", "temperature"]
    a: float = 0.0
    b: float = 0.0
    t: float = 1.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model version. Immutable once written; unknown keys are refused."""

    name: str
    version: str
    task: Literal["binary", "multi_class", "multi_label"]
    labels: tuple[str, ...]  #           binary: the positive class only
    benign: tuple[str, ...] = ()  #      labels that speak for letting an event pass; of a binary model: none
    label_cuts: tuple[float, ...] = ()  # per label, of multi_label: named in the verdict from this probability on; 0.5 where empty
    framework: str
    created_at: str
    created_by: str
    approver: str | None = None
    deployed_at: str | None = None
    code_commit: str | None = None
    hyper_parameters: dict[str, Any] = {}
    feature_spec: str  #                 hash the model was trained under
    scaler: Scaler
    ngram_buckets: int = 0  #            0: the model takes no n-grams
    onnx_sha256: str
    calibration_sha256: str
    linear: bool = False  #              the graph also gives exact contributions
    trees_sha256: str | None = None  #   of the trees as tables beside the graph, from which contributions are told
    base_rate: float | None = None  #    share of positives among the rows that calibrated
    training: dict[str, Any] = {}  #     data files with hashes and rows, window, split, seed
    metrics: dict[str, Any] = {}
    reliability: list[dict[str, float]] = []
    block: Threshold
    approve: Threshold
    reference: dict[str, Reference] = {}
    smoke: tuple[Smoke, ...] = ()
    parity_max_abs: float = 0.0
