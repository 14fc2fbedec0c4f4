"""The shell around the line: what the Faust agent is given is decided, and each Outcome is carried away in the delivery order.

The order is the contract (DESIGN.md repeats it):
  1. check that the partitions are still ours
  2. plan, prefetch, decide
  3. emit verdicts, decisions and dead letters; await every acknowledgement; then tell other workers what shared entities did
  4. append the state record; await its acknowledgement
  5. ack the range; offsets are committed

Exactly once, the effects of steps 3 and 4 count together, when their transaction is committed; step 5 waits for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Generator, Sequence
from contextlib import aclosing
from itertools import takewhile

from streamapp import pipeline
from streamapp.bus.emit import Delivery
from streamapp.bus.flight import LOG_WAIT_S, Flight, InFlight
from streamapp.bus.transport import Batch
from streamapp.core.cascade import answered_beside, answered_here
from streamapp.core.errors import BusError
from streamapp.core.journal import Release
from streamapp.core.outcome import Outcome
from streamapp.core.tiers import Answer, Question
from streamapp.lookahead import Ahead, Coming, come, in_turn, looking_ahead
from streamapp.ports import Ask, Journal, Observe, Reached, Settled, Share, ask_here, nothing_happens, tell_nobody
from streamapp.prefetch import Prefetch


class Line:
    """Drives micro-batches through the numbered order: while the broker answers for one, the next is decided; effects stay in order."""

    def __init__(
        self,
        serving: pipeline.Serving,
        delivery: Delivery,
        prefetch: Prefetch,
        journal: Journal,
        observe: Observe,
        share: Share = tell_nobody,
        reached: Reached = nothing_happens,
        ask: Ask = ask_here,
        ahead: Ahead = in_turn,
    ) -> None:
        self.serving = serving  #  replaced as a whole between two micro-batches
        self._delivery, self._prefetch, self._journal, self._observe, self._share = delivery, prefetch, journal, observe, share
        self._reached, self._ask, self._ahead = reached, ask, ahead
        self._flight = Flight()

    async def run(self, batches: AsyncIterator[Batch]) -> None:
        """Runs until the batches end or a step fails; what failed is not acked, and the failure is raised."""
        async with asyncio.TaskGroup() as tasks:
            carrying = tasks.create_task(self._carry_away(tasks))
            async with aclosing(looking_ahead(batches, lambda batch: come(batch, self.serving, self._ahead))) as arriving:
                async for coming in arriving:
                    await self._decide(coming)
            await self._flight.empty()
            carrying.cancel()

    async def _decide(self, coming: Coming) -> None:
        batch, serving, plan, planned_s, reading = coming
        if reading is not None:
            await reading
        read: pipeline.Read | None = None
        while (owned := batch.only_owned()) is not batch or read is None:  # 1
            await owned.heard()
            if owned is not batch or serving is not self.serving:
                batch, serving = owned, self.serving
                plan = pipeline.plan(batch.segments, serving)  # 2
            read = await self._prefetch(plan, serving)
            await self._journal.ready()
            await self._delivery.ready()  # each may take long enough for a rebalance, so ask again; from here on nothing waits
        if not len(batch):
            return
        began = time.perf_counter()
        states, now_ms = self._journal.states(batch.segments), time.time_ns() // 1_000_000
        steps = pipeline.deciding(plan, read, states, serving, now_ms, time.perf_counter)
        outcome = await self._waiting(steps, batch) if serving.waits else answered_here(steps)
        self._delivery.remember(outcome, serving.deciders)
        verdicts = serving.encoder.verdicts(outcome)
        decisions = serving.encoder.decisions(outcome, verdicts) if serving.spec.verdict.decisions else None
        self._reached("decided")
        answers = self._delivery.emit(outcome, verdicts, decisions)  # 3
        self._reached("emitted")
        batch.took(planned_s + time.perf_counter() - began)
        self._flight.add(InFlight(batch, outcome, Release(serving.code, serving.release, serving.deciders), answers))

    async def _waiting(self, steps: Generator[Question, Answer, Outcome], batch: Batch) -> Outcome:
        """Decides with tiers that are asked beside the loop (ADR 18); the next micro-batch waits, so that the order stays."""
        with self._journal.moving():
            outcome = await answered_beside(steps, self._ask)
            await batch.heard()
        if batch.only_owned() is not batch:  # a rebalance waits for us longer than any tier may take: we stood still, somebody took over
            raise BusError("partitions were taken away while a slow tier was asked", "the worker starts again from the journal")
        return outcome

    async def _carry_away(self, tasks: asyncio.TaskGroup) -> None:
        logged_at = 0.0
        while True:
            oldest = await self._flight.oldest()
            await oldest.answers  # 3
            await self._flight.gathered(logged_at + LOG_WAIT_S)
            several = [*takewhile(lambda one: one.answers.complete(), self._flight)]
            settled = [Settled(one.outcome, await one.answers, one.release) for one in several]
            self._reached("acknowledged")
            for one in settled:
                if one.outcome.shared:
                    await self._share(one.outcome.shared)
            logged_at = time.monotonic()
            counted = await self._journal.append(settled)  # 4
            self._reached("logged")
            if counted is None:
                await self._ack(several, None)
            else:
                tasks.create_task(self._ack(several, counted))
            self._flight.landed(len(several))

    async def _ack(self, several: Sequence[InFlight], counted: Awaitable[None] | None) -> None:
        if counted is not None:
            await counted
            self._reached("counted")
        for carried in several:
            carried.batch.ack()  # 5
        self._reached("acked")
        now_ms = time.time_ns() // 1_000_000
        for carried in several:
            self._observe(carried.outcome, carried.release.name, carried.answers.acknowledged_at if counted is None else now_ms)
