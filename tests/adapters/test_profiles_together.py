"""Profiles written together end apart, and entities asked for together are asked of Redis once: as Redis itself sees it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from redis import Redis

from streamapp.adapters.profiles_redis import JITTER, Keeping, RedisProfiles, RedisProfileStore
from streamapp.core.profiles import ProfilePlan, ProfileRead
from tests.redis_server import Server

pytestmark = pytest.mark.redis
PLAN = ProfilePlan.of(["follower_count"])
PART = PLAN.parts[0]
PLACE = PLAN.columns.index("follower_count")
TTL_S = 3600.0
NAMES = [f"u{number}" for number in range(200)]


async def load(server: Server, names: Sequence[str] = NAMES) -> None:
    store = RedisProfileStore(f"redis://127.0.0.1:{server.port}/0", "t")
    rows = np.full((len(names), len(PART.columns)), np.nan)
    rows[:, PLACE] = np.arange(len(names))
    await store.write(PART, list(names), rows, np.zeros(len(names), np.int64), TTL_S)
    await store.loaded(1, TTL_S)
    await store.close()


@pytest.fixture
def redis(server: Server) -> Iterator[Redis]:
    with Redis(port=server.port, decode_responses=True) as client:
        yield client


async def test_what_was_written_together_ends_apart_within_the_declared_share(server: Server, redis: Redis) -> None:
    await load(server)
    lives_ms = [int(redis.pexpiretime(f"t:profile:{name}")) for name in NAMES]
    now_ms = 1000 * int(redis.time()[0])
    low, high = 1000 * TTL_S * (1 - JITTER), 1000 * TTL_S * (1 + JITTER)
    slow_ms = 60_000  # between the load and the look at it
    assert all(low - slow_ms <= at - now_ms <= high + 1000 for at in lives_ms)
    assert max(lives_ms) - min(lives_ms) > 0.5 * (high - low), "spread over the whole of it"
    assert len(set(lives_ms)) > 0.9 * len(NAMES), "not one end for all"


async def test_what_was_read_together_is_asked_for_again_apart(server: Server) -> None:
    """The same in the process: of entities read at one instant, some are due again before others."""
    await load(server)
    worker = RedisProfiles(PLAN, f"redis://127.0.0.1:{server.port}/0", "t", 1000, Keeping(ttl_s=TTL_S))
    began_s = asyncio.get_running_loop().time()
    await worker.answer(await worker.ask(NAMES))
    ended_s = asyncio.get_running_loop().time()

    def fresh(seconds: float, since_s: float) -> int:
        return int(worker._kept.look(NAMES, since_s + seconds)[1].sum())

    assert fresh(TTL_S * (1 - JITTER), began_s) == len(NAMES)
    assert 0 < fresh(TTL_S, ended_s) < len(NAMES)
    assert fresh(TTL_S * (1 + JITTER), ended_s) == 0
    await worker.close()


async def test_a_key_flies_once_however_many_questions_ask_for_it(server: Server, redis: Redis) -> None:
    """Counted where it arrives: the keys of every MGET that the server saw while questions overlapped."""
    await load(server)
    worker = RedisProfiles(PLAN, f"redis://127.0.0.1:{server.port}/0", "t", 5000)
    groups = [NAMES[first : first + 50] for first in (0, 25, 50, 0, 25)]

    async def read(names: Sequence[str]) -> ProfileRead:
        return await worker.answer(await worker.ask(names))

    with redis.monitor() as seen:
        found = await asyncio.gather(*map(read, groups))
        redis.echo("all questions are answered")
        asked: Counter[str] = Counter()
        while (command := seen.next_command()["command"]).split()[0] != "ECHO":
            name, *keys = command.split()
            if name == "MGET":
                asked.update(key for key in keys if key.startswith("t:profile:"))
    for names, one in zip(groups, found, strict=True):
        assert one.values[:, PLACE].tolist() == [float(name[1:]) for name in names] and one.degraded == ()
    assert asked == Counter({f"t:profile:{name}": 1 for name in NAMES[:100]})
    await worker.close()
