"""The batch transport: a Faust Transport whose source topics arrive as one Event per poll, with acknowledgements of our own.

Topics whose schema is `Batches` are batched; changelog, assignor and leader topics stay on Faust's stock path. Registered for
`streamapp://host:port` broker URLs by `register()` and by the entry point group `faust.transports`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.exceptions import ImproperlyConfigured
from faust.transport import base as faust_base
from faust.transport import drivers
from faust.transport.drivers import aiokafka as faust_aiokafka
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from streamapp.bus.acks import Acks, Partition, Ticket
from streamapp.bus.batch import Batch, Batches, BatchLimits
from streamapp.bus.client import LoopClient
from streamapp.bus.intake import Intake
from streamapp.bus.listener import PartitionListener
from streamapp.bus.pace import ROWS_MIN, Pace
from streamapp.core.errors import BusError

__all__ = ["Batch", "BatchLimits", "Batches", "Partition", "PartitionListener", "Transport", "register"]

#: Seconds that one commit may take; the broker answers in milliseconds, or is away and the next second tries again.
COMMIT_TIMEOUT_S = 5.0
#: Before a backlog a batch has room for at least as many records as it may have, over this.
WORTH = 8
#: So many batches may be in flight where they are large because each record costs little.
FLIGHT = 4


class Conductor(faust_base.Conductor):
    """Knows which topics are batched and hands their batches to the one agent of each."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.sources: dict[str, Any] = {}  # batched topic -> channel of its agent

    async def _update_indices(self) -> Iterable[str]:
        names: Iterable[str] = await super()._update_indices()
        self.sources = {name: self._only_channel(name, chans) for name, chans in self._topic_name_index.items() if _batched(name, chans)}
        for agent in self.app.agents.values():
            if agent.concurrency != 1 and not self.sources.keys().isdisjoint(agent.channel.topics):
                raise ImproperlyConfigured(f"agent {agent.name} has concurrency {agent.concurrency}; batches keep their order only with 1")
        # Faust's iterator would count a batch as its last record; the ledger counts instead, and Faust acks nothing here.
        self._acking_topics.difference_update(self.sources)
        return names

    def _only_channel(self, name: str, channels: Any) -> Any:
        if len(channels) != 1:
            raise ImproperlyConfigured(f"topic {name} is batched and has {len(channels)} subscribers; its acknowledgements need one owner")
        return next(iter(channels))

    def deliver(self, channel: Any, batch: Batch, generation: int) -> None:
        """Puts one batch on its agent's queue as a Faust event; never waits, because the flight is bounded before the fetch."""
        first = batch.segments[0]
        message = ConsumerMessage(
            first.topic,
            first.partition,
            int(first.offsets[0]),
            float(first.timestamps[0]) / 1000,
            0,
            None,
            None,
            batch,
            None,
            0,
            0,
            TP(first.topic, first.partition),
            generation_id=generation,
        )
        message.incref()
        channel.queue.put_nowait(self.app.create_event(None, batch, None, message))


def _batched(name: str, channels: Any) -> bool:
    marked = [isinstance(channel.schema, Batches) for channel in channels]
    if any(marked) and not all(marked):
        raise ImproperlyConfigured(f"topic {name} has subscribers with and without the Batches schema")
    return any(marked)


class Fetcher(faust_base.Fetcher):
    """Faust's fetcher for the stock topics, and beside it the task that turns polls into batches."""

    @Service.task
    async def _pump(self) -> None:
        await self.app.consumer.pump(lambda: self.should_stop)


class Consumer(faust_aiokafka.Consumer):
    """Faust's consumer with batches, a ledger of acknowledgements, held partitions, and a drain."""

    def __init__(self, transport: Any, *args: Any, **kwargs: Any) -> None:
        self.limits: BatchLimits = getattr(transport.app, "batch_limits", None) or BatchLimits()
        self.listener: PartitionListener | None = getattr(transport.app, "partition_listener", None)
        self.pace = Pace(self.limits.batch_max, self.limits.decide_ms_max)
        self.acks = Acks(self._wake)
        self.held: dict[Partition, int | None] = {}  # with the position reached before the hold, None when nothing was fetched
        self.draining = False
        self._flow = False  #      Faust has placed the stock partitions after the last rebalance
        self._generation = -1  #   of the last assignment
        self._loading: asyncio.Future[Any] | None = None  # the listener's task for the last assignment
        self._wakeup = asyncio.Event()
        self._settled = asyncio.Event()
        self._committing = asyncio.Lock()
        super().__init__(transport, *args, **kwargs)
        self.intake = Intake(self.client, self.acks)

    def _new_consumer_thread(self) -> Any:
        return LoopClient(self, loop=self.loop, beacon=self.beacon)

    @property
    def client(self) -> LoopClient:
        """The aiokafka consumer's owner."""
        return cast(LoopClient, self._thread)

    @property
    def conductor(self) -> Conductor:
        """The app's conductor."""
        return cast(Conductor, self.app.topics)

    # -- batches out

    async def pump(self, stopping: Any) -> None:
        """Delivers batches until `stopping()`; waits for data, for room in flight, and for partitions. Raises BusError, KafkaError."""
        try:
            while not stopping() and not self.should_stop:
                self._wakeup.clear()
                room = self._room()
                if room <= 0:
                    await self._wait_for_room()
                elif self._deliver(room):
                    await asyncio.sleep(0)
                else:
                    await self.intake.wait_for_records(self._wakeup)
        except ConsumerStoppedError:
            if not self.app.should_stop:
                raise

    def _deliver(self, room: int) -> bool:
        taken = self.intake.take(self.acks.claims(), self._get_active_partitions(), self.conductor.sources, room)
        for channel, segments, tickets in taken:
            batch = Batch(segments, tickets, self.acks, self, time.monotonic())
            self.conductor.deliver(channel, batch, self.app.consumer_generation_id)
        return bool(taken)

    def _room(self) -> int:
        """Gives how many records the next batch may have; 0 while nothing may be taken."""
        acks, limits = self.acks, self.limits
        if not self._flow or self.draining or acks.batches_in_flight >= limits.in_flight_batches_max:
            return 0
        if not self.in_session():
            return 0
        rows = self.pace.rows
        flight = limits.in_flight_records_max if rows <= ROWS_MIN else max(limits.in_flight_records_max, FLIGHT * rows)
        room = min(rows, flight - acks.records_in_flight)
        # A batch costs some milliseconds however small it is: before a backlog, the next one waits for room that is worth it.
        return room if WORTH * room >= rows or not (self.client.backlog and acks.records_in_flight) else 0

    async def _wait_for_room(self) -> None:
        # A session that went stale is repaired by a heartbeat or a rebalance; neither wakes us, so look again.
        stale = not self.in_session()
        try:
            async with asyncio.timeout(0.05 if stale else None):
                await self._wakeup.wait()
        except TimeoutError:
            pass

    def _wake(self) -> None:
        self._wakeup.set()
        self._settled.set()
        self.intake.interrupt()

    # -- ownership

    def holds(self, ticket: Ticket) -> bool:
        """Gives whether the ticket's claim is alive and of the present generation."""
        return ticket.claim.live and ticket.claim.generation == self.client.generation

    def in_session(self) -> bool:
        """Gives whether the last accepted heartbeat is younger than the session timeout."""
        return self.client.in_session(time.monotonic())

    async def news(self) -> None:
        """Waits for the next accepted heartbeat or rebalance."""
        self.client.contact.clear()
        await self.client.contact.wait()

    def hold(self, source: Partition) -> None:
        """Stops delivery of an assigned partition and drops what is un-acked of it, until `release`."""
        self.held[source] = self.acks.retire(source)
        self.intake.discard(source)
        self.client.kafka.pause(_aiokafka(source))

    def release(self, source: Partition, offset: int | None = None) -> None:
        """Starts delivery of a held partition at `offset`, else where the hold stopped it, else at the group's committed offset.

        Raises BusError when the partition is not held by us (any more).
        """
        if source not in self.held or self.client.state(source) is None:
            raise BusError(f"{source.topic}-{source.partition} is not held by this worker", "it was revoked: drop the loaded state")
        reached = self.held.pop(source)
        offset = reached if offset is None else offset
        self.acks.claim(source, self.client.generation, offset)
        if offset is not None:
            self.client.kafka.seek(_aiokafka(source), offset)
        self.client.kafka.resume(_aiokafka(source))
        self._wake()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commits what is acknowledged and drops the rest, after waiting for batches in flight: `revoke_wait_ms`, and within the session.

        An output that the broker takes late would be written again by the next owner, who has read the topic by then.
        """
        self._flow = False
        claims = self.acks.claims()
        if claims and self.in_session():
            await self._wait_settled(min(self.limits.revoke_wait_ms / 1000, self.client.session_left_s(time.monotonic())))
            await self.commit_acked()
        gone = frozenset(self.partitions())
        await self.stop_loading()
        for source in gone:
            self.acks.retire(source)
        self.held.clear()
        self.client.contact.set()
        await super().on_partitions_revoked(revoked)
        if self.listener is not None and gone:
            self.add_future(self.listener.on_revoked(self._generation, gone))

    async def stop_loading(self) -> None:
        """Ends the listener's task; what that has asked of the broker is answered then, or the session over.

        An answer that came when the next owner had asked would fence that one.
        """
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait({self._loading}, timeout=max(0.0, self.client.session_left_s(time.monotonic())))

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Claims the batched partitions; with a listener they are held until it releases them."""
        self._flow = False
        self._generation = generation_id
        self.client.last_contact = self.client.last_sync  # a process that stood still since then may be out of the group again
        sources = frozenset(Partition(*tp) for tp in assigned if tp.topic in self.conductor.sources)
        for source in sources:
            if self.listener is None:
                self.acks.claim(source, generation_id)
            else:
                self.hold(source)
        await super().on_partitions_assigned(assigned, generation_id)
        if self.listener is not None and sources:
            self._loading = self.add_future(self.listener.on_assigned(generation_id, sources))

    async def threadsafe_partitions_revoked(self, receiver_loop: Any, revoked: set[TP]) -> None:
        """Calls the rebalance callback: there is one loop only."""
        await self.on_partitions_revoked(revoked)

    async def threadsafe_partitions_assigned(self, receiver_loop: Any, assigned: set[TP], generation_id: int = 0) -> None:
        """Calls the rebalance callback: there is one loop only."""
        await self.on_partitions_assigned(assigned, generation_id)

    def resume_flow(self) -> None:
        """Called by Faust's recovery when streams may run again."""
        super().resume_flow()
        self._flow = True
        self._wake()

    def stop_flow(self) -> None:
        """Called by Faust when streams must stop."""
        super().stop_flow()
        self._flow = False

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Called by Faust's recovery for the partitions of streams."""
        super().resume_partitions(tps)
        self._wake()

    # -- the stock path, without the batched topics

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's signature
        stock = {tp for tp in active_partitions or () if tp.topic not in self.conductor.sources}
        if not stock:  # an empty set would mean all
            await self.sleep(timeout)
            return {}
        return await super()._getmany(stock, timeout)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leaves batched partitions out of Faust's livelock messages: it looks at acks that are not there; see `lag`."""
        if tp.topic not in self.conductor.sources:
            super().verify_event_path(now, tp)

    # -- offsets

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commits the batched and the stock partitions; called every `broker_commit_interval` and at the end."""
        await self.commit_acked()
        return bool(await super().force_commit(topics, start_new_transaction=start_new_transaction))

    async def commit_acked(self, timeout_s: float = COMMIT_TIMEOUT_S) -> bool:
        """Commits the acknowledged progress; gives whether the group knows all of it. Raises KafkaError when it is refused for good."""
        async with self._committing:
            offsets = self.acks.committable()
            if not offsets:
                return True
            wanted = {_aiokafka(claim.source): OffsetAndMetadata(offset, "") for claim, offset in offsets}
            try:
                async with asyncio.timeout(timeout_s):
                    await self.client.kafka.commit(wanted)
            except (CommitFailedError, IllegalStateError) as lost:
                self.log.info("Commit refused, the group has moved on: %r", lost)
                return False
            except (KafkaError, TimeoutError) as failure:
                if isinstance(failure, KafkaError) and not failure.retriable:
                    raise
                self.log.warning("Commit failed and will be tried again: %r", failure)
                return False
            self.acks.committed(offsets)
            return True

    async def _wait_settled(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self.acks.records_in_flight:
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def drain(self, timeout_s: float | None = None) -> int:
        """Stops fetching, waits until what is in flight is acked, commits; gives the records left un-acked or uncommitted (0 is clean)."""
        self.draining = True
        deadline = time.monotonic() + (self.limits.drain_timeout_s if timeout_s is None else timeout_s)
        await self._wait_settled(deadline - time.monotonic())
        committed = await self.commit_acked(max(deadline - time.monotonic(), 0.5))
        return self.acks.records_in_flight if committed else self.acks.uncommitted_records()

    # -- figures for metrics and probes, cheap to read

    @property
    def generation(self) -> int:
        """The group generation; -1 while we are no member."""
        return self.client.generation

    def partitions(self) -> tuple[Partition, ...]:
        """Gives the batched partitions that are ours, held ones included."""
        return (*(claim.source for claim in self.acks.claims()), *self.held)

    def lag(self, now_ms: int) -> Mapping[Partition, tuple[int, float]]:
        """Gives per partition the records not yet acked below the high mark, and the age of the oldest of them in seconds at `now_ms`."""
        return self.intake.lag(self.acks.claims(), now_ms)


class Producer(faust_aiokafka.Producer):
    """Faust's producer, idempotent, with dictionaries of its own: Faust's are the class's, shared between the apps of a process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._transaction_producers: dict[str, Any] = {}
        self._trn_locks: dict[str, asyncio.Lock] = {}
        super().__init__(*args, **kwargs)

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class Transport(faust_aiokafka.Transport):
    """`streamapp://host:port`: Kafka through aiokafka, source topics in batches."""

    Consumer: ClassVar[Any] = Consumer
    Producer: ClassVar[Any] = Producer
    Conductor: ClassVar[Any] = Conductor
    Fetcher: ClassVar[Any] = Fetcher


def _aiokafka(source: Partition) -> Any:
    return faust_aiokafka.TopicPartition(source.topic, source.partition)


def register() -> None:
    """Makes `broker="streamapp://host:port"` known to Faust where the package is not installed (no entry point)."""
    drivers.TRANSPORTS.aliases["streamapp"] = f"{__name__}:Transport"


register()
