"""The broker of the simulation: logs, produce requests with their ways of going wrong, and reading outside of any group."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError, NotEnoughReplicasAfterAppendError, OutOfOrderSequenceNumber, RecordListTooLargeError
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from streamapp.bus.direct import Parcel, together
from streamapp.bus.producer import IN_FLIGHT_MAX
from tests.simulation.loop import EPOCH_MS, MIND, Mind, VirtualLoop

Place = tuple[str, int]


class Record(NamedTuple):
    """One record as consumers see it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Appended(NamedTuple):
    """What a producer is told of a batch."""

    offset: int


@dataclass(slots=True)
class Log:
    """One partition of one topic; offsets may have gaps."""

    begin: int = 0
    end: int = 0
    records: list[Record] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    held: dict[int, list[Record]] = field(default_factory=dict)  # by producer, of transactions that have not ended
    hidden: set[int] = field(default_factory=set)  #               offsets of what is not committed

    def append(self, timestamp: int, key: bytes | None, value: bytes | None, headers: Any = (), gap: int = 0) -> int:
        """Appends a record `gap` offsets later than it could be; gives its offset."""
        offset = self.end + gap
        self.records.append(Record(offset, timestamp, key, value, headers))
        self.offsets.append(offset)
        self.end = offset + 1
        return offset

    def read(self, begin: int, end: int, count: int) -> list[Record]:
        """Gives up to `count` records of [begin, end)."""
        low = bisect_left(self.offsets, max(begin, self.begin))
        return [record for record in self.records[low : low + count] if record.offset < end]

    def mark(self, producer: int, *, commit: bool) -> None:
        """Writes the marker that ends a producer's transaction."""
        self.end += 1
        held = self.held.pop(producer, [])
        if commit:
            self.hidden.difference_update(record.offset for record in held)

    def committed_end(self) -> int:
        """Gives how far readers of committed records come: to the first one of a transaction that has not ended."""
        return min((held[0].offset for held in self.held.values() if held), default=self.end)

    def committed(self, records: Sequence[Record]) -> list[Record]:
        """Gives those that are committed."""
        return [record for record in records if record.offset not in self.hidden]


@dataclass(slots=True)
class Weather:
    """How the network and the broker behave now; chances per produce request."""

    latency_s: float = 0.004
    down_until_s: float = 0.0
    refuse: float = 0.0  #       the batch is not taken, and never will be
    forget: float = 0.0  #       it is taken, and its producer is told that it is not
    repeated: float = 0.0  #     it is taken, and the answer comes without its offset
    lost: float = 0.0  #         the connection breaks: request or answer is lost (of transactional producers)


class Network:
    """Carries requests to the broker and answers back, each with a latency; runs in no process."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self.loop, self.random, self.weather = loop, random, Weather()
        self.context = Mind("the world").context
        self.context.run(MIND.set, None)
        self.stepped: Callable[[Mind], None] = lambda mind: None

    def latency_s(self) -> float:
        """Gives what one way takes: mostly little, now and then much more."""
        usual = self.random.expovariate(1 / self.weather.latency_s)
        return min(usual * 20, 8.0) if self.random.random() < 0.02 else usual

    def later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Calls back in the world after a time."""
        self.loop.call_later(delay_s, callback, *args, context=self.context)

    def arrive(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back at the broker after one way, or once it is up again."""
        self.later(self.latency_s(), self._arrived, callback, args)

    def _arrived(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        wait_s = self.weather.down_until_s - self.loop.now_s
        if wait_s > 0:
            self.later(wait_s + self.random.uniform(0, 0.1), self._arrived, callback, args)
        else:
            callback(*args)

    async def ask(self, operation: Callable[[], Any]) -> Any:
        """Runs an operation at the broker for the process that asks, and waits for the answer. Raises its KafkaError."""
        mind = MIND.get()
        assert mind is not None
        mind.alive()
        self.stepped(mind)
        mind.alive()
        answer: asyncio.Future[Any] = self.loop.create_future()

        def run() -> None:
            try:
                result, failure = operation(), None
            except KafkaError as refused:
                result, failure = None, refused
            if isinstance(result, asyncio.Future):
                result.add_done_callback(lambda done: self.later(self.latency_s(), reply, done.result(), None), context=self.context)
            else:
                self.later(self.latency_s(), reply, result, failure)

        def reply(result: Any, failure: KafkaError | None) -> None:
            if answer.done():
                return
            if failure is None:
                answer.set_result(result)
            else:
                answer.set_exception(failure)

        self.arrive(run)
        result = await answer
        self.stepped(mind)
        mind.alive()
        return result


class Broker:
    """All logs; whoever watches is told of every append before anybody can read it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.logs: dict[Place, Log] = {}
        self.watch: Callable[[Mind, float, Place, Sequence[Record]], None] = lambda mind, sent_s, place, records: None
        self.woken: list[Callable[[], None]] = []  # whoever waits for new events

    def log(self, topic: str, partition: int) -> Log:
        """Gives a log, empty if it was never written."""
        return self.logs.setdefault((topic, partition), Log())

    def now_ms(self) -> int:
        """Gives the broker's wall clock, epoch ms."""
        return EPOCH_MS + int(self.network.loop.now_s * 1000)

    def append(self, mind: Mind, sent_s: float, place: Place, batch: bytes) -> int:
        """Takes a batch as it is on the wire; gives the offset of its first record."""
        log = self.log(*place)
        base = log.end
        unread = MemoryRecords(batch)
        while unread.has_next():
            for record in unread.next_batch():
                log.append(record.timestamp, record.key, record.value, record.headers)
        self.watch(mind, sent_s, place, log.read(base, log.end, 1 << 30))
        return base

    def event(self, place: Place, timestamp: int, key: bytes | None, value: bytes | None, gap: int) -> int:
        """Appends an event; gives its offset."""
        offset = self.log(*place).append(timestamp, key, value, (), gap)
        for wake in self.woken:
            wake()
        return offset


@dataclass(slots=True)
class _Sending:
    """The batches of one producer for one partition: those on their way, in order as on one connection, and those that wait."""

    waiting: deque[tuple[bytes, asyncio.Future[Appended], float]] = field(default_factory=deque)
    flying: deque[tuple[bytes, asyncio.Future[Appended], float]] = field(default_factory=deque)
    unanswered: int = 0
    broken: bool = False  # a batch was refused, or died with its process: the sequence has a hole and the broker takes no later one


class Producer:
    """Stands in for bus.producer.Producer in one process: idempotent, several batches per partition on their way, in order."""

    def __init__(self, broker: Broker, mind: Mind, failed: Callable[[], None]) -> None:
        """`failed` is called when something goes wrong that ends the worker."""
        self._broker, self._network, self._mind, self._failed = broker, broker.network, mind, failed
        self._sending: dict[Place, _Sending] = {}

    async def know(self, topics: Sequence[str]) -> None:
        """Asks the broker for the topics, which are all there."""
        await self._network.ask(lambda: None)

    def enqueue(self, builder: Any, topic: str, partition: int) -> asyncio.Future[Appended]:
        """Takes a batch; gives the future of its acknowledgement."""
        self._mind.alive()
        answer: asyncio.Future[Appended] = self._network.loop.create_future()
        sending = self._sending.setdefault((topic, partition), _Sending())
        sending.waiting.append((bytes(builder._build()), answer, self._network.loop.now_s))
        if sending.unanswered < IN_FLIGHT_MAX:
            sending.unanswered += 1
            self._network.loop.call_soon(self._send, (topic, partition), context=self._mind.context)
        return answer

    def enqueue_all(self, parcels: Sequence[Parcel]) -> asyncio.Future[Sequence[int]]:
        """Takes batches; gives the future of all acknowledgements."""
        return together([self.enqueue(*parcel) for parcel in parcels])

    def _send(self, place: Place) -> None:
        if self._mind.dead:
            return
        self._network.stepped(self._mind)
        if self._mind.dead:
            return
        sending = self._sending[place]
        sending.flying.append(sending.waiting.popleft())
        self._network.arrive(self._take, place)

    def _take(self, place: Place) -> None:
        """Runs at the broker. What a killed process had on the wire arrives, or does not, and then nothing behind it does."""
        network, sending = self._network, self._sending[place]
        batch, answer, queued_s = sending.flying.popleft()
        weather, chance = network.weather, network.random.random()
        if self._mind.dead and chance < 0.5:
            sending.broken = True
        if sending.broken:
            network.later(network.latency_s(), self._answer, place, answer, OutOfOrderSequenceNumber())
        elif chance < weather.refuse:
            sending.broken = True
            self._failed()
            network.later(network.latency_s(), self._answer, place, answer, RecordListTooLargeError())
        else:
            appended = Appended(self._broker.append(self._mind, queued_s, place, batch))
            chance -= weather.refuse
            if chance < weather.forget:
                self._failed()
                network.later(network.latency_s(), self._answer, place, answer, NotEnoughReplicasAfterAppendError())
            else:
                told = Appended(-1) if chance < weather.forget + weather.repeated else appended
                network.later(network.latency_s(), self._answer, place, answer, told)

    def _answer(self, place: Place, answer: asyncio.Future[Appended], told: Appended | KafkaError) -> None:
        self._network.loop.call_soon(self._answered, place, answer, told, context=self._mind.context)

    def _answered(self, place: Place, answer: asyncio.Future[Appended], told: Appended | KafkaError) -> None:
        if self._mind.dead:
            return
        self._network.stepped(self._mind)
        if self._mind.dead:
            return
        if not answer.done():
            if isinstance(told, Appended):
                answer.set_result(told)
            else:
                answer.set_exception(told)
        sending = self._sending[place]
        if sending.waiting:
            self._send(place)
        else:
            sending.unanswered -= 1


class LogConsumer:
    """Stands in for the AIOKafkaConsumer under bus/statelog.LogReader."""

    def __init__(self, *, isolation_level: str, **settings: Any) -> None:
        mind: Any = MIND.get()
        self._broker, self._ask, self._reached = mind.world.broker, mind.world.network.ask, mind.reached
        self._committed = isolation_level == "read_committed"
        self._at: dict[TopicPartition, int] = {}
        self._reached("loading")

    async def start(self) -> None:
        """Connects."""

    async def stop(self) -> None:
        """Disconnects."""

    def _end(self, place: TopicPartition) -> int:
        log: Log = self._broker.log(*place)
        return log.committed_end() if self._committed else log.end

    async def beginning_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Gives where partitions begin."""
        return await self._ask(lambda: {place: self._broker.log(*place).begin for place in places})  # type: ignore[no-any-return]

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Gives where partitions end."""
        return await self._ask(lambda: {place: self._end(place) for place in places})  # type: ignore[no-any-return]

    def assign(self, places: Sequence[TopicPartition]) -> None:
        """Takes the partitions to read."""
        self._at = dict.fromkeys(places, 0)

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Takes where to read on."""
        self._at[place] = offset

    async def position(self, place: TopicPartition) -> int:
        """Gives where it reads on."""
        return self._at[place]

    async def getmany(self, place: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        """Gives some records from the position on, and moves it."""
        count = self._broker.network.random.randint(1, 60)

        def fetch() -> tuple[list[Record], int]:
            log, end = self._broker.log(*place), self._end(place)
            found = log.read(self._at[place], end, count)
            position = found[-1].offset + 1 if len(found) == count else end
            return log.committed(found) if self._committed else found, position

        found, self._at[place] = await self._ask(fetch)
        self._reached("reading")
        return {place: found}
