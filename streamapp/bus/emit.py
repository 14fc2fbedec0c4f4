"""Step 3 of the delivery order: verdicts, decisions and dead letters of one Outcome to their topics, and every broker's answer awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from aiokafka.errors import KafkaError

from streamapp.bus.answered import Answered
from streamapp.bus.columns import Carrier, Message, fill
from streamapp.bus.guarantee import AtLeastOnce, Guarantee
from streamapp.bus.producer import Parcel, Producer
from streamapp.bus.refused import not_taken
from streamapp.bus.topics import BATCH_BYTES_MAX, DEAD_LETTER_BYTES_MAX, Topics
from streamapp.core.deadletter import dead_letter
from streamapp.core.errors import BusError, Reject, RejectCode
from streamapp.core.events import Plan, Segment
from streamapp.core.outcome import Outcome
from streamapp.core.route import ROUTE_NAMES, UNDECIDED
from streamapp.core.state import repeat_first
from streamapp.core.texts import Texts
from streamapp.ports import Outputs

#: Bytes of one produce batch of dead letters: an event whole plus headers, on a topic that takes twice as much.
LETTERS_BYTES_MAX = DEAD_LETTER_BYTES_MAX - 4_096
#: What key, header and framing of one message may add to its value.
MESSAGE_OVERHEAD_BYTES = 2_048

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]


class Answers:
    """The broker's answers to all outputs of one micro-batch; awaited once, or never when the worker breaks before."""

    def __init__(self, parcels: Sequence[Parcel], answer: asyncio.Future[Sequence[int]]) -> None:
        """`answer` gives the base offset of each parcel once all of them are acknowledged."""
        self._parcels, self._answer = parcels, answer
        self._complete = asyncio.Event()
        self.acknowledged_at = 0  #  epoch ms, when complete
        answer.add_done_callback(self._note)

    def complete(self) -> bool:
        """Gives whether every answer is there."""
        return self._complete.is_set()

    def _note(self, answer: asyncio.Future[Sequence[int]]) -> None:
        self.acknowledged_at = time.time_ns() // 1_000_000
        self._complete.set()

    def __await__(self) -> Generator[Any, None, Outputs]:
        """Waits for every answer, also when one is a refusal, so that none is left unread; raises BusError for it."""
        yield from self._complete.wait().__await__()
        refused = self._answer.exception()
        if refused is not None:
            raise not_taken("an output", refused) from refused
        after: dict[tuple[str, int], int] = {}
        for (batch, topic, partition), offset in zip(self._parcels, self._answer.result(), strict=True):
            if offset >= 0:  # a repeated batch that the broker had already is acknowledged without its offset
                after[topic, partition] = offset + batch.record_count()
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
        compressed: bool = False,
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
        parcels: list[Parcel] = []
        effects, marked = self._guarantee.enter(), self._guarantee.transactional
        carrier = Carrier(plan.segments, plan.segment, plan.index, transactional=marked)
        routes, missing, told, logged = self._unanswered(plan, outcome.route, verdicts, decisions)
        for place, route, batch in carrier.batches(told, routes, len(ROUTE_NAMES), self._batch_bytes_max, now_ms):
            parcels.append((batch, self._by_route[route], plan.segments[place].partition))
        if logged is not None:
            wanted = np.where(missing, np.int8(0), np.int8(UNDECIDED))
            for place, _, batch in carrier.batches(logged, wanted, 1, self._batch_bytes_max, now_ms, compressed=self._compressed):
                parcels.append((batch, self._topics.decisions, plan.segments[place].partition))
        for place, letters in letters_by_segment(self._unanswered_rejects(plan), plan.segments, now_ms).items():
            partition = plan.segments[place].partition
            filled = fill(letters, LETTERS_BYTES_MAX, now_ms, transactional=marked)
            parcels += [(batch, self._topics.dead_letters, partition) for batch in filled]
        try:
            return Answers(parcels, effects.enqueue_all(parcels))
        except KafkaError as refused:
            raise not_taken("outputs", refused) from refused

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
            raise not_taken(topic, refused) from refused

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
                repeat_first(step, decision, outcome.route, outcome.decided_by, outcome.score)  # copies beside their original

    def nothing_answered(self, partition: int) -> None:
        """Forgets what was answered of a partition that is ours no longer."""
        self._answered.pop(partition, None)

    def _unanswered(
        self, plan: Plan, route: Int8, verdicts: Texts, decisions: Texts | None
    ) -> tuple[Int8, npt.NDArray[np.bool_], Texts, Texts | None]:
        """Gives what is still to be sent: routes (UNDECIDED where a verdict is out), which decision records, both kinds of records."""
        if not self._answered:
            return route, route != UNDECIDED, verdicts, decisions
        bounds = np.searchsorted(plan.segment, np.arange(len(plan.segments) + 1)).tolist()
        left = []
        for segment, (low, high) in zip(plan.segments, pairwise(bounds), strict=True):
            logged = None if decisions is None else decisions[low:high]
            left.append(self._unanswered_of(segment, plan.index[low:high], route[low:high], verdicts[low:high], logged))
        routes, missing, told, records = zip(*left, strict=True)
        logged = None if decisions is None else Texts.of([*chain.from_iterable(records)])
        return np.concatenate(routes), np.concatenate(missing), Texts.of([*chain.from_iterable(told)]), logged

    def _unanswered_of(
        self, segment: Segment, index: Int32, route: Int8, verdicts: Texts, decisions: Texts | None
    ) -> tuple[Int8, npt.NDArray[np.bool_], Texts, Texts | None]:
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
        if largest.bytes() <= limit:  # all together
            return
        plan, lengths = outcome.plan, largest.lengths()
        for row in (lengths > limit).nonzero()[0].tolist():
            outcome.route[row] = UNDECIDED
            message = f"the decision record has {lengths[row]} bytes; the broker takes {limit}"
            plan.rejects.append(Reject(int(plan.segment[row]), int(plan.index[row]), RejectCode.VERDICT_TOO_LARGE, "$", message, "emit"))


def letters_by_segment(rejects: Sequence[Reject], segments: Sequence[Segment], now_ms: int) -> dict[int, list[Message]]:
    """Gives the dead letters of rejects by the place of their segment, in the order of the rejects."""
    letters: dict[int, list[Message]] = {}
    for reject in rejects:
        letters.setdefault(reject.segment, []).append(dead_letter(reject, segments[reject.segment], now_ms))
    return letters
