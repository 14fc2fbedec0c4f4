"""`streamapp score`: events from JSON lines decided without a broker, by the same `plan` and `decide` as on the bus."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from streamapp.cli.options import beside_events, settings
from streamapp.config import Settings

if TYPE_CHECKING:
    from streamapp.cli.known import Known
    from streamapp.cli.score_stores import StoresOfScore
    from streamapp.core.events import Plan
    from streamapp.core.shared import SharedState
    from streamapp.core.windows_partition import PartitionState
    from streamapp.pipeline import Read, Serving

#: Events decided at once; it changes speed, never a decision.
CHUNK = 2_048


@click.command(
    "score",
    epilog="""\b
Examples:
  streamapp score --pipeline messages events.jsonl > verdicts.jsonl
  streamapp generate -n 100 | streamapp score - | head -3
  streamapp score --features events.jsonl > features.jsonl
  streamapp score --pipeline payments --labels told.jsonl --list blocked_addresses=addresses.txt paid.jsonl
  streamapp score --risk-cache --profiles-redis redis://127.0.0.1:6379/0 --pipeline mine.toml day.jsonl > verdicts.jsonl""",
)
@click.argument("source", type=click.File("rb"), metavar="FILE|-")
@settings("pipeline", "models", "language", "namespace", "profiles_redis")
@click.option("--features", is_flag=True, help="Add the values of all features and the sha256 of the text, as on the decisions topic.")
@click.option("--risk-cache", is_flag=True, help="Leave each user's highest score in Redis, as [risk_cache] of the pipeline says.")
@beside_events
@click.option("--output", "-o", type=click.File("wb"), default="-", help="A file instead of stdout.")
def command(
    source: IO[bytes],
    settings: Settings,
    features: bool,
    risk_cache: bool,
    output: IO[bytes],
    labels: tuple[Path, ...],
    lists: tuple[str, ...],
) -> None:
    """Decide events without a broker: one JSON line in, one JSON line out, in the same order.

    A line is answered by its verdict, or by an object with `dead_letter` that says what is wrong with it. Decisions are those a worker
    makes: the same code under the same model; labels and what is on the lists come from files here.
    """
    from streamapp.cli.absent import without
    from streamapp.cli.known import Known
    from streamapp.cli.lines import chunks, key_of
    from streamapp.cli.progress import Progress
    from streamapp.cli.say import warn
    from streamapp.cli.score_stores import StoresOfScore
    from streamapp.cli.serve import load
    from streamapp.config import load_pipeline

    serving = load(settings, load_pipeline(settings.pipeline))
    for sentence in without(settings, serving):
        warn(sentence)
    key, known = serving.spec.pipeline.key, Known(serving, labels, lists)
    first = 0
    state, shared = serving.state.new(), serving.shared.new()
    output.write(b"")  # the file is new from here on, also where nothing comes
    with (
        StoresOfScore(settings, serving, risk_cache=risk_cache) as stores,
        Progress("deciding", None, "events", show=output is not sys.stdout.buffer or not sys.stdout.isatty()) as progress,
    ):
        for values in chunks(source, CHUNK):
            keys = [key_of(value, key) for value in values]
            for low, high in pairwise(known.edges(values, keys)):
                part = values[low:high], keys[low:high], first + low
                output.writelines(answers(*part, serving, state=state, shared=shared, features=features, stores=stores, known=known))
            first += len(values)
            progress.advance(len(values))


def answers(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None],
    first: int,
    serving: Serving,
    *,
    state: PartitionState | None = None,
    shared: SharedState | None = None,
    features: bool = False,
    stores: StoresOfScore | None = None,
    known: Known | None = None,
) -> list[bytes]:
    """Takes records that follow one another from offset `first`, and what is remembered of those before (None: nothing).

    Gives one JSON line per record, in order; the state moves past them. `stores` is where profiles are read and risks are noted, `known`
    says what was told of labels and lists by then.
    """
    import msgspec

    from streamapp import pipeline
    from streamapp.cli.lines import records
    from streamapp.core.deadletter import describe

    now_ms = time.time_ns() // 1_000_000
    segment = records(values, keys, first, now_ms)
    plan = pipeline.plan([segment], serving)
    read = reading(plan, serving, shared or serving.shared.new(), stores, known)
    outcome = pipeline.decide(plan, read, [state or serving.state.new()], serving, now_ms, time.perf_counter)
    if stores is not None:
        stores.note(outcome)
    verdicts = serving.encoder.verdicts(outcome)
    found = serving.encoder.decisions(outcome, verdicts) if features else verdicts
    lines: list[bytes] = [b""] * len(values)
    for index, verdict in zip(plan.index.tolist(), found, strict=True):
        lines[index] = verdict + b"\n"
    for reject in plan.rejects:
        lines[reject.index] = msgspec.json.encode(describe(reject, segment)) + b"\n"
    return lines


def reading(plan: Plan, serving: Serving, shared: SharedState, stores: StoresOfScore | None, known: Known | None) -> Read:
    """Gives what is known beside the events of a plan: windows that cross partitions, profiles, labels, lists."""
    from streamapp.core.shared import SharedRead
    from streamapp.pipeline import Read

    read = Read(shared=SharedRead(serving.shared.asks(plan), shared))
    if stores is not None:
        read = stores.read(plan, read)
    return read if known is None else known.read(plan, read)
