"""A worker of `messages` over a real Redis: what is known of a user is in its decisions, and one that hangs is named."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from typing import Any

import numpy as np
import pytest

from streamapp.adapters.profiles_redis import RedisProfileStore
from streamapp.bus.feed import Feeder, feeder
from streamapp.bus.follow import Follower, follower
from streamapp.bus.topics import Topics
from streamapp.cli.children import Children
from streamapp.core.features.profile import USER_FEATURES
from streamapp.core.profiles import ProfilePlan
from tests.redis_server import Server
from tests.worker_pages import address_of, page

pytestmark = pytest.mark.redis
DEADLINE_S = 60
DAY_MS = 86_400_000
EVENT_MS = 1_767_225_600_000
PART = ProfilePlan.of(USER_FEATURES).parts[0]


async def load(server: Server, namespace: str) -> None:
    """Writes what is known of ana: every column its own number, an account of 400 days and some hours."""
    values = np.arange(1.0, 1 + len(PART.columns))[None, :] / 10
    values[0, 0] = EVENT_MS - 400.7 * DAY_MS
    store = RedisProfileStore(f"redis://127.0.0.1:{server.port}/0", namespace)
    await store.write(PART, ["ana"], values, np.array([EVENT_MS]), 3600.0)
    await store.loaded(EVENT_MS, 3600.0)
    await store.close()


async def decision_of(user: str, number: int, events: Feeder, decisions: Follower, children: Children) -> dict[str, Any]:
    event = {"event_id": f"e{number}", "event_time": EVENT_MS, "user_id": user, "text": "see you at the station"}
    await events.send([user.encode()], [json.dumps(event).encode()])
    give_up = time.monotonic() + DEADLINE_S
    while True:
        children.check()
        assert time.monotonic() < give_up
        for record in await decisions.poll(100):
            found: dict[str, Any] = json.loads(record.value or b"")
            if found["event_id"] == f"e{number}":
                return found


async def age_of_profiles(address: str) -> float:
    """Scrapes until the worker tells how old its profiles are."""
    gauge = re.compile(r'^streamapp_feature_age_seconds\{.*feature_set="profile".*\} (\S+)$', re.MULTILINE)
    give_up = time.monotonic() + DEADLINE_S
    while not (found := gauge.search(page(address, "/metrics")[1])):
        assert time.monotonic() < give_up, "no streamapp_feature_age_seconds"
        await asyncio.sleep(0.05)
    return float(found[1])


async def test_profiles_are_in_the_decisions_and_a_redis_that_hangs_is_named(
    embedded: str, server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(server, namespace)
    topics = Topics(namespace)
    monkeypatch.setenv("STREAMAPP_PROFILES_REDIS", f"redis://127.0.0.1:{server.port}/0")
    monkeypatch.setenv("STREAMAPP_REDIS_DEADLINE_MS", "200")
    with Children() as children:
        running = children.start(
            "worker", ["worker", "--pipeline", "messages", "--bootstrap", embedded, "--namespace", namespace, "--metrics-port", "0"]
        )
        async with feeder(embedded, topics.events) as events, follower(embedded, [topics.decisions], fetch_wait_ms=10) as decisions:

            async def decided(user: str, number: int) -> dict[str, Any]:
                return await decision_of(user, number, events, decisions, children)

            known = await decided("ana", 1)
            assert [known["features"][name] for name in USER_FEATURES] == [400, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
            assert known["degraded"] == [] and not any(known["features"][f"{name}_missing"] for name in USER_FEATURES)
            unknown = await decided("ben", 2)
            assert unknown["degraded"] == [] and unknown["features"]["account_age_days"] == 30
            assert all(unknown["features"][f"{name}_missing"] for name in USER_FEATURES)
            age_s = await age_of_profiles(address_of(running))
            assert abs(age_s - (time.time() - EVENT_MS / 1000)) < DEADLINE_S, "since the load, as the load says"
            server.send(signal.SIGSTOP)
            hung = await decided("carl", 3)
            assert hung["degraded"] == [{"component": "redis", "cause": "profiles:timeout"}]
            assert all(hung["features"][f"{name}_missing"] for name in USER_FEATURES)
            still = await decided("ana", 4)
            assert still["degraded"] == [] and still["features"]["follower_count"] == 0.3
            server.send(signal.SIGCONT)
            number, give_up = 5, time.monotonic() + DEADLINE_S
            while (await decided(f"user-{number}", number))["degraded"]:
                number += 1
                assert time.monotonic() < give_up
        assert running.stop(12.0) == 0, running.last_words()
