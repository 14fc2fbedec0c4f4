"""`make simulate`: thousands of seeds, or one again. A seed that finds a breach is printed and kept in a file with the way to replay it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.world import Report, Scenario, simulate

KEPT = Path(".simulation")
DELIVERIES = ("at_least_once", "exactly_once")


def run(seed: int, delivery: str) -> Report:
    """Runs one seed under one kind of delivery, in whatever process."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")
    return simulate(seed, Scenario.of(seed, exactly_once=delivery == "exactly_once"))


def replay(report: Report) -> str:
    """Gives the command that runs it again."""
    return f"make simulate ARGS='--seed {report.scenario.seed} --delivery {_delivery(report)}'"


def _delivery(report: Report) -> str:
    return DELIVERIES[report.scenario.exactly_once]


def keep(report: Report) -> Path:
    """Writes a breach down: the scenario, what was wrong, the story, and the command that replays it."""
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"seed-{report.scenario.seed}-{_delivery(report)}.json"
    told = {
        "replay": replay(report),
        "breaches": report.breaches,
        "scenario": asdict(report.scenario),
        "figures": report.figures,
        "digest": report.digest,
        "story": report.trace,
    }
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return path


def tell(console: Console, report: Report, *, story: bool) -> None:
    """Prints one run."""
    if story:
        console.print("\n".join(report.trace), markup=False, highlight=False)
    figures = ", ".join(f"{count} {name}" for name, count in report.figures.items())
    console.print(f"seed {report.scenario.seed}, {_delivery(report)}: {figures}; digest {report.digest:08x}", markup=False, highlight=False)
    for breach in report.breaches[:20]:
        console.print(f"  {breach}", markup=False, highlight=False, style="red")


def main() -> int:
    """Gives the exit code: 0 when no seed found a breach."""
    options = argparse.ArgumentParser(
        prog="make simulate",
        description="Runs seeds of the simulation. Breaches are written to .simulation/seed-N-DELIVERY.json.",
        epilog="make simulate ARGS='--seeds 5000 --first 100000'; make simulate ARGS='--seed 17' tells the story of one seed",
    )
    options.add_argument("--seeds", type=int, default=2_000, help="how many (default %(default)s)")
    options.add_argument("--first", type=int, default=1_000, help="the first of them (default %(default)s)")
    options.add_argument("--seed", type=int, help="this one only, with its story")
    options.add_argument("--delivery", choices=(*DELIVERIES, "both"), default="both", help="under which kind (default %(default)s)")
    options.add_argument("--processes", type=int, default=os.cpu_count(), help="how many at once (default: one a core)")
    given = options.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    deliveries = DELIVERIES if given.delivery == "both" else (given.delivery,)
    if given.seed is not None:
        breached = 0
        for delivery in deliveries:
            report = run(given.seed, delivery)
            tell(console, report, story=True)
            if report.breaches:
                breached += 1
                console.print(f"kept in {keep(report)}")
        return bool(breached)
    breached = events = 0
    seeds = [seed for seed in range(given.first, given.first + given.seeds) for _ in deliveries]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar, ProcessPoolExecutor(given.processes) as processes:
        task = bar.add_task("runs", total=len(seeds))
        for report in processes.map(run, seeds, deliveries * given.seeds, chunksize=8):
            bar.advance(task)
            events += report.figures["events"]
            if report.breaches:
                breached += 1
                tell(console, report, story=False)
                console.print(f"  kept in {keep(report)}; again: {replay(report)}", markup=False)
    console.print(f"{given.seeds} seeds, {' and '.join(deliveries)}, {events} events: {breached} runs with a breach")
    return bool(breached)


if __name__ == "__main__":
    sys.exit(main())
