"""What batch scoring reads from Redis and leaves there: profiles before, each user's highest score after."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from streamapp.adapters.profiles_redis import RedisProfiles, RedisProfileStore
from streamapp.adapters.redis_line import FAILURES
from streamapp.config import Settings
from streamapp.core.errors import ConfigError
from streamapp.core.events import Plan
from streamapp.core.outcome import Outcome
from streamapp.core.risk import RISK, HighestRisk
from streamapp.core.velocity import duration_ms
from streamapp.pipeline import Read, Serving

#: Milliseconds a chunk waits for its profiles: nobody waits for a batch, but a Redis that is gone must not hold it for ever.
DEADLINE_MS = 1000
CHUNK = 1000


class StoresOfScore:
    """Open while a file is scored; risks are written when all of it was. Without --profiles-redis and --risk-cache it does nothing."""

    def __init__(self, settings: Settings, serving: Serving, *, risk_cache: bool) -> None:
        """Raises ConfigError where the pipeline has no [risk_cache], or no Redis is named."""
        section, url = serving.spec.risk_cache, settings.profiles_redis
        namespace = settings.namespace or serving.spec.namespace
        if risk_cache and section is None:
            raise ConfigError(
                f"pipeline {serving.spec.pipeline.name} has no [risk_cache]", "add the table to its file, or leave --risk-cache out"
            )
        if risk_cache and not url:
            raise ConfigError("no Redis is named for the risk cache", "give --profiles-redis redis://HOST:PORT/0")
        self._serving = serving
        self._runner = asyncio.Runner()
        self._profiles = (
            RedisProfiles(serving.features.profiles, url, namespace, DEADLINE_MS) if url and serving.features.profiles.parts else None
        )
        self._store = RedisProfileStore(url, namespace) if risk_cache else None
        self._ttl_s = 0.0 if section is None else duration_ms(section.ttl) / 1000
        self._highest = None if section is None or not risk_cache else HighestRisk(serving.spec.pipeline.key, section.above)

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def read(self, plan: Plan, read: Read) -> Read:
        """Gives what was read for a plan with the profiles of its users."""
        profiles = self._profiles
        if profiles is None:
            return read

        async def known() -> Read:
            found = await profiles.answer(await profiles.ask(plan.column(self._serving.spec.pipeline.key)))
            return replace(read, profiles=found.values, degraded=(*read.degraded, *found.degraded))

        return self._runner.run(known())

    def note(self, outcome: Outcome) -> None:
        """Looks at one outcome."""
        if self._highest is not None:
            self._highest.take(outcome)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._runner.run(self._write())
        except FAILURES as failure:
            told = str(failure) or "no answer in time"
            raise ConfigError(f"Redis does not take the risks: {told}", "check --profiles-redis") from failure
        finally:
            self._runner.run(self._close())
            self._runner.__exit__(kind, error, trace)

    async def _write(self) -> None:
        if self._store is None or self._highest is None:
            return
        users, risks = self._highest.found()
        now_ms = time.time_ns() // 1_000_000
        for first in range(0, len(users), CHUNK):
            part = slice(first, first + CHUNK)
            await self._store.write(RISK, users[part], risks[part], np.full(len(users[part]), now_ms), self._ttl_s)

    async def _close(self) -> None:
        for one in (self._profiles, self._store):
            if one is not None:
                await one.close()
