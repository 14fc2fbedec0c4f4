"""`streamapp consume`: verdicts and dead letters as they come."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import click

from streamapp.cli.options import json_output, settings
from streamapp.config import Settings

_ROUTES = ("approve", "review", "block")


@click.command(
    "consume",
    epilog="""\b
Examples:
  streamapp consume --route block --route review
  streamapp consume --from-beginning --dead-letters --idle 2
  streamapp consume --json --from-beginning --most 1000 > verdicts.jsonl""",
)
@settings("pipeline", "bootstrap", "namespace", kafka=True)
@click.option("--route", "routes", type=click.Choice(_ROUTES), multiple=True, help="Only these; all three without it.")
@click.option("--dead-letters", is_flag=True, help="Dead letters too.")
@click.option("--from-beginning", is_flag=True, help="All that the topics hold, not only what comes from now on.")
@click.option("--most", type=click.IntRange(min=1), help="End after so many.")
@click.option("--idle", "idle_s", type=click.FloatRange(min=0, min_open=True), help="End when nothing has come for so many seconds.")
@json_output
def command(
    settings: Settings,
    routes: tuple[str, ...],
    dead_letters: bool,
    from_beginning: bool,
    most: int | None,
    idle_s: float | None,
    as_json: bool,
) -> None:
    """Read verdicts, one line each, until Ctrl-C.

    It joins no group: nobody loses a record to it. With --json every verdict is written as it stands on the topic, and every dead
    letter as an object of its headers and its value.
    """
    asyncio.run(_consume(settings, routes or _ROUTES, dead_letters, from_beginning, most, idle_s, as_json))


async def _consume(
    settings: Settings,
    routes: tuple[str, ...],
    dead_letters: bool,
    from_beginning: bool,
    most: int | None,
    idle_s: float | None,
    as_json: bool,
) -> None:
    from streamapp.bus.follow import follower
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics
    from streamapp.config import load_pipeline

    topics = Topics(settings.namespace or load_pipeline(settings.pipeline).namespace)
    wanted = [getattr(topics, route) for route in routes] + ([topics.dead_letters] if dead_letters else [])
    show = _as_json if as_json else _in_words(topics.dead_letters)
    shown, last = 0, time.monotonic()
    async with follower(settings.bootstrap, wanted, client_arguments(settings.kafka), from_end=not from_beginning) as records:
        while idle_s is None or time.monotonic() - last < idle_s:
            for record in await records.poll(wait_ms=100):
                show(record)
                shown, last = shown + 1, time.monotonic()
                if shown == most:
                    return


def _headers(record: Any) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in record.headers.items()}


def _as_json(record: Any) -> None:
    import orjson

    if "dlq.reason" in record.headers:
        value = None if record.value is None else record.value.decode("utf-8", "backslashreplace")
        sys.stdout.buffer.write(orjson.dumps({"dead_letter": _headers(record), "value": value}) + b"\n")
    else:
        sys.stdout.buffer.write((record.value or b"null") + b"\n")
    sys.stdout.buffer.flush()


def _in_words(dead_letters: str) -> Any:
    import orjson
    from rich.console import Console

    from streamapp.cli.words import dead_letter_line, verdict_line

    console = Console(soft_wrap=True, highlight=False)

    def show(record: Any) -> None:
        console.print(dead_letter_line(_headers(record)) if record.topic == dead_letters else verdict_line(orjson.loads(record.value)))

    return show
