"""One micro-batch ahead: while one is decided, the next is planned already and another thread reads its texts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from typing import NamedTuple, TypeVar

from streamapp import pipeline
from streamapp.bus.transport import Batch
from streamapp.core.events import Plan
from streamapp.pipeline import Serving

Arrived = TypeVar("Arrived")
Looked = TypeVar("Looked")

#: Called with a plan before it is its turn; gives what to wait for first, None where there is nothing.
Ahead = Callable[[Plan, Serving], Awaitable[object] | None]

#: Events from which on another thread is worth waking, that is before a backlog: it saves the loop time, and both wait for the GIL.
ROWS_MIN = 1024


class Coming(NamedTuple):
    """A micro-batch before it is its turn: planned, and its texts being read."""

    batch: Batch
    serving: Serving
    plan: Plan
    planned_s: float  # what that took
    reading: Awaitable[object] | None


def come(batch: Batch, serving: Serving, ahead: Ahead) -> Coming:
    """Plans a micro-batch and lets `ahead` begin with it."""
    began = time.perf_counter()
    plan = pipeline.plan(batch.segments, serving)
    return Coming(batch, serving, plan, time.perf_counter() - began, ahead(plan, serving))


def in_turn(plan: Plan, serving: Serving) -> None:
    """Ahead of a line without a second thread."""


def beside(executor: Executor) -> Ahead:
    """Gives the Ahead that reads the texts of large micro-batches in `executor`: its kernels run beside the loop, without the GIL."""

    def read(plan: Plan, serving: Serving) -> Awaitable[object] | None:
        if len(plan) < ROWS_MIN or not serving.features.reads_texts:
            return None
        return asyncio.get_running_loop().run_in_executor(executor, serving.features.read_texts, plan)

    return read


async def looking_ahead(batches: AsyncIterator[Arrived], look: Callable[[Arrived], Looked]) -> AsyncGenerator[Looked, None]:
    """Gives what `look` makes of each batch, in order; it is called one batch ahead where the next is there already.

    Law: nothing waits for a batch that has not come.
    """
    coming: Looked | None = None
    following = asyncio.ensure_future(anext(batches, None))
    try:
        while True:
            if coming is None:
                if (batch := await following) is None:
                    return
                coming, following = look(batch), asyncio.ensure_future(anext(batches, None))
            await asyncio.sleep(0)  # what else is due has its turn
            one, coming = coming, None
            if following.done() and (batch := following.result()) is not None:
                coming, following = look(batch), asyncio.ensure_future(anext(batches, None))
            yield one
    finally:
        following.cancel()
