"""What do profiles cost? A million of them in Redis; CPU per event of the worker and of Redis, and how long a micro-batch waits.

Starts a redis-server of its own (from PATH) on a free port and stops it. Micro-batches of 512 rows whose users are drawn evenly from all
(nearly every row is asked for), from 50,000 (most are known in the process after a while), or from 5,000 that are all known. Figures are
medians of five runs with the lowest and highest; CPU time, not wall time, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import time
from collections import Counter
from typing import Any

import numpy as np
from shared import client_of, redis_cpu_s, redis_server, spread

from streamapp.adapters.profiles_redis import RedisProfiles, RedisProfileStore
from streamapp.config import load_pipeline
from streamapp.core.features.profile import compute
from streamapp.core.profiles import ProfilePlan

RUNS = 5
FEATURES = tuple(load_pipeline("messages").features.profile)
PLAN = ProfilePlan.of(FEATURES)
PART = PLAN.parts[0]
NOW_MS = 1_767_225_600_000


async def fill(address: str, users: int) -> dict[str, Any]:
    """Writes profiles as `streamapp profiles load` does, a thousand at a time."""
    store, rng = RedisProfileStore(f"redis://{address}/0", "bench"), np.random.default_rng(5)
    async with client_of(address):  #  it answers
        began, spent = time.perf_counter(), time.process_time()
    for first in range(0, users, 1000):
        keys = [f"user-{number}" for number in range(first, first + 1000)]
        await store.write(PART, keys, rng.uniform(0, 1, (1000, len(PART.columns))), np.full(1000, NOW_MS), 86_400.0)
    await store.loaded(NOW_MS, 86_400.0)
    await store.close()
    async with client_of(address) as client:
        kept = (await client.info("memory"))["used_memory"]
    return {
        "profiles": users, "seconds": round(time.perf_counter() - began, 1),
        "cpu_us": round((time.process_time() - spent) / users * 1e6, 2), "redis_bytes_per_profile": round(kept / users),
    }  # fmt: skip


async def cost(address: str, users: int, drawn_from: int, batch: int, events: int) -> dict[str, Any]:
    """Gives CPU µs per event of worker and Redis, and the waits, after as many events as fill the process."""
    rng = np.random.default_rng(7)
    names = [f"user-{number}" for number in rng.permutation(users)[:drawn_from]]
    profiles = RedisProfiles(PLAN, f"redis://{address}/0", "bench", 1000)
    times = np.full(batch, NOW_MS)
    waits: list[float] = []

    async def run(count: int) -> None:
        for _ in range(count // batch):
            keys = [names[at] for at in rng.integers(0, drawn_from, batch).tolist()]
            question = await profiles.ask(keys)
            began = time.perf_counter()
            found = await profiles.answer(question)
            waits.append((time.perf_counter() - began) * 1e3)
            if found.degraded:
                raise SystemExit(f"redis: {found.degraded}")
            compute(FEATURES, PLAN.columns, found.values, times)

    await run(events)
    profiles.counted()
    mine, theirs, made = [], [], []
    async with client_of(address) as client:
        for _ in range(RUNS):
            spent = time.process_time()
            for _ in range(events // batch):
                [names[at] for at in rng.integers(0, drawn_from, batch).tolist()]
            made.append((time.process_time() - spent) / events * 1e6)
            redis_before, spent = await redis_cpu_s(client), time.process_time()
            waits.clear()
            await run(events)
            mine.append((time.process_time() - spent) / events * 1e6 - made[-1])
            theirs.append((await redis_cpu_s(client) - redis_before) / events * 1e6)
    counted = profiles.counted()
    await profiles.close()
    waits.sort()
    return {
        "drawn_from": drawn_from, "batch": batch, "asked_share": round(counted["store"] / sum(counted.values()), 3),
        "worker_us": spread(mine), "redis_us": spread(theirs),
        "wait_ms_p50": round(waits[len(waits) // 2], 2), "wait_ms_p99": round(waits[len(waits) * 99 // 100], 2),
    }  # fmt: skip


async def hang(address: str, process: subprocess.Popen[bytes], deadline_ms: int) -> dict[str, Any]:
    """Gives what 2,000 micro-batches of 64 strangers wait for Redis, answering, hung (SIGSTOP) and back, in ms."""
    profiles = RedisProfiles(PLAN, f"redis://{address}/0", "bench", deadline_ms)
    number = 0
    told: dict[str, Any] = {"deadline_ms": deadline_ms}
    for name, sent in (("answering", None), ("hung", signal.SIGSTOP), ("back", signal.SIGCONT)):
        if sent is not None:
            os.kill(process.pid, sent)
        waits, causes = [], Counter[str]()
        for _ in range(2_000):
            question = await profiles.ask([f"user-{one}" for one in range(number, number + 64)])
            number += 64
            began = time.perf_counter()
            found = await profiles.answer(question)
            waits.append((time.perf_counter() - began) * 1e3)
            causes.update(one.cause for one in found.degraded)
            await asyncio.sleep(0.001)
        waits.sort()
        told[name] = {"p50": round(waits[1000], 2), "p99": round(waits[1980], 2), "max": round(waits[-1], 2), "causes": dict(causes)}
    await profiles.close()
    return told


async def main() -> None:
    """Prints one JSON line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=102_400)
    parser.add_argument("--batch", type=int, nargs="*", default=[512])
    chosen = parser.parse_args()
    print(json.dumps({"machine": platform.processor() or platform.machine(), "load": os.getloadavg()[0], "cores": os.cpu_count()}))
    with redis_server() as (address, process):
        print(json.dumps(await fill(address, chosen.users)), flush=True)
        for batch in chosen.batch:
            for drawn_from in (chosen.users, 50_000, 5_000):
                print(json.dumps(await cost(address, chosen.users, drawn_from, batch, chosen.events)), flush=True)
        print(json.dumps({"hang": await hang(address, process, 50)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
