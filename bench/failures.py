"""What does a part that fails cost, and what do verdicts say of it? One row per component and fault, seen before, during and after.

A real worker on a real Kafka and a real redis-server, at an even rate. The Redis of the profiles and that of the shared windows are reached
over a way that refuses, hangs, is slow, answers with errors or rubbish; their data is emptied or replaced by other things; the model
throws, answers with NaN, with nothing or with something that is no number, or is slow. Both times of a verdict's wait are the broker's.

Exit code 1 when an event is lost or answered twice, when a fault that must be named is not, when the group rebalances, or when the waiting
for Redis raises p99 beyond its deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import ground
import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer
from failing_redis import Way, way_to
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from shared import redis_server
from verdict_stream import Stream

from streamapp.adapters.profiles_redis import RedisProfileStore
from streamapp.bus.feed import feeder
from streamapp.bus.topics import Topics, create_topics
from streamapp.config import load_pipeline
from streamapp.control.generate import Mix, messages
from streamapp.control.payments import PaymentMix, payments
from streamapp.core.profiles import ProfilePlan

DEADLINE_MS, SLOW_S = 50, 0.2
#: What p99 may rise by beyond the deadline on a machine that does other things: measured between two runs without a fault.
SLACK_MS = 25.0
PHASES = ("before", "during", "after")
#: A worker that compiles its kernels anew, on a machine that does other things, takes long to begin.
START_S, BACK_S = 300.0, 15.0
#: Before anything is counted: broker, worker and the way to Redis load and compile, at 300 events/s for a minute and more.
WARM_RATE, WARM_S = 2_000, 8.0
EVENTS = 20_000
REDIS_FAULTS = ("refused", "hung", "slow", "throwing", "rubbish", "empty", "wrong_type")
MODEL_FAULTS = ("throwing", "nan", "empty", "wrong_type", "slow")
#: What each fault makes of a way to Redis; the others are made in its data.
WAYS = {"refused": "refuse", "hung": "hang", "slow": "slow", "throwing": "error", "rubbish": "rubbish"}
#: Component -> pipeline, feature that says where something is missing, prefix of its causes in `degraded`, faults.
COMPONENTS: Mapping[str, tuple[str, str, str, tuple[str, ...]]] = {
    "profiles": ("messages", "follower_count_missing", "redis:profiles:", REDIS_FAULTS),
    "windows": ("payments", "terminal_id_windows_missing", "redis:", REDIS_FAULTS),
    "model": ("messages", "", "model:fast:", MODEL_FAULTS),
}
#: What a Redis that was emptied says of its windows until they are full again; days, so nobody waits for it here.
WARMING = {"redis:redis_warming"}
#: Faults that end in a slower verdict, not in a cheaper one.
UNNAMED = {("model", "slow")}
KEEPING = {"STREAMAPP_PROFILES_TTL_S": "1", "STREAMAPP_PROFILES_UNKNOWN_TTL_S": "0.1", "STREAMAPP_PROFILES_STALE_S": "0"}


class Ground:
    """One component under test: the worker's process, its Redis, and how each fault is made and mended."""

    def __init__(self, component: str, redis: Redis, way: Way | None, switch: Path, namespace: str, url: str, users: list[str]) -> None:
        self._component, self._redis, self._way, self._switch, self._namespace = component, redis, way, switch, namespace
        self._url, self._users = url, users

    async def load(self) -> None:
        """Puts a profile for every second user; or says that shared windows have been kept for as long as they reach back."""
        if self._component == "windows":
            await self._redis.set(f"{self._namespace}:shared:epoch", b"kept:0")
        if self._component != "profiles":
            return
        part = ProfilePlan.of(load_pipeline("messages").features.profile).parts[0]
        store = RedisProfileStore(self._url, self._namespace)
        rows = np.random.default_rng(3).uniform(0, 1, (len(self._users), len(part.columns)))
        now_ms = time.time_ns() // 1_000_000
        await store.write(part, self._users, rows, np.full(len(self._users), now_ms), 3600.0)
        await store.loaded(now_ms, 3600.0)
        await store.close()

    async def make(self, fault: str) -> None:
        """Breaks it."""
        if self._component == "model":
            self._switch.write_text(fault)
        elif fault in WAYS and self._way is not None:
            await self._way.set(WAYS[fault])
        elif fault == "empty":
            await self._redis.flushall()
        elif fault == "wrong_type":
            for key in [key async for key in self._redis.scan_iter(f"{self._namespace}:*", count=1000)]:
                await self._redis.delete(key)
                if self._component == "profiles" and not key.endswith(b"about"):
                    await self._redis.set(key, b"something that is no profile")
                elif self._component != "profiles":
                    await self._redis.rpush(key, b"x")
            if self._component == "profiles":
                await self._redis.set(f"{self._namespace}:profiles:about", b"1")

    async def mend(self, fault: str) -> None:
        """Puts it in order again."""
        self._switch.write_text("")
        if self._way is not None:
            await self._way.set("pass")
        if fault in ("empty", "wrong_type") and self._component != "model":
            await self._redis.flushall()
            await self.load()


async def rebalances(port: int) -> int:
    """Asks the worker how many assignments it has had."""
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode())
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith("streamapp_rebalances_total"))


def events_of(pipeline: str) -> tuple[list[bytes | None], list[dict[str, Any]]]:
    """Gives keys and events without ids and times: they are sent again and again."""
    made = payments(EVENTS, PaymentMix()) if pipeline == "payments" else messages(EVENTS, Mix(garbage=0.0, drift_at=None))
    kept = list(islice(made, EVENTS))
    bodies = [orjson.loads(one.value or b"{}") for one in kept]
    for body in bodies:
        body.pop("event_time", None)
    return [one.key for one in kept], bodies


@asynccontextmanager
async def running(component: str, where: ground.Broker, rate: int, stack: AsyncExitStack) -> AsyncIterator[tuple[Stream, Ground, int]]:
    """Gives a worker that decides, a stream of events, and the port of its metrics."""
    pipeline, indicator, _, _ = COMPONENTS[component]
    topics = Topics(ground.namespace(f"failures-{component}"))
    keys, bodies = events_of(pipeline)
    address, _ = stack.enter_context(redis_server())
    redis = Redis.from_url(f"redis://{address}/0", protocol=2)
    stack.push_async_callback(redis.aclose)
    await ready(redis)
    way = await stack.enter_async_context(way_to(address, SLOW_S))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    switch = folder / "fault"
    switch.write_text("")
    users = sorted({str(body["user_id"]) for body in bodies if "user_id" in body})[::2]
    floor = Ground(component, redis, way if component != "model" else None, switch, topics.ns, f"redis://{address}/0", users)
    await floor.load()
    routes = [topics.approve, topics.review, topics.block]
    await ground.create(where, *routes, message_timestamp_type="LogAppendTime")
    await create_topics(where.address, topics, partitions=ground.PARTITIONS)
    port = ground.free_port()
    options = ["worker", "--pipeline", pipeline, "--bootstrap", where.address, "--namespace", topics.ns, "--metrics-port", str(port)]
    environ = {"STREAMAPP_REDIS_DEADLINE_MS": str(DEADLINE_MS)} | KEEPING
    if component != "model":
        environ["STREAMAPP_REDIS"] = f"redis://127.0.0.1:{way.port}/0"
    stack.enter_context(ground.process("bench/failing_model.py", str(switch), *options, environ=environ))
    consumer = await stack.enter_async_context(
        AIOKafkaConsumer(*routes, topics.decisions, topics.dead_letters, bootstrap_servers=where.address, auto_offset_reset="earliest")
    )
    stream = Stream(await stack.enter_async_context(feeder(where.address, topics.events)), consumer, topics, keys, bodies, rate)
    stream.indicator = indicator
    yield stream, floor, port


async def ready(redis: Redis) -> None:
    """Waits until Redis answers."""
    give_up = time.monotonic() + 10
    while True:
        try:
            await redis.ping()
            return
        except (OSError, RedisError):
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.02)


async def until(what: Callable[[], bool], seconds: float, words: str) -> float:
    """Waits until something is so; gives the seconds it took. Raises SystemExit when it never is."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise SystemExit(f"{words} within {seconds:g} s")
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def one_fault(component: str, fault: str, stream: Stream, floor: Ground, port: int, seconds: float) -> dict[str, Any]:
    """Breaks one thing while events flow, mends it, and gives what was seen."""
    prefix = COMPONENTS[component][2]
    while not (had := await rebalances(port)):  # noqa: ASYNC110 - another process counts its first assignment with its next beat
        await asyncio.sleep(0.1)
    stream.enter("before")
    await asyncio.sleep(seconds)
    stream.enter("during")
    await floor.make(fault)
    await asyncio.sleep(seconds)
    stream.enter("back")
    await floor.mend(fault)

    def fine() -> bool:
        return stream.open() < stream.rate and not {one for one in stream.last_named if one.startswith(prefix)} - WARMING

    back_s = await until(fine, BACK_S, f"{component} {fault}: verdicts are not what they were")
    stream.enter("after")
    await asyncio.sleep(seconds)
    stream.enter("rest")
    count = {name: stream.seen[name].sent for name in (*PHASES, "back")}
    await until(
        lambda: all(len(stream.seen[name].waits_ms) == count[name] for name in count),
        BACK_S,
        f"{component} {fault}: events have no verdict",
    )
    told = {name: stream.seen[name].told() for name in PHASES}
    lost = sum(count[name] - len(stream.seen[name].waits_ms) for name in count)
    usual = told["before"]["degraded"]
    named = {one: share for one, share in told["during"]["degraded"].items() if one.startswith(prefix) and share > usual.get(one, 0.0)}
    # What the machine does anyway is seen before and after; on a busy one the tail wanders.
    rise = told["during"]["p99_ms"] - max(told["before"]["p99_ms"], told["after"]["p99_ms"])
    problems = []
    if lost or stream.twice:
        problems.append(f"{lost} lost, {stream.twice} twice")
    if not named and (component, fault) not in UNNAMED:
        problems.append("not named")
    if component != "model" and rise > DEADLINE_MS + SLACK_MS:
        problems.append(f"p99 rose by {rise:.0f} ms")
    if await rebalances(port) != had:
        problems.append("the group rebalanced")
    return {
        "component": component, "fault": fault, **told, "named": named, "back_s": round(back_s, 2), "lost": lost, "twice": stream.twice,
        "problems": problems,
    }  # fmt: skip


async def measure(
    component: str, faults: list[str], where: ground.Broker, rate: int, seconds: float, note: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """Gives one row per fault of a component, all seen on one worker."""
    found = []
    async with AsyncExitStack() as stack, running(component, where, rate, stack) as (stream, floor, port):
        tasks = [asyncio.create_task(work) for work in (stream.feed(), stream.collect())]
        try:
            await until(
                lambda: len(stream.seen["start"].waits_ms) > rate and stream.open() < rate / 4,
                START_S,
                f"{component}: the worker does not decide",
            )
            note(f"{component}: warming")
            stream.rate = WARM_RATE
            await asyncio.sleep(WARM_S)
            stream.rate = rate
            await until(lambda: stream.open() < rate / 4, START_S, f"{component}: the worker falls behind {WARM_RATE} events/s")
            for fault in faults:
                note(f"{component}: {fault}")
                work = asyncio.create_task(one_fault(component, fault, stream, floor, port, seconds))
                done, _ = await asyncio.wait({work, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                for one in done - {work}:
                    one.result()
                found.append(await work)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return found


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Prints the table."""
    title = f"A part fails while events flow; p99 in ms, from append to append; deadline of Redis {DEADLINE_MS} ms"
    heads = (
        "component",
        "fault",
        "verdicts",
        "p99 before",
        "during",
        "after",
        "worst",
        "routes during",
        "degraded during",
        "missing",
        "back s",
    )
    table = Table(*heads, "lost", "twice", "so", title=title)
    for row in rows:
        during = row["during"]
        p99 = [f"{row[phase]['p99_ms']:.0f}" for phase in PHASES]
        routes = " ".join(f"{name} {share:.0%}" for name, share in during["routes"].items())
        named = "\n".join(f"{name} {share:.0%}" for name, share in row["named"].items()) or "–"
        seen = [
            f"{during['verdicts']:,}/{during['sent']:,}",
            *p99,
            str(during["worst_ms"]),
            routes,
            named,
            f"{during['missing_share']:.0%}",
        ]
        so = "; ".join(row["problems"]) or "held"
        table.add_row(row["component"], row["fault"], *seen, f"{row['back_s']:.1f}", str(row["lost"]), str(row["twice"]), so)
    console.print(table)


def chosen(words: list[str] | None) -> dict[str, list[str]]:
    """Takes "component" or "component:fault"; gives the faults by component."""
    wanted: dict[str, list[str]] = {}
    for word in words or list(COMPONENTS):
        component, _, fault = word.partition(":")
        if component not in COMPONENTS or (fault and fault not in COMPONENTS[component][3]):
            known = ", ".join(f"{name}[:{'|'.join(one[3])}]" for name, one in COMPONENTS.items())
            raise SystemExit(f"{word} is no component and fault; known are {known}")
        wanted.setdefault(component, []).extend([fault] if fault else COMPONENTS[component][3])
    return wanted


async def main(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    with ground.broker(arguments.bootstrap) as where:
        if not where.real:
            raise SystemExit(
                "failures are measured by the broker's clock; the embedded one has none: install Java, or name a Kafka by --bootstrap"
            )
        with console.status("starting") as status:
            for component, faults in chosen(arguments.only).items():
                rows += await measure(component, faults, where, arguments.rate, arguments.seconds, status.update)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a Kafka that runs; else one is started")
    parser.add_argument("--only", nargs="+", metavar="COMPONENT[:FAULT]")
    parser.add_argument("--rate", type=int, default=300, help="events per second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each phase")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    seen = asyncio.run(main(given))
    if given.json:
        sys.stdout.write(json.dumps({"machine": ground.machine(), "deadline_ms": DEADLINE_MS, "rate": given.rate, "rows": seen}) + "\n")
    else:
        show(seen, Console(width=200))
    sys.exit(any(row["problems"] for row in seen))
