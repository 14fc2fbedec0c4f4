"""From labelled events to an immutable model version: split, fit, calibrate, judge, prove the file equal to Python, then write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from streamapp import pipeline
from streamapp.control.dataset import Columns, Examples, columns, read_examples
from streamapp.control.evaluate import Quality, Rung, ladder, never_varied, quality, suspicious_features
from streamapp.control.fit import Fitted, Progress, Recipe, Table, fit, logistic_regression, matrix, prior
from streamapp.control.graph import linear_graph
from streamapp.control.obfuscate import ATTACKS, obfuscate
from streamapp.control.profiles import GivenProfiles
from streamapp.control.reference import reference
from streamapp.control.release import LoadModel, assemble
from streamapp.control.sieve import SieveRecipe, fit_sieve, sieve_table
from streamapp.control.split import Split, random_split, time_split
from streamapp.control.thresholds import best_f1_cut
from streamapp.control.versions import Files, code_commit, publish, version_directory
from streamapp.core.calibrate import logistic
from streamapp.core.card import Card, Reference
from streamapp.core.errors import ConfigError
from streamapp.core.reliability import reliability_bins
from streamapp.core.spec import PipelineSpec
from streamapp.core.vectorise import Inputs, scale

Float64 = npt.NDArray[np.float64]


class Scoring(Protocol):
    """What a card asks of a fitted model."""

    @property
    def unseen_margins(self) -> Float64: ...

    def margins(self, table: Table) -> Float64: ...


@dataclass(slots=True, frozen=True)
class TrainingReport:
    """What was made of the data, for people: the version's directory, its card, and the figures behind it."""

    directory: Path
    card: Card
    parts: dict[str, Quality]  #             validation and test
    ladder: list[Rung]
    suspicious: dict[str, float]  #          single features that alone know the answer
    left_out: dict[str, int]


def train(
    spec: PipelineSpec,
    files: Sequence[Path],
    models: Path,
    *,
    load_model: LoadModel,
    label_field: str = "label",
    positive_label: str = "spam",
    version: str | None = None,
    tier: str | None = None,
    split: Literal["auto", "random", "time"] = "auto",
    recipe: Recipe | None = None,
    profiles: GivenProfiles | None = None,
    sieve: SieveRecipe | None = None,
    created_by: str = "streamapp train",
    progress: Progress = lambda stage, share: None,
) -> TrainingReport:
    """Trains the model of `tier` on JSON lines (by default the one before the last that has one) and writes `models/<name>/<version>/`.

    With `sieve` the model sees nothing but what is counted in a text, and its approve cut is the one that `sieve` says.
    The version is the next free number by default; `split` auto goes by time where every event names its own. `progress` is called with a
    stage and the share of it that is done.
    Raises ConfigError for data that cannot train, and ModelRejected for a version that exists or a file that is not equal to Python.
    """
    recipe = recipe or Recipe()
    if sieve is not None and spec.features.text is None:
        raise ConfigError(
            "a sieve goes by what is counted in a text, and this pipeline declares no [features.text]", "train another --kind"
        )
    serving = assemble(spec, {}, b"training")
    learned = [one.name for one in spec.tiers if one.model is not None]
    usual = learned[-2] if sieve is None and len(learned) > 1 else None  # the last is a stack, the first may be a sieve
    name, directory = version_directory(spec, models, version, tier or usual)
    examples, parts, found, table = material(files, serving, label_field, positive_label, split, recipe, progress, profiles)
    progress("features", 0.5)
    buckets = spec.ngrams.buckets if spec.ngrams and sieve is None else 0
    if sieve is None:
        attacked = None if recipe.augment is False else attacked_copies(examples, serving, recipe, profiles)
        progress("features", 1.0)
        fitted = fit(table, tuple(spec.vector.numeric), parts, recipe, buckets, attacked, progress)
    else:
        table = sieve_table(found, examples.positive)
        progress("features", 1.0)
        fitted = fit_sieve(table, parts, recipe, sieve, progress)
    graph = linear_graph(fitted.linear, name)
    figures = {part: _quality(fitted, table.rows(rows)) for part, rows in (("validation", parts.validation), ("test", parts.test))}
    rungs = _ladder(fitted, table, found, parts, recipe)
    suspicious = suspicious_features(found.values[parts.train], found.names, examples.positive[parts.train])

    test_rows, chosen = table.rows(parts.test), asdict(recipe) | (asdict(sieve) if sieve else {})
    card = Card(
        name=name, version=directory.name, task="binary", labels=(positive_label,),
        framework=f"scikit-learn {installed_version('scikit-learn')}",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"), created_by=created_by, code_commit=code_commit(),
        hyper_parameters={**chosen, "penalties": list(chosen["penalties"]), "penalty": fitted.penalty, "augmented": fitted.augmented},
        feature_spec=serving.features.hash, scaler=fitted.scaler, ngram_buckets=buckets, linear=True, onnx_sha256="", calibration_sha256="",
        base_rate=round(float(examples.positive[parts.validation].mean()), 9),
        training=provenance(examples, parts, found, spec, profiles),
        metrics={
            **{part: value.as_dict() for part, value in figures.items()}, "ladder": [asdict(rung) for rung in rungs],
            "suspicious_features": suspicious, "never_varied": never_varied(table.values[parts.train], fitted.scaler.names),
            "best_f1_cut": best_f1_cut(fitted.probability(test_rows), test_rows.positive),
            "notes": fitted.notes,
        },
        reliability=reliability_bins(fitted.probability(test_rows), test_rows.positive),
        block=fitted.block, approve=fitted.approve, reference=references(fitted, table, found, parts),
    )  # fmt: skip
    card = publish(
        directory, card, Files(graph, fitted.calibration), serving, load_model, fitted.linear.margins,
        Inputs(scale(table.values, fitted.scaler), table.ngrams), progress,
    )  # fmt: skip
    return TrainingReport(directory, card, figures, rungs, suspicious, examples.left_out)


def material(
    files: Sequence[Path], serving: pipeline.Serving, label_field: str, positive_label: str, split: str, recipe: Recipe, progress: Progress,
    profiles: GivenProfiles | None = None,
) -> tuple[Examples, Split, Columns, Table]:  # fmt: skip
    """Reads labelled events and measures their features; gives them, how they are split, the features, and what a model may see."""
    progress("read", 0.0)
    examples = read_examples(files, serving, label_field, positive_label)
    progress("read", 1.0)
    found = columns(examples.events, serving, profiles)
    return examples, split_of(examples, split, recipe), found, table_of(found, serving.spec, examples.positive, np.arange(len(examples)))


def table_of(found: Columns, spec: PipelineSpec, positive: npt.NDArray[np.bool_], origin: npt.NDArray[np.int64]) -> Table:
    """Gives what the model may see of these features: the pipeline's vector and its n-grams."""
    return Table(found.of(spec.vector.numeric), found.ngrams, positive, origin)


def attacked_copies(examples: Examples, serving: pipeline.Serving, recipe: Recipe, profiles: GivenProfiles | None = None) -> Table | None:
    """Gives copies of random examples of both classes with their text hidden in one of our ways; None for a pipeline without text."""
    if serving.spec.ngrams is None:
        return None
    text, generator = serving.spec.ngrams.field, np.random.default_rng(recipe.seed)
    origin = np.sort(generator.choice(len(examples), round(recipe.attacked_copies * len(examples)), replace=recipe.attacked_copies > 1))
    copies = []
    for row in origin.tolist():
        attack, strength = ATTACKS[generator.integers(len(ATTACKS))], float(generator.uniform(0.15, 0.9))
        event = examples.events[row]
        copies.append({**event, text: obfuscate(str(event[text]), attack, strength, generator)})
    return table_of(columns(copies, serving, profiles), serving.spec, examples.positive[origin], origin.astype(np.int64))


def split_of(examples: Examples, kind: str, recipe: Recipe) -> Split:
    """Gives the parts, by time where every event names its own or `kind` asks for it; raises ConfigError where a part lacks a class."""
    shares = (recipe.train_share, recipe.validation_share)
    if kind == "time" and examples.time_ms is None:
        raise ConfigError("a split by time needs an event_time in every event", "add them, or use --split random")
    if kind != "random" and examples.time_ms is not None:
        split = time_split(examples.time_ms, shares, recipe.gap_ms)
    else:
        split = random_split(examples.positive, shares, recipe.seed)
    for part, rows in (("training", split.train), ("validation", split.validation), ("test", split.test)):
        positives = int(examples.positive[rows].sum())
        least = recipe.folds if part == "training" else 1
        if min(positives, len(rows) - positives) < least:
            raise ConfigError(
                f"the {part} part has {positives} positives in {len(rows)} rows; it needs {least} of each class",
                "bring more labelled events",
            )
    return split


def _quality(fitted: Fitted, part: Table) -> Quality:
    return quality(fitted.probability(part), part.positive, fitted.approve.value, fitted.block.value)


def _ladder(fitted: Fitted, table: Table, found: Columns, parts: Split, recipe: Recipe) -> list[Rung]:
    """The pipeline's own rules, then its numbers alone, then everything: what each step is worth on the test part."""
    test, rules = table.rows(parts.test), found.rule_hits[parts.test]
    if table.ngrams is None:
        return ladder({"rules": rules, "numeric logistic": fitted.margins(test)}, test.positive)
    train, scaler = table.rows(parts.train), fitted.scaler
    numeric = matrix(Inputs(scale(train.values, scaler), None), 0)
    weights, _ = logistic_regression(numeric, train.positive, prior(numeric, scaler.names), 100.0, recipe.seed)
    alone = scale(test.values, scaler).astype(np.float64) @ weights
    return ladder({"rules": rules, "numeric logistic": alone, "text logistic": fitted.margins(test)}, test.positive)


def references(fitted: Scoring, table: Table, found: Columns, parts: Split) -> dict[str, Reference]:
    """Features as in training; the score, which training rows would flatter, of rows unseen by the model that scored them."""
    unseen = [fitted.unseen_margins, *(fitted.margins(table.rows(rows)) for rows in (parts.validation, parts.test))]
    scores: Float64 = logistic(np.concatenate(unseen))
    usual = {name: reference(found.values[parts.train, place]) for place, name in enumerate(found.names)}
    return usual | {"score": reference(scores)}


def provenance(examples: Examples, parts: Split, found: Columns, spec: PipelineSpec, profiles: GivenProfiles | None) -> dict[str, Any]:
    """Gives what a card says of its data: files with hashes, what was left out, rows and positives of each part, the time they span."""
    times = examples.time_ms
    used = np.concatenate((parts.train, parts.validation, parts.test))
    return {
        "files": [*examples.files, *(() if profiles is None else (profiles.file,))],
        **({} if profiles is None else profiles.provenance(found.names, found.values[used], spec.features.profile)),
        "left_out": examples.left_out,
        "rows": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
        "positives": {
            part: int(examples.positive[rows].sum())
            for part, rows in (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
        },
        "split": parts.kind,
        "window_ms": None if times is None else [int(times.min()), int(times.max())],
    }
