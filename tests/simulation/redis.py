"""Redis in the simulation: a log of what workers wrote of shared entities; it may be away, slow, or come back empty."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka.errors import KafkaConnectionError

from streamapp.core.cascade import Degraded
from streamapp.core.shared import Asks, SharedEntries, SharedPlan, SharedRead
from tests.simulation.broker import Network

DEADLINE_S = 0.05


class Redis:
    """What all workers share: entries by store in the order in which they were written."""

    def __init__(self) -> None:
        self.written: list[Mapping[str, SharedEntries]] = []
        self.epoch = 0
        self.away = False
        self.missed = 0  #  requests that were not answered in time

    def empty(self) -> None:
        """Comes back without anything."""
        self.written, self.epoch = [], self.epoch + 1


class SharedCopy:
    """One worker's copy (ports.SharedWindows): follows what others wrote, within a deadline, and names what was missing."""

    def __init__(self, plan: SharedPlan, redis: Redis, network: Network) -> None:
        self._state, self._redis, self._network = plan.new(), redis, network
        self._unsent: list[Mapping[str, SharedEntries]] = []
        self._epoch, self._place = redis.epoch, 0

    async def read(self, asks: Asks) -> SharedRead:
        """Brings the copy up to date."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                epoch, place, news = await self._network.ask(self._news)
        except (TimeoutError, KafkaConnectionError):
            self._redis.missed += 1
            return SharedRead(asks, self._state, missing=True, degraded=(Degraded("redis", "timeout"),))
        for written in news:
            for name, entries in written.items():
                self._state.merge(name, entries)
        self._epoch, self._place = epoch, place  # only now: an answer that came too late was not heard
        return SharedRead(asks, self._state)

    async def write(self, written: Mapping[str, SharedEntries]) -> None:
        """Tells the others, now or with the next write."""
        self._unsent.append(written)
        given = list(self._unsent)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._network.ask(lambda: self._take(given))
        except (TimeoutError, KafkaConnectionError):
            self._redis.missed += 1
            return
        del self._unsent[: len(given)]

    def _news(self) -> tuple[int, int, list[Mapping[str, SharedEntries]]]:
        if self._redis.away:
            raise KafkaConnectionError
        begin = self._place if self._redis.epoch == self._epoch else 0
        return self._redis.epoch, len(self._redis.written), self._redis.written[begin:]

    def _take(self, given: list[Mapping[str, SharedEntries]]) -> None:
        if self._redis.away:
            raise KafkaConnectionError
        self._redis.written += given
