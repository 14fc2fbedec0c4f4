"""`streamapp produce`: JSON lines to the events topic."""

from __future__ import annotations

import asyncio
import time
from typing import IO

import click

from streamapp.cli.options import json_output, settings
from streamapp.config import Settings

_CHUNK = 1_000


@click.command(
    "produce",
    epilog="""\b
Examples:
  streamapp produce --pipeline messages --bootstrap 127.0.0.1:9092 events.jsonl
  streamapp generate -n 10000 | streamapp produce --rate 500 -""",
)
@click.argument("source", type=click.File("rb"), metavar="FILE|-")
@settings("pipeline", "bootstrap", "namespace", kafka=True)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events per second at most; without it as fast as the broker takes them."
)
@json_output
def command(source: IO[bytes], settings: Settings, rate: float | None, as_json: bool) -> None:
    """Send events from JSON lines, keyed by the pipeline's key field.

    Every line is sent as it stands, also when it is no event: the engine answers it with a dead letter. An empty line is a record
    without a value. Ends when the broker has acknowledged all.
    """
    from streamapp.cli.say import say

    began = time.monotonic()
    sent = asyncio.run(_produce(source, settings, rate))
    seconds = time.monotonic() - began
    say({"events": sent, "seconds": round(seconds, 3)}, f"{sent:,} events acknowledged in {seconds:.1f} s", as_json=as_json)


async def _produce(source: IO[bytes], settings: Settings, rate: float | None) -> int:
    from streamapp.bus.feed import feeder
    from streamapp.bus.security import client_arguments
    from streamapp.bus.topics import Topics
    from streamapp.cli.lines import chunks, key_of
    from streamapp.cli.progress import Progress
    from streamapp.config import load_pipeline

    spec = load_pipeline(settings.pipeline)
    topic = Topics(settings.namespace or spec.namespace, events=settings.events_topic).events
    size = _CHUNK if rate is None else max(1, min(_CHUNK, int(rate * 0.02)))
    began = time.monotonic()
    async with feeder(settings.bootstrap, topic, client_arguments(settings.kafka)) as events:
        with Progress("producing", None, "events") as progress:
            for chunk in chunks(source, size):
                if rate is not None:
                    await asyncio.sleep(max(0.0, began + progress.done / rate - time.monotonic()))
                await events.send([key_of(value, spec.pipeline.key) for value in chunk], chunk)
                progress.advance(len(chunk))
    return progress.done
