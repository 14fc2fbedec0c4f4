"""One simulated worker process: the program's own line, delivery, journal, recovery and batch consumer, on a simulated outside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from faust.transport.drivers.aiokafka import Consumer as FaustConsumer
from faust.types import TP

from streamapp.bus import transport
from streamapp.bus.app import attach
from streamapp.bus.batch import BatchLimits
from streamapp.bus.emit import Delivery
from streamapp.bus.guarantee import AtLeastOnce, Guarantee
from streamapp.bus.journal import KafkaJournal
from streamapp.bus.recovery import Group, Recovery
from streamapp.bus.statelog import log_reader
from streamapp.bus.transactions import ExactlyOnce
from streamapp.core.cascade import Answer, Question
from streamapp.core.events import Segment
from streamapp.core.windows_partition import PartitionState
from streamapp.prefetch import reading
from streamapp.worker import Line
from tests.simulation.broker import Producer
from tests.simulation.events import TIER_MS
from tests.simulation.group import SESSION_TIMEOUT_S, Client
from tests.simulation.loop import Mind
from tests.simulation.redis import SharedCopy

if TYPE_CHECKING:
    from tests.simulation.world import World

LIMITS = BatchLimits(batch_max=24, in_flight_batches_max=4, in_flight_records_max=64)
LIMITS_IN_ROUNDS = BatchLimits(batch_max=24, in_flight_batches_max=16, in_flight_records_max=256)
COMMIT_INTERVAL_S = 1.0
#: Small, so that a micro-batch takes several produce batches, and a long event id makes a verdict that no broker takes.
BATCH_BYTES_MAX = 2_048 + 640


class _Outside(FaustConsumer):  # type: ignore[misc]
    """What stands between the batch consumer and Faust: nothing but what a rebalance does to the streams."""

    def __init__(self, transport: Any, *args: Any, **kwargs: Any) -> None:
        self.app, self.transport = transport.app, transport
        self.log: Any = logging.getLogger(__name__)
        self._thread = transport.app.client
        self._loop = asyncio.get_running_loop()

    should_stop = False

    def add_future(self, coroutine: Any) -> asyncio.Future[Any]:
        """Starts a task; its failure ends the worker."""
        return self.app.process.start(coroutine)  # type: ignore[no-any-return]

    def _get_active_partitions(self) -> set[Any]:
        assignment = self.app.client._fetcher.assignment
        return set() if assignment is None else set(map(TP._make, assignment.tps))

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Suspends the streams."""
        self.app.flowing.clear()
        if self.app.resuming is not None:
            self.app.resuming.cancel()

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """Lets the streams go on after a while."""
        self.app.resuming = self.app.process.start(self.app.flow_again())

    def resume_flow(self) -> None:
        """Nothing more than the batch consumer does."""

    def stop_flow(self) -> None:
        """Nothing more than the batch consumer does."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """There are no stock topics."""
        return True


class Consumer(transport.Consumer, _Outside):
    """The batch consumer itself."""


class _Conductor:
    """Hands batches to the one agent."""

    def __init__(self, topic: str) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.sources = {topic: self.queue}

    def deliver(self, channel: asyncio.Queue[Any], batch: Any, generation: int) -> None:
        """Puts a batch on the agent's queue."""
        channel.put_nowait(batch)


class _Event:
    """A Faust event as the agent sees it."""

    def __init__(self, value: Any) -> None:
        self.value = value


class App:
    """What the line, the recovery and the batch consumer ask of a Faust app."""

    should_stop = False
    consumer_auto_offset_reset = "earliest"
    broker_session_timeout = SESSION_TIMEOUT_S

    def __init__(self, process: Process, client: Client, topic: str, listener: Any) -> None:
        self.process, self.client, self.conf, self.app = process, client, self, self
        self.batch_limits = LIMITS_IN_ROUNDS if process.world.scenario.exactly_once else LIMITS
        self.partition_listener = listener
        self.flowing = asyncio.Event()
        self.resuming: asyncio.Task[None] | None = None
        self.topics = _Conductor(topic)
        self.agents: list[Callable[[Any], Coroutine[Any, Any, None]]] = []
        self.batches: Any = None

    @property
    def consumer_generation_id(self) -> int:
        """The generation of the group."""
        return self.client.generation

    def topic(self, *names: str, schema: Any) -> Sequence[str]:
        """Gives what stands for a topic."""
        return names

    def agent(self, topic: Any, name: str) -> Any:
        """Takes the agent's function."""
        return self.agents.append

    async def flow_again(self) -> None:
        """Lets the streams go on, as Faust does some time after a rebalance: what was queued before it is dropped."""
        await asyncio.sleep(self.process.random.uniform(0, 0.3))
        while not self.topics.queue.empty():
            self.topics.queue.get_nowait()
        self.flowing.set()
        self.batches.resume_flow()

    def noack(self) -> App:
        """The stream acks nothing by itself."""
        return self

    async def events(self) -> AsyncIterator[_Event]:
        """Gives the stream's events while it flows."""
        while True:
            await self.flowing.wait()
            yield _Event(await self.topics.queue.get())

    async def crash(self, failure: BaseException) -> None:
        """Ends the worker with a reason."""
        self.process.crash(failure)


class Journal(KafkaJournal):
    """The journal; the moment in which states begin to move is told to the witness."""

    def __init__(self, process: Process, *given: Any) -> None:
        super().__init__(*given)
        self._process = process

    def states(self, segments: Sequence[Segment]) -> Sequence[PartitionState]:
        """Gives the states as the journal does."""
        found = super().states(segments)
        self._process.world.witness.decides(self._process.name, segments)
        return found


class Process(Mind):
    """A worker from its start to its end."""

    def __init__(self, world: World, name: str, seed: str) -> None:
        super().__init__(name)
        self.world, self.random = world, Random(seed)
        self.steps = 0
        self.excused = False  #  something outside went wrong that may end a worker
        self.stopping = False
        self.over: BaseException | None = None
        self.client: Client | None = None
        self.app: App | None = None
        self.guarantee: ExactlyOnce | None = None
        self._work: list[asyncio.Task[Any]] = []
        self.model_fault = ""
        self.step_reached: Callable[[str], None] = lambda step: None

    def begin(self) -> None:
        """Starts it."""
        super().start(self._watched(self._run()))

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Starts a task whose failure ends the worker."""
        task = super().start(self._watched(coroutine))
        self._work = [*(one for one in self._work if not one.done()), task]
        return task

    async def _watched(self, coroutine: Any) -> None:
        try:
            await coroutine
        except Exception as failure:  # noqa: BLE001 - the world judges it
            self.crash(failure)

    def crash(self, failure: BaseException) -> None:
        """Ends the worker for a reason of its own; it still says goodbye to the group."""
        if self.over is None and not self.dead:
            self.over = failure
            self.world.failed(self, failure)
            self.world.network.arrive(self.world.coordinator.leave, self.name)
            if self.guarantee is None:
                self.end()
                return
            super().start(self._close())

    async def _close(self) -> None:
        if self.guarantee is not None:
            for task in self._work:
                if task is not asyncio.current_task():
                    task.cancel()
            await self.guarantee.close()
        self.end()

    def end(self) -> None:
        """Ends the process at once."""
        if not self.dead:
            super().end()
            if self.client is not None:
                self.client.close()
            self.world.ended(self)

    def excuse(self) -> None:
        """Notes that the outside has failed this worker."""
        self.excused = True

    async def stop(self) -> None:
        """SIGTERM: drains, says goodbye, ends; what the drain left behind is told to the witness."""
        if self.app is not None and self.app.batches is not None and self.client is not None:
            left = await self.app.batches.drain(30.0)
            if self.world.finishing:  # else slow answers and rebalances may well leave something
                self.world.witness.drained(self.name, left)
            await self.client.leave()
        await self._close()

    async def _run(self) -> None:
        world = self.world
        await asyncio.sleep(self.random.uniform(0.05, 0.5))
        producer: Any = Producer(world.broker, self, self.excuse)
        guarantee = self._guaranteed(producer)
        delivery = Delivery(producer, world.topics, BATCH_BYTES_MAX, guarantee=guarantee)
        serving = world.serving
        journal = Journal(self, guarantee, world.topics, serving.state, world.scenario.partitions, self._trim, world.scenario.snapshots)
        client = self.client = Client(self.name, world.broker, world.coordinator, world.topics.events, self.random)
        app = App(self, client, world.topics.events, None)
        recovery = Recovery(Group(app), journal, delivery, world.topics, lambda: log_reader("simulated", {}))
        app.partition_listener = recovery
        app.batches = Consumer(app, None, None, None)
        shared = SharedCopy(serving.shared, world.redis, world.network)
        line = Line(serving, delivery, reading(serving.shared, shared), journal, self._observed, shared.write, self.reached, self._ask)
        attach(app, world.topics.events, line.run)  # type: ignore[arg-type]
        self.app = app
        self.start(app.batches.pump(lambda: False))
        self.start(client.run(app.batches, self.reached))
        self.start(app.agents[0](app))
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            await app.batches.force_commit()

    def _guaranteed(self, producer: Any) -> Guarantee:
        """Gives the program's own guarantee; in transactions its producers find the simulated broker by themselves."""
        scenario, topics = self.world.scenario, self.world.topics
        if not scenario.exactly_once:
            return AtLeastOnce(producer)
        self.guarantee = ExactlyOnce(
            "simulated", {}, "simulated", (*topics.outputs(), topics.state),
            events=topics.events, state=topics.state, transaction_ms=scenario.transaction_ms,
        )  # fmt: skip
        return self.guarantee

    async def _trim(self, partition: int, before: int) -> None:
        log = self.world.broker.log(self.world.topics.state, partition)

        def trim() -> None:
            log.begin = max(log.begin, min(before, log.end))

        await self.world.network.ask(trim)
        self.reached("saved")

    async def _ask(self, question: Question) -> Answer:
        await asyncio.sleep(self.random.uniform(0, TIER_MS / 1000))
        return question.here()

    def _observed(self, outcome: Any, release: str, now_ms: int) -> None:
        self.world.figures["batches"] += 1

    def reached(self, step: str) -> None:
        """Tells the world of a step; raises CancelledError where that was the last one."""
        self.world.reached(self, step)
        self.alive()
