"""Slow tiers beside the event loop: one thread per tier, a deadline per micro-batch, and no waiting for a call that overran its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from streamapp.core.cascade import BUSY, TIME_BUDGET
from streamapp.core.tiers import Answer, Question

log = logging.getLogger(__name__)


class _Call:
    """One question under way: the thread fills `values` piece by piece, the loop takes what is there when the time is up."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.values: npt.NDArray[np.float64] = question.unanswered("").values
        self.cause: str | None = None
        self.given_up = False
        self.loop = asyncio.get_running_loop()
        self.done = asyncio.Event()

    def run(self) -> None:
        """Answers piece by piece until all is answered, something fails or nobody waits any more."""
        question, step = self.question, self.question.tier.rows_per_call
        for low in range(0, question.rows.size, step):
            if self.given_up:
                return
            high = min(low + step, question.rows.size)
            try:
                self.values[low:high] = question.values(low, high)
            except Exception as failure:  # noqa: BLE001 - whatever a tier throws, a cheaper path decides and the verdict names it
                self.cause = type(failure).__name__
                log.warning("Tier %s failed: %r", question.tier.name, failure)
                return

    def tell(self) -> None:
        """Wakes the loop, if there still is one."""
        try:
            self.loop.call_soon_threadsafe(self.done.set)
        except RuntimeError:
            log.debug("The loop ended before tier %s did", self.question.tier.name)


class _Lane:
    """The thread of one tier. A daemon: a call that never comes back holds up no exit."""

    def __init__(self, name: str) -> None:
        self.current: _Call | None = None
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        threading.Thread(target=self._run, name=f"tier-{name}", daemon=True).start()

    def begin(self, call: _Call) -> None:
        self.current = call
        self._calls.put(call)

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            call.run()
            self.current = None
            call.tell()


class Aside:
    """Answers questions of tiers with `time_ms`; `ask` is a `ports.Ask`."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    async def ask(self, question: Question) -> Answer:
        """Gives what the tier answered within its `time_ms`, the most urgent rows first; NaN and a cause for the rest. Never raises.

        A tier whose last call is still under way is not waited for: one that hangs costs its time once, not once per micro-batch.
        """
        tier = question.tier
        lane = self._lanes.get(tier.name)
        if lane is None:
            lane = self._lanes[tier.name] = _Lane(tier.name)
        if lane.current is not None:
            return question.unanswered(BUSY)
        question.read_ahead()
        call = _Call(question)
        lane.begin(call)
        try:
            async with asyncio.timeout(None if tier.time_ms is None else tier.time_ms / 1e3):
                await call.done.wait()
        except TimeoutError:
            call.given_up = True
            return Answer(call.values.copy(), TIME_BUDGET)  # a copy: the thread may still be writing
        return Answer(call.values, call.cause)
