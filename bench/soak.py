"""Does memory stay where it is? One worker over a backlog of millions, then at full load for minutes; resident memory all the while."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import ground
import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from streamapp.bus.feed import feeder
from streamapp.bus.topics import Topics, create_topics

MIB = 1 << 20
SAMPLE_S = 0.5
EVENTS = 50_000  #        different ones; the backlog repeats them
RETENTION_MS = 300_000  # the backlog outlives its filling; ten minutes of outputs would fill a disk
LAG_MAX = 60_000  #       full load: so many are always waiting, no more


async def answered(consumer: AIOKafkaConsumer, topics: Topics) -> int:
    """Gives how many events have a decision record or a dead letter."""
    parts = [TopicPartition(name, number) for name in (topics.decisions, topics.dead_letters) for number in range(ground.PARTITIONS)]
    return sum((await consumer.end_offsets(parts)).values())


async def measure(where: ground.Broker, command: Any, backlog: int, minutes: float) -> dict[str, Any]:
    """Gives events, seconds and resident memory (MiB): idle, the most over the backlog, and quartile by quartile at full load."""
    kept = dict.fromkeys(("events", "approve", "review", "block", "decisions"), RETENTION_MS)
    topics = Topics(ground.namespace("soak"), retention_ms=kept)
    await create_topics(where.address, topics, partitions=ground.PARTITIONS)
    keys, values = ground.good_events(EVENTS)
    consumer = AIOKafkaConsumer(bootstrap_servers=where.address)
    await consumer.start()
    sent = 0
    try:
        with Progress(transient=True) as progress:
            bar = progress.add_task("filling", total=backlog)
            async with feeder(where.address, topics.events) as feed:
                with ground.process(*command(topics.ns)) as child:
                    process = psutil.Process(child.pid)
                    await feed.send([None] * ground.PARTITIONS, values[: ground.PARTITIONS])
                    sent += ground.PARTITIONS
                    while await answered(consumer, topics) < sent:  # noqa: ASYNC110 - another process answers
                        await asyncio.sleep(SAMPLE_S)
                    await asyncio.sleep(2)
                    idle = process.memory_info().rss / MIB
                    process.suspend()  # the backlog waits for it as it would after an outage
                    while sent < backlog:
                        await feed.send(keys[:10_000], values[:10_000])
                        sent += 10_000
                        progress.update(bar, completed=sent)
                    process.resume()
                    progress.reset(bar, description="backlog", total=sent)
                    began, most = time.monotonic(), idle
                    while (done := await answered(consumer, topics)) < sent:
                        most = max(most, process.memory_info().rss / MIB)
                        progress.update(bar, completed=done)
                        await asyncio.sleep(SAMPLE_S)
                    backlog_s = time.monotonic() - began
                    samples: list[float] = []
                    progress.reset(bar, description="full load", total=minutes * 60)
                    began, at, before = time.monotonic(), 0, sent
                    while time.monotonic() - began < minutes * 60:
                        if sent - await answered(consumer, topics) < LAG_MAX:
                            await feed.send(keys[at : at + 10_000], values[at : at + 10_000])
                            sent, at = sent + 10_000, (at + 10_000) % EVENTS
                        else:
                            await asyncio.sleep(0.05)
                        samples.append(process.memory_info().rss / MIB)
                        progress.update(bar, completed=time.monotonic() - began)
                    load_s = time.monotonic() - began
    finally:
        await consumer.stop()
    quarters = [float(part.max()) for part in np.array_split(np.array(samples), 4)] if samples else []
    return {
        "idle_mib": idle,
        "backlog_events": backlog,
        "backlog_s": backlog_s,
        "backlog_most_mib": most,
        "load_minutes": load_s / 60,
        "load_events": sent - before,
        "load_quarters_most_mib": quarters,
    }


def show(found: dict[str, Any], console: Console) -> None:
    """Prints the figures with the bars they are held against."""
    table = Table("what", "figure", "bar", title="Resident memory of one worker")
    grown = found["backlog_most_mib"] - found["idle_mib"]
    rate = found["backlog_events"] / found["backlog_s"]
    table.add_row("idle", f"{found['idle_mib']:.0f} MiB", "")
    table.add_row(f"above idle over {found['backlog_events']:,} events ({rate:,.0f}/s)", f"{grown:.0f} MiB", "≤ 150 MiB")
    for place, most in enumerate(found["load_quarters_most_mib"], 1):
        table.add_row(f"most in quarter {place} of {found['load_minutes']:.1f} min at full load", f"{most:.0f} MiB", "flat")
    table.add_row("events at full load", f"{found['load_events']:,}", "")
    console.print(table)


if __name__ == "__main__":
    import run  # it imports ground too; not before this file is complete

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap")
    parser.add_argument("--backlog", type=int, default=2_000_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--models", default=str(ground.ROOT / "models"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with ground.broker(given.bootstrap) as one:
        if not one.real:
            sys.exit("the embedded broker does not keep a backlog of millions: install Java, or name a Kafka by --bootstrap")
        told = asyncio.run(measure(one, lambda ns: run.worker(one, ns, given.models), given.backlog, given.minutes))
    if given.json:
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        show(told, Console(width=110))
