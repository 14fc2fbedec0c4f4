"""How long from an event's append to its verdict's, at an even rate? Both times are the broker's (LogAppendTime, whole ms).

Verdicts are read after each round, so that reading them takes no part in it: worker, broker and feeder share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import ground
import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from streamapp.bus.feed import Feeder, feeder
from streamapp.bus.topics import Topics, create_topics

#: Events per second: a lonely event now and then, the rate of the promise, and heavy traffic.
RATES = (5, 2_000, 20_000)
ROUND_S = 6.0
START_S = 2.0  # of each round that is not counted
#: Before the rounds: at a rate that nothing has seen yet, feeder, worker and broker compile, and what gathers meanwhile takes seconds.
WARM_S = 3.0
FEED_S = 0.002


async def measure(where: ground.Broker, command: Callable[[str], list[str]], rate: int, rounds: int) -> dict[str, Any]:
    """Feeds a fresh worker for `rounds` rounds at `rate` events per second; gives the spread of p50, p99 and CPU per event."""
    topics = Topics(ground.namespace("latency"))
    routes = [topics.approve, topics.review, topics.block]
    await ground.create(where, *routes, message_timestamp_type="LogAppendTime")
    await create_topics(where.address, topics, partitions=ground.PARTITIONS)
    keys, values = ground.good_events(min(rate * 10, 100_000))
    found = []
    with ground.process(*command(topics.ns)) as child:
        worker = psutil.Process(child.pid)
        places = {TopicPartition(route, number): 0 for route in routes for number in range(ground.PARTITIONS)}
        async with feeder(where.address, topics.events) as feed:
            # the worker has joined, warmed up and answered one event on every partition
            await feed.send([None] * ground.PARTITIONS, values[: ground.PARTITIONS])
            await _collect(where, places, ground.PARTITIONS)
            await _collect(where, places, await _feed(feed, keys, values, rate, WARM_S))
            for _ in range(rounds):
                before = sum(worker.cpu_times()[:2])
                sent = await _feed(feed, keys, values, rate, ROUND_S)
                waits = await _collect(where, places, sent)
                used = sum(worker.cpu_times()[:2]) - before
                p50, p99 = np.percentile(waits, [50, 99])
                found.append({"p50_ms": float(p50), "p99_ms": float(p99), "worst_ms": float(waits.max()), "cpu_us": used / sent * 1e6})
    figures = {figure: ground.spread([one[figure] for one in found]) for figure in found[0]}
    return {"rate_per_s": rate, "events_per_round": round(rate * ROUND_S), **figures}


async def _feed(feed: Feeder, keys: list[Any], values: list[Any], rate: int, seconds: float) -> int:
    """Sends what is due every few ms, in small bursts; waiting for the broker's answer delays the next burst, never the rate."""
    total, sent, began = round(rate * seconds), 0, time.perf_counter()
    while sent < total:
        due = min(total, int((time.perf_counter() - began) * rate) + 1)
        places = [place % len(values) for place in range(sent, due)]
        if places:
            await feed.send([keys[place] for place in places], [values[place] for place in places])
        sent = max(sent, due)
        await asyncio.sleep(max(FEED_S, (sent + 1) / rate - (time.perf_counter() - began)))
    return sent


async def _collect(where: ground.Broker, places: dict[TopicPartition, int], total: int) -> Any:
    """Reads `total` verdicts from `places` on, and moves these; gives the ms each took, without those of a round's start."""
    waits, firsts = [], []
    async with AIOKafkaConsumer(bootstrap_servers=where.address) as consumer:
        consumer.assign(list(places))
        for place, offset in places.items():
            consumer.seek(place, offset)
        while len(waits) < total:
            for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                places[place] = records[-1].offset + 1
                for record in records:
                    received = json.loads(record.value)["received_at"]
                    firsts.append(received)
                    waits.append(record.timestamp - received)
    arrived, waited = np.array(firsts), np.array(waits)
    return waited[arrived >= arrived.min() + START_S * 1000]


def show(found: list[dict[str, Any]], console: Console) -> None:
    """Prints one row per rate."""
    title = "From append to verdict append, one worker (median of rounds, least … largest; the broker's clock, whole ms)"
    table = Table("events/s", "p50 ms", "p99 ms", "worst ms", "CPU µs/event", "rounds", title=title)
    for one in found:
        cells = [f"{cell['median']:.1f} ({cell['least']:.1f} … {cell['largest']:.1f})" for cell in list(one.values())[2:]]
        table.add_row(f"{one['rate_per_s']:,}", *cells, str(one["p50_ms"]["n"]))
    console.print(table)


if __name__ == "__main__":
    import run  # it imports this file too, so not before this one is complete

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    parser.add_argument("--models", default=str(ground.ROOT / "models"))
    given = parser.parse_args()
    with ground.broker(given.bootstrap) as one:
        if not one.real:
            sys.exit("latency is measured by the broker's clock; the embedded one has none: install Java, or name a Kafka by --bootstrap")
        told = [asyncio.run(measure(one, lambda ns: run.worker(one, ns, given.models), rate, given.rounds)) for rate in given.rates]
    sys.stdout.write(f"{ground.machine()}\n")
    show(told, Console(width=130))
