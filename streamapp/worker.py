"""The shell around the line: one Faust agent takes micro-batches, decides them, and carries each Outcome away in the delivery order.

The order is the contract (DESIGN.md repeats it):
  1. check that the partitions are still ours
  2. plan, prefetch, decide
  3. emit verdicts, decisions and dead letters; await every acknowledgement
  4. append the state record; await its acknowledgement (no pipeline keeps state yet: the group's offsets are the position)
  5. ack the range; offsets are committed
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from streamapp import pipeline
from streamapp.bus.app import StreamApp, source_topic
from streamapp.bus.emit import Delivery
from streamapp.bus.transport import Batch
from streamapp.core.events import Plan
from streamapp.core.outcome import Outcome

Prefetch = Callable[[Plan], Awaitable[pipeline.Read]]
#: Called after step 5 with the Outcome, its release and the epoch ms of its acknowledgement: metrics and drift, never delivery.
Observe = Callable[[Outcome, str, int], None]


class InFlight(NamedTuple):
    """A micro-batch between step 3 and step 5; the transport bounds how many there are."""

    batch: Batch
    outcome: Outcome
    release: str
    delivered: Awaitable[None]


class Line:
    """Drives micro-batches through the numbered order: while the broker answers for one, the next is decided; effects stay in order."""

    def __init__(self, serving: pipeline.Serving, delivery: Delivery, prefetch: Prefetch, observe: Observe) -> None:
        self.serving = serving  #  replaced as a whole between two micro-batches
        self._delivery, self._prefetch, self._observe = delivery, prefetch, observe
        self._in_flight: asyncio.Queue[InFlight] = asyncio.Queue()

    async def run(self, batches: AsyncIterator[Batch]) -> None:
        """Runs until the batches end or a step fails; what failed is not acked, and the failure is raised."""
        async with asyncio.TaskGroup() as tasks:
            carrying = tasks.create_task(self._carry_away())
            async for batch in batches:
                await self._decide(batch.only_owned())  # 1
            await self._in_flight.join()
            carrying.cancel()

    async def _decide(self, batch: Batch) -> None:
        serving = self.serving
        plan = pipeline.plan(batch.segments, serving)  # 2
        read = await self._prefetch(plan)
        outcome = pipeline.decide(plan, read, serving, time.time_ns() // 1_000_000, time.perf_counter)
        verdicts = serving.encoder.verdicts(outcome)
        decisions = serving.encoder.decisions(outcome, verdicts)
        delivered = await self._delivery.emit(outcome, verdicts, decisions)  # 3
        self._in_flight.put_nowait(InFlight(batch, outcome, serving.release, delivered))

    async def _carry_away(self) -> None:
        while True:
            batch, outcome, release, delivered = await self._in_flight.get()
            await delivered  # 3
            batch.ack()  # 5
            self._observe(outcome, release, time.time_ns() // 1_000_000)
            self._in_flight.task_done()


def attach(app: StreamApp, events_topic: str, line: Line) -> None:
    """Makes `line` the agent of the events topic. A failure crashes the app, unacked: an exception that reached Faust would be acked."""

    @app.agent(source_topic(app, events_topic), name="decide")
    async def decide(stream: Any) -> None:
        try:
            await line.run(event.value async for event in stream.noack().events())
        except* Exception as failures:  # noqa: BLE001 - whatever it is, Faust must not see it
            await app.crash(failures.exceptions[0])
