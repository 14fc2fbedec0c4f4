"""`streamapp config`: what is set, from where, and whether it is right."""

from __future__ import annotations

import click

from streamapp.cli.options import json_output, settings
from streamapp.config import Settings


@click.group("config")
def command() -> None:
    """Show and check settings and pipeline files."""


@command.command(
    "show",
    epilog="""\b
Examples:
  streamapp config show
  STREAMAPP_BATCH_WAIT_MS=2 streamapp config show --json""",
)
@settings(kafka=True)
@json_output
def show(settings: Settings, as_json: bool) -> None:
    """Show every setting with its value, unit, origin and meaning; secrets stay hidden."""
    from streamapp.cli.say import say, table

    rows = list(settings.rows())
    if as_json:
        names = ("value", "unit", "origin", "about")
        say({row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}, "", as_json=True)
        return
    from rich.console import Console

    shown = table("", ["setting", "value", "unit", "from", "what it is"])
    for name, value, unit, origin, about in rows:
        shown.add_row(name, value, unit, f"[dim]{origin}[/]" if origin == "default" else f"[cyan]{origin}[/]", about)
    Console().print(shown)


@command.command(
    "check",
    epilog="""\b
Examples:
  streamapp config check
  streamapp config check --pipeline pipelines/mine.toml --models models""",
)
@settings("pipeline", "models", kafka=True)
@json_output
def check(settings: Settings, as_json: bool) -> None:
    """Check settings, a pipeline file with its rules' examples, and its model; all mistakes of a file are told at once."""
    from streamapp.cli.absent import absent, without
    from streamapp.cli.say import say, warn
    from streamapp.cli.serve import load
    from streamapp.config import load_pipeline

    serving = load(settings, load_pipeline(settings.pipeline))
    spec = serving.spec
    for sentence in (*settings.warnings(), *without(settings, serving)):
        warn(sentence)
    models = list(serving.versions.models.values())
    found = {
        "pipeline": spec.pipeline.name,
        "release": serving.release,
        "features": len(serving.features.names),
        "rules": len(spec.rules),
        "models": models,
        "absent": [tier.model for tier in absent(serving)],
    }
    served = "model " + ", ".join(models) if models else "no model: rules decide alone"
    words = f"Pipeline {spec.pipeline.name} is right: {found['features']} features, {found['rules']} rules with their examples, {served}."
    say(found, words, as_json=as_json)
