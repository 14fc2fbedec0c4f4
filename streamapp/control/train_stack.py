"""From labelled events to an immutable version of a stack: the heavy tier of a text cascade, judged on the rows that will reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal

from streamapp.control.evaluate import ladder, never_varied, quality, suspicious_features
from streamapp.control.fit import Progress, Recipe, Table
from streamapp.control.profiles import GivenProfiles
from streamapp.control.release import LoadModel, assemble
from streamapp.control.stack import FittedStack, StackRecipe, fit_stack
from streamapp.control.stack_graph import stack_graph
from streamapp.control.thresholds import best_f1_cut
from streamapp.control.train import TrainingReport, material, provenance, references
from streamapp.control.versions import Files, code_commit, publish, version_directory
from streamapp.core.card import Card
from streamapp.core.errors import ConfigError
from streamapp.core.reliability import reliability_bins
from streamapp.core.spec import PipelineSpec


def train_stack(
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
    own: StackRecipe | None = None,
    created_by: str = "streamapp train",
    progress: Progress = lambda stage, share: None,
) -> TrainingReport:
    """Trains the model of `tier` (the last one that has a model) on JSON lines and writes `models/<name>/<version>/`.

    The linear model inside is the one that `train` makes of the same data and recipe for the fast tier; its cuts, or those that the fast
    tier names in the pipeline file, say which rows the stack is for, and its own cuts keep their promises there.
    Raises ConfigError for data that cannot train or a pipeline without n-grams, and ModelRejected for a version that exists or a file
    that is not equal to Python.
    """
    if spec.ngrams is None:
        raise ConfigError("a stack reads texts, and this pipeline declares no n-grams", "train it with --kind trees")
    learned = [one for one in spec.tiers if one.model is not None]
    target = tier or (learned[-1].name if learned else None)
    name, directory = version_directory(spec, models, version, target)
    recipe, own = recipe or Recipe(), own or StackRecipe()
    before = [one for one in learned if one.name != target]
    fast = before[-1] if before else None
    if fast is not None:
        said = {cut: fast.says(cut, spec.thresholds) for cut in ("approve", "block")}
        own = StackRecipe(**asdict(own) | {cut: value for cut, value in said.items() if isinstance(value, float)})
    serving = assemble(spec, {}, b"training")
    examples, parts, found, table = material(files, serving, label_field, positive_label, split, recipe, progress, profiles)
    progress("features", 1.0)
    fitted = fit_stack(table, tuple(spec.vector.numeric), parts, recipe, own, spec.ngrams.buckets, progress)
    test = table.rows(parts.test)
    believed = {"fast": fitted.linear.probability(test), "heavy": fitted.probability(test)}
    shown = {"validation": table.rows(parts.validation), "test": test}
    figures = {
        part: quality(fitted.probability(rows), rows.positive, fitted.approve.value, fitted.block.value) for part, rows in shown.items()
    }
    rungs = ladder({"rules": found.rule_hits[parts.test], "text logistic": believed["fast"], "stack": believed["heavy"]}, test.positive)
    suspicious = suspicious_features(found.values[parts.train], found.names, examples.positive[parts.train])
    card = Card(
        name=name, version=directory.name, task="binary", labels=(positive_label,),
        framework=f"scikit-learn {installed_version('scikit-learn')}, LightGBM {installed_version('lightgbm')}",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"), created_by=created_by, code_commit=code_commit(),
        hyper_parameters={
            **asdict(recipe), "penalties": list(recipe.penalties), "stack": asdict(own),
            "members": {"linear": fitted.weights[0], "trees": fitted.weights[1], "constant": fitted.weights[2]},
        },
        feature_spec=serving.features.hash, scaler=fitted.linear.scaler, ngram_buckets=spec.ngrams.buckets, linear=True,
        onnx_sha256="", calibration_sha256="", base_rate=round(float(examples.positive[parts.validation].mean()), 9),
        training=provenance(examples, parts, found, spec, profiles),
        metrics={
            **{part: value.as_dict() for part, value in figures.items()}, "ladder": [asdict(rung) for rung in rungs],
            "suspicious_features": suspicious, "never_varied": never_varied(table.values[parts.train], fitted.linear.scaler.names),
            "best_f1_cut": best_f1_cut(believed["heavy"], test.positive),
            "reaches_this_tier": _reaching(fitted, test),
        },
        reliability=reliability_bins(believed["heavy"], test.positive),
        block=fitted.block, approve=fitted.approve, reference=references(fitted, table, found, parts),
    )  # fmt: skip
    stack = fitted.stack
    written = Files(stack_graph(stack, name), fitted.calibration, stack.trees, stack.columns.bucket)
    card = publish(directory, card, written, serving, load_model, stack.margins, fitted.inputs(table), progress)
    return TrainingReport(directory, card, figures, rungs, suspicious, examples.left_out)


def _reaching(fitted: FittedStack, test: Table) -> dict[str, float]:
    """Of the test rows: the share that the fast tier leaves open, and how many of these are positive."""
    between = fitted.reaches(fitted.linear.probability(test))
    return {"share": round(float(between.mean()), 6), "rows": int(between.sum()), "positives": int(test.positive[between].sum())}
