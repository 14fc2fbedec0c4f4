"""How fast is the reference work: windows, a score, a verdict and its state per transaction, by the ordinary worker on a real Kafka?

An event is a JSON transaction of 286 bytes (event_id, user_id of 50,000, amount, ts in seconds, text, country, merchant), keyed by user.
pipelines/reference.toml counts and sums it over 60 s, 3,600 s and 86,400 s and answers on one of three topics.

    bench/reference_work.py --bootstrap HOST:PORT --topic T --fill      # makes the topic and writes the events first
    bench/reference_work.py --bootstrap HOST:PORT --topic T             # one worker over what is there
    bench/reference_work.py --bootstrap HOST:PORT --topic T --workers 2
    bench/reference_work.py --bootstrap HOST:PORT --topic T --kill      # kill -9 half-way, start again, recompute every count
    bench/reference_work.py --bootstrap HOST:PORT --rate 2000           # append of the event to append of its verdict, even rate

--delivery exactly_once goes with each; latency then ends where a read_committed consumer has the verdict. --engine bare runs the yardstick
instead (bare_loop.py: the same verdicts from a loop by hand, nothing around it), --rounds 3 both in turn, and gives the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import resource
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ground
import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamapp.bus.batch import BatchLimits
from streamapp.bus.feed import feeder
from streamapp.bus.topics import Topics, create_topics

EVENT_BYTES, USERS, EVENTS = 286, 50_000, 2_000_000
WINDOWS_MS = (60_000, 3_600_000)
SAMPLE_S = 0.05
#: A worker, and the loop it is compared with (bare_loop.py).
ENGINES = ("worker", "bare")
START_MS = 3_000.0  # not counted in latencies
FIRST_S, STEP_MS = 1_750_000_000, 5
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def transactions(count: int, seed: int = 11) -> Iterator[tuple[list[bytes | None], list[bytes | None]]]:
    """Gives keys and values in pieces, one transaction every 5 ms of event time; equal seeds give equal bytes."""
    random = np.random.default_rng(seed)
    for first in range(0, count, ground.FEED_RECORDS):
        n = min(ground.FEED_RECORDS, count - first)
        users, cents = random.integers(USERS, size=n).tolist(), (random.gamma(1.5, 16_000, n) + 1).astype(int).tolist()
        shops, lands = random.integers(5000, size=n).tolist(), random.integers(6, size=n).tolist()
        keys: list[bytes | None] = [b"u%05d" % user for user in users]
        values: list[bytes | None] = []
        for row in range(n):
            number = first + row
            ms = number * STEP_MS
            head = b'{"event_id":"t%09d","user_id":"u%05d","amount":%d.%02d,"ts":%d.%03d,"text":"' % (
                number, users[row], *divmod(cents[row], 100), FIRST_S + ms // 1000, ms % 1000,
            )  # fmt: skip
            tail = b'","country":"%b","merchant":"m%04d"}' % ((b"DE", b"FR", b"US", b"GB", b"IN", b"BR")[lands[row]], shops[row])
            words = b"card payment at the counter, receipt printed, customer present, chip and pin used, nothing else to remark here; "
            values.append(head + (words * 3)[: EVENT_BYTES - len(head) - len(tail)] + tail)
        yield keys, values


async def fill(bootstrap: str, topic: str, count: int) -> None:
    """Creates the topic with four partitions and writes the transactions."""
    await ground.create(ground.Broker(bootstrap, real=True), topic, message_timestamp_type="LogAppendTime")
    async with feeder(bootstrap, topic) as feed:
        for keys, values in transactions(count):
            await feed.send(keys, values)


class Run:
    """Workers of one namespace over one topic, watched from outside."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        delivery: str,
        pipeline: str = "reference",
        environ: Mapping[str, str] | None = None,
        engine: str = "worker",
    ) -> None:
        """`pipeline` is the name of one of ours, or a file without its `.toml`; `environ`, what the workers are told beside it."""
        self.engine = engine
        self.bootstrap, self.topic, self.partitions, self.delivery = bootstrap, topic, partitions, delivery
        self.pipeline, self._environ = pipeline, dict(environ or {})
        self.topics = Topics(ground.namespace(Path(pipeline).name), events=topic)
        self.routes = [self.topics.approve, self.topics.review, self.topics.block]

    async def prepare(self) -> None:
        """Creates the outputs; the broker's clock stamps verdicts."""
        await ground.create(
            ground.Broker(self.bootstrap, real=True), *self.routes, partitions=self.partitions, message_timestamp_type="LogAppendTime"
        )
        await create_topics(self.bootstrap, self.topics, partitions=self.partitions)

    def command(self) -> list[str]:
        """The command line of an ordinary worker."""
        options = {
            "--pipeline": str(ground.ROOT / "pipelines" / f"{self.pipeline}.toml"), "--bootstrap": self.bootstrap,
            "--namespace": self.topics.ns, "--metrics-port": "0",
        }  # fmt: skip
        return ["-m", "streamapp", "worker", *(word for option in options.items() for word in option)]

    def bare(self, number: int, count: int, *, even: bool) -> list[str]:
        """The command line of the yardstick over every `count`-th partition; events at an even rate gather as a worker lets them."""
        topics = self.topics
        options = {
            "--bootstrap": self.bootstrap, "--topic": self.topic, "--approve": topics.approve, "--review": topics.review,
            "--block": topics.block, "--state": topics.state, "--wait-ms": str(BatchLimits().batch_wait_ms if even else 0),
        }  # fmt: skip
        mine = [str(at) for at in range(number, self.partitions, count)]
        return [
            str(Path(__file__).with_name("bare_loop.py")),
            *(word for option in options.items() for word in option),
            "--partitions",
            *mine,
        ]

    def start(self, stack: ExitStack, number: int = 0, count: int = 1, *, even: bool = False) -> psutil.Process:
        """Starts one worker, number `number` of `count`, that ends with `stack`."""
        if self.engine == "bare":
            return psutil.Process(stack.enter_context(ground.process(*self.bare(number, count, even=even))).pid)
        environ = {"STREAMAPP_EVENTS_TOPIC": self.topic, "STREAMAPP_DELIVERY": self.delivery} | self._environ
        return psutil.Process(stack.enter_context(ground.process(*self.command(), environ=environ)).pid)

    async def answered(self, timeout_s: float = 600) -> AsyncIterator[tuple[int, float]]:
        """Gives (outputs so far, time) again and again. Only what is committed; commit markers count (1 in 1,000 or fewer)."""
        partitions = [TopicPartition(topic, at) for topic in [*self.routes, self.topics.dead_letters] for at in range(self.partitions)]
        deadline = time.monotonic() + timeout_s
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap, isolation_level="read_committed") as consumer:
            while time.monotonic() < deadline:
                yield sum((await consumer.end_offsets(partitions)).values()), time.perf_counter()
                await asyncio.sleep(SAMPLE_S)
        raise RuntimeError("the time was up before every event was answered")


def used(workers: list[psutil.Process]) -> float:
    """Gives the processor seconds of all workers; raises when one has ended."""
    return sum(sum(one.cpu_times()[:2]) for one in workers)


async def throughput(run: Run, workers: int, total: int) -> dict[str, Any]:
    """Runs `workers` over the whole topic; rates begin with the last look before the first verdict."""
    with ExitStack() as stack:
        processes = [run.start(stack, number, workers) for number in range(workers)]
        begin: tuple[int, float, float] | None = None
        half: tuple[int, float, float] | None = None
        before = (0, time.perf_counter(), 0.0)
        async for done, now in run.answered():
            look = (done, now, used(processes))
            if begin is None and done:
                begin = before
            if half is None and done >= total / 2:
                half = look
            before = look
            if done >= total:
                break
        end = before
        peak = [peak_mib(one.pid) for one in processes]
    if begin is None or half is None or half[0] == end[0]:
        raise RuntimeError("everything was answered between two looks: use more events")
    return {
        "workers": workers,
        "events": total,
        "events_per_s": round((end[0] - begin[0]) / (end[1] - begin[1])),
        "cpu_us_per_event": round((end[2] - begin[2]) / (end[0] - begin[0]) * 1e6, 2),
        "second_half_events_per_s": round((end[0] - half[0]) / (end[1] - half[1])),
        "second_half_cpu_us_per_event": round((end[2] - half[2]) / (end[0] - half[0]) * 1e6, 2),
        "peak_memory_mib": max(peak),
    }


def peak_mib(pid: int) -> int:
    """Gives the most memory a process ever had, where the system tells (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


async def killed(run: Run, total: int) -> dict[str, Any]:
    """Kills the worker half-way, starts another, and recomputes every verdict from the input alone."""
    with ExitStack() as stack:
        first = run.start(stack)
        async for done, _ in run.answered():
            if done >= total / 2:
                break
        first.kill()
        first.wait()
        stack.pop_all()  # its end was ours, and is no failure
        began = time.perf_counter()
        again = None
        run.start(stack)
        async for answered, now in run.answered():
            if again is None and answered > done:
                again = now - began
            if answered >= total:
                break
        await settled(run)
    return {"killed_at": done, "restart_to_next_verdict_s": round(again or 0.0, 2), **await verify(run)}


async def settled(run: Run) -> None:
    """Waits until no output has come for a second: what is repeated comes at the end as well."""
    last, since = -1, time.perf_counter()
    async for answered, now in run.answered():
        if answered != last:
            last, since = answered, now
        elif now - since > 1.0:
            return


async def read(bootstrap: str, topic: str, partitions: int) -> AsyncIterator[tuple[int, list[Any]]]:
    """Gives (partition, records) of a whole topic, each partition in order."""
    places = [TopicPartition(topic, at) for at in range(partitions)]
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20, isolation_level="read_committed"
    ) as consumer:
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        while [place for place in places if await consumer.position(place) < ends[place]]:
            for place, records in (await consumer.getmany(timeout_ms=200, max_records=50_000)).items():
                yield place.partition, records


async def verify(run: Run) -> dict[str, Any]:
    """Recomputes every verdict of the topic with plain loops that share no code with the engine; counts what is not as it must be."""
    found: dict[str, tuple[str, int, int]] = {}
    repeated = contradictory = 0
    for route, topic in zip(("approve", "review", "block"), run.routes, strict=True):
        async for _, records in read(run.bootstrap, topic, run.partitions):
            for record in records:
                told = json.loads(record.value)
                verdict = (told["decision"], told["count60"], round(told["sum3600"] * 100))
                contradictory += told["decision"] != route  # of the topic it lies on
                if told["id"] in found:
                    repeated += 1
                    contradictory += found[told["id"]] != verdict
                else:
                    found[told["id"]] = verdict
    events = lost = wrong = 0
    held: dict[str, tuple[deque[int], deque[tuple[int, int]], list[int]]] = {}
    async for _, records in read(run.bootstrap, run.topic, run.partitions):
        for record in records:
            event = json.loads(record.value)
            minute, hour, total = held.setdefault(event["user_id"], (deque(), deque(), [0]))
            now, cents = round(event["ts"] * 1000), round(event["amount"] * 100)
            minute.append(now)
            hour.append((now, cents))
            total[0] += cents
            while minute[0] <= now - WINDOWS_MS[0]:
                minute.popleft()
            while hour[0][0] <= now - WINDOWS_MS[1]:
                total[0] -= hour.popleft()[1]
            score = 1 / (1 + math.exp(-(0.01 * len(minute) + 0.0005 * total[0] / 100 - 2)))
            due = ("approve" if score < 0.5 else "review" if score < 0.8 else "block", len(minute), total[0])
            events += 1
            lost += event["event_id"] not in found
            wrong += found.get(event["event_id"], due) != due
    return {"events": events, "lost": lost, "repeated": repeated, "contradictory": contradictory, "wrong": wrong}


async def visible(run: Run, seen: dict[tuple[int, int], int]) -> None:
    """Notes until cancelled when (epoch ms) a read_committed consumer gets the verdict of each (partition, source offset)."""
    places = [TopicPartition(topic, at) for topic in run.routes for at in range(run.partitions)]
    async with AIOKafkaConsumer(
        bootstrap_servers=run.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50, isolation_level="read_committed"
    ) as consumer:
        consumer.assign(places)
        while True:
            found = await consumer.getmany(timeout_ms=100)
            now_ms = time.time_ns() // 1_000_000
            for place, records in found.items():
                seen.update(((place.partition, int(dict(one.headers)["source-offset"])), now_ms) for one in records)


async def latency(run: Run, rate: int, rows: Sequence[tuple[bytes | None, bytes | None]]) -> dict[str, Any]:
    """Feeds one worker evenly with (key, value); from the broker's time of an event to that of its verdict, whole ms.

    The first three seconds are not counted: feeder, worker and broker load and compile for a rate that nothing has seen yet.
    """
    total = len(rows) - run.partitions
    with ExitStack() as stack:
        worker = run.start(stack, even=True)
        async with feeder(run.bootstrap, run.topic) as feed:
            await feed.send(*map(list, zip(*rows[: run.partitions], strict=True)))
            async for done, _ in run.answered():
                if done >= run.partitions:
                    break
            seen: dict[tuple[int, int], int] = {}
            watching = asyncio.create_task(visible(run, seen)) if run.delivery == "exactly_once" else None
            sent, began, before, start = run.partitions, time.perf_counter(), used([worker]), time.time() * 1000 + START_MS
            while sent < len(rows):
                due = min(len(rows), run.partitions + int((time.perf_counter() - began) * rate) + 1)
                if due > sent:
                    await feed.send(*map(list, zip(*rows[sent:due], strict=True)))
                sent = max(sent, due)
                await asyncio.sleep(0.002)
            async for done, _ in run.answered():
                if (len(seen) if watching else done) >= len(rows):
                    break
            spent = used([worker]) - before
            if watching:
                watching.cancel()
    arrived = {(at, one.offset): one.timestamp async for at, records in read(run.bootstrap, run.topic, run.partitions) for one in records}
    waits = [(arrived[place], at_ms - arrived[place]) for place, at_ms in seen.items()]
    for topic in run.routes if not seen else ():
        async for at, records in read(run.bootstrap, topic, run.partitions):
            for one in records:
                came = arrived[at, int(dict(one.headers)["source-offset"])]
                waits.append((came, one.timestamp - came))
    p50, p99 = np.percentile([wait for came, wait in waits if came >= start], [50, 99])
    return {
        "rate_per_s": rate, "events": len(waits), "p50_ms": float(p50), "p99_ms": float(p99),
        "cpu_us_per_event": round(spent / total * 1e6, 1),
    }  # fmt: skip


async def even(given: argparse.Namespace, engine: str) -> dict[str, Any]:
    """Gives an engine's latency at `given.rate`, on a topic of its own unless one is named."""
    topic = given.topic or f"{ground.namespace('reference')}.events.v1"
    await fill(given.bootstrap, topic, 0)
    run = Run(given.bootstrap, topic, ground.PARTITIONS, given.delivery, engine=engine)
    await run.prepare()
    pieces = transactions(round(given.rate * given.seconds) + run.partitions)
    return await latency(run, given.rate, [row for keys, values in pieces for row in zip(keys, values, strict=True)])


async def backlog(given: argparse.Namespace, engine: str) -> dict[str, Any]:
    """Gives what an engine does with all that the topic holds."""
    async with feeder(given.bootstrap, given.topic) as feed, AIOKafkaConsumer(bootstrap_servers=given.bootstrap) as consumer:
        partitions = feed.partitions
        ends = await consumer.end_offsets([TopicPartition(given.topic, at) for at in range(partitions)])
    present = sum(ends.values())
    if present < given.events:
        raise SystemExit(f"{given.topic} holds {present:,} events, not {given.events:,}; write them with --fill")
    run = Run(given.bootstrap, given.topic, partitions, given.delivery, engine=engine)
    await run.prepare()
    if given.kill:
        return await killed(run, present)
    figures = await throughput(run, given.workers, present)
    return figures | (await verify(run) if given.verify else {})


async def in_turn(given: argparse.Namespace, measure: Callable[[argparse.Namespace, str], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Measures worker and yardstick `given.rounds` times in turn; gives the spread of each, and of the rounds' ratios."""
    rounds = [{engine: await measure(given, engine) for engine in ENGINES} for _ in range(given.rounds)]
    names = [name for name in rounds[0]["worker"] if name.startswith(("events_per_s", "cpu", "p50", "p99", "second_half"))]
    told = {engine: {name: ground.spread([one[engine][name] for one in rounds]) for name in names} for engine in ENGINES}
    return told | {"worker_over_bare": {name: ground.spread([one["worker"][name] / one["bare"][name] for one in rounds]) for name in names}}


async def main(given: argparse.Namespace) -> dict[str, Any]:
    """Gives everything that was asked for, with the machine it was measured on."""
    told: dict[str, Any] = {"question": (__doc__ or "").splitlines()[0], "machine": ground.machine(), "delivery": given.delivery}
    if given.fill:
        await fill(given.bootstrap, given.topic, given.events)
    measure = even if given.rate else backlog
    return told | await (in_turn(given, measure) if given.rounds else measure(given, given.engine))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True, help="a real Kafka: ops/kafka/kafka start")
    parser.add_argument("--topic", help="the topic of the transactions")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--fill", action="store_true", help="make the topic and write the events first")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--verify", action="store_true", help="recompute every verdict afterwards")
    parser.add_argument("--kill", action="store_true", help="kill -9 half-way, start again, recompute every verdict")
    parser.add_argument("--rate", type=int, help="events per second, for latency")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long to feed at --rate")
    parser.add_argument("--delivery", choices=["at_least_once", "exactly_once"], default="at_least_once")
    parser.add_argument("--engine", choices=ENGINES, default="worker", help="who does the work")
    parser.add_argument("--rounds", type=int, default=0, help="measure both engines so many times in turn, and give the ratios")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    if not arguments.rate and not arguments.topic:
        parser.error("--topic is needed (only --rate makes its own)")
    if arguments.delivery != "at_least_once" and (arguments.rounds or arguments.engine == "bare"):
        parser.error("the yardstick knows at_least_once only")
    figures = asyncio.run(main(arguments))
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:30} {value:,}\n" if isinstance(value, int | float) else f"{name:30} {value}\n")
