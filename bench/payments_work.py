"""How fast is `payments` as it is shipped: windows, shared windows, trees, full verdicts, decisions and state, by one ordinary worker?

Generated payments (`streamapp generate --pipeline payments`), each with an id of its own, on a real Kafka. Every verdict, decision record
and state record is acknowledged before an event counts.

    bench/payments_work.py --bootstrap HOST:PORT                # shared windows in the worker's memory
    bench/payments_work.py --bootstrap HOST:PORT --redis        # in a redis-server that is started beside it
    bench/payments_work.py --bootstrap HOST:PORT --textbook     # and Faust's hopping tables on the same broker, round by round
    bench/payments_work.py --bootstrap HOST:PORT --three-by-four   # three windows of four entities, trained on the spot
    bench/payments_work.py --bootstrap HOST:PORT --rate 20000   # append of the event to append of its verdict, even rate

Without --bootstrap a Kafka is started for the run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ground
import psutil
import three_by_four
from reference_work import Run, latency, read, throughput
from shared import redis_server

from streamapp.bus.feed import feeder
from streamapp.bus.topics import Topics
from streamapp.control.payments import PaymentMix, payments
from streamapp.core.journal import decode

Rows = list[tuple[bytes | None, bytes | None]]


def generated(count: int, customers: int) -> Rows:
    """Gives key and value of `count` payments; equal arguments give equal bytes."""
    return [(one.key, one.value) for one in payments(count, PaymentMix(seed=33, customers=customers, terminals=2 * customers))]


async def fill(bootstrap: str, rows: Rows) -> str:
    """Creates an events topic with four partitions and writes the payments; gives its name."""
    topic = f"{ground.namespace('payments')}.events.v1"
    await ground.create(ground.Broker(bootstrap, real=True), topic, message_timestamp_type="LogAppendTime")
    async with feeder(bootstrap, topic) as feed:
        for at in range(0, len(rows), ground.FEED_RECORDS):
            await feed.send(*map(list, zip(*rows[at : at + ground.FEED_RECORDS], strict=True)))
    return topic


async def textbook(bootstrap: str, rows: Rows) -> dict[str, float]:
    """Gives what the textbook app with hopping tables does in the same minute."""
    names, where = Topics(ground.namespace("hopping")), ground.Broker(bootstrap, real=True)
    await ground.fill(where, names, [key for key, _ in rows], [value for _, value in rows])
    with ground.process(str(ground.HERE / "textbook_hopping.py"), bootstrap, names.ns) as child:
        rate = await ground.outputs_of(child, where, [names.approve, names.review, names.block], len(rows))
    return {"textbook_events_per_s": round(rate.events_per_s), "textbook_cpu_us_per_event": round(rate.cpu_us, 1)}


async def logged(run: Run, events: int) -> dict[str, float]:
    """Gives what the state log took, bytes per event: deltas, and snapshots where there were any."""
    taken = {"state_log": 0, "snapshot": 0}
    async for _, records in read(run.bootstrap, run.topics.state, run.partitions):
        for record in records:
            taken["snapshot" if decode(record.value)[0].kind == "snapshot" else "state_log"] += len(record.value)
    return {f"{kind}_bytes_per_event": round(size / events, 1) for kind, size in taken.items()}


async def main(given: argparse.Namespace, bootstrap: str) -> dict[str, Any]:
    """Gives everything that was asked for, with the machine it was measured on."""
    told: dict[str, Any] = {"question": (__doc__ or "").splitlines()[0], "machine": ground.machine(), "delivery": given.delivery}
    told["shared_windows"] = "redis" if given.redis else "memory"
    events = round(given.rate * given.seconds) + ground.PARTITIONS if given.rate else given.events
    rows = generated(events, given.customers)
    with ExitStack() as stack:
        environ, redis, pipeline = dict[str, str](), None, "payments"
        if given.three_by_four:
            file, models = three_by_four.prepare(Path(stack.enter_context(TemporaryDirectory())))
            environ, pipeline = {"STREAMAPP_MODELS": str(models)}, str(file.with_suffix(""))
        if given.redis:
            address, process = stack.enter_context(redis_server())
            environ, redis = environ | {"STREAMAPP_REDIS": f"redis://{address}/0"}, psutil.Process(process.pid)

        async def prepared(topic: str) -> Run:
            run = Run(bootstrap, topic, ground.PARTITIONS, given.delivery, pipeline, environ)
            await run.prepare()
            return run

        if given.rate:
            return told | await latency(await prepared(await fill(bootstrap, [])), given.rate, rows)
        topic, rounds = await fill(bootstrap, rows), []
        for _ in range(given.rounds):
            run, before = await prepared(topic), sum(redis.cpu_times()[:2]) if redis else 0.0
            found = await throughput(run, 1, events) | await logged(run, events)
            if redis:
                found["redis_cpu_us_per_event"] = round((sum(redis.cpu_times()[:2]) - before) / events * 1e6, 2)
            if given.textbook:
                found |= await textbook(bootstrap, rows[: given.textbook])
                found["times_the_textbook"] = round(found["events_per_s"] / found["textbook_events_per_s"], 1)
            rounds.append(found)
    told |= {"events": events, "customers": given.customers, "rounds": rounds}
    return told | {name: ground.spread([one[name] for one in rounds]) for name in rounds[0] if name not in ("workers", "events")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka, HOST:PORT; else one is started")
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--customers", type=int, default=200_000, help="with twice as many terminals; each pays twice a day")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--redis", action="store_true", help="shared windows in a redis-server of the run's own")
    parser.add_argument("--three-by-four", action="store_true", help="three windows of four entities instead of all 21 that are shipped")
    parser.add_argument("--textbook", type=int, nargs="?", const=4_000, metavar="EVENTS", help="beside Faust with hopping tables")
    parser.add_argument("--rate", type=int, help="events per second, for latency instead of throughput")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long to feed at --rate")
    parser.add_argument("--delivery", choices=["at_least_once", "exactly_once"], default="at_least_once")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    with ground.broker(arguments.bootstrap) as where:
        if not where.real:
            sys.exit("payments are measured on a real Kafka: install Java, or name one by --bootstrap")
        figures = asyncio.run(main(arguments, where.address))
    ground.tell(figures, as_json=arguments.json)
