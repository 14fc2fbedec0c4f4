"""`python -m chaos`: rounds of faults against the real program, and a table of what they broke."""

from __future__ import annotations

import json
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from chaos.bus import Stuck
from chaos.kinds import KINDS
from chaos.play import DELIVERIES, Ground, Played, play
from chaos.processes import Node, missing

#: On a broker of our own, and the least that a broker grants unless it is told otherwise.
SESSION_MS, GRANTED_MS = 3000, 6000
#: What one round of every kind tells in a few minutes.
SHORT = ("kill-decided", "kill-emitted", "kill-logged", "kill", "zombie", "sigterm", "broker-restart", "oversized", "embedded-kill")


@click.command(
    epilog="""\b
Examples:
  python -m chaos                                         # all kinds, 20 rounds each, on a Kafka of its own
  python -m chaos --short                                 # a few rounds in minutes
  python -m chaos --kinds kill,zombie --rounds 5 --seed 7
  python -m chaos --bootstrap 127.0.0.1:9092 --json > table.json
  python -m chaos --delivery exactly_once --kinds kill,zombie --rounds 5"""
)
@click.option("--bootstrap", help="A real Kafka, HOST:PORT; without it one is started and stopped, as some kinds need.")
@click.option("--kinds", help=f"Only these, with commas between: {', '.join(KINDS)}.")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds of each kind (20; with --short 1).")
@click.option("--short", is_flag=True, help=f"One round of the kinds that tell most: {', '.join(SHORT)}.")
@click.option("--seed", type=int, help="Equal seeds send the same events and choose the same faults.")
@click.option("--delivery", type=click.Choice(DELIVERIES), default=DELIVERIES[0], show_default=True, help="What the workers are told.")
@click.option(
    "--session-ms", type=click.IntRange(min=1000), help="Session timeout of the workers (3000; what brokers grant, 6000, with --bootstrap)."
)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Directory for the logs of rounds that failed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per kind on stdout instead of the table.")
def main(
    bootstrap: str | None,
    kinds: str | None,
    rounds: int | None,
    short: bool,
    seed: int | None,
    delivery: str,
    session_ms: int | None,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Kill, stop, starve and poison real workers on a real Kafka, then recount everything from the input alone.

    The exit code is 1 when a promise of docs/guarantees.md was broken; the logs of that round stay, and the command that repeats it is
    printed. The textbook kinds are there for comparison and break nothing.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the broker of this run ends with it
    chosen = _chosen(kinds, short)
    rounds = rounds or (1 if short else 20)
    session_ms = session_ms or (GRANTED_MS if bootstrap else SESSION_MS)
    seed = random.SystemRandom().randrange(1 << 30) if seed is None else seed
    folder = keep or Path(tempfile.mkdtemp(prefix="streamapp-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Played] = []
    console = Console(stderr=True)
    with _ground(bootstrap, session_ms, folder, delivery) as ground, Progress(console=console, disable=not console.is_terminal) as bar:
        for name in chosen:
            if delivery != DELIVERIES[0] and (KINDS[name].embedded or KINDS[name].textbook):
                console.print(
                    f"{name} is left out: the {'textbook app' if KINDS[name].textbook else 'embedded broker'} has no transactions"
                )
                continue
            if KINDS[name].on_node and ground.node is None:
                console.print(f"{name} is left out: it stops the broker, and the one at {bootstrap} is not ours")
                continue
            task = bar.add_task(name, total=rounds)
            played = play(name, rounds, seed, ground, lambda task=task: bar.advance(task))  # type: ignore[misc]
            found.append(played)
            if as_json:
                click.echo(json.dumps(played.as_json()))
            for failure in played.failures:
                console.print(f"[red]{name}[/] {failure}", markup=True, highlight=False, soft_wrap=True)
            if played.failures:
                again = (
                    f"python -m chaos --kinds {name} --rounds {played.rounds} --seed {seed} --session-ms {session_ms} --delivery {delivery}"
                )
                console.print(f"  logs: {played.kept}\n  again: {again}", highlight=False, soft_wrap=True)
    if not as_json:
        Console(width=None if sys.stdout.isatty() else 160).print(table(found))
    sys.exit(any(played.failures for played in found))


def _chosen(kinds: str | None, short: bool) -> Sequence[str]:
    chosen = [one.strip() for one in kinds.split(",")] if kinds else list(SHORT if short else KINDS)
    for one in chosen:
        if one not in KINDS:
            raise click.BadParameter(f"there is no kind {one}; known are {', '.join(KINDS)}", param_hint="--kinds")
    return chosen


@contextmanager
def _ground(bootstrap: str | None, session_ms: int, folder: Path, delivery: str) -> Iterator[Ground]:
    if bootstrap:
        yield Ground(bootstrap, None, session_ms, folder, delivery)
        return
    if lacking := missing("java"):
        raise click.ClickException(f"{lacking[0]} is missing: install version 17 or newer, or name a Kafka with --bootstrap HOST:PORT")
    with tempfile.TemporaryDirectory(prefix="streamapp-chaos-kafka-") as home:
        node = Node(Path(home) / "node")
        try:
            node.start()
            yield Ground(node.address, node, session_ms, folder, delivery)
        except Stuck as why:
            raise click.ClickException(str(why)) from why
        finally:
            node.stop()


def table(found: Sequence[Played]) -> Table:
    """Gives one row per kind."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    heads = (
        "rounds",
        "events",
        "verdicts",
        "letters",
        "late",
        "lost",
        "duplicated",
        "contradictory",
        "wrong",
        "invented",
        "recovery s",
        "most",
    )
    shown.add_column("kind")
    for head in heads:
        shown.add_column(head, justify="right")
    for played in found:
        tally = played.tally
        counted = (played.rounds, tally.events, tally.verdicts, tally.letters, tally.late)
        faults = (tally.lost, tally.duplicated, tally.contradictory, tally.wrong, tally.invented)
        times = (f"{statistics.median(played.recovery_s):.1f}", f"{max(played.recovery_s):.1f}") if played.recovery_s else ("", "")
        mark = "[red]" if played.failures else ""
        shown.add_row(f"{mark}{played.kind}", *(f"{number:,}" for number in (*counted, *faults)), *times)
    return shown


if __name__ == "__main__":
    main()
