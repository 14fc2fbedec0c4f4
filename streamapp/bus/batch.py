"""What the agent gets: one `Batch` per poll over all partitions, and how large and how many of them there may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

import faust
import numpy as np

from streamapp.bus.acks import Acks, Ticket
from streamapp.bus.pace import Pace
from streamapp.core.events import Segment
from streamapp.core.fetched import Records


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Sizes and waits of the batch transport."""

    batch_max: int = 8192  #                     records of one batch; of so many as `decide_ms_max` is enough for (bus/pace.py)
    decide_ms_max: int = 20  #                   what a batch of more than 2,048 records may hold the event loop
    batch_wait_ms: int = 3  #                    from records to the next fetch, 0 before a backlog; a lonely event never waits
    fetch_wait_ms: int = 50  #                   long poll of an idle partition; its answer comes with the first record
    partition_fetch_bytes: int = 1 << 20  #      of one partition in one fetch
    in_flight_batches_max: int = 32  #           delivered and not acked
    in_flight_records_max: int = 8192  #         delivered and not acked; polling pauses above; four large batches
    revoke_wait_ms: int = 5000  #                what a rebalance waits for batches in flight before it drops them
    drain_timeout_s: float = 10.0  #             what SIGTERM waits for batches in flight


class Membership(Protocol):
    """What a batch asks of the consumer it came from, and tells it."""

    pace: Pace

    def holds(self, ticket: Ticket) -> bool:
        """Gives whether the ticket's claim is alive and of the present generation."""
        ...

    def in_session(self) -> bool:
        """Gives whether the last accepted heartbeat is younger than the session timeout."""
        ...

    async def news(self) -> None:
        """Waits for the next accepted heartbeat or rebalance."""
        ...


class Batch:
    """Records of one poll: a tuple of segments, each acknowledged on its own or all at once."""

    __slots__ = ("_acks", "_group", "_tickets", "fetched_at", "rows", "segments")

    def __init__(
        self, segments: tuple[Segment, ...], tickets: tuple[Ticket, ...], acks: Acks, group: Membership, fetched_at: float
    ) -> None:
        """`fetched_at` is monotonic seconds."""
        self.segments, self.fetched_at = segments, fetched_at
        self.rows = sum(ticket.rows for ticket in tickets)
        self._tickets, self._acks, self._group = tickets, acks, group

    def __len__(self) -> int:
        return self.rows

    def owned(self, segment: int) -> bool:
        """Gives whether the segment's partition is ours: same generation, still assigned, good heartbeat within the session timeout."""
        return self._group.in_session() and self._group.holds(self._tickets[segment])

    async def heard(self) -> None:
        """Waits while the last good heartbeat is older than the session timeout: until the next one, or until the partitions are gone.

        Whoever wakes after SIGSTOP cannot know whether they were given away; what is in flight goes on meanwhile.
        """
        while not self._group.in_session() and any(map(self._group.holds, self._tickets)):
            await self._group.news()

    def only_owned(self) -> Batch:
        """Gives this batch without the segments that are no longer ours: itself when all are, and another as long as nobody can know.

        A batch that has none left is itself, also out of session: there is nothing to know, and asking until it is has to end.
        """
        kept = [place for place, ticket in enumerate(self._tickets) if self._group.holds(ticket)]
        if len(kept) == len(self._tickets) and (not kept or self._group.in_session()):
            return self
        segments = tuple(self.segments[place] for place in kept)
        return Batch(segments, tuple(self._tickets[place] for place in kept), self._acks, self._group, self.fetched_at)

    def ack(self, segment: int | None = None) -> int:
        """Counts one segment, or all, as done; gives how many records that newly acknowledged (0 for what is no longer ours)."""
        tickets = self._tickets if segment is None else (self._tickets[segment],)
        return sum(ticket.rows for ticket in tickets if self._acks.ack(ticket))

    def took(self, seconds: float) -> None:
        """Notes how long the event loop was held by this batch: the next ones are as large as that allows."""
        self._group.pace.took(self.rows, seconds)

    def __repr__(self) -> str:
        spans = ", ".join(f"{s.topic}-{s.partition}@{s.offsets[0]}+{len(s)}" for s in self.segments)
        return f"<Batch {spans}>"


class Batches(faust.Schema):
    """Schema that marks a topic as batched: its agent gets `Batch` values, and no byte of a record is decoded by Faust."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """Gives the key untouched."""
        return message.key

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """Gives the value untouched (`value_type=bytes` would decode JSON)."""
        return message.value


_OFFSET, _TIMESTAMP, _KEY, _VALUE, _HEADERS = map(attrgetter, ("offset", "timestamp", "key", "value", "headers"))


def columns(topic: str, partition: int, generation: int, records: Sequence[Any]) -> Segment:
    """Takes at least one record (offset, timestamp, key, value, headers) of one partition; gives them as columns."""
    return taken(records).of(topic, partition, generation)


def taken(records: Sequence[Any]) -> Records:
    """Takes records of one partition; gives them as columns."""
    return Records(
        np.fromiter(map(_OFFSET, records), np.int64, len(records)),
        np.fromiter(map(_TIMESTAMP, records), np.int64, len(records)),
        list(map(_KEY, records)),
        list(map(_VALUE, records)),
        list(map(_HEADERS, records)),
    )
