"""The aiokafka consumer on the worker's own event loop: Faust's consumer thread without the thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import SyncGroupRequest
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from mode.services import Service
from mode.utils.futures import maybe_async

from streamapp.bus.batch import BatchLimits
from streamapp.bus.fetching import Fetches
from streamapp.core.errors import BusError

MEMBERSHIP_CHECK_S = 1.0


class LoopClient(AIOKafkaConsumerThread):
    """Owns the aiokafka consumer.

    One loop instead of two threads: no hand-over per poll, and no waiting for the interpreter lock (5 ms per socket read while
    the line computes). `decide` is cut below 20 ms, so heartbeats have their turn.
    """

    wait_for_shutdown = False

    def __init__(self, consumer: Any, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(consumer, loop=loop, thread_loop=loop, **kwargs)
        self.limits: BatchLimits = consumer.limits
        self._session_s = float(self.app.conf.broker_session_timeout)  # asked for at each step of a micro-batch; Faust looks it up
        self.last_contact = 0.0  #  monotonic s: when the last heartbeat that the coordinator accepted was sent
        self.last_sync = 0.0  #     monotonic s: when we last asked for our partitions (SyncGroup)
        self.contact = asyncio.Event()  # set by an accepted heartbeat and by a rebalance; who waits clears it
        self.backlog = False  #     the last take left records behind or filled a batch
        self._fetches: Fetches | None = None

    # A Service again: what ServiceThread bends to cross threads goes back to the base.
    start = Service.start
    maybe_start = Service.maybe_start
    stop = Service.stop
    crash = Service.crash
    set_shutdown = Service.set_shutdown
    _stopped_set = Service._stopped_set
    _new_shutdown_event = Service._new_shutdown_event
    _stop_children = Service._stop_children
    _stop_futures = Service._stop_futures
    _stop_exit_stacks = Service._stop_exit_stacks

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Calls `fun` here and now: there is no other thread."""
        return await maybe_async(fun(*args, **kwargs))

    async def on_start(self) -> None:
        """Connects; raises what aiokafka raises when no broker answers."""
        await super().on_start()
        self._watch_heartbeats()
        self._fetches = Fetches(self.kafka, self.limits.batch_wait_ms, self.limits.fetch_wait_ms)
        self.add_future(self._watch_membership())

    async def on_stop(self) -> None:
        """Leaves the group and disconnects."""
        if self._fetches is not None:
            self._fetches.close()
        if self._consumer is not None:
            await self._consumer.stop()

    def close(self) -> None:
        """Does nothing: `on_stop` follows and leaves the group in order (Faust's version closes under the coordinator's feet)."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seeks the partitions of the stock path only; batched ones are placed by aiokafka or by `release`."""
        stock = [tp for tp in self.kafka.assignment() if tp.topic not in self.app.topics.sources]
        if not stock:
            return {}
        found: Mapping[TP, int] = await self.kafka.seek_to_committed(*stock)
        return found

    @property
    def kafka(self) -> aiokafka.AIOKafkaConsumer:
        """The aiokafka consumer; raises ConsumerNotStarted before `start`."""
        return self._ensure_consumer()

    @property
    def generation(self) -> int:
        """The group generation as the coordinator client knows it; -1 before the start and after it was told that it is no member."""
        return int(self.kafka._coordinator.generation) if self._consumer is not None else -1

    def session_left_s(self, now: float) -> float:
        """Gives for how long after `now` (monotonic s) the last accepted heartbeat will be younger than the session timeout."""
        return self.last_contact + self._session_s - now

    def in_session(self, now: float) -> bool:
        """Gives whether the last accepted heartbeat is younger than the session timeout, at `now` (monotonic s)."""
        return self.session_left_s(now) > 0

    def state(self, tp: Iterable[Any]) -> Any:
        """Gives aiokafka's state of an assigned partition (position, highwater, paused), or None."""
        subscription = self.kafka._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        return assignment.state_value(tp) if assignment is not None and assignment.active else None

    def taken(self) -> None:
        """Notes that records were taken, so that more are fetched: at once before a backlog, else when some have gathered."""
        if self._fetches is not None:
            self._fetches.taken(more=self.backlog)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust hard-codes 1500 ms: a partition that is resumed or drained meanwhile would wait that long.
        consumer._fetch_max_wait_ms = self.limits.fetch_wait_ms
        # Where producers of events use transactions, what they aborted is no event.
        consumer._isolation_level = "read_committed"
        consumer._max_partition_fetch_bytes = self.limits.partition_fetch_bytes
        return consumer

    def _watch_heartbeats(self) -> None:
        coordinator = self.kafka._coordinator
        beat = coordinator._do_heartbeat

        async def observed() -> bool:
            sent = time.monotonic()  # the broker's clock of our session starts later than this, never earlier
            accepted = bool(await beat())
            if accepted:
                self.last_contact = sent
                self.contact.set()
            return accepted

        send = coordinator._send_req

        async def noted(request: Any) -> Any:
            if isinstance(request, SyncGroupRequest):
                self.last_sync = time.monotonic()
            return await send(request)

        coordinator._do_heartbeat, coordinator._send_req = observed, noted

    async def _watch_membership(self) -> None:
        """Ends the worker when its membership fails for good: without partitions nobody polls, and nobody would see aiokafka's error."""
        coordinator = self.kafka._coordinator
        while not self.should_stop:
            await asyncio.wait({coordinator._coordination_task}, timeout=MEMBERSHIP_CHECK_S)
            if self._fetches is not None:
                self._fetches.give_up(self.app.conf.broker_request_timeout)
            try:
                if not self.should_stop:
                    coordinator.check_errors()
            except KafkaError as failure:
                raise BusError(f"group membership failed: {failure!r}", "check the group's permissions; a restart joins again") from failure
