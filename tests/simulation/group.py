"""The consumer group of the simulation: the coordinator as Kafka has it (eager rebalances), and what aiokafka does in a member."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import TopicPartition

from tests.simulation.broker import Broker, Network, Record

SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 1.0
REBALANCE_TIMEOUT_S = 15.0
FETCH_MAX = 48


@dataclass(slots=True)
class Member:
    """One member as the coordinator knows it."""

    deadline_s: float
    joining: asyncio.Future[tuple[int, tuple[int, ...]]] | None = None


class Coordinator:
    """Who owns which partition, under which generation, and how far the group has committed."""

    def __init__(self, network: Network, random: Random, partitions: int) -> None:
        self._network, self._random, self._partitions = network, random, partitions
        self._members: dict[str, Member] = {}
        self._preparing: int | None = None  # which rebalance, while there is one
        self._rebalances = 0
        self.generation = 0
        self.owner: dict[int, tuple[str, int]] = {}
        self.owned_since_s = 0.0
        self.committed: dict[int, int] = {}
        self.watch: Callable[[str, Mapping[int, int]], None] = lambda name, offsets: None
        network.later(0.5, self._expire)

    @property
    def stable(self) -> bool:
        """True while no rebalance is under way."""
        return self._preparing is None

    def join(self, name: str) -> asyncio.Future[tuple[int, tuple[int, ...]]]:
        """Takes a member that joins or comes back; gives (generation, its partitions) once everybody is there."""
        member = self._members.setdefault(name, Member(0.0))
        member.deadline_s = self._network.loop.now_s + SESSION_TIMEOUT_S
        member.joining = self._network.loop.create_future()
        self._prepare()
        joining = member.joining
        self._complete_if_all_are_there()
        return joining

    def sync(self, name: str, generation: int) -> None:
        """Takes a member that asks for its partitions; its session begins. Raises as `heartbeat` does."""
        self.heartbeat(name, generation)

    def heartbeat(self, name: str, generation: int) -> None:
        """Raises UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError."""
        member = self._member(name, generation)
        member.deadline_s = self._network.loop.now_s + SESSION_TIMEOUT_S
        if self._preparing is not None:
            raise RebalanceInProgressError

    def commit(self, name: str, generation: int, offsets: Mapping[int, int]) -> None:
        """Takes committed offsets. Raises UnknownMemberIdError, IllegalGenerationError."""
        self._member(name, generation)
        self.watch(name, offsets)
        self.committed.update(offsets)

    def leave(self, name: str) -> None:
        """Takes a member's goodbye."""
        if self._members.pop(name, None) is not None:
            self._prepare()
            self._complete_if_all_are_there()

    def _member(self, name: str, generation: int) -> Member:
        if name not in self._members:
            raise UnknownMemberIdError
        if generation != self.generation:
            raise IllegalGenerationError
        return self._members[name]

    def _expire(self) -> None:
        now_s = self._network.loop.now_s
        for name, member in list(self._members.items()):
            if member.joining is None and member.deadline_s < now_s:
                self.leave(name)
        self._network.later(0.5, self._expire)

    def _prepare(self) -> None:
        if self._preparing is None:
            self._rebalances += 1
            self._preparing = self._rebalances
            self._network.later(REBALANCE_TIMEOUT_S, self._give_up_waiting, self._rebalances)

    def _give_up_waiting(self, rebalance: int) -> None:
        if self._preparing == rebalance:
            self._complete()

    def _complete_if_all_are_there(self) -> None:
        if self._preparing is not None and all(member.joining is not None for member in self._members.values()):
            self._complete()

    def _complete(self) -> None:
        self._preparing = None
        self._members = {name: member for name, member in self._members.items() if member.joining is not None}
        self.generation += 1
        self.owned_since_s = self._network.loop.now_s
        names = sorted(self._members)
        self._random.shuffle(names)
        self.owner = {number: (names[number % len(names)], self.generation) for number in range(self._partitions) if names}
        for name, member in self._members.items():
            mine = tuple(number for number, (owner, _) in self.owner.items() if owner == name)
            member.deadline_s = self._network.loop.now_s + SESSION_TIMEOUT_S
            joining, member.joining = member.joining, None
            if joining is not None:
                joining.set_result((self.generation, mine))


class _Unread:
    """Stands in for aiokafka's PartitionRecords: what one fetch brought."""

    def __init__(self, records: Sequence[Record], begin: int, end: int) -> None:
        self.next_fetch_offset = begin
        self._records_iterator = self._unpack(records, end)
        self._consumer_record: Any = None

    def _unpack(self, records: Sequence[Record], end: int) -> Any:
        for record in records:
            self.next_fetch_offset = record.offset + 1
            yield self._consumer_record(None, record)
        self.next_fetch_offset = end


class Fetcher:
    """Stands in for aiokafka's Fetcher; its results, assignments and positions are aiokafka's own."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker, self._topic = broker, topic
        self._closed = False
        self._records: dict[Any, FetchResult] = {}
        self._wait_consume_future = None
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self.assignment: Assignment | None = None

    def _notify(self, future: Any) -> None:
        self._wake.set()

    def wake(self) -> None:
        """Looks again whether there is something to fetch."""
        self._wake.set()

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    async def run(self) -> None:
        """Fetches what is assigned, placed, not paused and not there yet."""
        while True:
            self._wake.clear()
            assignment = self.assignment
            wanted = {place: state.position for place, state in self._fetchable() if self._broker.log(*place).end > state.position}
            if not wanted:
                await self._wake.wait()
                continue
            found = await self._broker.network.ask(partial(self._fetch_all, wanted, self._broker.network.random.randint(1, FETCH_MAX)))
            for place, (records, begin, end, highwater) in found.items():
                if assignment is not None and assignment.active:
                    assignment.state_value(place).highwater = highwater
                    self._records[place] = FetchResult(
                        place, assignment=assignment, partition_records=_Unread(records, begin, end), backoff=0.0
                    )
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _fetchable(self) -> list[tuple[TopicPartition, Any]]:
        if self.assignment is None:
            return []
        states = ((place, self.assignment.state_value(place)) for place in sorted(self.assignment.tps))
        return [(place, one) for place, one in states if not one.paused and one.has_valid_position and place not in self._records]

    def _fetch_all(self, wanted: Mapping[TopicPartition, int], count: int) -> dict[TopicPartition, tuple[list[Record], int, int, int]]:
        return {place: self._fetch(place, begin, count) for place, begin in wanted.items()}

    def _fetch(self, place: TopicPartition, begin: int, count: int) -> tuple[list[Record], int, int, int]:
        log = self._broker.log(*place)
        records = log.read(begin, log.end, count)
        return records, begin, records[-1].offset + 1 if len(records) == count else log.end, log.end


class _Polling:
    """The two numbers of aiokafka's subscription that taking from the fetcher touches."""

    def __init__(self) -> None:
        self._fetch_count, self._last_fetch_ended = 0, 0.0


class Client:
    """Stands in for LoopClient and the aiokafka consumer that it owns: one member of the group."""

    def __init__(self, name: str, broker: Broker, coordinator: Coordinator, topic: str, random: Random) -> None:
        self.name, self._broker, self._coordinator, self._topic, self._random = name, broker, coordinator, topic, random
        self.generation = -1
        self.last_contact = self.last_sync = 0.0
        self.contact = asyncio.Event()
        self.backlog = False
        self.kafka = self
        self._commits = self._taken = 0
        self._fetcher, self._subscription = Fetcher(broker, topic), _Polling()
        broker.woken.append(self._fetcher.wake)

    # -- what the transport asks

    def session_left_s(self, now_s: float) -> float:
        """Gives for how long the last accepted heartbeat will be younger than the session timeout."""
        return self.last_contact + SESSION_TIMEOUT_S - now_s

    def in_session(self, now_s: float) -> bool:
        """Gives whether it is still."""
        return self.session_left_s(now_s) > 0

    def state(self, place: Any) -> Any:
        """Gives aiokafka's state of an assigned partition, or None."""
        assignment = self._fetcher.assignment
        return assignment.state_value(place) if assignment is not None and assignment.active else None

    def taken(self) -> None:
        """Fetches again."""
        self._fetcher.wake()

    def seek(self, place: Any, offset: int) -> None:
        """Places a partition."""
        self.state(place).seek(offset)
        self._fetcher.wake()

    def pause(self, place: Any) -> None:
        """Fetches no more of it."""
        self.state(place).pause()

    def resume(self, place: Any) -> None:
        """Fetches it again."""
        self.state(place).resume()
        self._fetcher.wake()

    async def commit(self, offsets: Mapping[Any, Any]) -> None:
        """Commits."""
        given = {place.partition: offset.offset for place, offset in offsets.items()}
        name, generation = self.name, self.generation
        self._commits += 1
        number = self._commits

        def take() -> None:
            if number > self._taken:  # on one connection nothing overtakes; nobody waits for those that were given up
                self._taken = number
                self._coordinator.commit(name, generation, given)

        try:
            await self._broker.network.ask(take)
        except (UnknownMemberIdError, IllegalGenerationError) as lost:
            raise CommitFailedError from lost

    async def committed(self, place: Any) -> int | None:
        """Gives what the group has committed."""
        return await self._broker.network.ask(lambda: self._coordinator.committed.get(place.partition))  # type: ignore[no-any-return]

    # -- what aiokafka's coordinator client does

    async def run(self, consumer: Any, reached: Callable[[str], None]) -> None:
        """Joins the group, beats, and joins again after each rebalance, telling `consumer` what is revoked and assigned."""
        ask, name, mine = self._broker.network.ask, self.name, frozenset[TopicPartition]()
        fetching = asyncio.create_task(self._fetcher.run())
        try:
            while True:
                self.generation, numbers = await ask(lambda: self._coordinator.join(name))
                self.last_sync = asyncio.get_running_loop().time()
                reached("joined")
                if not await self._asked(self._coordinator.sync):
                    continue
                reached("synced")
                before, mine = self._fetcher.assignment, frozenset(TopicPartition(self._topic, number) for number in numbers)
                if before is not None:
                    before._unassign()
                self._fetcher.assignment = Assignment(set(mine))
                if self._random.random() < 0.5:  # aiokafka's fetch task clears them when it has its turn; until then they are stale
                    self._fetcher._records.clear()
                await consumer.on_partitions_assigned(set(mine), self.generation)
                self._fetcher.wake()
                while await self._beat():
                    pass
                await consumer.on_partitions_revoked(set(mine))
        finally:
            fetching.cancel()

    async def _beat(self) -> bool:
        """Beats once; gives whether the membership goes on as it is."""
        await asyncio.sleep(HEARTBEAT_S)
        sent_s = asyncio.get_running_loop().time()
        if not await self._asked(self._coordinator.heartbeat):
            return False
        self.last_contact = sent_s
        self.contact.set()
        return True

    async def _asked(self, request: Callable[[str, int], None]) -> bool:
        """Asks the coordinator as a member of the generation; gives False where it has another one, or begins one."""
        name, generation = self.name, self.generation
        try:
            await self._broker.network.ask(lambda: request(name, generation))
        except RebalanceInProgressError:
            return False
        except (UnknownMemberIdError, IllegalGenerationError):
            self.generation = -1
            return False
        return True

    async def leave(self) -> None:
        """Says goodbye."""
        name = self.name
        await self._broker.network.ask(lambda: self._coordinator.leave(name))

    def close(self) -> None:
        """Is called when its process is over."""
        self._broker.woken.remove(self._fetcher.wake)
