"""`streamapp trace`: one event, stage by stage, for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from streamapp.cli.options import beside_events, json_output, settings
from streamapp.config import Settings
from streamapp.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


@click.command(
    "trace",
    epilog="""\b
Examples:
  streamapp trace --pipeline messages event.json
  streamapp generate -n 1 | streamapp trace -
  streamapp trace --pipeline payments --labels told.jsonl --list blocked_addresses=addresses.txt event.json
  streamapp trace --json event.json""",
)
@click.argument("source", type=click.File("rb"), metavar="EVENT.json|-")
@settings("pipeline", "models", "language", "namespace", "profiles_redis")
@click.option("--top", type=click.IntRange(min=1, max=100), default=8, show_default=True, help="Tokens named on either side.")
@beside_events
@json_output
def command(source: IO[bytes], settings: Settings, top: int, as_json: bool, labels: tuple[Path, ...], lists: tuple[str, ...]) -> None:
    """Show how one event is decided: fields, text, features, rules, tokens by name, margin, probability, thresholds, verdict.

    It is decided as the first of its stream, knowing nothing but what --profiles-redis, --labels and --list say. This is the only command
    that shows text: verdicts, logs and metrics never do.
    """
    import orjson

    from streamapp.cli.absent import without
    from streamapp.cli.known import Known
    from streamapp.cli.lines import key_of
    from streamapp.cli.say import warn
    from streamapp.cli.score import reading
    from streamapp.cli.score_stores import StoresOfScore
    from streamapp.cli.serve import load
    from streamapp.config import load_pipeline
    from streamapp.control.trace import trace

    value = source.read()
    if not value.strip():
        raise ConfigError("there is no event to trace: the input is empty", "give a file with one JSON object")
    if (lines := _events_in(value)) > 1:
        raise ConfigError(f"there are {lines:,} lines, and one event is traced", "take one of them: head -1 FILE | streamapp trace -")
    spec = load_pipeline(settings.pipeline)
    serving = load(settings, spec)
    for sentence in without(settings, serving):
        warn(sentence)
    known, now_ms, key = Known(serving, labels, lists), time.time_ns() // 1_000_000, key_of(value, spec.pipeline.key)
    with StoresOfScore(settings, serving, risk_cache=False) as stores:
        shared = serving.shared.new()
        found = trace(
            value.strip(), key, serving, now_ms, time.perf_counter, top, lambda plan: reading(plan, serving, shared, stores, known)
        )
    if as_json:
        click.echo(orjson.dumps(found).decode())
        return
    from rich.console import Console

    show(found, Console(highlight=False))


def _events_in(value: bytes) -> int:
    """Gives how many lines are to be told apart: one event may stand on several lines, or be none."""
    import orjson

    def readable(text: bytes) -> bool:
        try:
            return isinstance(orjson.loads(text), dict)
        except orjson.JSONDecodeError:
            return False

    lines = [line for line in value.splitlines() if line.strip()]
    return len(lines) if not readable(value) and any(map(readable, lines)) else 1


def show(found: Mapping[str, Any], console: Console) -> None:
    """Writes a trace for people, in the order of the line."""
    if "dead_letter" in found:
        _dead_letter(found["dead_letter"], console)
        return
    _event(found["event"], console)
    if found["text"] is not None:
        _text(found["text"], console)
    _features(found["features"], console)
    _rules(found["rules"], console)
    for model in found["models"]:
        _model(model, found["verdict"], console)
    _verdict(found["verdict"], console)


def _heading(number: int, words: str, console: Console) -> None:
    from rich.text import Text

    console.print()
    console.print(Text(f"{number}  {words}", style="bold cyan"))


def _dead_letter(letter: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    _heading(1, "Event", console)
    console.print(Text(f"   It is no event of this pipeline: {letter['dead_letter']} at {letter['path']}", style="bold magenta"))
    console.print(Text(f"   {letter['message']}"))
    console.print(Text("   It goes to the dead-letter topic with key, value and headers untouched.", style="dim"))


def _event(event: Mapping[str, Any], console: Console) -> None:
    from streamapp.cli.say import table
    from streamapp.cli.words import visible

    _heading(1, f"Event · {event['bytes']:,} bytes, decoded and checked", console)
    shown = table("", ["field", "value"])
    shown.add_row("event_id", event["event_id"])
    shown.add_row("event_time", str(event["event_time"]))
    for name, value in event["fields"].items():
        shown.add_row(name, "[dim]–[/]" if value is None else visible(str(value), 400))
    if event["flags"]:
        shown.add_row("flags", ", ".join(event["flags"]))
    console.print(shown)


def _text(text: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    from streamapp.cli.words import visible

    _heading(2, "Text · two views of it", console)
    for name, words in (("received", "as received"), ("cleaned", "cleaned"), ("folded", "folded")):
        if name != "received" or text["received"] != text["cleaned"]:
            console.print(Text(f"   {words:12}", style="dim") + Text(visible(text[name], 400)))
    console.print(
        Text(
            f"   {text['changed_share']:.1%} of its characters pretended to be others",
            style="yellow" if text["changed_share"] > 0.01 else "dim",
        )
    )


def _features(features: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    from streamapp.cli.say import table

    _heading(3, "Features", console)
    shown = table("", ["feature", "value", "usual", ""], ["value", "usual"])
    for name, row in features.items():
        usual = "" if row["usual"] is None else f"{row['usual']:.4g}"
        marks = [word for word in ("missing", "clipped") if row[word]] + (["enters the model"] if row["enters_model"] else [])
        shown.add_row(name, f"{row['value']:.4g}", usual, f"[dim]{', '.join(marks)}[/]")
    console.print(shown)


def _rules(rules: list[Mapping[str, Any]], console: Console) -> None:
    from rich.text import Text

    from streamapp.cli.say import ROUTE_COLOURS, table

    _heading(4, "Rules", console)
    shown = table("", ["", "rule", "when", "value", "would"], ["value"], ["", "rule", "when"])
    for rule in rules:
        mark = Text("● hits", style=ROUTE_COLOURS[rule["route"]]) if rule["hit"] else Text("○", style="dim")
        values = ", ".join(f"{value:.4g}" for value in rule["values"].values())
        would = rule["route"] + ("" if rule["decides"] == "always" else " if no model answers; else it is a reason")
        shown.add_row(mark, rule["code"], rule["when"], values, Text(would, style="dim"))
    console.print(shown)


def _model(model: Mapping[str, Any], verdict: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    _heading(5, f"Model · {model['model']} (tier {model['tier']})", console)
    if "numeric" in model:
        if model["tokens"]["for"] or model["tokens"]["against"]:
            console.print(_tokens(model["tokens"]))
        parts = [("intercept", model["intercept"]), ("all tokens", model["ngrams"])]
        parts += sorted(model["numeric"].items(), key=lambda part: -abs(part[1]))
        parts = [(name, share) for name, share in parts if abs(share) >= 0.005]
        console.print(Text("   margin = " + " ".join(f"{share:+.2f} {name}" for name, share in parts) + f" = {model['margin']:+.3f}"))
    else:
        console.print(Text(f"   margin = {model['margin']:+.3f}"))
    if verdict.get("decided_by") == model["tier"]:
        console.print(
            Text(f"   score {verdict['score']:.4f} → {model['calibration']} calibration → probability {verdict['probability']:.4f}")
        )
    cuts = [("approve below", model["approve_below"]), ("block from", model["block_from"])]
    console.print(
        Text(
            "   " + ", review between, ".join(f"{words} {cut:.4f}" if cut is not None else f"{words}: not reachable" for words, cut in cuts)
        )
    )


def _tokens(tokens: Mapping[str, list[Mapping[str, Any]]]) -> Any:
    from itertools import zip_longest

    from rich.markup import escape

    from streamapp.cli.say import table

    shown = table("", ["weight", "speaks for it", "weight ", "speaks against it"], ["weight", "weight "])

    def cell(row: Mapping[str, Any] | None, colour: str) -> tuple[str, str]:
        if row is None:
            return "", ""
        names = " | ".join(f"“{token}”" for token in row["token"][:3])
        return f"[{colour}]{row['weight']:+.3f}[/]", escape(names)

    for one, other in zip_longest(tokens["for"], tokens["against"]):
        shown.add_row(*cell(one, "red"), *cell(other, "green"))
    return shown


def _verdict(verdict: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    from streamapp.cli.say import ROUTE_COLOURS
    from streamapp.cli.words import surety

    _heading(6, "Verdict", console)
    route = str(verdict["verdict"])
    words = Text("   ") + Text(route.upper(), style=f"bold {ROUTE_COLOURS[route]}")
    console.print(words + Text(f"  {surety(verdict)}"))
    for reason in verdict.get("reasons") or []:
        weight = f" ({reason['weight']:+.2f})" if reason.get("weight") is not None else ""
        console.print(Text(f"   · {reason['text']}{weight}"))
    for degraded in verdict.get("degraded") or []:
        console.print(Text(f"   ! without {degraded['component']}: {degraded['cause']}", style="yellow"))
