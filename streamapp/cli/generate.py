"""`streamapp generate`: seeded events as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import IO

import click

from streamapp.cli.progress import Progress
from streamapp.control.generate import DEFAULT_START_MS, Generated, Mix, messages
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.payments_labels import payment_labels
from streamapp.core.errors import ConfigError

DEFAULT, PAYMENTS = Mix(), PaymentMix()
#: Options that say something about messages only.
MESSAGES_ONLY = ("spam", "garbage", "drift", "events_per_s")


@click.command(
    "generate",
    epilog="""\b
Examples:
  streamapp generate --events 1000 > events.jsonl
  streamapp generate --events 5000 --garbage 0 --no-drift | streamapp score --pipeline messages -
  streamapp generate --events 50000 --seed 3 -o events.jsonl
  streamapp generate --pipeline payments --events 1000000 -o paid.jsonl --labels told.jsonl""",
)
@click.option(
    "--pipeline", type=click.Choice(["messages", "payments"]), default="messages", show_default=True, help="Which pipeline's events."
)
@click.option("--events", "-n", type=click.IntRange(min=0), default=1_000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=DEFAULT.seed, show_default=True, help="Equal seeds give equal bytes.")
@click.option(
    "--users", type=click.IntRange(min=1), default=DEFAULT.users, show_default=True, help="People who write or pay; half the terminals."
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
@click.option("--labels", type=click.File("wb"), help="payments: a file for what turns out to be true, in the order it is told.")
def command(
    pipeline: str,
    events: int,
    seed: int,
    users: int,
    spam: float,
    garbage: float,
    drift: bool,
    events_per_s: float,
    start_ms: int,
    output: IO[bytes],
    labels: IO[bytes] | None,
) -> None:
    """Write generated events of a pipeline as JSON lines.

    messages: ordinary chat, spam campaigns that hide behind look-alike letters and come in bursts, broken events, and a drift half-way.
    payments: customers at terminals, with large amounts, compromised terminals and stolen cards; time goes as fast as they pay.
    Each event carries its `label` (spam or ham, fraud or genuine), which the engine ignores. A null value is written as an empty line.
    """
    records: Iterator[Generated]
    if pipeline == "payments":
        _refuse_given(MESSAGES_ONLY)
        paid = PaymentMix(seed=seed, customers=users, terminals=2 * users, start_ms=start_ms)
        records = payments(events, paid)
        if labels is not None:
            labels.writelines((told.label.value or b"") + b"\n" for told in payment_labels(events, paid))
    else:
        if labels is not None:
            raise ConfigError("--labels says nothing about messages", "leave it out, or generate payments")
        drift_at = 0.5 if drift else None
        mix = Mix(seed=seed, users=users, spam=spam, garbage=garbage, drift_at=drift_at, events_per_s=events_per_s, start_ms=start_ms)
        records = messages(events, mix)
    with Progress("generating", events, "events", show=output is not sys.stdout.buffer) as progress:
        for record in records:
            output.write((record.value or b"") + b"\n")
            progress.advance()


def _refuse_given(names: tuple[str, ...]) -> None:
    """An option that would have no effect is a misunderstanding."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise ConfigError(f"--{name.replace('_', '-')} says nothing about payments", "leave it out")
