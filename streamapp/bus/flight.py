"""Micro-batches between their decision and their acknowledgement, oldest first; effects of one partition keep that order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from streamapp.bus.emit import Answers
from streamapp.bus.transport import Batch
from streamapp.core.journal import Release
from streamapp.core.outcome import Outcome

#: Journal records are written at once for so many events, else so many seconds after the ones before: thin traffic makes few requests.
LOG_ROWS, LOG_WAIT_S = 2048, 0.05


class InFlight(NamedTuple):
    """A micro-batch between step 3 and step 5; the transport bounds how many there are."""

    batch: Batch
    outcome: Outcome
    release: Release
    answers: Answers


class Flight:
    """What is in flight; whoever waits for it to fill or to empty is woken when it moves."""

    def __init__(self) -> None:
        self._held: deque[InFlight] = deque()
        self._rows = 0  #                in them
        self._moved = asyncio.Event()  # something came or went
        self._full = asyncio.Event()  #  LOG_ROWS came

    def __iter__(self) -> Iterator[InFlight]:
        """Oldest first."""
        return iter(self._held)

    def add(self, one: InFlight) -> None:
        """Takes what has just been sent."""
        self._held.append(one)
        self._moved.set()
        self._rows += len(one.batch)
        if self._rows >= LOG_ROWS:
            self._full.set()

    def landed(self, count: int) -> None:
        """Lets the oldest `count` go."""
        for _ in range(count):
            self._rows -= len(self._held.popleft().batch)
        self._moved.set()

    async def oldest(self) -> InFlight:
        """Gives the oldest, once there is one."""
        while not self._held:
            await self._next_move()
        return self._held[0]

    async def empty(self) -> None:
        """Waits until nothing is in flight."""
        while self._held:
            await self._next_move()

    async def gathered(self, until_s: float) -> None:
        """Waits for LOG_ROWS events, or until a moment of the monotonic clock."""
        left_s = until_s - time.monotonic()
        if self._rows >= LOG_ROWS or left_s <= 0:
            return
        self._full.clear()
        try:
            async with asyncio.timeout(left_s):
                await self._full.wait()
        except TimeoutError:
            pass

    async def _next_move(self) -> None:
        self._moved.clear()
        await self._moved.wait()
