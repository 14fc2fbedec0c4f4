"""`streamapp train`: from labelled events to a model version with its card."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.options import json_output, settings
from streamapp.cli.profiles_file import given_profiles
from streamapp.config import Settings, models_directory
from streamapp.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamapp.control.fit import Recipe
    from streamapp.control.sieve import SieveRecipe
    from streamapp.control.train import TrainingReport
    from streamapp.core.card import Card
    from streamapp.core.spec import PipelineSpec

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    "train",
    epilog="""\b
Examples:
  streamapp train messages --data labelled.jsonl
  streamapp train messages --data january.jsonl february.jsonl.gz --split time
  streamapp train messages --data labelled.jsonl --precision 0.97 --models /srv/models
  streamapp train messages --data labelled.jsonl --recall 0.9 --caught 0.98
  streamapp train messages --data labelled.jsonl --profiles users.jsonl
  streamapp train messages_cascade --kind sieve --miss-rate 0.01 --data labelled.jsonl
  streamapp train messages_cascade --kind stack --data labelled.jsonl
  streamapp generate --pipeline payments -n 1000000 -o paid.jsonl --labels told.jsonl
  streamapp train payments --data paid.jsonl --told told.jsonl""",
)
@click.argument("pipeline", metavar="NAME|FILE")
@click.argument("more", type=_FILE, nargs=-1, metavar="")
@click.option("--data", type=_FILE, required=True, multiple=True, metavar="FILE…", help="Labelled events as JSON lines, plain or .gz.")
@click.option(
    "--told", type=_FILE, multiple=True, metavar="FILE", help="Labels as on the labels topic, for windows that labels move; repeatable."
)
@click.option(
    "--profiles",
    type=_FILE,
    metavar="FILE",
    help="What is known of the users, as `streamapp profiles load` takes it. It is of now, not of when an event came: what was counted "
    "since then, reports of the event itself among it, is in it too.",
)
@settings("models")
@click.option("--label", default="label", show_default=True, help="Field that holds the label.")
@click.option("--positive", default=None, help="The label that is to be found.  [default: spam; fraud where events have no text]")
@click.option(
    "--kind",
    type=click.Choice(["auto", "linear", "trees", "sieve", "stack"]),
    default="auto",
    show_default=True,
    help="auto: boosted trees where events have no text. sieve: what is counted in a text alone, for a first tier that only "
    "approves. stack: linear and trees together, for the heavy tier of texts.",
)
@click.option(
    "--tier", default=None, help="The tier whose model is trained.  [default: the first with a model is a sieve, the last a stack]"
)
@click.option("--version", help="Name of the new version.  [default: the next number]")
@click.option(
    "--split",
    type=click.Choice(["auto", "random", "time"]),
    default="auto",
    show_default=True,
    help="auto: by time where all events have one.",
)
@click.option("--precision", type=click.FloatRange(0.5, 0.9999), default=0.95, show_default=True, help="What `block` promises.")
@click.option(
    "--recall", type=click.FloatRange(0.01, 0.9999), default=None, help="What `block` is to catch of all positives, with that precision."
)
@click.option(
    "--miss-rate",
    type=click.FloatRange(0.0001, 0.5),
    default=None,
    help="What `approve` promises: the positives it may let pass.  [default: the recipe's; of trees: what is cheapest]",
)
@click.option(
    "--caught", type=click.FloatRange(0.5, 0.9999), default=None, help="The same the other way round: blocked or held for people."
)
@click.option("--share", type=click.FloatRange(0.01, 0.99), default=None, help="Of all events, what a sieve approves; for --miss-rate.")
@click.option("--seed", type=int, default=17, show_default=True, help="Equal data, seed and options give an equal model.")
@json_output
def command(settings: Settings, pipeline: str, data: tuple[Path, ...], more: tuple[Path, ...], as_json: bool, **wanted: Any) -> None:
    """Train a pipeline's model from labelled events and write MODELS/<name>/<version>/.

    Splits with duplicates removed, fits (a linear model on hashed n-grams and numbers; boosted trees on numbers and windows, for which
    the files are read in order, and labels of --told when they were told), calibrates, finds the cuts that keep the promises, judges the
    result on rows it has not seen, proves the file equal to Python, and writes weights and card; no text is kept. A version is never
    written twice. FILE holds events as producers send them; rows of `score --features` are no such events.

    Inputs that never vary in the rows, as profiles do without --profiles, are named: they count for nothing later.

    Needs the `train` extra: pip install 'streamapp[train]'.
    """
    from streamapp.config import load_pipeline

    spec = load_pipeline(pipeline)
    with_text = spec.ngrams is not None
    trees = wanted["kind"] == "trees" or (wanted["kind"] == "auto" and not with_text)
    wanted["positive"] = wanted["positive"] or ("spam" if with_text else "fraud")
    files = (*data, *more)
    if wanted["caught"] is not None:
        if wanted["miss_rate"] is not None:
            raise ConfigError("--caught and --miss-rate say the same thing", "leave one of them out")
        wanted["miss_rate"] = round(1.0 - wanted["caught"], 9)
    if wanted["recall"] is not None and wanted["kind"] == "sieve":
        raise ConfigError("a sieve blocks nothing", "leave out --recall")
    if wanted["share"] is not None and wanted["kind"] != "sieve":
        raise ConfigError("only a sieve approves a share of all events", "write --kind sieve, or leave out --share")
    profile_features = {name for name in spec.features.profile if name in spec.vector.numeric}
    if wanted["profiles"] is not None:
        wanted["profiles"], profile_features = given_profiles(wanted["profiles"], spec), set()
    try:
        with _stages() as progress:
            by_kind = _train_stack if wanted["kind"] == "stack" else _train_trees if trees else _train_linear
            report = by_kind(spec, files, models_directory(settings), wanted, progress)
    except ModuleNotFoundError as missing:
        raise ConfigError(f"training needs {missing.name}, which is not installed", "pip install 'streamapp[train]'") from missing
    except OSError as unloaded:
        if "shared object" not in str(unloaded):
            raise
        # LightGBM's wheel comes without the OpenMP library that it needs.
        raise ConfigError(f"LightGBM cannot be loaded: {unloaded}", "install it (Debian: apt-get install libgomp1)") from unloaded
    _warn_never_varied(report.card.metrics["never_varied"], profile_features)
    _tell(report, _why_not(spec, models_directory(settings), report.card), as_json=as_json)


def _why_not(spec: PipelineSpec, models: Path, card: Card) -> str:
    """Gives why a worker of this pipeline does not serve the version, and which one it does; nothing where it serves it."""
    from streamapp.adapters.models import latest_version

    asking = [tier for tier in spec.tiers if tier.model == card.name]
    if not asking:
        return f"no tier of pipeline {spec.pipeline.name} asks for model {card.name}"
    newest = latest_version(models, card.name)
    if card.version in [tier.version or newest for tier in asking]:
        return ""
    tier = asking[0]
    if tier.version is not None:
        return f"version {tier.version} is served, which tier {tier.name} names"
    return f"version {newest} is served, which counts as newer; name {card.version} as `version` of tier {tier.name}"


def _train_linear(
    spec: PipelineSpec, files: tuple[Path, ...], models: Path, wanted: dict[str, Any], progress: Callable[[str, float], None]
) -> TrainingReport:
    from streamapp.adapters.models import load_model
    from streamapp.control.train import train

    how: dict[str, Any] = {"split": wanted["split"], "recipe": _recipe(wanted), "sieve": _sieve(wanted), **_named(wanted)}
    return train(spec, files, models, load_model=load_model, progress=progress, **how)


def _recipe(wanted: dict[str, Any]) -> Recipe:
    from streamapp.control.fit import Recipe

    promises = {"precision": wanted["precision"], "recall": wanted["recall"], "miss_rate": wanted["miss_rate"]}
    if wanted["told"]:
        raise ConfigError("a linear model reads no windows that labels move", "leave out --told")
    return Recipe(seed=wanted["seed"], **{name: value for name, value in promises.items() if value is not None})


def _sieve(wanted: dict[str, Any]) -> SieveRecipe | None:
    from streamapp.control.sieve import SieveRecipe

    if wanted["kind"] != "sieve":
        return None
    own = {"miss_rate": wanted["miss_rate"], "share": wanted["share"]}
    if None not in own.values():
        raise ConfigError("a sieve goes by --share or by --miss-rate, not by both", "leave one of them out")
    return SieveRecipe(**{name: value for name, value in own.items() if value is not None})


def _train_stack(
    spec: PipelineSpec, files: tuple[Path, ...], models: Path, wanted: dict[str, Any], progress: Callable[[str, float], None]
) -> TrainingReport:
    from streamapp.adapters.models import load_model
    from streamapp.control.train_stack import train_stack

    how: dict[str, Any] = {"split": wanted["split"], "recipe": _recipe(wanted), **_named(wanted)}
    return train_stack(spec, files, models, load_model=load_model, progress=progress, **how)


def _train_trees(
    spec: PipelineSpec, files: tuple[Path, ...], models: Path, wanted: dict[str, Any], progress: Callable[[str, float], None]
) -> TrainingReport:
    from streamapp.adapters.models import load_model
    from streamapp.control.boost import BoostRecipe
    from streamapp.control.train_trees import train_trees

    if spec.ngrams is not None:
        raise ConfigError("boosted trees take numbers, and this pipeline declares n-grams", "train it with --kind linear")
    if wanted["split"] == "random":
        raise ConfigError("windows know the past, so a split by chance would leak it", "leave out --split, or write --split time")
    recipe = BoostRecipe(**{name: wanted[name] for name in ("seed", "precision", "recall", "miss_rate")})
    told = wanted["told"]
    return train_trees(spec, files, models, load_model=load_model, recipe=recipe, progress=progress, told_files=told, **_named(wanted))


def _named(wanted: dict[str, Any]) -> dict[str, Any]:
    """What every kind of training is told under the same names."""
    named = {"label_field": "label", "positive_label": "positive", "version": "version", "tier": "tier", "profiles": "profiles"}
    return {name: wanted[option] for name, option in named.items()}


def _warn_never_varied(names: Sequence[str], of_profiles: set[str]) -> None:
    """Takes the model's constant inputs, and which inputs a file of profiles would have said."""
    from streamapp.cli.say import warn

    if names:
        way_out = "; give --profiles FILE" if of_profiles & {*names} else ""
        warn(f"these never varied in the rows, so nothing they say later counts: {', '.join(names)}{way_out}")


@contextmanager
def _stages() -> Iterator[Callable[[str, float], None]]:
    """One bar per stage on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda stage, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    tasks: dict[str, TaskID] = {}
    with Progress(TextColumn("{task.description:12}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)) as bars:

        def advance(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0)
            bars.update(tasks[stage], completed=share)

        yield advance


def _tell(report: TrainingReport, why_not: str, *, as_json: bool) -> None:
    import msgspec

    card = report.card
    if as_json:
        found = {
            "directory": str(report.directory),
            "version": card.version,
            "metrics": card.metrics,
            "block": card.block,
            "approve": card.approve,
            "served": not why_not,
        }
        click.echo(msgspec.json.encode(found))
        return
    from rich.console import Console

    from streamapp.cli.say import table, warn

    console = Console(highlight=False)
    shown = table(f"{card.name}/{card.version}", ["", *report.parts], [*report.parts])
    rows = {name: [part.as_dict()[name] for part in report.parts.values()] for name in next(iter(report.parts.values())).as_dict()}
    for name, values in rows.items():
        shown.add_row(
            name.replace("_", " "),
            *("–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}" for value in values),
        )
    console.print(shown)
    steps = table(
        "What each step is worth on the test part (PR-AUC)",
        ["step", "PR-AUC", "more than the best before", ""],
        ["PR-AUC", "more than the best before"],
    )
    for rung in report.ladder:
        uplift = "" if rung.uplift is None else f"{rung.uplift:+.4f}"
        steps.add_row(
            rung.name, "–" if rung.pr_auc is None else f"{rung.pr_auc:.4f}", uplift, "" if rung.worth_it else "[yellow]does not pay[/]"
        )
    console.print(steps)
    for name, cut in (("block from", card.block), ("approve below", card.approve)):
        if cut.value is None:
            warn(f"{name}: {cut.promise} is not reachable on the validation part; its band goes to people.")
        else:
            interval = f"observed {cut.observed:.3f}, 95 % interval {cut.low:.3f} to {cut.high:.3f}" if cut.observed is not None else ""
            console.print(f"{name} {cut.value:.4f}: {cut.promise} ({interval}, {cut.positives} positives)")
    if told := card.metrics.get("attribution"):
        console.print(
            f"reasons beside SHAP values on the {told['rows']:,} most suspicious test rows: the first agrees in {told['top_1']:.0%}, "
            f"{told['top_3']:.0%} of the first three are common, {told['sign_of_top_3']:.0%} of them point the same way; "
            f"a share differs by {told['mean_abs_difference']:.4f} on average (a share is {told['mean_abs']:.4f})"
        )
        console.print("largest by SHAP: " + ", ".join(f"{name} {share:.3f}" for name, share in list(told["mean_abs_shap"].items())[:8]))
    for name, area in report.suspicious.items():
        warn(f"{name} alone tells the classes apart (AUC {area:g}): does it know the answer?")
    if (known := card.training.get("rows_with_profile")) is not None:
        console.print(f"[dim]a profile was known of the user of {known:,} of {sum(card.training['rows'].values()):,} rows[/]")
    for reason, count in report.left_out.items():
        console.print(f"[dim]left out: {count:,} {reason.replace('_', ' ')}[/]")
    console.print(f"[bold green]written to {report.directory}[/]; {why_not or 'a worker that gets SIGHUP loads it'}")
