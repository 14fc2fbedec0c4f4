"""From labelled events in their order to an immutable version of boosted trees: measure, split by time, fit, judge, prove, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp import pipeline
from streamapp.control.attributions import told_apart
from streamapp.control.boost import Boosted, BoostRecipe, boost
from streamapp.control.evaluate import Rung, ladder, never_varied, quality, suspicious_features
from streamapp.control.fit import Progress, fit_scaler, logistic_regression, matrix
from streamapp.control.history import History, read_history
from streamapp.control.profiles import GivenProfiles
from streamapp.control.reference import reference
from streamapp.control.release import LoadModel, assemble
from streamapp.control.split import Split, time_split
from streamapp.control.thresholds import best_f1_cut
from streamapp.control.train import TrainingReport
from streamapp.control.tree_graph import tree_graph
from streamapp.control.versions import Files, code_commit, publish, version_directory
from streamapp.core.calibrate import logistic
from streamapp.core.card import Card, Reference
from streamapp.core.errors import ConfigError
from streamapp.core.reliability import reliability_bins
from streamapp.core.spec import PipelineSpec
from streamapp.core.vectorise import Inputs, scale

DAY_MS = 86_400_000
PARITY_ROWS = 50_000
"""Training rows on which the file is compared with Python, beside all of the others."""
TOLD_ROWS = 5_000
"""The most suspicious rows of the test part: reasons are told of such, so there they are compared with SHAP values."""
Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


def train_trees(
    spec: PipelineSpec,
    files: Sequence[Path],
    models: Path,
    *,
    load_model: LoadModel,
    label_field: str = "label",
    positive_label: str = "fraud",
    told_files: Sequence[Path] = (),
    version: str | None = None,
    tier: str | None = None,
    recipe: BoostRecipe | None = None,
    profiles: GivenProfiles | None = None,
    created_by: str = "streamapp train",
    progress: Progress = lambda stage, share: None,
) -> TrainingReport:
    """Trains boosted trees for `tier` (the first with a model) and writes `models/<name>/<version>/`, the next free number by default.

    The files are read in order, as one partition; the split goes by time. Labels of `told_files` move
    label windows from when they were told on. Each event counts twice: with its whole past, and with the few
    days of it that a worker knows which has just begun; and for some, the store of shared windows does not answer. A model that never saw
    either would not keep its promise where they happen.
    Raises ConfigError for data that cannot train, and ModelRejected for a version that exists or a file that is not equal to Python.
    """
    recipe = recipe or BoostRecipe()
    serving = assemble(spec, {}, b"training")
    name, directory = version_directory(spec, models, version, tier)
    progress("read", 0.0)
    history = read_history(files, serving, label_field, positive_label, recipe.cold_ms, told_files, profiles)
    progress("read", 1.0)
    parts = _split(history, recipe)
    values, names = history.of(spec.vector.numeric), tuple(spec.vector.numeric)
    progress("fit", 0.0)
    seen = values.copy()
    struck = np.random.default_rng(recipe.seed).random(len(seen)) < recipe.missing_share
    struck[parts.test] = False
    without_shared(seen, names, serving, struck)
    boosted = boost(seen, names, history.positive, parts, recipe)
    progress("fit", 1.0)
    graph = tree_graph(boosted.trees, name)
    warm = {part: rows[~history.cold[rows]] for part, rows in (("validation", parts.validation), ("test", parts.test))}
    shown = {**warm, "test_cold": parts.test[history.cold[parts.test]]}
    believed = {part: boosted.probability(values[rows]) for part, rows in shown.items()}
    figures = {
        part: quality(believed[part], history.positive[rows], boosted.approve.value, boosted.block.value) for part, rows in shown.items()
    }
    alone = values[warm["test"]]
    without_shared(alone, names, serving, np.ones(len(alone), np.bool_))
    figures["test_alone"] = quality(boosted.probability(alone), history.positive[warm["test"]], boosted.approve.value, boosted.block.value)
    usual, later = _usual(history, serving, parts), np.concatenate((warm["validation"], warm["test"]))
    rungs = _ladder(history, values, names, usual, warm["test"], believed["test"])
    truth = history.positive[warm["test"]]
    suspicious = suspicious_features(history.values[usual].astype(np.float64), history.names, history.positive[usual])

    told = warm["test"][np.argsort(-believed["test"], kind="stable")[:TOLD_ROWS]]

    card = Card(
        name=name, version=directory.name, task="binary", labels=(positive_label,), framework=f"LightGBM {installed_version('lightgbm')}",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"), created_by=created_by, code_commit=code_commit(),
        hyper_parameters=asdict(recipe), feature_spec=serving.features.hash, scaler=boosted.scaler, linear=False,
        onnx_sha256="", calibration_sha256="", base_rate=round(float(history.positive[parts.validation].mean()), 9),
        training=_provenance(history, parts, spec, profiles),
        metrics={
            **{part: value.as_dict() for part, value in figures.items()}, "ladder": [asdict(rung) for rung in rungs],
            "suspicious_features": suspicious, "never_varied": never_varied(values[parts.train], names),
            "best_f1_cut": best_f1_cut(believed["test"], truth),
            "precision_of_100_a_day": top_precision(believed["test"], truth, history.time_ms[warm["test"]], 100),
            "attribution": told_apart(boosted.booster, boosted.trees, values[told], names),
            "cost": costs(believed["test"], truth, recipe), "gain": boosted.gain,
            "notes": {f"validation_log_loss_{method}": loss for method, loss in boosted.losses.items()},
        },
        reliability=reliability_bins(believed["test"], truth),
        block=boosted.block, approve=boosted.approve, reference=_references(history, usual, boosted, values, later),
    )  # fmt: skip
    rows = np.concatenate((parts.train[:PARITY_ROWS], parts.validation, parts.test))
    card = publish(
        directory, card, Files(graph, boosted.calibration, boosted.trees), serving, load_model, boosted.trees.margins,
        Inputs(scale(values[rows].astype(np.float64), boosted.scaler), None), progress,
    )  # fmt: skip
    return TrainingReport(directory, card, figures, rungs, suspicious, history.left_out)


def without_shared(values: npt.NDArray[np.float32], names: Sequence[str], serving: pipeline.Serving, rows: npt.NDArray[np.bool_]) -> None:
    """Puts into the chosen rows of values [n, k] what stands there while the store of shared windows does not answer."""
    for feature in serving.shared.features:
        if feature.name in names:
            values[rows, names.index(feature.name)] = feature.default


def top_precision(believed: Float64, positive: Labels, time_ms: npt.NDArray[np.int64], top: int) -> float | None:
    """Gives the mean over days of the share of positives among the `top` most suspicious of a day; None without a whole day of them."""
    shares = []
    for day in np.unique(time_ms // DAY_MS):
        rows = np.flatnonzero(time_ms // DAY_MS == day)
        if len(rows) >= top:
            shares.append(positive[rows[np.argsort(-believed[rows], kind="stable")[:top]]].mean())
    return round(float(np.mean(shares)), 6) if shares else None


def costs(believed: Float64, positive: Labels, recipe: BoostRecipe) -> dict[str, float]:
    """Gives the cut at which a block costs what a miss costs, a / (a + m), and the dollars per 1,000 events with it and with no model."""
    cut = recipe.cost_alarm / (recipe.cost_alarm + recipe.cost_miss)
    blocked = believed > cut
    spent = recipe.cost_alarm * (blocked & ~positive).sum() + recipe.cost_miss * (~blocked & positive).sum()
    per_1000 = 1000.0 / max(1, len(positive))
    return {
        "cut": round(cut, 6), "per_1000_events": round(float(spent) * per_1000, 4),
        "per_1000_events_approving_all": round(float(recipe.cost_miss * positive.sum()) * per_1000, 4),
    }  # fmt: skip


def _split(history: History, recipe: BoostRecipe) -> Split:
    parts = time_split(history.time_ms, (recipe.train_share, recipe.validation_share), recipe.gap_ms)
    for part, rows in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        positives = int(history.positive[rows].sum())
        if min(positives, len(rows) - positives) < 4:
            raise ConfigError(
                f"the {part} part has {positives} positives in {len(rows)} rows; it needs 4 of each class", "bring more labelled events"
            )
    return parts


def _usual(history: History, serving: pipeline.Serving, parts: Split) -> npt.NDArray[np.int64]:
    """Gives the training rows whose windows are full, as later ones will be: from the longest window on, at most the later half."""
    longest = max((one.window_ms + one.delay_ms for one in serving.windows), default=0)
    first, last = int(history.time_ms[parts.train].min()), int(history.time_ms[parts.train].max())
    full = history.time_ms[parts.train] >= first + min(longest, (last - first) // 2)
    return parts.train[full & ~history.cold[parts.train]]


def _ladder(
    history: History,
    values: npt.NDArray[np.float32],
    names: Sequence[str],
    train_rows: npt.NDArray[np.int64],
    test_rows: npt.NDArray[np.int64],
    believed: Float64,
) -> list[Rung]:
    """The pipeline's own rules, its numbers in a linear model, then the trees: what each step is worth on the test part."""
    train, test = values[train_rows].astype(np.float64), values[test_rows].astype(np.float64)
    scaler = fit_scaler(train, names)
    inputs = matrix(Inputs(scale(train, scaler), None), 0)
    weights, _ = logistic_regression(inputs, history.positive[train_rows], np.ones(len(names)), 1.0, 17)
    linear = scale(test, scaler).astype(np.float64) @ weights
    return ladder({"rules": history.rule_hits[test_rows], "linear": linear, "boosted trees": believed}, history.positive[test_rows])


def _references(
    history: History,
    usual: npt.NDArray[np.int64],
    boosted: Boosted,
    values: npt.NDArray[np.float32],
    later: npt.NDArray[np.int64],
) -> dict[str, Reference]:
    """Features as in training; the score, which training rows would flatter, of later rows."""
    references = {name: reference(history.values[usual, place].astype(np.float64)) for place, name in enumerate(history.names)}
    return references | {"score": reference(logistic(boosted.margins(values[later])))}


def _provenance(history: History, parts: Split, spec: PipelineSpec, profiles: GivenProfiles | None) -> dict[str, Any]:
    named = (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
    used = np.concatenate((parts.train, parts.validation, parts.test))
    return {
        "files": history.files,
        **({} if profiles is None else profiles.provenance(history.names, history.values[used], spec.features.profile)),
        "left_out": history.left_out,
        "rows": {part: len(rows) for part, rows in named},
        "positives": {part: int(history.positive[rows].sum()) for part, rows in named},
        "split": parts.kind,
        "cold_rows": {part: int(history.cold[rows].sum()) for part, rows in named},
        "window_ms": [int(history.time_ms.min()), int(history.time_ms.max())],
        "windows_ms": {part: [int(history.time_ms[rows].min()), int(history.time_ms[rows].max())] for part, rows in named},
    }
