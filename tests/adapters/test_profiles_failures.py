"""A real Redis under the profiles that is killed, hangs, is slow, holds other things or comes back empty: what a read gives."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from redis import Redis

from streamapp.adapters.profiles_redis import Keeping, RedisProfiles, RedisProfileStore
from streamapp.core.profiles import ProfilePlan, ProfileRead
from tests.redis_server import DEADLINE_S, Server

pytestmark = pytest.mark.redis
PLAN = ProfilePlan.of(["follower_count"])
PART = PLAN.parts[0]
PLACE = PLAN.columns.index("follower_count")
FORGETS_AT_ONCE = Keeping(ttl_s=1e-9, unknown_ttl_s=1e-9, stale_s=3600.0)


async def load(server: Server, **followers: float) -> None:
    store = RedisProfileStore(f"redis://127.0.0.1:{server.port}/0", "t")
    rows = np.full((len(followers), len(PART.columns)), np.nan)
    rows[:, PLACE] = list(followers.values())
    await store.write(PART, list(followers), rows, np.zeros(len(followers), np.int64), 3600.0)
    await store.loaded(1, 3600.0)
    await store.close()


@pytest.fixture
async def worker(server: Server) -> AsyncIterator[RedisProfiles]:
    await load(server, anna=3, ben=4)
    opened = RedisProfiles(PLAN, f"redis://127.0.0.1:{server.port}/0", "t", 50, FORGETS_AT_ONCE)
    yield opened
    await opened.close()


async def read(worker: RedisProfiles, *keys: str) -> tuple[list[float | None], list[str]]:
    """Gives the followers, None where they are not known, and the causes."""
    found: ProfileRead = await worker.answer(await worker.ask(keys))
    assert all(one.component == "redis" and one.cause.startswith("profiles:") for one in found.degraded)
    values = [None if np.isnan(value) else value for value in found.values[:, PLACE].tolist()]
    return values, [one.cause.removeprefix("profiles:") for one in found.degraded]


async def until_fine(worker: RedisProfiles, *keys: str) -> list[float | None]:
    give_up = time.monotonic() + DEADLINE_S
    while True:
        values, causes = await read(worker, *keys)
        if not causes:
            return values
        assert time.monotonic() < give_up, causes
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_a_redis_that_is_gone_costs_one_deadline_and_old_values_are_better_than_none(
    server: Server, worker: RedisProfiles, way: str
) -> None:
    assert await read(worker, "anna", "nobody") == ([3, None], [])
    server.send(signal.SIGKILL if way == "killed" else signal.SIGSTOP)
    causes = []
    for _ in range(100):
        values, told = await read(worker, "anna", "ben")
        assert values == [3, None]
        causes += told
    assert causes == ["refused" if way == "killed" else "timeout"] + 99 * ["open"]
    if way == "hung":
        server.send(signal.SIGCONT)
        assert await until_fine(worker, "anna", "ben") == [3, 4]


async def test_what_is_fresh_in_the_process_needs_no_redis_and_names_none(server: Server) -> None:
    await load(server, anna=3)
    worker = RedisProfiles(PLAN, f"redis://127.0.0.1:{server.port}/0", "t", 50)
    await read(worker, "anna", "nobody")
    server.send(signal.SIGKILL)
    assert await read(worker, "anna", "nobody", "anna") == ([3, None, 3], [])
    assert await read(worker, "anna", "carl") == ([3, None], ["refused"])
    await worker.close()


async def test_what_is_too_old_is_not_used(server: Server) -> None:
    await load(server, anna=3)
    worker = RedisProfiles(PLAN, f"redis://127.0.0.1:{server.port}/0", "t", 50, Keeping(1e-9, 1e-9, stale_s=0.0))
    await read(worker, "anna")
    server.send(signal.SIGKILL)
    assert await read(worker, "anna") == ([None], ["refused"])
    await worker.close()


async def test_a_redis_slower_than_the_deadline_is_left_alone(server: Server, worker: RedisProfiles) -> None:
    await read(worker, "anna")
    with Redis(port=server.port) as client:
        client.client_pause(500, all=True)
    assert await read(worker, "anna", "ben") == ([3, None], ["timeout"])
    assert await read(worker, "anna", "ben") == ([3, None], ["open"])
    assert await until_fine(worker, "anna", "ben") == [3, 4]


async def test_a_redis_that_came_back_empty_says_nothing_about_users(server: Server, worker: RedisProfiles) -> None:
    await read(worker, "anna")
    with Redis(port=server.port) as client:
        client.flushall()
    assert await read(worker, "anna", "ben") == ([3, None], ["empty"])
    await load(server, anna=5, ben=6)
    give_up = time.monotonic() + DEADLINE_S  # somebody who was unknown to an empty store is asked for again a second later
    while await read(worker, "anna", "ben") != ([5, 6], []):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["text", "list"])
async def test_keys_that_hold_other_things_are_no_profiles(server: Server, worker: RedisProfiles, what: str) -> None:
    """MGET answers for a list as for an absent key, so only a text of another length or mark can be named."""
    with Redis(port=server.port) as client:
        client.delete("t:profile:anna")
        if what == "list":
            client.rpush("t:profile:anna", "x")
        else:
            client.set("t:profile:anna", b"something that is no profile")
    assert await read(worker, "anna", "ben") == ([None, 4], ["wrong_type"] if what == "text" else [])


async def test_a_redis_that_refuses_to_answer_is_named(server: Server, worker: RedisProfiles) -> None:
    with Redis(port=server.port) as client:
        client.config_set("requirepass", "secret")
    fresh = RedisProfiles(PLAN, f"redis://127.0.0.1:{server.port}/0", "t", 50)
    values, (cause,) = await read(fresh, "anna")
    assert values == [None] and cause in ("error", "refused")
    await fresh.close()
