"""`streamapp doctor`: everything a worker needs, looked at once, each with the way to mend it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import click

from streamapp.cli.options import json_output, settings
from streamapp.config import Settings, shipped
from streamapp.core.errors import StreamappError

if TYPE_CHECKING:
    from streamapp.core.spec import PipelineSpec

_PYTHON_MIN = (3, 11)
#: What the batch transport is built on, version by version, and the rest of what a worker runs.
_LIBRARIES = ("faust-streaming", "aiokafka", "cramjam", "onnxruntime", "numpy", "numba", "orjson", "msgspec")
_BROKER_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at: `state` is ok, warn or fail."""

    what: str
    state: str
    found: str
    fix: str = ""


@click.command(
    "doctor",
    epilog="""\b
Examples:
  streamapp doctor --bootstrap 127.0.0.1:9092
  streamapp doctor --json --kafka-config client.properties""",
)
@settings("pipeline", "bootstrap", "namespace", "models", kafka=True)
@json_output
@click.pass_context
def command(context: click.Context, settings: Settings, as_json: bool) -> None:
    """Look at everything a worker needs and say what is wrong and how to mend it; exit code 1 when something fails.

    Python and libraries, settings, pipeline file with its rules' examples, model with its smoke test, schemas, broker, topics with their
    partition counts and settings, and whether this user may read, write and join the group.
    """
    rows = [row for check in (_python, _libraries, _settings, _pipeline, _schemas, _broker) for row in _looked_at(check, settings)]
    _tell(rows, as_json=as_json)
    context.exit(1 if any(row.state == "fail" for row in rows) else 0)


def _looked_at(check: Callable[[Settings], Iterator[Row]], settings: Settings) -> Iterator[Row]:
    """One check that fails must not hide the others."""
    try:
        yield from check(settings)
    except StreamappError as failure:
        yield Row(check.__name__.strip("_"), "fail", failure.problem, failure.fix)


def _python(settings: Settings) -> Iterator[Row]:
    version = ".".join(map(str, sys.version_info[:3]))
    state = "ok" if sys.version_info >= _PYTHON_MIN else "fail"
    yield Row("python", state, version, "" if state == "ok" else "install Python 3.11 or newer")


def _libraries(settings: Settings) -> Iterator[Row]:
    found, missing = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Row("libraries", "fail" if missing else "ok", ", ".join(missing or found), "pip install streamapp" if missing else "")


def _settings(settings: Settings) -> Iterator[Row]:
    warnings = settings.warnings()
    set_here = [name for name, origin in settings.origins.items() if origin != "default"]
    yield Row("settings", "ok", f"set: {', '.join(sorted(set_here))}" if set_here else "all defaults")
    for sentence in warnings:
        problem, _, fix = sentence.partition("; ")
        yield Row("settings", "warn", problem, fix)


def _pipeline(settings: Settings) -> Iterator[Row]:
    from streamapp.cli.absent import absent, without
    from streamapp.cli.serve import load
    from streamapp.config import load_pipeline

    spec = load_pipeline(settings.pipeline)
    yield Row("pipeline", "ok", f"{spec.pipeline.name}: {len(spec.event.fields)} fields, {len(spec.rules)} rules")
    serving = load(settings, spec)
    if serving.tiers:
        models = ", ".join(serving.versions.models.values())
        yield Row("model", "ok", f"{models}: hash, names, shapes and smoke test are right")
    alone = ", ".join(tier.model or tier.name for tier in absent(serving))
    for sentence in without(settings, serving) or ([f"no {alone}: rules decide alone"] if alone else []):
        yield Row("model", "warn", sentence, f"streamapp train {spec.pipeline.name} --data FILE, or set --models")


def _readable(settings: Settings) -> PipelineSpec | None:
    """Gives what the pipeline file says; None where it cannot be read, which `_pipeline` tells, and what hangs on it is left out."""
    from streamapp.config import load_pipeline

    try:
        return load_pipeline(settings.pipeline)
    except StreamappError:
        return None


def _schemas(settings: Settings) -> Iterator[Row]:
    from streamapp.cli.schema import differing, kept

    if (spec := _readable(settings)) is None:
        return
    if not kept(settings, shipped("schemas")):
        yield Row("schemas", "ok", f"none are kept for {spec.pipeline.name}; `streamapp schema export` writes them for others to rely on")
        return
    stale = differing(settings, shipped("schemas"))
    if stale:
        yield Row(
            "schemas",
            "warn",
            f"not what the pipeline file says: {', '.join(stale)}",
            f"streamapp schema export --pipeline {settings.pipeline}",
        )
    else:
        yield Row("schemas", "ok", "as the pipeline file says")


def _broker(settings: Settings) -> Iterator[Row]:
    from streamapp.bus.reach import reach
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics, check_topics

    spec = _readable(settings)
    topics = (
        Topics("unknown") if spec is None else Topics(settings.namespace or spec.namespace, spec.topics.retention_ms, settings.events_topic)
    )
    client = client_arguments(settings.kafka)
    group = topics.ns if spec is None else f"{topics.ns}.{spec.pipeline.name}"
    reached = asyncio.run(reach(settings.bootstrap, group, topics, client, _BROKER_WAIT_S))
    yield Row(
        "broker",
        "ok",
        f"{settings.bootstrap} answers in {reached.answer_ms:.0f} ms; {reached.brokers} broker{'s' * (reached.brokers != 1)}",
    )
    if spec is None:
        yield Row("topics", "warn", "not looked at: they are the pipeline file's", "correct the pipeline file first")
        return
    if not reached.administrable:
        yield Row(
            "topics", "warn", "this broker has no topic administration: nothing can be checked", "use Apache Kafka for more than trying out"
        )
        return
    findings = asyncio.run(check_topics(settings.bootstrap, topics, client=client))
    missing = [finding for finding in findings if finding.problem == "is missing"]
    if len(missing) > 1:  # one thing to do is told once
        words = f"{len(missing)} of {len(topics.names())} topics of {topics.ns} are missing, {missing[0].topic} first"
        yield Row("topics", "fail", words, missing[0].fix)
    for finding in findings:
        if len(missing) > 1 and finding in missing:
            continue
        yield Row("topics", "fail" if finding.serious else "warn", f"{finding.topic} {finding.problem}", finding.fix)
    if not findings:
        yield Row("topics", "ok", f"{len(topics.names())} topics of {topics.ns}: partitions and settings are as declared")
    for refused in reached.refused:
        yield Row("permissions", "fail", refused, "give this user the rights that docs/guides/operations.md lists")
    if not reached.refused:
        yield Row(
            "permissions",
            "ok",
            "may read events, write answers and join the group" if not findings else "may see the cluster and join the group",
        )


def _tell(rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        import orjson

        click.echo(orjson.dumps({"state": _worst(rows), "rows": [asdict(row) for row in rows]}).decode())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from streamapp.cli.say import MARKS

    console = Console(highlight=False)
    grid = Table.grid(padding=(0, 2))
    for row in rows:
        colour, mark = MARKS[row.state]
        found = Text(row.found) + Text(f"\n→ {row.fix}" if row.fix else "", style=colour)
        grid.add_row(Text(mark, style=f"bold {colour}"), Text(row.what, style="bold"), found)
    console.print(grid)
    words = {"ok": "Everything is in order.", "warn": "It works; look at the warnings.", "fail": "Something has to be mended first."}
    worst = _worst(rows)
    console.print(Text(words[worst], style=f"bold {MARKS[worst][0]}"))


def _worst(rows: list[Row]) -> str:
    return next((state for state in ("fail", "warn") if any(row.state == state for row in rows)), "ok")
