"""Time that only passes when nothing else is left to do: a loop without clock, sockets and threads, and processes that can stand still.

A process is a context: whatever is called back or started in it belongs to it, so that it can be frozen (SIGSTOP) or ended (SIGKILL)
as a whole while the world outside, broker and network, goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from aiokafka.producer import message_accumulator

from streamapp.core.windows_partition import PartitionState

#: Wall clock at the virtual second 0, epoch ms.
EPOCH_MS = 1_750_000_000_000

#: Turns of a loop that no run comes near.
TURNS_MAX = 100_000

Callback = Callable[..., object]


class Stuck(Exception):
    """Nothing is left that could ever happen, and what was waited for has not come."""


class _Call:
    """A callback of a process, and the handle by which it may be cancelled even after its time."""

    __slots__ = ("args", "callback", "handle")
    handle: asyncio.Handle

    def __init__(self, callback: Callback, args: tuple[Any, ...]) -> None:
        self.callback, self.args = callback, args

    def late(self) -> None:
        if not self.handle.cancelled():
            self.callback(*self.args)


class Mind:
    """The tasks and callbacks of one simulated process; frozen ones wait, in order, until it is thawed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.wall_ms = 0  #  how far its wall clock is off
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.context = contextvars.copy_context()
        self.context.run(MIND.set, self)
        self._frozen: list[tuple[_Call, contextvars.Context]] | None = None

    @property
    def frozen(self) -> bool:
        """True between `freeze` and `thaw`."""
        return self._frozen is not None

    def freeze(self) -> None:
        """Stops the process where it is; what it has sent is on its way."""
        if self._frozen is None and not self.dead:
            self._frozen = []

    def thaw(self) -> None:
        """Lets it go on: everything it missed comes at once."""
        missed, self._frozen = self._frozen or [], None
        loop = asyncio.get_running_loop()
        for call, context in missed:
            loop.call_soon(call.late, context=context)

    def end(self) -> None:
        """Ends the process as SIGKILL does. Its `finally` blocks still run here, but nothing of it reaches the world any more."""
        self.dead = True
        if self.frozen:
            self.thaw()
        for task in list(self.tasks):
            task.cancel()

    def alive(self) -> None:
        """Raises CancelledError in a process that has ended: what touches the world asks first."""
        if self.dead:
            raise asyncio.CancelledError

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Starts a task in this process."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context.copy())

    def gate(self, call: _Call) -> None:
        """Runs a callback of this process now, or keeps it while the process stands still."""
        if self._frozen is not None:
            self._frozen.append((call, contextvars.copy_context()))
        else:
            call.callback(*call.args)


MIND: contextvars.ContextVar[Mind | None] = contextvars.ContextVar("mind", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready; when nothing is, the clock jumps to the next timer. Raises Stuck when there is none."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._selector = self
        self._random = random
        self.now_s = 0.0
        self._turns = 0
        self.set_task_factory(self._new_task)
        self.failures: list[BaseException] = []  # of callbacks: nobody else would see them
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        """Gives the virtual time in seconds."""
        return self.now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Stands in for a selector: no event ever comes, time passes."""
        if timeout is None:
            raise Stuck("nothing is left to happen")
        self._turns += 1
        if self._turns > TURNS_MAX:
            raise Stuck("something goes round in circles")
        self.now_s += timeout
        return []

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "never retrieved" not in context["message"]:  # else an answer that nobody reads any more
            self.failures.append(context.get("exception") or RuntimeError(context["message"]))

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def call_soon(self, callback: Callback, *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        """Calls back in the process that asks, if it is one."""
        context = contextvars.copy_context() if context is None else context
        mind = context.get(MIND)
        if mind is None:
            return super().call_soon(callback, *args, context=context)
        call = _Call(callback, args)
        call.handle = super().call_soon(mind.gate, call, context=context)
        return call.handle

    def call_at(self, when: float, callback: Callback, *args: Any, context: contextvars.Context | None = None) -> asyncio.TimerHandle:
        """Calls back at a virtual time in the process that asks, if it is one."""
        context = contextvars.copy_context() if context is None else context
        mind = context.get(MIND)
        if mind is None:
            return super().call_at(when, callback, *args, context=context)
        call = _Call(callback, args)
        call.handle = handle = super().call_at(when, mind.gate, call, context=context)
        return handle

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> asyncio.Future[Any]:
        """Runs what would run in a thread at the beginning or at the end of the time it would take."""
        done = self.create_future()
        begun = _still(function)
        at_once = self._random.random() < 0.5
        result = function(*args) if at_once else None

        def finish() -> None:
            if done.done():
                return
            try:
                begun()
                done.set_result(result if at_once else function(*args))
            except Exception as failure:  # noqa: BLE001 - the awaiting task gets it, and may keep it to itself
                self.failures.append(failure)
                done.set_exception(failure)

        self.call_later(self._random.uniform(0, self._random.choice([0.01, 0.02, 1.0])), finish)
        return done

    @staticmethod
    def _new_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **given: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **given)
        mind = given["context"].get(MIND) if given.get("context") is not None else MIND.get()
        if mind is not None:
            mind.tasks[task] = None
            task.add_done_callback(mind.tasks.pop)
        return task


def _still(function: Any) -> Callable[[], None]:
    """A state that is copied in a thread has to stand still until the copy is made: gives the check of it."""
    inner = function.args[0] if isinstance(function, functools.partial) and function.args else function
    state = getattr(inner, "__self__", None)
    if not isinstance(state, PartitionState):
        return lambda: None
    before = state.snapshot()

    def check() -> None:
        after = state.snapshot()
        if any(before[name].tobytes() != after[name].tobytes() for name in before):  # NaN is equal to itself here
            raise AssertionError("a state moved while it was copied")

    return check


class VirtualTime:
    """Stands in for the module `time` in the program."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.perf_counter = self.monotonic = loop.time

    def time_ns(self) -> int:
        """Gives the wall clock of the process that asks."""
        mind = MIND.get()
        off_ms = 0 if mind is None else mind.wall_ms
        return (EPOCH_MS + off_ms) * 1_000_000 + int(self._loop.now_s * 1e9)

    def time(self) -> float:
        """Gives the wall clock in seconds."""
        return self.time_ns() / 1e9


@contextmanager
def virtual_time(loop: VirtualLoop) -> Iterator[None]:
    """Puts virtual time into every module of the program that has imported `time`, and aiokafka's queue; takes it out again."""
    stand_in = VirtualTime(loop)
    with_clock = [
        module for name, module in sorted(sys.modules.items()) if name.startswith("streamapp.") and vars(module).get("time") is time
    ] + [message_accumulator]
    for module in with_clock:
        module.time = stand_in  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in with_clock:
            module.time = time  # type: ignore[attr-defined]
