"""How commands speak: one sentence for people, or one JSON object for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    from rich.table import Table

MARKS = {"ok": ("green", "✓"), "warn": ("yellow", "!"), "fail": ("red", "✗")}
ROUTE_COLOURS = {"approve": "green", "review": "yellow", "block": "red", "dead_letter": "magenta"}


def say(machine: Mapping[str, Any], person: str, *, as_json: bool) -> None:
    """Writes the result once, in the form that was asked for, on stdout."""
    click.echo(orjson.dumps(machine).decode() if as_json else person)


def warn(sentence: str) -> None:
    """Writes a warning on stderr."""
    click.secho(sentence, fg="yellow", err=True)


def table(title: str, columns: Sequence[str], right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """Gives an empty table in our style; columns named in `right` are aligned there, those in `whole` are never broken."""
    from rich import box
    from rich.table import Table

    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", header_style="dim", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in whole)
    return made
