"""`streamapp generate`: seeded events as JSON lines."""

from __future__ import annotations

import sys
from typing import IO

import click

from streamapp.cli.progress import Progress
from streamapp.control.generate import DEFAULT_START_MS, Mix, messages

DEFAULT = Mix()


@click.command(
    "generate",
    epilog="""\b
Examples:
  streamapp generate --events 1000 > events.jsonl
  streamapp generate --events 5000 --garbage 0 --no-drift | streamapp score --pipeline messages -
  streamapp generate --events 50000 --seed 3 -o events.jsonl""",
)
@click.option("--events", "-n", type=click.IntRange(min=0), default=1_000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=DEFAULT.seed, show_default=True, help="Equal seeds give equal bytes.")
@click.option(
    "--users", type=click.IntRange(min=1), default=DEFAULT.users, show_default=True, help="People who write; few of them write most."
)
@click.option("--spam", type=click.FloatRange(0, 1), default=DEFAULT.spam, show_default=True, help="Share of spam between bursts.")
@click.option("--garbage", type=click.FloatRange(0, 1), default=DEFAULT.garbage, show_default=True, help="Share of broken events.")
@click.option("--drift/--no-drift", default=True, show_default=True, help="Whether topics, lengths and links change half-way.")
@click.option(
    "--events-per-s",
    type=click.FloatRange(min=0.001),
    default=DEFAULT.events_per_s,
    show_default=True,
    help="How fast event time advances.",
)
@click.option(
    "--start-ms", type=int, default=DEFAULT_START_MS, help="Event time of the first event, epoch ms.  [default: 2026-01-01T00:00:00Z]"
)
@click.option("--output", "-o", type=click.File("wb"), default="-", help="A file instead of stdout.")
def command(
    events: int, seed: int, users: int, spam: float, garbage: float, drift: bool, events_per_s: float, start_ms: int, output: IO[bytes]
) -> None:
    """Write generated events of the `messages` pipeline as JSON lines.

    Ordinary chat, spam campaigns that hide behind look-alike letters and come in bursts, broken events, and a drift half-way. Each
    event carries its `label` (spam or ham), which the engine ignores. A null value is written as an empty line.
    """
    mix = Mix(
        seed=seed,
        users=users,
        spam=spam,
        garbage=garbage,
        drift_at=0.5 if drift else None,
        events_per_s=events_per_s,
        start_ms=start_ms,
    )
    with Progress("generating", events, "events", show=output is not sys.stdout.buffer) as progress:
        for record in messages(events, mix):
            output.write((record.value or b"") + b"\n")
            progress.advance()
