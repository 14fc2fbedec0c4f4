"""Exactly once: verdicts, decisions, dead letters and state records of several micro-batches in one Kafka transaction per partition.

A round is what commits together. Micro-batches enter it while it is open; once its time is up no more do, and when each of them has
left (its state record is acknowledged) the transactions of all partitions are committed at once. The next round is decided meanwhile:
its batches wait here, because a producer that commits takes none.

Every source partition has a producer of its own, whose transactional id names group, topic and partition. A new owner initialises it
before it reads the state: from then on the broker refuses whatever a former owner sends or commits, and what it had open is aborted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata, TopicPartition

from streamapp.bus.columns import as_one
from streamapp.bus.guarantee import Counted, Effects
from streamapp.bus.producer import Parcel, Producer, connected, together
from streamapp.bus.refused import not_taken
from streamapp.bus.topics import BATCH_BYTES_MAX
from streamapp.core.errors import BusError, InvariantBroken

log = logging.getLogger(__name__)

#: A broker writes a transaction's markers after it has answered the commit and turns the next one away until then; asked again so soon,
#: a transaction takes 13 ms instead of 45 (aiokafka waits 20 ms each time).
sender.BACKOFF_OVERRIDE = 0.002
RETRY_MS = 5
#: A transaction that is open for longer is aborted by the broker: its worker is gone, and readers of committed records wait for it.
TRANSACTION_TIMEOUT_MS = 30_000
#: What an end in order may take per partition; what is open then is aborted by the next owner, or by the broker when its time is up.
CLOSE_S = 3.0


class Waiting(NamedTuple):
    """A batch that is not sent yet, and whom to tell the broker's answer."""

    batch: BatchBuilder
    answer: asyncio.Future[Any]


class Lane:
    """One source partition's transactional producer; begins a transaction with the first batch after a commit.

    A topic has one batch of it on its way; what comes meanwhile goes as one behind it: the broker answers a batch in milliseconds,
    however small, and thin traffic makes a micro-batch of each few events.
    """

    def __init__(self, producer: Producer, partition: int, state_topic: str) -> None:
        self.partition = partition
        self.withdrawn = False  #  the partition is no longer ours: a refusal is no failure
        self.lost = False  #       something of the running transaction was refused after that
        self._producer, self._state = producer, TopicPartition(state_topic, partition)
        self._waiting: dict[str, list[Waiting]] = {}  # by topic that has one on its way
        self._closed = False

    def send(self, batch: BatchBuilder, topic: str, answer: asyncio.Future[Any]) -> None:
        """Sends a batch under the running transaction, or lets it wait; the broker's answer goes to `answer`."""
        one = Waiting(batch, answer)
        if topic in self._waiting:
            self._waiting[topic].append(one)
        else:
            self._waiting[topic] = []
            self._send(topic, [one])

    def send_all(self, waiting: Sequence[tuple[BatchBuilder, str, asyncio.Future[Any]]]) -> None:
        """Sends what has waited for a round to start."""
        topics: dict[str, list[Waiting]] = {}
        for batch, topic, answer in waiting:
            topics.setdefault(topic, []).append(Waiting(batch, answer))
        for topic, several in topics.items():
            if topic in self._waiting:
                self._waiting[topic] += several
            else:
                self._waiting[topic] = []
                self._send(topic, several)

    def _send(self, topic: str, several: list[Waiting]) -> None:
        """Sends as many as fit into one batch; the others go first of those that wait."""
        count, batch = as_one([one.batch for one in several], BATCH_BYTES_MAX)
        self._waiting[topic][:0] = several[count:]
        sent, transaction = several[:count], self._producer._txn_manager
        try:
            self._raise_failure()
            if not transaction.is_in_transaction():
                transaction.begin_transaction()
                transaction.maybe_add_partition_to_txn(self._state)  # with the first ones: each asking of its own is a round trip
            answer = self._producer.enqueue(batch, topic, self.partition)
        except KafkaError as refused:
            self._answered(topic, sent, refused)
        else:
            answer.add_done_callback(lambda done: self._answered(topic, sent, done.exception() or done.result()))

    def _answered(self, topic: str, sent: Sequence[Waiting], outcome: Any) -> None:
        records = 0
        for one in sent:
            own = outcome
            if not isinstance(outcome, BaseException) and outcome.offset >= 0:
                own = outcome._replace(offset=outcome.offset + records)
            self._settle(topic, one.answer, own)
            records += one.batch.record_count()
        waiting = self._waiting.pop(topic)
        if waiting and not self._closed:
            self._waiting[topic] = []
            self._send(topic, waiting)

    async def commit(self) -> bool:
        """Ends the transaction; gives whether it counts: not if the partition was withdrawn and has another owner. Raises KafkaError."""
        try:
            if self.lost:
                return False
            self._raise_failure()
            await self._producer.commit_transaction()
        except KafkaError:
            if not self.withdrawn:
                raise
            self.lost = True
        return not self.lost

    async def close(self) -> None:
        """Aborts what is open, as far as the broker answers in time, and disconnects; what waits is not sent any more."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                if self._producer._txn_manager.is_in_transaction():
                    await self._producer.abort_transaction()
        except (KafkaError, TimeoutError) as failed:
            log.info("The transaction of partition %d is left to be aborted by the broker: %r", self.partition, failed)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._producer.stop()
        except (KafkaError, TimeoutError) as failed:
            log.info("The producer of partition %d was not closed in order: %r", self.partition, failed)

    def _raise_failure(self) -> None:
        failure = self._producer._message_accumulator._exception
        if failure is not None:
            raise failure if isinstance(failure, KafkaError) else KafkaError(repr(failure))

    def _settle(self, topic: str, answer: asyncio.Future[Any], outcome: Any) -> None:
        if answer.done():
            return
        if not isinstance(outcome, BaseException):
            answer.set_result(outcome)
        elif self.withdrawn:
            self.lost = True
            place = TopicPartition(topic, self.partition)
            answer.set_result(RecordMetadata(topic, self.partition, place, -1, None, None, None))
        else:
            answer.set_exception(outcome)


class Round:
    """Effects that count together."""

    def __init__(self, lane_of: Callable[[int], Lane], opened_at: float) -> None:
        """`opened_at` is the loop's time."""
        self.opened_at, self.lanes = opened_at, dict[int, Lane]()
        self.counted: asyncio.Future[frozenset[int]] = asyncio.get_running_loop().create_future()
        self.counted.add_done_callback(_look_at)
        self._lane_of, self._inside = lane_of, 0
        self._started = False
        self._waiting: dict[Lane, list[tuple[BatchBuilder, str, asyncio.Future[Any]]]] = {}
        self._emptied = asyncio.Event()

    def enter(self) -> Round:
        """Counts one that goes in."""
        self._inside += 1
        self._emptied.clear()
        return self

    def leave(self) -> Counted:
        """Counts one that goes out; gives when the round counts."""
        self._inside -= 1
        if not self._inside:
            self._emptied.set()
        counted = asyncio.shield(self.counted)  # whoever waits may be cancelled; the round goes on
        counted.add_done_callback(_look_at)
        return counted

    def enqueue(self, batch: BatchBuilder, topic: str, partition: int) -> asyncio.Future[Any]:
        """Sends the batch in the partition's transaction, or keeps it until the round starts; gives the broker's answer to come."""
        lane = self.lanes.get(partition)
        if lane is None:
            lane = self.lanes[partition] = self._lane_of(partition)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._started:
            lane.send(batch, topic, answer)
        else:
            self._waiting.setdefault(lane, []).append((batch, topic, answer))
        return answer

    def enqueue_all(self, parcels: Sequence[Parcel]) -> asyncio.Future[Sequence[int]]:
        """Sends or keeps each batch; gives the base offsets to come, -1 of what does not count any more."""
        return together([self.enqueue(*parcel) for parcel in parcels])

    def start(self) -> None:
        """Sends what waits; from now on nothing does."""
        self._started = True
        for lane, waiting in self._waiting.items():
            lane.send_all(waiting)
        self._waiting.clear()

    def fail(self, failure: Exception) -> None:
        """Tells everybody who waits for it that it never counts."""
        for *_, answer in chain.from_iterable(self._waiting.values()):
            answer.set_exception(failure)
        self.counted.set_exception(failure)

    async def commit(self) -> frozenset[int]:
        """Waits until it is empty and commits all partitions at once; gives those that have another owner by now. Raises BusError."""
        await self._emptied.wait()
        lanes = list(self.lanes.values())
        ends = await asyncio.gather(*(lane.commit() for lane in lanes), return_exceptions=True)
        for lane, end in zip(lanes, ends, strict=True):
            if isinstance(end, BaseException):
                raise not_taken(f"the transaction of partition {lane.partition}", end) from end
        return frozenset(lane.partition for lane, counts in zip(lanes, ends, strict=True) if not counts)


class ExactlyOnce:
    """Rounds of transactions, one after the other; partitions come by `own` and go by `give_up`."""

    transactional = True

    def __init__(
        self, bootstrap: str, kafka: Mapping[str, str], group: str, topics: Sequence[str], *, events: str, state: str, transaction_ms: int
    ) -> None:
        """`group` and the topic `events` name the transactional ids; `topics` are all that is written to, `state` the log among them."""
        self._bootstrap, self._kafka, self._prefix = bootstrap, kafka, f"{group}-{events}"
        self._topics, self._state, self._open_s = tuple(topics), state, transaction_ms / 1000
        self._lanes: dict[int, Lane] = {}
        self._inside: deque[Round] = deque()  # by micro-batch, oldest first
        self._open: Round | None = None  #      takes who enters
        self._committing: Round | None = None  # no longer open, and not counted yet
        self._running: asyncio.Task[None] | None = None
        self._retiring: dict[int, asyncio.Task[None]] = {}
        self._failure: Exception | None = None  # of a round; nothing counts after it

    # -- bus/guarantee.py

    async def know(self, topics: Sequence[str]) -> None:
        """Returns at once: producers know the topics before they own anything."""

    def enter(self) -> Effects:
        """Enters the open round with the next micro-batch."""
        found = self._enter()
        self._inside.append(found)
        return found

    def oldest(self) -> Effects:
        """Gives the round of the oldest micro-batch; it cannot commit before that has left."""
        return self._inside[0]

    def leave(self, micro_batches: int) -> Counted:
        """Takes so many out of their rounds."""
        left = [self._inside.popleft().leave() for _ in range(micro_batches)]
        return _all(left)

    def aside(self) -> Effects:
        """Enters the open round."""
        return self._enter()

    async def own(self, partition: int) -> None:
        """Initialises the partition's producer: the former owner is fenced, and what it had open is aborted. Raises BusError."""
        if partition in self._lanes:
            self.give_up(partition)
        if partition in self._retiring:
            await asyncio.wait({self._retiring[partition]})
        connecting = asyncio.create_task(self._initialised(partition))
        try:
            producer = await asyncio.shield(connecting)
        except asyncio.CancelledError:  # what is on its way may come late, and would fence whoever owns the partition next, us too
            self._retiring[partition] = asyncio.create_task(self._abandon(partition, connecting))
            await asyncio.wait({self._retiring[partition]}, timeout=CLOSE_S)  # a rebalance goes on when we are through (bus/transport.py)
            raise
        self._lanes[partition] = Lane(producer, partition, self._state)

    def give_up(self, partition: int) -> None:
        """Lets the partition's producer end once the rounds that it is part of have."""
        lane = self._lanes.get(partition)
        if lane is not None and not lane.withdrawn:
            lane.withdrawn = True
            self._retiring[partition] = asyncio.create_task(self._retire(lane))

    async def close(self) -> None:
        """Ends all producers; a transaction that is open is aborted."""
        tasks = [*self._retiring.values(), *([self._running] if self._running is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        self._lanes.clear()

    # -- rounds

    def _enter(self) -> Round:
        if self._failure is not None:
            raise self._failure
        if self._open is None:
            self._open = Round(self._lane, asyncio.get_running_loop().time())
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._run())
        return self._open.enter()

    def _lane(self, partition: int) -> Lane:
        lane = self._lanes.get(partition)
        if lane is None:
            raise InvariantBroken(f"records of partition {partition} came before it was owned")
        return lane

    async def _run(self) -> None:
        """Carries one round after the other until none is open."""
        while self._open is not None:
            one = self._open
            try:
                one.start()
                await asyncio.sleep(one.opened_at + self._open_s - asyncio.get_running_loop().time())
                self._open, self._committing = None, one
                one.counted.set_result(await one.commit())
            except Exception as failed:  # noqa: BLE001 - whoever waits for the round raises it, and the worker stops
                self._failure = failed
                for broken in {one, self._open or one}:
                    broken.fail(failed)
                return
            self._committing = None

    async def _initialised(self, partition: int) -> Producer:
        producer = await connected(
            self._bootstrap, self._kafka, retry_backoff_ms=RETRY_MS, transactional_id=f"{self._prefix}-{partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )  # fmt: skip
        try:
            await producer.know(self._topics)
        except BaseException as failed:
            await producer.stop()
            if isinstance(failed, KafkaError):
                raise not_taken(f"the transaction of partition {partition}", failed) from failed
            raise
        return producer

    async def _abandon(self, partition: int, connecting: asyncio.Task[Producer]) -> None:
        """Waits until the broker has answered a producer that nobody wants any more."""
        try:
            await (await connecting).stop()
        except (BusError, KafkaError) as failed:
            log.info("The producer of partition %d was not wanted any more, and failed: %r", partition, failed)
        finally:
            del self._retiring[partition]

    async def _retire(self, lane: Lane) -> None:
        for one in (self._committing, self._open):
            if one is not None and lane.partition in one.lanes:
                await asyncio.wait({one.counted})
        await lane.close()
        del self._lanes[lane.partition], self._retiring[lane.partition]


def _look_at(counted: asyncio.Future[Any]) -> None:
    """Keeps asyncio from telling of a failure that nobody asked for: the worker breaks already."""
    if not counted.cancelled():
        counted.exception()


async def _all(several: Sequence[Counted]) -> frozenset[int]:
    lost: frozenset[int] = frozenset()
    for one in several:
        lost |= await one
    return lost
