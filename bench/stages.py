"""Where does the time of the `messages` line go? Processor time of each stage in µs per event, in one process, without a broker."""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from typing import Any

import ground
import numpy as np
from rich.console import Console
from rich.table import Table

from streamapp import pipeline
from streamapp.bus.columns import fill
from streamapp.bus.topics import BATCH_BYTES_MAX
from streamapp.cli.serve import load
from streamapp.config import load_pipeline, load_settings
from streamapp.core.events import Segment

#: Micro-batch sizes: a backlog, half load, thin traffic.
SIZES = (2048, 256, 16)
BATCHES = 12


def segment(values: list[bytes | None], keys: list[bytes | None], first: int, now_ms: int) -> Segment:
    """Gives records as one poll brings them."""
    n = len(values)
    return Segment("bench.events.v1", 0, 1, np.arange(first, first + n), np.full(n, now_ms), keys, values, [()] * n)


def one_round(serving: pipeline.Serving, batches: list[Segment]) -> dict[str, float]:
    """Gives µs per event by stage."""
    spent: dict[str, float] = defaultdict(float)
    state = serving.state.new()
    for batch in batches:
        began = time.process_time()
        plan = pipeline.plan((batch,), serving)
        planned = time.process_time()
        outcome = pipeline.decide(plan, pipeline.Read(), [state], serving, 1_767_225_600_000, time.process_time)
        decided = time.process_time()
        verdicts = serving.encoder.verdicts(outcome)
        told = time.process_time()
        decisions = serving.encoder.decisions(outcome, verdicts)
        logged = time.process_time()
        for lines in (verdicts, decisions):
            fill([(key, line, []) for key, line in zip(batch.keys, lines, strict=True)], BATCH_BYTES_MAX, 0)
        filled = time.process_time()
        spent["plan"] += planned - began
        for stage, ms in outcome.stage_ms.items():
            spent[f"decide: {stage}"] += ms / 1e3
        spent["decide"] += decided - planned
        spent["encode: verdicts"] += told - decided
        spent["encode: decisions"] += logged - told
        spent["record batches"] += filled - logged
        spent["all"] += filled - began
    events = sum(map(len, batches))
    return {stage: seconds / events * 1e6 for stage, seconds in spent.items()}


def measure(models: str, rounds: int) -> list[dict[str, Any]]:
    """Gives, by micro-batch size, each stage's spread over `rounds` rounds after one that warms up."""
    settings = load_settings({"models": models}, environ={})
    serving = load(settings, load_pipeline("messages"))
    keys, values = ground.good_events(BATCHES * max(SIZES))
    found = []
    for size in SIZES:
        count = BATCHES * min(size * 16, max(SIZES))
        batches = [segment(values[at : at + size], keys[at : at + size], at, 0) for at in range(0, count, size)]
        one_round(serving, batches)
        told = [one_round(serving, batches) for _ in range(rounds)]
        found.append(
            {
                "batch": size,
                "events": count,
                "models": models_of(serving),
                "us_per_event": {stage: ground.spread([each[stage] for each in told]) for stage in told[0]},
            }
        )
    return found


def models_of(serving: pipeline.Serving) -> list[str]:
    """Gives name/version of the models that decide."""
    return [f"{tier.model.card.name}/{tier.model.card.version}" for tier in serving.tiers]


def show(found: list[dict[str, Any]], console: Console) -> None:
    """Prints the stages as a table, one column per micro-batch size."""
    n, models = found[0]["us_per_event"]["all"]["n"], ", ".join(found[0]["models"]) or "no model, rules decide"
    title = f"Processor time of each stage in µs per event with {models}; median (least … largest) of {n} rounds"
    table = Table("stage", *(f"batch of {one['batch']:,}" for one in found), title=title)
    for stage in found[0]["us_per_event"]:
        cells = [one["us_per_event"][stage] for one in found]
        table.add_row(stage, *(f"{cell['median']:.2f} ({cell['least']:.2f} … {cell['largest']:.2f})" for cell in cells))
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=str(ground.ROOT / "models"))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    sys.stdout.write(f"{ground.machine()}\n")
    show(measure(given.models, given.rounds), Console(width=130))
