"""One run of the simulation: a seed becomes a scenario, the scenario a few minutes of virtual time in which things go wrong, then calm."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from streamapp import pipeline
from streamapp.bus.journal import SnapshotPolicy
from streamapp.bus.topics import Topics
from streamapp.core.errors import BusError
from tests.simulation import events as payments
from tests.simulation.broker import Broker, Network, Weather
from tests.simulation.group import Coordinator
from tests.simulation.loop import Mind, Stuck, VirtualLoop, virtual_time
from tests.simulation.process import Process
from tests.simulation.redis import Redis
from tests.simulation.transactional import without_sockets
from tests.simulation.transactions import Transactions
from tests.simulation.witness import Witness

#: The numbered steps of the line, and those of a member of the group and of a partition that is loaded.
LINE_STEPS = ("decided", "emitted", "acknowledged", "logged", "acked", "saved")
ROUND_STEPS = ("counted",)  # where a round of transactions counts
LOADING_STEPS = ("joined", "synced", "loading", "reading")
#: Virtual seconds that the workers have, once nothing goes wrong any more, until everything is answered and committed.
CALM_S = 240.0
TRACE_MAX = 4_000


@cache
def simulated_serving(*, slow: bool) -> pipeline.Serving:
    """Gives the Serving of all runs that have a slow tier, or of all that have none: it is frozen."""
    return payments.serving(slow=slow)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a seed stands for."""

    seed: int
    partitions: int
    workers: int
    events: int
    chaos_s: float
    faults: tuple[str, ...]  #  kinds that may happen
    fault_every_s: float
    latency_s: float
    snapshots: SnapshotPolicy
    slow_tier: bool  #  the model is asked beside the loop
    exactly_once: bool = False
    transaction_ms: int = 0  #          that a round is open
    transaction_patience_s: float = 30.0  # after which the broker aborts

    @classmethod
    def of(cls, seed: int, faults: Sequence[str] = (), *, exactly_once: bool = False) -> Scenario:
        """Gives the scenario of a seed; with `faults` only those happen."""
        random = Random(f"{seed}/scenario")
        known = [kind for kind in KINDS if exactly_once or kind not in OF_TRANSACTIONS]
        kinds = faults or [kind for kind in known if random.random() < 0.5] or [random.choice(known)]
        one = cls(
            seed, random.randint(1, 3), random.choice([1, 2, 2, 3]), random.randint(40, 120), random.uniform(12, 32), tuple(kinds),
            random.choice([1.5, 4.0, 8.0]), random.choice([0.002, 0.01, 0.05]),
            SnapshotPolicy(random.choice([15, 60, 1_000]), random.choice([5.0, 1_000.0])), random.random() < 0.25,
        )  # fmt: skip
        if not exactly_once:
            return one
        return replace(
            one, exactly_once=True, transaction_ms=random.choice([0, 20, 100, 1_000]),
            transaction_patience_s=random.choice([30.0, 30.0, 8.0]),
        )  # fmt: skip


@dataclass(slots=True)
class Report:
    """How a run ended; `digest` is equal when the seed is replayed."""

    scenario: Scenario
    breaches: list[str]
    trace: list[str]
    figures: dict[str, int]
    digest: int


class World:
    """Everything there is in one run."""

    def __init__(self, scenario: Scenario, loop: VirtualLoop) -> None:
        self.scenario, self.loop = scenario, loop
        self.random = Random(f"{scenario.seed}/faults")
        self.topics = Topics("simulated")
        self.network = Network(loop, Random(f"{scenario.seed}/network"))
        self.network.weather = Weather(scenario.latency_s)
        self.network.stepped = self._stepped
        self.broker = Broker(self.network)
        self.coordinator = Coordinator(self.network, Random(f"{scenario.seed}/group"), scenario.partitions)
        self.witness = Witness(self.broker, self.coordinator, self.topics, scenario.partitions, exactly_once=scenario.exactly_once)
        self.transactions = Transactions(self.broker, scenario.transaction_patience_s, self.topics.state)
        self.transactions.fenced, self.transactions.initialised = self._fenced, self.witness.initialised
        self.broker.watch = self.witness.appended
        self.coordinator.watch = self.witness.commits
        self.redis = Redis()
        self.serving = simulated_serving(slow=scenario.slow_tier)
        self.processes: list[Process] = []
        self.trace: list[str] = []
        self.figures = dict.fromkeys(
            ("events", "batches", "starts", "kills", "stops", "zombies", "repeated", "snapshots", "rebalances", "fenced", "aborted"), 0
        )
        self.calm = self.finishing = False
        self._steps = 0
        self._awaited: dict[str, Callable[[Process], None]] = {}  # what happens when some worker reaches a step
        self._numbered: dict[int, Callable[[Process], None]] = {}  # or the network its n-th message

    def note(self, what: str) -> None:
        """Keeps a line of the story."""
        if len(self.trace) < TRACE_MAX:
            self.trace.append(f"{self.loop.now_s:9.3f} s  {what}")

    # -- the run

    async def run(self) -> None:
        """Chaos, then calm; raises nothing that the witness does not know."""
        producers = payments.Producers(Random(f"{self.scenario.seed}/events"), self.scenario.partitions)
        for _ in range(self.scenario.workers):
            self.launch()
        feeding = asyncio.create_task(self._feed(producers))
        while self.loop.now_s < self.scenario.chaos_s:
            await asyncio.sleep(self.random.expovariate(1 / self.scenario.fault_every_s))
            self._something_happens()
        await feeding
        await self._calm_down(producers)

    async def _feed(self, producers: payments.Producers) -> None:
        random, rest = Random(f"{self.scenario.seed}/feed"), self.scenario.events
        pause_s = self.scenario.chaos_s / rest
        while rest:
            burst = min(rest, random.choice([1, 1, 1, 2, 5, 20]))
            await asyncio.sleep(random.uniform(0, 2 * pause_s * burst))
            for _ in range(burst):
                self._publish(*producers.event(self.broker.now_ms()), random.randint(1, 3) if random.random() < 0.03 else 0)
            rest -= burst

    def _publish(self, partition: int, event: payments.Event, gap: int = 0) -> None:
        offset = self.broker.log(self.topics.events, partition).end + gap
        self.witness.events[partition][offset] = event
        self.figures["events"] += 1
        self.broker.event((self.topics.events, partition), self.broker.now_ms(), event.key, event.value, gap)

    async def _calm_down(self, producers: payments.Producers) -> None:
        self.calm = True
        self._awaited, self._numbered = {}, {}
        self.network.weather = Weather(0.003)
        self.redis.away = False
        for process in list(self.processes):
            process.thaw()
            process.model_fault = ""
        self.note("calm")
        if not self.processes:
            self.launch()
        for partition, event in producers.probes(self.broker.now_ms()):
            self._publish(partition, event)
        await self._until_done()
        for terminal, event in enumerate(producers.last(self.broker.now_ms())):
            await asyncio.sleep(0.5 + terminal / 10)
            self._publish(0, event)
        await self._until_done()
        self.finishing = True
        for process in list(self.processes):
            if not process.stopping:
                await asyncio.sleep(5.0)  # the goodbye of the one before is a rebalance, in which nothing can be committed
                await asyncio.wait({process.start(process.stop())})
        self.witness.shared_exactly = not self.redis.missed and not self.witness.redis_failed
        self.witness.check()

    async def _until_done(self) -> None:
        limit_s = self.loop.now_s + CALM_S
        while not self._done():
            if self.loop.now_s > limit_s:
                self.witness.say("the workers do not get everything answered and committed")
                return
            await asyncio.sleep(0.5)

    def _done(self) -> bool:
        logs = ((number, self.broker.log(self.topics.events, number)) for number in range(self.scenario.partitions))
        return all(self.coordinator.committed.get(number, 0) == log.end for number, log in logs)

    # -- processes

    def launch(self) -> None:
        """Starts a worker."""
        self.figures["starts"] += 1
        name = f"worker-{self.figures['starts']}"
        self.note(f"{name} starts")
        process = Process(self, name, f"{self.scenario.seed}/{name}")
        self.processes.append(process)
        process.begin()

    def ended(self, process: Process) -> None:
        """Is told that a process is over; another follows it, as a supervisor would see to."""
        self.processes.remove(process)
        if len(self.processes) < self.scenario.workers and not self.finishing:
            self.network.later(self.random.uniform(0.1, 8.0), self.launch)

    def _fenced(self, mind: Mind) -> None:
        """Is told who may write no more under one of its names: whoever is fenced may well end."""
        self.figures["fenced"] += 1
        self.note(f"{mind.name} is fenced")
        assert isinstance(mind, Process)
        mind.excuse()

    def failed(self, process: Process, failure: BaseException) -> None:
        """Is told why a worker has ended by itself."""
        self.note(f"{process.name} ends: {failure!r}")
        # In the middle of deciding a worker gives up whose session is over: it stood still, or its group was out of reach.
        lost = (
            self.scenario.slow_tier
            and "taken away" in str(failure)
            and not {"pause", "doze", "slow", "down"}.isdisjoint(self.scenario.faults)
        )
        # A producer whose batches were not answered for 30 s gives up: it stood still for so long.
        lost |= "has not acknowledged it within" in str(failure) and not {"pause", "doze"}.isdisjoint(self.scenario.faults)
        if not ((process.excused or lost) and isinstance(failure, BusError)):
            self.note("".join(traceback.format_exception(failure)))
            self.witness.say(f"{process.name} ended without a reason from outside: {failure!r}")

    def reached(self, process: Process, step: str) -> None:
        """Is told of every numbered step that is done."""
        self._stepped(process)
        happens = self._awaited.pop(step, None)
        if happens is not None and not process.dead:
            self.note(f"{process.name} has just {step}")
            happens(process)

    def _stepped(self, mind: Mind) -> None:
        self._steps += 1
        happens = self._numbered.pop(self._steps, None)
        if happens is not None and isinstance(mind, Process) and not mind.dead:
            happens(mind)

    # -- what goes wrong

    def _something_happens(self) -> None:
        kind = self.random.choice(self.scenario.faults)
        KINDS[kind](self)

    def _strike(self, happens: Callable[[Process], None], steps: tuple[str, ...]) -> None:
        """Lets it happen now, at one of the steps, or at a numbered message of the network, to whoever it is."""
        steps += ROUND_STEPS if self.scenario.exactly_once and "acked" in steps else ()
        when = self.random.random()
        if when < 0.5:
            self._awaited[self.random.choice(steps)] = happens
        elif when < 0.8:
            self._numbered[self._steps + self.random.randint(1, 200)] = happens
        elif self.processes:
            happens(self.random.choice(self.processes))

    def kill(self, process: Process) -> None:
        """kill -9."""
        self.note(f"{process.name} is killed")
        self.figures["kills"] += 1
        process.end()

    def pause(self, process: Process) -> None:
        """SIGSTOP, and SIGCONT before or after its session is over."""
        span_s = self.random.choice([0.3, 2.0, 5.5, 7.0, 12.0, 25.0]) * self.random.uniform(0.8, 1.2)
        self.note(f"{process.name} is stopped for {span_s:.1f} s")
        self.figures["zombies"] += 1
        process.freeze()

        def wake() -> None:
            if not process.dead and process.frozen:
                self.note(f"{process.name} goes on")
                process.thaw()

        self.network.later(span_s, wake)

    def terminate(self, process: Process) -> None:
        """SIGTERM."""
        self.note(f"{process.name} is told to end")
        self.figures["stops"] += 1
        if not process.stopping:
            process.stopping = True
            process.start(process.stop())

    def more_or_fewer(self) -> None:
        """A worker more, or SIGTERM to one."""
        if len(self.processes) > 3 or (len(self.processes) > 1 and self.random.random() < 0.5):
            self.terminate(self.random.choice(self.processes))
        else:
            self.launch()

    def weather(self, span_s: float, **worse: Any) -> None:
        """Lets broker and network be worse for a while."""
        self.note(f"weather for {span_s:.1f} s: {worse}")
        before = self.network.weather
        changed = Weather(before.latency_s, before.down_until_s, before.refuse, before.forget, before.repeated, before.lost)
        for name, value in worse.items():
            setattr(changed, name, value)
        self.network.weather = changed

        def back() -> None:
            if self.network.weather is changed and not self.calm:
                self.network.weather = Weather(self.scenario.latency_s)

        self.network.later(span_s, back)

    def redis_trouble(self) -> None:
        """Redis goes away, comes back, or is empty."""
        self.witness.redis_failed = True
        if self.random.random() < 0.3:
            self.redis.empty()
            self.note("redis is empty")
        else:
            self.redis.away = not self.redis.away
            self.note(f"redis is {'away' if self.redis.away else 'back'}")

    def model_trouble(self) -> None:
        """A worker's model raises, gives NaN, or is well again."""
        if self.processes:
            process = self.random.choice(self.processes)
            process.model_fault = self.random.choice(["", "raises", "nan"])
            self.witness.model_failed |= bool(process.model_fault)
            self.note(f"the model of {process.name}: {process.model_fault or 'well'}")

    def clock_jump(self) -> None:
        """A worker's wall clock jumps, by up to an hour either way."""
        if self.processes:
            process = self.random.choice(self.processes)
            process.wall_ms += self.random.randint(-3_600_000, 3_600_000)
            self.note(f"the clock of {process.name} is {process.wall_ms} ms off")


KINDS: dict[str, Callable[[World], None]] = {
    "kill": lambda world: world._strike(world.kill, LINE_STEPS + LOADING_STEPS),
    "pause": lambda world: world._strike(world.pause, LINE_STEPS),
    "doze": lambda world: world._strike(world.pause, LOADING_STEPS),
    "terminate": lambda world: world._strike(world.terminate, LINE_STEPS + LOADING_STEPS),
    "members": World.more_or_fewer,
    "slow": lambda world: world.weather(world.random.uniform(0.5, 8), latency_s=world.random.choice([0.1, 0.4, 1.5])),
    "down": lambda world: world.weather(1.0, down_until_s=world.loop.now_s + world.random.choice([0.5, 3.0, 9.0])),
    "refused": lambda world: world.weather(world.random.uniform(0.2, 2), refuse=0.05, forget=0.05),
    "repeated": lambda world: world.weather(world.random.uniform(1, 10), repeated=0.3),
    "redis": World.redis_trouble,
    "model": World.model_trouble,
    "clock": World.clock_jump,
    "cut": lambda world: world.weather(world.random.uniform(0.5, 6), lost=0.2),
}
#: Kinds that only transactional producers meet here.
OF_TRANSACTIONS = {"cut"}


def simulate(seed: int, scenario: Scenario | None = None) -> Report:
    """Runs a seed; gives what was seen. Takes no time but what the program computes."""
    for name in ("streamapp", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    scenario = scenario or Scenario.of(seed)
    loop = VirtualLoop(Random(f"{seed}/threads"))
    asyncio.set_event_loop(loop)
    with virtual_time(loop), without_sockets():
        world = World(scenario, loop)
        try:
            loop.run_until_complete(world.run())
        except Stuck as stuck:
            world.witness.say(str(stuck))
        except AssertionError as broken:
            world.witness.say(f"assertion: {broken}")
        finally:
            for process in list(world.processes):
                process.end()
            loop.run_until_complete(asyncio.sleep(0.1))
            asyncio.set_event_loop(None)
            loop.close()
    for failure in loop.failures:
        world.witness.say(f"a callback failed: {''.join(traceback.format_exception(failure))}")
    world.figures["repeated"] = world.witness.repeated
    world.figures["aborted"] = world.transactions.aborted
    world.figures["rebalances"] = world.coordinator.generation
    return Report(scenario, world.witness.breaches, world.trace, world.figures, digest(world))


def digest(world: World) -> int:
    """Gives a number that two runs share when they wrote the same records at the same places."""
    import zlib

    total = 0
    for place in sorted(world.broker.logs):
        for record in world.broker.logs[place].records:
            total = zlib.crc32(repr((place, record.offset, record.key, record.value)).encode(), total)
    return total
