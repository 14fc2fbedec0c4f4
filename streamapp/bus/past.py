"""What lies on the events topic, read again: partitions merged by the time their records came, cut alike every time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from heapq import merge
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np

from streamapp.bus.follow import Follower, Record
from streamapp.bus.lists import STALL_S
from streamapp.core.errors import BusError
from streamapp.core.events import Segment

#: So many records of one partition wait for those of others before no more of it is asked for: equal bytes are not equal time.
AHEAD = 10_000


class Merge:
    """Records of several partitions in one order: by the latest time their partition has reached, then partition and offset.

    Law: whatever pieces the records come in, what `due` gave, one after the other, is that order.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self._waiting: dict[int, deque[tuple[float, int, int, Record]]] = {partition: deque() for partition in partitions}
        self._reached: dict[int, float] = dict.fromkeys(self._waiting, -math.inf)

    def take(self, records: Iterable[Record]) -> None:
        """Takes records that follow, per partition, those taken before."""
        for record in records:
            reached = max(self._reached[record.partition], record.timestamp_ms)
            self._reached[record.partition] = reached
            self._waiting[record.partition].append((reached, record.partition, record.offset, record))

    def end(self, partition: int) -> None:
        """Notes that nothing more comes of a partition."""
        self._reached[partition] = math.inf

    def due(self) -> list[Record]:
        """Gives what no record still to come can go before; linear in that, whatever else waits."""
        limit = self._limit()
        ready: list[list[tuple[float, int, int, Record]]] = []
        for waiting in self._waiting.values():
            ready.append([])
            while waiting and waiting[0][0] < limit:
                ready[-1].append(waiting.popleft())
        return [one[3] for one in merge(*ready)]

    def ahead(self) -> set[int]:
        """Gives the partitions of which AHEAD records wait for others; never those that the others wait for."""
        limit = self._limit()
        return {partition for partition, waiting in self._waiting.items() if len(waiting) >= AHEAD and self._reached[partition] > limit}

    def _limit(self) -> float:
        return min(self._reached.values(), default=math.inf)


async def slices(events: Follower, ends: Mapping[Any, int], size: int) -> AsyncIterator[list[Record]]:
    """Gives the records of one topic before `ends` (as `Follower.ends` gives them), `size` at a time, in Merge's order.

    Raises BusError where there is no such topic, or it gives nothing for STALL_S.
    """
    if not ends:
        raise BusError("the broker knows no such events topic", "check --namespace and --events-topic, or ask `streamapp doctor`")
    merged, stops = Merge(place.partition for place in ends), {place.partition: end for place, end in ends.items()}
    ready: list[Record] = []
    left = await events.behind(ends)
    while True:
        for place in [place for place, behind in left.items() if not behind]:
            merged.end(place.partition)
        ready += merged.due()
        while len(ready) >= size:
            yield ready[:size]
            del ready[:size]
        if not any(left.values()):
            break
        events.hold(merged.ahead())
        asked_s, found = time.monotonic(), await events.poll(wait_ms=200)
        while not found:
            if time.monotonic() - asked_s > STALL_S:
                raise BusError(f"the events topic gives nothing, {sum(left.values())} records before its end", "ask `streamapp doctor`")
            left = await events.behind(ends)  # what is left may be markers of transactions
            if not any(left.values()):
                break
            found = await events.poll(wait_ms=200)
        merged.take(record for record in found if record.offset < stops[record.partition])
        left = await events.behind(ends)
    if ready:
        yield ready


def segments(records: Sequence[Record]) -> tuple[Segment, ...]:
    """Gives records as a micro-batch brings them: a segment for each partition, in offset order."""
    found = []
    for partition, group in groupby(sorted(records, key=attrgetter("partition", "offset")), attrgetter("partition")):
        rows = list(group)
        found.append(
            Segment(
                rows[0].topic,
                partition,
                0,
                np.array([row.offset for row in rows], np.int64),
                np.array([row.timestamp_ms for row in rows], np.int64),
                [row.key for row in rows],
                [row.value for row in rows],
                [tuple(row.headers.items()) for row in rows],
            )
        )
    return tuple(found)
