"""What do windows of shared entities cost? CPU per event of the worker and of Redis, alone and beside a second worker; waits when it hangs.

Starts a redis-server of its own (from PATH) on a free port and stops it. Three entities with three windows each; figures are medians of
five runs with the lowest and highest; CPU time, not wall time, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streamapp.adapters.shared_memory import MemoryShared
from streamapp.adapters.shared_redis import RedisShared
from streamapp.core.dedupe import SeenIds
from streamapp.core.shared import Asks, SharedPlan, SharedRead
from streamapp.core.spec import parse_spec
from streamapp.core.state import Remembered, Step
from streamapp.core.windows import warm_up
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_index import hash_names
from streamapp.core.windows_partition import Entries, PartitionState, Rows

RUNS = 5
ENTITIES = {"terminal_id": 2_000, "ip": 20_000, "device_id": 20_000}
WINDOWS = ("10m", "1h", "24h")
FIELDS = {name: {"type": "id"} for name in ENTITIES} | {"customer_id": {"type": "id", "required": True}, "amount": {"type": "number"}}
DOCUMENT: dict[str, Any] = {
    "pipeline": {"name": "bench", "version": "1", "description": "bench", "owner": "bench", "key": "customer_id"},
    "event": {"key_required": True, "fields": FIELDS},
    "velocity": {
        f"{entity}_{window}": {"entity": entity, "window": window, "aggregates": ["count", "sum:amount"]}
        for entity in ENTITIES
        for window in WINDOWS
    },
}
PLAN = SharedPlan(parse_spec(DOCUMENT, "bench"))


class Traffic:
    """Endless seeded rows, 20 ms of event time apart; entities drawn evenly."""

    def __init__(self, seed: int = 7) -> None:
        self._rng, self._now, self._count = np.random.default_rng(seed), 1_700_000_000_000, 0
        self._names = {name: hash_names([f"{name}-{i}" for i in range(count)]) for name, count in ENTITIES.items()}
        self.offset = 0

    def batch(self, n: int) -> tuple[Asks, Rows]:
        time_ms = self._now + 20 * np.arange(1, n + 1, dtype=np.int64)
        self._now = int(time_ms[-1])
        ids = self._rng.integers(-(1 << 62), 1 << 62, (n, 2))
        none = np.empty((n, 0), np.int64)
        asked = {
            name: Entries(known[self._rng.integers(0, len(known), n)], self._rng.integers(1, 10_000, (n, 1)), none)
            for name, known in self._names.items()
        }
        rows = Rows(np.arange(self.offset, self.offset + n), time_ms, time_ms, ids, {})
        self.offset += n
        return Asks(asked, self._now), rows


class Worker:
    """One worker without a bus: its partition's state, and its way to the shared windows."""

    def __init__(self, windows: MemoryShared | RedisShared) -> None:
        self.windows, self._state = windows, PartitionState(Clock(60_000), SeenIds(PLAN.horizon_ms), {})
        self.waits_ms: list[float] = []

    async def run(self, asks: Asks, rows: Rows) -> SharedRead:
        n = len(rows.offset)
        began = time.perf_counter()
        read = await self.windows.read(asks)
        self.waits_ms.append((time.perf_counter() - began) * 1e3)
        step = Step(0, 0, n, self._state, rows, self._state.advance(rows))
        shared = PLAN.answer(n, Remembered(np.empty((n, 0)), np.zeros(n, np.int32), [step]), read)
        await self.windows.write(shared.written)
        return read


@contextlib.contextmanager
def redis_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Gives HOST:PORT and the process of a redis-server that keeps nothing on disk."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        try:
            yield f"127.0.0.1:{port}", process
        finally:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def client_of(address: str) -> AsyncIterator[Any]:
    client = Redis.from_url(f"redis://{address}/0", protocol=2)
    give_up = time.monotonic() + 10
    while True:
        try:
            await client.ping()
            break
        except RedisError:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.02)
    yield client
    await client.aclose()


async def redis_cpu_s(client: Any) -> float:
    told = await client.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def spread(figures: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(figures), 2), "low": round(min(figures), 2), "high": round(max(figures), 2)}


async def cost(address: str | None, batch: int, workers: int) -> dict[str, Any]:
    """Gives CPU µs per event of worker and Redis, after 100,000 events that fill the lists."""
    traffic = Traffic()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(client_of(address)) if address else None
        if client:
            await client.flushall()
        made: list[Worker] = []
        for _ in range(workers):
            windows = RedisShared(PLAN, f"redis://{address}/0", "bench", 1000) if address else MemoryShared(PLAN)
            stack.push_async_callback(windows.close)
            made.append(Worker(windows))

        async def events(count: int) -> None:
            for number in range(count // batch):
                read = await made[number % workers].run(*traffic.batch(batch))
                if read.missing and read.degraded[0].cause != "loading":
                    raise SystemExit(f"redis: {read.degraded}")

        await events(100_000)
        mine, theirs, made_here = [], [], []
        size = max(20 * batch, 20_000)
        for _ in range(RUNS):
            spent = time.process_time()
            for _ in range(size // batch):
                traffic.batch(batch)
            made_here.append((time.process_time() - spent) / size * 1e6)
            redis_before, before = await redis_cpu_s(client) if client else 0.0, time.process_time()
            await events(size)
            mine.append((time.process_time() - before) / size * 1e6)
            theirs.append(((await redis_cpu_s(client) if client else 0.0) - redis_before) / size * 1e6)
        mine = [one - statistics.median(made_here) for one in mine]
        waits = sorted(wait for one in made for wait in one.waits_ms[len(one.waits_ms) // 2 :])
        return {
            "windows": "redis" if address else "memory", "batch": batch, "workers": workers, "worker_us": spread(mine),
            "redis_us": spread(theirs), "read_ms_p50": round(waits[len(waits) // 2], 2),
            "read_ms_p99": round(waits[len(waits) * 99 // 100], 2),
        }  # fmt: skip


async def pipelined(address: str, batch: int) -> dict[str, Any]:
    """The same reads and appends as single commands in redis-py's pipeline: what the scripts save."""
    traffic = Traffic()
    mine, theirs = [], []
    async with client_of(address) as client:
        await client.flushall()
        for run in range(RUNS + 1):
            size = max(10 * batch, 10_000)
            before, redis_before = time.process_time(), await redis_cpu_s(client)
            for _ in range(size // batch):
                asks, _ = traffic.batch(batch)
                keys = [name + row.tobytes() for name, one in ((n.encode(), e.name) for n, e in asks.entries.items()) for row in one]
                async with client.pipeline(transaction=False) as reads:
                    for key in keys:
                        reads.getrange(key, 0, 7)
                    await reads.execute()
                async with client.pipeline(transaction=False) as writes:
                    for key in keys:
                        writes.append(key, bytes(40))
                        writes.pexpire(key, 10_000_000)
                    await writes.execute()
            if run:
                mine.append((time.process_time() - before) / size * 1e6)
                theirs.append((await redis_cpu_s(client) - redis_before) / size * 1e6)
    return {"windows": "redis, pipelined commands", "batch": batch, "workers": 1, "worker_us": spread(mine), "redis_us": spread(theirs)}


async def hang(address: str, process: subprocess.Popen[bytes], deadline_ms: int) -> dict[str, Any]:
    """Gives what 2,000 micro-batches of 64 wait for Redis, answering and hung (SIGSTOP), in ms."""
    traffic = Traffic()
    async with client_of(address) as client:
        await client.flushall()
    windows = RedisShared(PLAN, f"redis://{address}/0", "bench", deadline_ms)
    worker = Worker(windows)
    told: dict[str, Any] = {"deadline_ms": deadline_ms}
    for name, number in (("answering", None), ("hung", signal.SIGSTOP), ("back", signal.SIGCONT)):
        if number is not None:
            os.kill(process.pid, number)
        worker.waits_ms.clear()
        for _ in range(2_000):
            await worker.run(*traffic.batch(64))
            await asyncio.sleep(0)
        waits = sorted(worker.waits_ms)
        told[name] = {"p50": round(waits[1000], 2), "p99": round(waits[1980], 2), "max": round(waits[-1], 2)}
    await windows.close()
    return told


async def main() -> None:
    """Prints one JSON line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="*", default=[64, 512, 2048])
    chosen = parser.parse_args()
    warm_up()
    print(json.dumps({"machine": platform.processor() or platform.machine(), "load": os.getloadavg()[0], "cores": os.cpu_count()}))
    for batch in chosen.batch:
        print(json.dumps(await cost(None, batch, 1)), flush=True)
    with redis_server() as (address, process):
        for batch in chosen.batch:
            for workers in (1, 2):
                print(json.dumps(await cost(address, batch, workers)), flush=True)
        print(json.dumps(await pipelined(address, chosen.batch[-1])), flush=True)
        print(json.dumps({"hang": await hang(address, process, 50)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
