"""Transactions at the simulated broker: who may write under which epoch, what a transaction holds, and the markers that end it.

As Kafka 4 has it for a client of aiokafka's versions: an id's coordinator raises the epoch for whoever initialises it and aborts what the
one before had open; the leader of a partition asks the coordinator before a transaction's first batch (KIP-890), and numbers each
producer's batches. A commit is decided at one moment; readers see it partition by partition, when the markers come.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka.errors import (
    ConcurrentTransactions,
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
)
from aiokafka.record.memory_records import MemoryRecords

from tests.simulation.broker import Broker, Log, Place, Record
from tests.simulation.loop import Mind

EXPIRE_S = 1.0
#: Attributes, then producer id, epoch, base sequence and record count of a record batch.
_ATTRIBUTES, _PRODUCER = struct.Struct(">h"), struct.Struct(">qhii")
_ATTRIBUTES_AT, _PRODUCER_AT, _TRANSACTIONAL = 21, 43, 0x10
_REMEMBERED = 5


@dataclass(slots=True)
class Identity:
    """One transactional id as its coordinator knows it."""

    producer_id: int
    epoch: int = -1
    owner: Mind | None = None  #  who has initialised it last
    state: Literal["empty", "ongoing", "ending", "ended"] = "empty"
    commits: bool = False  #      how the last transaction ends, or has ended
    began_s: float = 0.0
    places: dict[Place, None] = field(default_factory=dict)
    unmarked: int = 0  #          places whose marker is not written yet


@dataclass(slots=True)
class _Numbered:
    """One producer as the leader of a partition knows it."""

    epoch: int
    next: int = 0
    last: list[tuple[int, int]] = field(default_factory=list)  # base sequence and offset of the last batches


class Transactions:
    """The coordinator of all transactional ids, and what leaders of partitions know of producers. Answers are (error code, …)."""

    def __init__(self, broker: Broker, timeout_s: float, state_topic: str) -> None:
        """A transaction that is open for longer than `timeout_s` is aborted."""
        self._broker, self._network, self._timeout_s, self._state_topic = broker, broker.network, timeout_s, state_topic
        self._ids: dict[str, Identity] = {}
        self._numbered: dict[tuple[Place, int], _Numbered] = {}
        self.fenced: Callable[[Mind], None] = lambda mind: None  # somebody else has initialised its id, or its time was up
        self.initialised: Callable[[Mind, str], None] = lambda mind, name: None
        self.aborted = 0  #  records of transactions that were aborted

    # -- the coordinator

    def init(self, mind: Mind, name: str) -> tuple[int, int, int]:
        """Gives (error, producer id, epoch) to whoever wants to be the only one of this name."""
        if not self._ids:
            self._network.later(EXPIRE_S, self._expire)
        one = self._ids.setdefault(name, Identity(1_000 + len(self._ids)))
        if one.state == "ongoing":
            self._fence(one, mind)
        if one.state == "ending":
            return ConcurrentTransactions.errno, -1, -1
        self._raise_epoch(one, mind)
        one.owner = mind
        self.initialised(mind, name)
        return 0, one.producer_id, one.epoch

    def add(self, name: str, producer_id: int, epoch: int, places: Sequence[Place]) -> int:
        """Takes partitions into the running transaction, or a new one; gives an error code."""
        one = self._ids[name]
        error = self._stranger(one, producer_id, epoch)
        if error or one.state == "ending":
            return error or ConcurrentTransactions.errno
        if one.state != "ongoing":
            one.state, one.places, one.began_s = "ongoing", {}, self._network.loop.now_s
        one.places.update(dict.fromkeys(places))
        return 0

    def end(self, name: str, producer_id: int, epoch: int, *, commit: bool) -> int:
        """Ends the running transaction; gives an error code. What is asked a second time is answered as the first time."""
        one = self._ids[name]
        error = self._stranger(one, producer_id, epoch)
        if error:
            return error
        if one.state == "ongoing":
            self._end(one, commit=commit)
            return 0
        if one.state == "ending" and one.commits == commit:
            return ConcurrentTransactions.errno
        return 0 if one.state == "ended" and one.commits == commit else InvalidTxnState.errno

    def _stranger(self, one: Identity, producer_id: int, epoch: int) -> int:
        if producer_id != one.producer_id:
            return InvalidProducerIdMapping.errno
        return 0 if epoch == one.epoch else InvalidProducerEpoch.errno

    def _fence(self, one: Identity, mind: Mind | None) -> None:
        self._raise_epoch(one, mind)
        self._end(one, commit=False)

    def _raise_epoch(self, one: Identity, mind: Mind | None) -> None:
        one.epoch += 1
        if one.owner is not None and one.owner is not mind:
            self.fenced(one.owner)

    def _expire(self) -> None:
        for one in self._ids.values():
            if one.state == "ongoing" and self._network.loop.now_s - one.began_s > self._timeout_s:
                self._fence(one, None)
        self._network.later(EXPIRE_S, self._expire)

    def _end(self, one: Identity, *, commit: bool) -> None:
        one.state, one.commits, one.unmarked = "ending", commit, len(one.places)
        for place in sorted(one.places, key=lambda place: (place[0] == self._state_topic, place)):
            held = self._broker.log(*place).held.get(one.producer_id, [])
            if commit and one.owner is not None:
                self._broker.watch(one.owner, self._network.loop.now_s, place, held)
            self.aborted += 0 if commit else len(held)
            self._network.later(self._network.latency_s(), self._mark, one, place)

    def _mark(self, one: Identity, place: Place) -> None:
        self._broker.log(*place).mark(one.producer_id, commit=one.commits)
        known = self._numbered.get((place, one.producer_id))
        if known is not None and known.epoch < one.epoch:
            self._numbered[place, one.producer_id] = _Numbered(one.epoch)
        one.unmarked -= 1
        if not one.unmarked:
            one.state = "ended"

    # -- the leader of a partition

    def produce(self, mind: Mind, sent_s: float, name: str, place: Place, batch: bytes) -> tuple[int, int]:
        """Takes a batch as it is on the wire; gives (error, offset of its first record)."""
        producer_id, epoch, sequence, count = _PRODUCER.unpack_from(batch, _PRODUCER_AT)
        (attributes,) = _ATTRIBUTES.unpack_from(batch, _ATTRIBUTES_AT)
        log, one = self._broker.log(*place), self._ids[name]
        known = self._numbered.get((place, producer_id))
        if known is not None and epoch < known.epoch:
            return InvalidProducerEpoch.errno, -1
        if not log.held.get(producer_id):
            error = self._stranger(one, producer_id, epoch)
            if error or one.state != "ongoing" or place not in one.places:
                return error or InvalidTxnState.errno, -1
        if known is None or known.epoch < epoch:
            known = self._numbered[place, producer_id] = _Numbered(epoch)
        if sequence != known.next:
            told = dict(known.last).get(sequence)
            if told is not None:
                return 0, told
            return (DuplicateSequenceNumber if sequence < known.next else OutOfOrderSequenceNumber).errno, -1
        if not attributes & _TRANSACTIONAL:  # seen at once, whatever becomes of the transaction
            offset = self._broker.append(mind, sent_s, place, batch)
        else:
            offset = _append(log, producer_id, batch)
        known.next += count
        known.last = [*known.last[1 - _REMEMBERED :], (sequence, offset)]
        return 0, offset

    def open_places(self) -> Mapping[Place, int]:
        """Gives the partitions whose readers of committed records are held up, and where."""
        return {place: log.committed_end() for place, log in self._broker.logs.items() if log.committed_end() < log.end}


def _append(log: Log, producer_id: int, batch: bytes) -> int:
    base, unread = log.end, MemoryRecords(batch)
    held: list[Record] = log.held.setdefault(producer_id, [])
    while unread.has_next():
        for record in unread.next_batch():
            log.append(record.timestamp, record.key, record.value, record.headers)
            held.append(log.records[-1])
            log.hidden.add(log.records[-1].offset)
    return base


def answer_to(transactions: Transactions, mind: Mind, sent_s: float, request: Any) -> Any:
    """Takes one of aiokafka's requests of a transactional producer; gives what aiokafka reads of the answer."""
    asked = _ASKED[type(request).API_KEY]
    return asked(transactions, mind, sent_s, request)


class Answer:
    """An answer as aiokafka's own classes have it: fields by name."""

    API_VERSION = 7

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def _init(transactions: Transactions, mind: Mind, sent_s: float, request: Any) -> Answer:
    error, producer_id, epoch = transactions.init(mind, request._transactional_id)
    return Answer(error_code=error, producer_id=producer_id, producer_epoch=epoch)


def _add(transactions: Transactions, mind: Mind, sent_s: float, request: Any) -> Answer:
    places = [(topic, number) for topic, numbers in request._topics for number in numbers]
    error = transactions.add(request._transactional_id, request._producer_id, request._producer_epoch, places)
    return Answer(errors=[(topic, [(number, error) for number in numbers]) for topic, numbers in request._topics])


def _end(transactions: Transactions, mind: Mind, sent_s: float, request: Any) -> Answer:
    commit = bool(request._transaction_result)
    return Answer(error_code=transactions.end(request._transactional_id, request._producer_id, request._producer_epoch, commit=commit))


def _produce(transactions: Transactions, mind: Mind, sent_s: float, request: Any) -> Answer:
    topics = []
    for topic, batches in request._topics:
        told = [
            (number, transactions.produce(mind, sent_s, request._transactional_id, (topic, number), bytes(one))) for number, one in batches
        ]
        topics.append((topic, [(number, error, offset, -1, 0) for number, (error, offset) in told]))
    return Answer(topics=topics)


_ASKED: dict[int, Callable[[Transactions, Mind, float, Any], Answer]] = {0: _produce, 22: _init, 24: _add, 26: _end}
