"""Takes fetched records out of aiokafka's fetcher as segments, fairly over partitions, and admits them to the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import ConsumerStoppedError

from streamapp.bus.acks import Acks, Claim, Fetched, Partition, Ticket
from streamapp.bus.batch import taken
from streamapp.bus.client import LoopClient
from streamapp.bus.fetching import ANSWERED
from streamapp.core.errors import BusError
from streamapp.core.events import Segment
from streamapp.core.fetched import PlainFetch, Records, plain_fetch

#: One batch before it is delivered: the channel of its agent, its segments, their tickets.
Taken = tuple[Any, tuple[Segment, ...], tuple[Ticket, ...]]


NOTHING = taken([])
#: Bytes of a fetch from which on a kernel is worth its calls.
PLAIN_BYTES_MIN = 8 * 1024


class Intake:
    """The seam to aiokafka's fetcher: takes from its buffer; unpacking, aborted transactions and positions stay aiokafka's business."""

    def __init__(self, client: LoopClient, acks: Acks) -> None:
        self._client, self._acks = client, acks
        self._waiter: asyncio.Future[None] | None = None
        self._last_rows: dict[Partition, int] = {}  # partitions that gave least go first, so that the rest of the batch is for a backlog
        self._last_ms: dict[Partition, int] = {}  #   timestamp of the last record taken

    def take(self, claims: Sequence[Claim], allowed: set[Any], channels: Mapping[str, Any], room: int) -> list[Taken]:
        """Takes what is there, up to `room` records over all claims; gives one batch per agent, none when nothing is there.

        Raises KafkaError that the fetcher found, BusError when the broker's log no longer continues where we stopped.
        """
        fetcher = self._client.kafka._fetcher
        if fetcher._closed:
            raise ConsumerStoppedError
        buffered = fetcher._records
        ready = [claim for claim in claims if claim.source in buffered and claim.source in allowed]
        if not ready:
            return []
        last = self._last_rows
        ready.sort(key=lambda claim: last.get(claim.source, 0))
        left_behind = False
        parts: dict[int, list[tuple[Fetched, Records]]] = {}
        by_id: dict[int, Any] = {}
        for place, claim in enumerate(ready):
            source = claim.source
            result = buffered[source]
            if type(result) is not FetchResult:
                if parts:
                    break  # deliver what we have; the error is raised by the next take
                del buffered[source]
                result.check_raise()
            state = self._client.state(source)
            if state is None or not state.has_valid_position:
                continue
            start = state.position
            if claim.next is not None and start != claim.next:
                raise BusError(
                    f"{source.topic}-{source.partition} continues at offset {start}, not at {claim.next}: retention removed records, "
                    "or the topic was recreated",
                    "raise its retention; to accept the loss, reset the group's offset and start again",
                )
            records = unpack(result, max(1, room // (len(ready) - place)))
            if result.has_more():
                left_behind = True
            else:
                del buffered[source]
            end = state.position
            if end == start:
                continue
            rows = len(records.offsets)
            room -= rows
            last[source] = rows
            if rows:
                self._last_ms[source] = int(records.timestamps[-1])
            channel = channels[source.topic]
            by_id[id(channel)] = channel
            fetched = Fetched(claim, start, end, rows, int(records.timestamps[0]) if rows else 0)
            parts.setdefault(id(channel), []).append((fetched, records))
            if room <= 0:
                break
        if parts:
            self._client.backlog = left_behind or room <= 0
        self._client.taken()
        batches = (self._admit(by_id[key], found) for key, found in parts.items())
        return [batch for batch in batches if batch[2]]

    def _admit(self, channel: Any, found: Sequence[tuple[Fetched, Records]]) -> Taken:
        tickets = self._acks.admit([fetched for fetched, _ in found])
        segments = tuple(records.of(*fetched.claim.source, fetched.claim.generation) for fetched, records in found if fetched.rows)
        return channel, segments, tickets

    async def wait_for_records(self, interrupt: asyncio.Event) -> None:
        """Waits until the fetcher has news or `interrupt` is set. Raises what the group coordinator failed with."""
        if interrupt.is_set():
            return
        fetcher, subscription = self._client.kafka._fetcher, self._client.kafka._subscription
        waiter = fetcher._create_fetch_waiter()
        self._waiter = waiter
        subscription._fetch_count += 1  # we are polling: the coordinator's `max.poll.interval` clock stands still
        try:
            await waiter
        finally:
            self._waiter = None
            subscription._fetch_count -= 1
            subscription._last_fetch_ended = time.monotonic()

    def interrupt(self) -> None:
        """Ends `wait_for_records`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def discard(self, source: Partition) -> None:
        """Forgets what was fetched of a partition and not taken; its position stays, so that it is fetched again."""
        self._client.kafka._fetcher._records.pop(source, None)

    def lag(self, claims: Iterable[Claim], now_ms: int) -> dict[Partition, tuple[int, float]]:
        """Gives (records, seconds) behind the high mark per claim; partitions whose high mark is not known yet are left out."""
        found: dict[Partition, tuple[int, float]] = {}
        for claim in claims:
            state = self._client.state(claim.source)
            if state is None or state.highwater is None:
                continue
            if claim.position is not None:
                reached = claim.position
            elif state.has_valid_position:
                reached = state.position
            else:
                continue
            records = max(0, state.highwater - reached)
            oldest_ms = claim.tickets[0].oldest_ms if claim.tickets else self._last_ms.get(claim.source, now_ms)
            found[claim.source] = (records, max(0, now_ms - oldest_ms) / 1000 if records else 0.0)
        return found


def unpack(result: Any, limit: int) -> Records:
    """Gives up to `limit` records of a fetch, and moves the partition's position behind them.

    What is plain is read by a kernel (core/fetched.py). Else it is `FetchResult.getall` without a ConsumerRecord and three Python frames
    per record, which cost more than the parsing: the generator underneath is aiokafka's, which leaves out aborted transactions, markers
    and what is below the position.
    """
    if not result.has_more() or not result.check_assignment(result._topic_partition):
        return NOTHING
    unread = result._partition_records
    plain = _plain(unread)
    if plain is not None:
        records = plain.take(limit)
        unread.next_fetch_offset = int(records.offsets[-1]) + 1 if plain.left else plain.after
        more = plain.left > 0
    else:
        unread._consumer_record = _as_it_is
        found = list(islice(unread._records_iterator, limit))
        records, more = taken(found), len(found) == limit
    result._update_position()
    if not more:
        unread._records_iterator = None  # a cycle that would keep the fetched megabyte until the collector runs
        result._partition_records = None
    return records


def _plain(unread: Any) -> PlainFetch | None:
    """Gives what is left of a fetch as the kernel has read it; None where aiokafka is to do it."""
    found: PlainFetch | None = getattr(unread, "plain", None)
    data = getattr(unread, ANSWERED, None)
    if found is None and data is not None:
        delattr(unread, ANSWERED)
        if len(data) >= PLAIN_BYTES_MIN and not unread._check_crcs and not unread._aborted_transactions:
            found = unread.plain = plain_fetch(data, unread.next_fetch_offset)
    return found


def _as_it_is(_tp: Any, record: Any) -> Any:
    return record
