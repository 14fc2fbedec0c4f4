"""Step 3 of the delivery order: verdicts, decisions and dead letters of one Outcome to their topics, and every broker's answer awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streamapp.bus.columns import Message, fill
from streamapp.bus.topics import DEAD_LETTER_BYTES_MAX, Topics
from streamapp.core.deadletter import dead_letter
from streamapp.core.errors import BusError, Reject, RejectCode
from streamapp.core.events import Headers, Segment
from streamapp.core.outcome import Outcome
from streamapp.core.route import ROUTE_NAMES, UNDECIDED

#: Bytes of one produce batch: below the broker's default `message.max.bytes` (1,048,588) with room for the batch header.
BATCH_BYTES_MAX = 1_000_000
#: Bytes of one produce batch of dead letters: an event whole plus headers, on a topic that takes twice as much.
LETTERS_BYTES_MAX = DEAD_LETTER_BYTES_MAX - 4_096
#: What key, header and framing of one message may add to its value.
MESSAGE_OVERHEAD_BYTES = 2_048
#: Headers that are passed from the event to its verdict (W3C trace context).
TRACE_HEADERS = ("traceparent", "tracestate")


class Delivery:
    """Sends the outputs of micro-batches in the order it is called; `acks=all` and idempotence are the producer's."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, batch_bytes_max: int = BATCH_BYTES_MAX) -> None:
        """`batch_bytes_max` is what the broker takes at once on the verdict and decision topics."""
        self._producer, self._batch_bytes_max = producer, batch_bytes_max
        self._topics = topics
        self._by_route = tuple(getattr(topics, name) for name in ROUTE_NAMES)

    async def emit(self, outcome: Outcome, verdicts: Sequence[bytes], decisions: Sequence[bytes] | None) -> Awaitable[None]:
        """Queues all outputs; gives an awaitable that ends when the broker has acknowledged every one. Raises BusError.

        Law: each event of the plan is sent to one verdict topic and (unless they are None) to decisions, or to dead letters;
        partition and key stay.
        A row whose record is too large for the broker becomes a reject here and its route UNDECIDED.
        """
        plan, now_ms = outcome.plan, outcome.decided_at
        self._reject_oversized(outcome, verdicts if decisions is None else decisions)
        acks: list[asyncio.Future[object]] = []
        bounds = np.searchsorted(plan.segment, np.arange(len(plan.segments) + 1)).tolist()
        try:
            for place, segment in enumerate(plan.segments):
                low, high = bounds[place], bounds[place + 1]
                index = plan.index[low:high]
                keys = [segment.keys[at] for at in index.tolist()]
                headers = _headers(segment, index.tolist())
                routes = outcome.route[low:high]
                decided = list(zip(keys, verdicts[low:high], headers, strict=True))
                for route, topic in enumerate(self._by_route):
                    acks += await self._send(topic, segment.partition, _only(decided, routes == route), self._batch_bytes_max, now_ms)
                if decisions is not None:
                    known = _only(list(zip(keys, decisions[low:high], headers, strict=True)), routes != UNDECIDED)
                    acks += await self._send(self._topics.decisions, segment.partition, known, self._batch_bytes_max, now_ms)
            for place, letters in _letters(plan.rejects, plan.segments, now_ms).items():
                partition = plan.segments[place].partition
                acks += await self._send(self._topics.dead_letters, partition, letters, LETTERS_BYTES_MAX, now_ms)
        except KafkaError as refused:
            raise BusError(f"the broker does not take outputs: {refused!r}", "check it with `streamapp doctor`") from refused
        return _all(acks)

    async def partitions_of(self, topic: str) -> int:
        """Gives how many partitions a topic has. Raises BusError when the broker does not know it."""
        try:
            return len(await self._producer.partitions_for(topic))
        except KafkaError as refused:
            raise BusError(f"the broker knows no topic {topic}: {refused!r}", "create it with `streamapp topics create`") from refused

    async def publish(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        """Sends one record outside of the micro-batch (monitoring, control) and waits for its acknowledgement. Raises BusError."""
        try:
            await self._producer.send_and_wait(topic, value, key=key, partition=partition)
        except KafkaError as refused:
            raise BusError(f"the broker does not take {topic}: {refused!r}", "check it with `streamapp doctor`") from refused

    async def _send(
        self, topic: str, partition: int, messages: Sequence[Message], size_max: int, now_ms: int
    ) -> list[asyncio.Future[object]]:
        return [await self._producer.send_batch(batch, topic, partition=partition) for batch in fill(messages, size_max, now_ms)]

    def _reject_oversized(self, outcome: Outcome, largest: Sequence[bytes]) -> None:
        limit = self._batch_bytes_max - MESSAGE_OVERHEAD_BYTES
        if max(map(len, largest), default=0) <= limit:
            return
        plan = outcome.plan
        for row, record in enumerate(largest):
            if len(record) > limit:
                outcome.route[row] = UNDECIDED
                message = f"the decision record has {len(record)} bytes; the broker takes {limit}"
                plan.rejects.append(
                    Reject(int(plan.segment[row]), int(plan.index[row]), RejectCode.VERDICT_TOO_LARGE, "$", message, "emit")
                )


def _only(messages: Sequence[Message], chosen: npt.NDArray[np.bool_]) -> Sequence[Message]:
    rows = np.flatnonzero(chosen).tolist()
    return messages if len(rows) == len(messages) else [messages[row] for row in rows]


def _headers(segment: Segment, index: Sequence[int]) -> list[Headers]:
    offsets = segment.offsets[np.asarray(index, np.intp)].tolist()
    headers: list[Headers] = [[("source-offset", b"%d" % offset)] for offset in offsets]
    for row, at in enumerate(index):
        given = segment.headers[at]
        if given:
            headers[row] = [*headers[row], *((name, value) for name, value in given if name in TRACE_HEADERS)]
    return headers


def _letters(rejects: Sequence[Reject], segments: Sequence[Segment], now_ms: int) -> dict[int, list[Message]]:
    letters: dict[int, list[Message]] = {}
    for reject in rejects:
        letters.setdefault(reject.segment, []).append(dead_letter(reject, segments[reject.segment], now_ms))
    return letters


async def _all(acks: Sequence[asyncio.Future[object]]) -> None:
    """Waits for every answer, also when one is a refusal, so that none is left unread."""
    answers = await asyncio.gather(*acks, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise BusError(f"the broker refused an output: {answer!r}", "check it with `streamapp doctor`") from answer
