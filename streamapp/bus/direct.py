"""Requests written to aiokafka's connections past its queues and tasks; of produce, one per broker and micro-batch.

aiokafka's way costs a batch object, two futures and four callbacks per record batch, three tasks per request and an interpreted schema
per field: 1 ms of processor time for a micro-batch of twelve rows, and two turns of the loop before the first byte leaves.
Layouts: Kafka's protocol guide, Produce versions 3 to 8.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.conn import CloseReason
from aiokafka.errors import DuplicateSequenceNumber
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.protocol.produce import ProduceRequest

#: What a produce request carries: by topic (partition, record batch).
ByTopic = Sequence[tuple[str, Sequence[tuple[int, Any]]]]
#: A record batch, its topic and its partition.
Parcel = tuple[BatchBuilder, str, int]

API_KEY = 0
#: Requests of these versions have one layout; answers differ in what stands behind the offset.
VERSION_MIN = 3
VERSION_MAX = max(one.API_VERSION for one in ProduceRequest._CLASSES)
INT16, INT32, _HEADER, _RESULT = (struct.Struct(layout) for layout in (">h", ">i", ">hhi", ">ihq"))


def body(transactional_id: str | None, required_acks: int, timeout_ms: int, topics: ByTopic) -> list[Any]:
    """Takes what a produce request says, by topic the partitions and their batches; gives its bytes in pieces, to be joined once."""
    parts: list[Any] = [INT16.pack(-1)] if transactional_id is None else [text(transactional_id)]
    parts += [INT16.pack(required_acks), INT32.pack(timeout_ms), INT32.pack(len(topics))]
    for topic, partitions in topics:
        parts += [text(topic), INT32.pack(len(partitions))]
        for partition, batch in partitions:
            parts += [INT32.pack(partition), INT32.pack(len(batch)), batch]
    return parts


def text(given: str) -> bytes:
    """Gives a string as requests carry it."""
    encoded = given.encode()
    return INT16.pack(len(encoded)) + encoded


def results(version: int, data: bytes) -> dict[tuple[str, int], tuple[int, int]]:
    """Takes an answer behind its header; gives (error code, base offset) by topic and partition. Raises struct.error for a torn one."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    (topics,), at = INT32.unpack_from(data, 0), 4
    for _ in range(topics):
        (length,) = INT16.unpack_from(data, at)
        topic, at = data[at + 2 : at + 2 + length].decode(), at + 2 + length
        (partitions,), at = INT32.unpack_from(data, at), at + 4
        for _ in range(partitions):
            partition, error, offset = _RESULT.unpack_from(data, at)
            found[topic, partition] = error, offset
            at += _RESULT.size + (8 if version < 5 else 16)  # a time, and from version 5 on where the log starts
            if version >= 8:
                (refused,), at = INT32.unpack_from(data, at), at + 4
                for _ in range(refused):
                    at = _behind_text(data, at + 4)
                at = _behind_text(data, at)
    return found


def _behind_text(data: bytes, at: int) -> int:
    (length,) = INT16.unpack_from(data, at)
    return at + 2 + max(0, int(length))


class Gathering:
    """The base offsets of several batches, told one by one; `answer` has all of them, or the first refusal, once none is missing."""

    __slots__ = ("_failure", "_left", "_offsets", "answer")

    def __init__(self, count: int) -> None:
        self._offsets, self._left, self._failure = [-1] * count, count, None
        self.answer: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        if not count:
            self.answer.set_result([])

    _failure: BaseException | None

    def told(self, number: int, outcome: int | BaseException) -> None:
        """Takes the base offset of one batch (-1: not known), or why there is none."""
        if isinstance(outcome, BaseException):
            self._failure = self._failure or outcome
        else:
            self._offsets[number] = outcome
        self._left -= 1
        if self._left or self.answer.done():
            return
        if self._failure is None:
            self.answer.set_result(self._offsets)
        else:
            self.answer.set_exception(self._failure)

    def waits_for(self, number: int, answer: asyncio.Future[Any]) -> None:
        """Takes the answer to come (RecordMetadata, or any with `offset`) of one batch."""
        answer.add_done_callback(lambda done: self.told(number, done.exception() or done.result().offset))


def together(answers: Sequence[asyncio.Future[Any]]) -> asyncio.Future[Sequence[int]]:
    """Takes answers to come; gives their base offsets once all are there, or the first refusal."""
    gathering = Gathering(len(answers))
    for number, answer in enumerate(answers):
        gathering.waits_for(number, answer)
    return gathering.answer


class Sent(NamedTuple):
    """A batch in a request: where to, itself, sealed, and who is told of it: a gathering, or aiokafka's batch that it was taken from."""

    place: TopicPartition
    batch: BatchBuilder
    to: Gathering | None
    number: int  #                   in the gathering
    queued: MessageBatch | None

    def told(self, outcome: int | BaseException) -> None:
        """Takes the base offset (-1: not known), or why there is none."""
        if self.to is not None:
            self.to.told(self.number, outcome)
        elif self.queued is not None and isinstance(outcome, BaseException):
            self.queued.failure(outcome)
        elif self.queued is not None:
            self.queued.done(outcome)


class _Behind:
    """aiokafka's kind of answer, not decoded."""

    @staticmethod
    def decode(unread: BytesIO) -> BytesIO:
        return unread


class Exchange:
    """A request on its way. It stands in a connection's list of requests, for aiokafka as the request and as the future of its answer.

    So the answer is read in the call that finds it on the socket, without a task that wakes up for it.
    """

    RESPONSE_TYPE = _Behind
    __slots__ = ("_over", "correlation_id", "sent_at")

    def __init__(self) -> None:
        self.sent_at, self._over, self.correlation_id = time.monotonic(), False, -1

    def write(self, connection: Any, api_key: int, version: int, said: Sequence[Any]) -> None:
        """Puts a request's pieces on the socket; where that fails, the connection is closed, and says so to all that wait for it."""
        number = connection._next_correlation_id()
        head = _HEADER.pack(api_key, version, number) + text(connection._client_id)
        connection._requests.append((number, self, self))
        try:
            connection._writer.write(b"".join((INT32.pack(len(head) + sum(map(len, said))), head, *said)))
        except OSError as broken:
            connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=broken)

    # -- as aiokafka's request

    def parse_response_header(self, unread: BytesIO) -> Exchange:
        """Gives itself, with the number that the answer bears."""
        (self.correlation_id,) = INT32.unpack(unread.read(4))
        return self

    # -- as its future

    def done(self) -> bool:
        """Gives whether it is answered or given up."""
        return self._over


class Posted(Exchange):
    """A produce request on its way."""

    __slots__ = ("_answered", "_version", "sent", "turn")

    def __init__(self, turn: int, sent: Sequence[Sent], answered: Callable[[Posted, Sequence[Sent]], None], version: int) -> None:
        """`turn` is higher than that of requests before it.

        `answered` is told, once, what has to be said again: what was refused, or all of it where the connection is gone.
        """
        super().__init__()
        self.turn, self.sent, self._answered, self._version = turn, sent, answered, version

    def post(self, connection: Any, required_acks: int, timeout_ms: int) -> None:
        """Puts the request on the socket."""
        topics: dict[str, list[tuple[int, Any]]] = {}
        for one in self.sent:
            topics.setdefault(one.place.topic, []).append((one.place.partition, one.batch._build()))
        self.write(connection, API_KEY, self._version, body(None, required_acks, timeout_ms, list(topics.items())))

    def set_result(self, answer: BytesIO) -> None:
        """Takes the broker's answer."""
        found = results(self._version, answer.read())
        self._over = True
        again: list[Sent] = []
        for one in self.sent:
            error, offset = found.get(one.place, (-1, -1))
            if error in (0, DuplicateSequenceNumber.errno):  # the broker has a repeated batch, and may not know its offset any more
                one.told(offset)
            else:
                again.append(one)
        self._answered(self, again)

    def set_exception(self, failure: BaseException) -> None:
        """Takes that the connection is gone."""
        self._over = True
        self._answered(self, self.sent)

    def give_up(self, failure: BaseException) -> None:
        """Tells whoever waits that there will be no answer."""
        self._over = True
        for one in self.sent:
            one.told(failure)
