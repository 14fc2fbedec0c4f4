"""`streamapp schema`: the contracts as files."""

from __future__ import annotations

from pathlib import Path

import click

from streamapp.cli.options import json_output, settings
from streamapp.config import Settings, shipped

_FOLDER = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files are.  [default: the schemas that came with the program]",
)


@click.group("schema")
def command() -> None:
    """Export and check the schemas that producers and consumers rely on."""


def _wanted(settings: Settings) -> dict[str, str]:
    from streamapp.config import load_pipeline
    from streamapp.core.schema import export

    return export(load_pipeline(settings.pipeline))


@command.command(
    "export",
    epilog="""\b
Examples:
  streamapp schema export --pipeline messages
  streamapp schema export --pipeline pipelines/mine.toml --directory /tmp/schemas""",
)
@settings("pipeline")
@_FOLDER
@json_output
def export(settings: Settings, directory: Path | None, as_json: bool) -> None:
    """Write event, verdict, decision and dead-letter schemas and asyncapi.yaml, as the pipeline file says."""
    from streamapp.cli.say import say

    folder = directory or shipped("schemas")
    written = []
    for name, content in _wanted(settings).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(str(path))
    say({"written": written}, "\n".join(f"written  {path}" for path in written), as_json=as_json)


@command.command("check", epilog="\b\nExamples:\n  streamapp schema check --pipeline messages")
@settings("pipeline")
@_FOLDER
@json_output
@click.pass_context
def check(context: click.Context, settings: Settings, directory: Path | None, as_json: bool) -> None:
    """Compare the files with what the pipeline file says; exit code 1 where they differ."""
    from streamapp.cli.say import say

    stale = differing(settings, directory or shipped("schemas"))
    words = (
        "\n".join(f"{name} differs from the pipeline file\n    Fix: streamapp schema export" for name in stale)
        or "All schemas are as the pipeline file says."
    )
    say({"stale": stale}, words, as_json=as_json)
    context.exit(1 if stale else 0)


def kept(settings: Settings, folder: Path) -> bool:
    """Whether any schema of the pipeline was ever written there: those of a pipeline of one's own may be kept elsewhere, or nowhere."""
    return any((folder / name).is_file() for name in _wanted(settings))


def differing(settings: Settings, folder: Path) -> list[str]:
    """Gives the names of schema files that are absent or not what the pipeline file says."""
    return [
        name
        for name, content in _wanted(settings).items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != content
    ]
