"""How long does a partition of a million live entities take to come back through a broker, and how much memory do they take?

    bench/recovery_broker.py [--bootstrap HOST:PORT] [--entities 1000000] [--rounds 3] [--json]

One partition, customers with a card each (half of the entities are customers), three windows each, ids remembered for a day. A worker
decides `--times` events of every customer and is stopped; one more event is written; then `--rounds` workers are started one after the
other, and timed: from the start of the process, and from the moment the partition is theirs, until it is ready (looked at once a second)
and the verdict is there. What the verdict counts is compared with what the input says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import ground
from reference_work import Run, peak_mib, read, throughput

from streamapp.bus.feed import feeder
from streamapp.bus.topics import create_topics

START_MS, STEP_MS = 1_750_000_000_000, 20


def events(customers: int, times: int) -> Iterator[tuple[list[bytes | None], list[bytes | None]]]:
    """Gives keys and values in pieces: everybody pays, then everybody again; the last piece is one more event of the first customer."""
    total = customers * times
    for first in range(0, total, ground.FEED_RECORDS):
        yield _piece(range(first, min(total, first + ground.FEED_RECORDS)), customers)


def _piece(numbers: range, customers: int) -> tuple[list[bytes | None], list[bytes | None]]:
    who = [number % customers for number in numbers]
    keys: list[bytes | None] = [b"c%07d" % one for one in who]
    values: list[bytes | None] = [
        b'{"event_id":"e%08d","event_time":%d,"customer_id":"c%07d","card_id":"k%07d","amount":%d.5}'
        % (number, START_MS + STEP_MS * number, one, one, 1 + number % 7)
        for number, one in zip(numbers, who, strict=True)
    ]
    return keys, values


def why_unready(port: int) -> str | None:
    """Gives what the worker waits for, empty when it is ready; None while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=1) as answer:
            return "" if answer.status == 200 else None
    except urllib.error.HTTPError as told:
        return told.read().decode()
    except OSError:
        return None


class OnePort(Run):
    """Workers whose health can be asked."""

    port = 0

    def command(self) -> list[str]:
        """The command line of an ordinary worker with a port that is known."""
        words = super().command()
        words[words.index("--pipeline") + 1] = str(ground.ROOT / "bench/recovery.toml")
        words[words.index("--metrics-port") + 1] = str(self.port)
        return words


async def comes_back(run: OnePort, number: int, customers: int, times: int) -> dict[str, float]:
    """Writes one more event, starts a worker and times it; stops the worker."""
    run.port = ground.free_port()
    async with feeder(run.bootstrap, run.topic) as feed:
        await feed.send(*_piece(range(customers * times + customers * number, customers * times + customers * number + 1), customers))
    due = customers * times + number + 1
    with ExitStack() as stack:
        began, assigned, ready = time.perf_counter(), None, None
        worker = run.start(stack)
        while ready is None:
            said = await asyncio.to_thread(why_unready, run.port)
            if assigned is None and said is not None and ("state of partition" in said or not said):
                assigned = time.perf_counter()
            if said == "":
                ready = time.perf_counter()
            await asyncio.sleep(0.01)
        async for done, _ in run.answered():
            if done >= due:
                break
        there = time.perf_counter()
        memory = peak_mib(worker.pid)
    return {
        "start_to_verdict_s": round(there - began, 2), "assigned_to_ready_s": round(ready - (assigned or ready), 2),
        "assigned_to_verdict_s": round(there - (assigned or ready), 2), "peak_memory_mib": memory,
    }  # fmt: skip


async def wrong(run: Run, customers: int, times: int, rounds: int) -> int:
    """Gives how many verdicts of the events that came after a recovery do not count what the input says."""
    told: dict[str, int] = {}
    for topic in run.routes:
        async for _, records in read(run.bootstrap, topic, 1):
            told |= {one["id"]: one["count"] for one in (json.loads(record.value) for record in records)}
    due = {f"e{customers * (times + number):08d}": times + number + 1 for number in range(rounds)}
    return sum(told.get(name) != count for name, count in due.items())


async def main(given: argparse.Namespace, bootstrap: str) -> dict[str, Any]:
    """Gives everything that was asked for, with the machine it was measured on."""
    customers, topic = given.entities // 2, f"{ground.namespace('recovery')}.events.v1"
    where = ground.Broker(bootstrap, real=True)
    await ground.create(where, topic, partitions=1, message_timestamp_type="LogAppendTime")
    async with feeder(bootstrap, topic) as feed:
        for keys, values in events(customers, given.times):
            await feed.send(keys, values)
    run = OnePort(bootstrap, topic, 1, "at_least_once", "recovery", {"STREAMAPP_STATE_SNAPSHOT_ROWS": str(customers)})
    await create_topics(bootstrap, run.topics, partitions=1)
    filled = await throughput(run, 1, customers * given.times)
    found = [await comes_back(run, number, customers, given.times) for number in range(given.rounds)]
    return {
        "question": (__doc__ or "").splitlines()[0], "machine": ground.machine(), "entities": 2 * customers,
        "events": customers * given.times, "filled": filled, "rounds": found,
        **{name: ground.spread([one[name] for one in found]) for name in found[0]},
        "wrong": await wrong(run, customers, given.times, given.rounds),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka, HOST:PORT; else one is started")
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3, help="events of every customer before the worker is stopped")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    with ground.broker(arguments.bootstrap) as one:
        if not one.real:
            sys.exit("recovery through a broker needs a real Kafka: install Java, or name one by --bootstrap")
        figures = asyncio.run(main(arguments, one.address))
    ground.tell(figures, as_json=arguments.json)
