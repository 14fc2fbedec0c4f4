"""Where does the time of the reference work go? Processor time of each stage in µs per event, in one process, without a broker."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from reference_work import transactions

from streamapp import pipeline
from streamapp.bus.direct import Parcel
from streamapp.bus.emit import Delivery
from streamapp.bus.topics import Topics
from streamapp.cli.serve import load
from streamapp.config import load_pipeline, load_settings
from streamapp.core.events import Segment
from streamapp.core.murmur2 import partition_of

PARTITIONS, ROWS = 4, 512
WARM_BATCHES = 20


class Acknowledged:
    """A producer whose broker answers at once: the batch is built as for the wire, and goes nowhere."""

    def enqueue(self, batch: Any, topic: str, partition: int) -> asyncio.Future[Any]:
        raise NotImplementedError

    def enqueue_all(self, parcels: Sequence[Parcel]) -> asyncio.Future[Sequence[int]]:
        for batch, _, _ in parcels:
            batch._set_producer_state(1, 0, 0)
            batch._build()
        answer: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        answer.set_result([0] * len(parcels))
        return answer


def batches(count: int) -> list[tuple[Segment, ...]]:
    """Gives the transactions as micro-batches of 2,048 over four partitions."""
    keys: list[list[Any]] = [[] for _ in range(PARTITIONS)]
    values: list[list[Any]] = [[] for _ in range(PARTITIONS)]
    for some_keys, some_values in transactions(count):
        for place, key, value in zip(
            partition_of([key or b"" for key in some_keys], PARTITIONS).tolist(), some_keys, some_values, strict=True
        ):
            keys[place].append(key)
            values[place].append(value)
    now = np.full(ROWS, time.time_ns() // 1_000_000)
    return [
        tuple(
            Segment("t", place, 1, np.arange(at, at + ROWS), now, keys[place][at : at + ROWS], values[place][at : at + ROWS], [()] * ROWS)
            for place in range(PARTITIONS)
        )
        for at in range(0, min(map(len, keys)) - ROWS, ROWS)
    ]


async def main(count: int) -> dict[str, float]:
    """Gives µs per event by stage, after the first micro-batches."""
    serving = load(load_settings(), load_pipeline("reference"))
    delivery = Delivery(Acknowledged(), Topics("stages"))  # type: ignore[arg-type]  # what of a producer it uses
    states = [serving.state.new() for _ in range(PARTITIONS)]
    spent: dict[str, float] = defaultdict(float)
    events = 0
    for number, segments in enumerate(batches(count)):
        laps = [time.process_time()]
        plan = pipeline.plan(segments, serving)
        laps.append(time.process_time())
        outcome = pipeline.decide(plan, pipeline.Read(), states, serving, 1_800_000_000_000, time.process_time)
        laps.append(time.process_time())
        verdicts = serving.encoder.verdicts(outcome)
        laps.append(time.process_time())
        await delivery.emit(outcome, verdicts, None)
        laps.append(time.process_time())
        if number < WARM_BATCHES:
            continue
        events += len(plan)
        for stage, began, ended in zip(("plan", "decide", "encode", "emit"), laps, laps[1:], strict=False):
            spent[stage] += ended - began
        for stage, ms in outcome.stage_ms.items():
            spent[f"decide: {stage}"] += ms / 1e3
        spent["all"] += laps[-1] - laps[0]
    return {stage: round(seconds / events * 1e6, 3) for stage, seconds in spent.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000))) + "\n")
