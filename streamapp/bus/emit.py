"""Step 3 of the delivery order: verdicts, decisions and dead letters of one Outcome to their topics, and every broker's answer awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from streamapp.bus.answered import Answered
from streamapp.bus.columns import Carrier, Message, fill
from streamapp.bus.guarantee import AtLeastOnce, Effects, Guarantee
from streamapp.bus.producer import Producer
from streamapp.bus.topics import BATCH_BYTES_MAX, DEAD_LETTER_BYTES_MAX, Topics
from streamapp.core.deadletter import dead_letter
from streamapp.core.errors import BusError, Reject, RejectCode
from streamapp.core.events import Plan, Segment
from streamapp.core.outcome import Outcome
from streamapp.core.route import ROUTE_NAMES, UNDECIDED
from streamapp.core.texts import Texts
from streamapp.ports import Outputs

#: Bytes of one produce batch of dead letters: an event whole plus headers, on a topic that takes twice as much.
LETTERS_BYTES_MAX = DEAD_LETTER_BYTES_MAX - 4_096
#: What key, header and framing of one message may add to its value.
MESSAGE_OVERHEAD_BYTES = 2_048

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


class Ack(NamedTuple):
    """One produce batch on its way: where to, how many records, and the broker's answer."""

    target: tuple[str, int]
    records: int
    answer: asyncio.Future[Any]


class Answers:
    """The broker's answers to all outputs of one micro-batch; awaited once, or never when the worker breaks before."""

    def __init__(self, acks: Sequence[Ack]) -> None:
        self._acks, self._open = acks, len(acks)
        self._complete = asyncio.Event()
        self.acknowledged_at = 0  #  epoch ms, when complete
        for ack in acks:
            ack.answer.add_done_callback(self._count)
        if not acks:
            self._count(None)

    def complete(self) -> bool:
        """Gives whether every answer is there."""
        return self._complete.is_set()

    def _count(self, _answer: Any) -> None:
        self._open -= 1
        if self._open <= 0:
            self.acknowledged_at = time.time_ns() // 1_000_000
            self._complete.set()

    def __await__(self) -> Generator[Any, None, Outputs]:
        """Waits for every answer, also when one is a refusal, so that none is left unread; raises BusError for it."""
        yield from self._complete.wait().__await__()
        refused = [failure for ack in self._acks if (failure := ack.answer.exception()) is not None]
        if refused:
            raise BusError(f"the broker refused an output: {refused[0]!r}", "check it with `streamapp doctor`") from refused[0]
        after: dict[tuple[str, int], int] = {}
        for ack in self._acks:
            told = ack.answer.result()
            if told.offset >= 0:  # a repeated batch that the broker had already is acknowledged without its offset
                after[ack.target] = told.offset + ack.records
        return after


_MEMBERS = {"verdict": "verdict", "score": "score", "decided_by": "decided_by"}


class Delivery:
    """Sends the outputs of micro-batches in the order it is called; `acks=all` and idempotence are the producer's."""

    def __init__(
        self,
        producer: Producer,
        topics: Topics,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        guarantee: Guarantee | None = None,
        members: Mapping[str, str] = _MEMBERS,
        *,
        compressed: bool = True,
    ) -> None:
        """`batch_bytes_max` is what the broker takes at once on the verdict and decision topics; at least once unless told otherwise.

        `members` says what verdict, score and decided_by are called in the verdict; `compressed`, whether the decisions log is.
        """
        self._members, self._compressed = members, compressed
        self._producer, self._batch_bytes_max = producer, batch_bytes_max
        self._guarantee: Guarantee = guarantee or AtLeastOnce(producer)
        self._topics = topics
        self._answered: dict[int, Answered] = {}
        self._ready = False
        self._by_route = tuple(getattr(topics, name) for name in ROUTE_NAMES)

    async def ready(self) -> None:
        """Waits until the producer knows the output topics, the first time; `emit` follows without a pause. Raises BusError."""
        if not self._ready:
            try:
                await self._guarantee.know((*self._by_route, self._topics.decisions, self._topics.dead_letters))
            except KafkaError as refused:
                raise BusError(
                    f"the broker does not tell of the output topics: {refused!r}", "check it with `streamapp doctor`"
                ) from refused
            self._ready = True

    def emit(self, outcome: Outcome, verdicts: Texts, decisions: Texts | None) -> Answers:
        """Queues all outputs; gives an awaitable that ends when the broker has acknowledged every one. Raises BusError.

        It gives the next offset of each (topic, partition) that something was sent to.

        Law: each event of the plan is sent to one verdict topic and (unless they are None) to decisions, or to dead letters;
        partition and key stay.
        What the topics hold already of an event (`answered_already`) is not sent a second time.
        A row whose record is too large for the broker becomes a reject here and its route UNDECIDED.
        """
        plan, now_ms = outcome.plan, outcome.decided_at
        self._reject_oversized(outcome, verdicts if decisions is None else decisions)
        acks: list[Ack] = []
        effects, marked = self._guarantee.enter(), self._guarantee.transactional
        bounds = np.searchsorted(plan.segment, np.arange(len(plan.segments) + 1)).tolist()
        try:
            for place, segment in enumerate(plan.segments):
                low, high = bounds[place], bounds[place + 1]
                index = plan.index[low:high]
                carrier = Carrier(segment, index, transactional=marked)
                logged = None if decisions is None else decisions[low:high]
                routes, missing, told, logged = self._unanswered(segment, index, outcome.route[low:high], verdicts[low:high], logged)
                there = sorted(set(routes.tolist()) - {UNDECIDED})
                by_route = carrier.batches(told, [routes == route for route in there], self._batch_bytes_max, now_ms)
                for route, batches in zip(there, by_route, strict=True):
                    acks += _send(effects, self._by_route[route], segment.partition, batches)
                if logged is not None:
                    (batches,) = carrier.batches(logged, [missing], self._batch_bytes_max, now_ms, compressed=self._compressed)
                    acks += _send(effects, self._topics.decisions, segment.partition, batches)
            for place, letters in letters_by_segment(self._unanswered_rejects(plan), plan.segments, now_ms).items():
                partition = plan.segments[place].partition
                batches = fill(letters, LETTERS_BYTES_MAX, now_ms, transactional=marked)
                acks += _send(effects, self._topics.dead_letters, partition, batches)
        except KafkaError as refused:
            raise BusError(f"the broker does not take outputs: {refused!r}", "check it with `streamapp doctor`") from refused
        return Answers(acks)

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

    # -- what an owner before us emitted and did not log (bus/recovery.py)

    def answered_already(self, partition: int, found: Answered) -> None:
        """Takes what the topics hold already of a partition's events beyond its journal."""
        if found:
            self._answered[partition] = found
        else:
            self._answered.pop(partition, None)

    def remember(self, outcome: Outcome, deciders: Sequence[str]) -> None:
        """Puts into the states what was said of events before a crash; called between deciding them again and `emit`."""
        for step in outcome.steps if self._answered else ():
            known, decision = self._answered.get(outcome.plan.segments[step.segment].partition), step.rows.decision
            if known is not None and decision is not None and known.remember(step.rows.offset, decision, self._members, deciders):
                step.state.settle(step.moved.admission, decision)

    def nothing_answered(self, partition: int) -> None:
        """Forgets what was answered of a partition that is ours no longer."""
        self._answered.pop(partition, None)

    def _unanswered(
        self, segment: Segment, index: Int32, route: npt.NDArray[np.int8], verdicts: Texts, decisions: Texts | None
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_], Texts, Texts | None]:
        """Gives what is still to be sent: routes (UNDECIDED where a verdict is out), which decision records, both kinds of records."""
        answered = self._answered.get(segment.partition)
        if answered is None:
            return route, route != UNDECIDED, verdicts, decisions
        if answered.before(int(segment.offsets[0])):
            del self._answered[segment.partition]
            return route, route != UNDECIDED, verdicts, decisions
        offsets = segment.offsets[index]
        decisions = answered.as_told(offsets, verdicts, decisions)
        route, verdicts = answered.as_logged(offsets, route, verdicts, self._members.get("verdict", ""))
        return *answered.missing(offsets, route), verdicts, decisions

    def _unanswered_rejects(self, plan: Plan) -> Sequence[Reject]:
        if not self._answered:
            return plan.rejects
        return [
            reject
            for reject in plan.rejects
            if (known := self._answered.get((segment := plan.segments[reject.segment]).partition)) is None
            or segment.offsets[reject.index] not in known.verdicts
        ]

    def _reject_oversized(self, outcome: Outcome, largest: Texts) -> None:
        limit = self._batch_bytes_max - MESSAGE_OVERHEAD_BYTES
        plan, lengths = outcome.plan, largest.lengths()
        for row in (lengths > limit).nonzero()[0].tolist():
            outcome.route[row] = UNDECIDED
            message = f"the decision record has {lengths[row]} bytes; the broker takes {limit}"
            plan.rejects.append(Reject(int(plan.segment[row]), int(plan.index[row]), RejectCode.VERDICT_TOO_LARGE, "$", message, "emit"))


def _send(effects: Effects, topic: str, partition: int, batches: Sequence[BatchBuilder]) -> list[Ack]:
    return [Ack((topic, partition), batch.record_count(), effects.enqueue(batch, topic, partition)) for batch in batches]


def letters_by_segment(rejects: Sequence[Reject], segments: Sequence[Segment], now_ms: int) -> dict[int, list[Message]]:
    """Gives the dead letters of rejects by the place of their segment, in the order of the rejects."""
    letters: dict[int, list[Message]] = {}
    for reject in rejects:
        letters.setdefault(reject.segment, []).append(dead_letter(reject, segments[reject.segment], now_ms))
    return letters
