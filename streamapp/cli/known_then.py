"""What the topics said of labels and lists when events came: their records, taken in as time goes by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from streamapp.bus.follow import Record, follower
from streamapp.bus.lists import whole
from streamapp.bus.past import segments
from streamapp.bus.topics import Topics
from streamapp.core.labels import LabelRead
from streamapp.pipeline import Read, Serving

#: Events decided together came within so many ms: what expires, expires that exactly. Workers follow lists within a second, too.
SPAN_MS = 1_000
_Came = tuple[int, Record]  # from when on a record is known, epoch ms


class KnownThen:
    """Moves on with the time at which events came: each knows the labels and list entries that came by then."""

    def __init__(self, serving: Serving, labels: Sequence[Record], lists: Sequence[Record]) -> None:
        """Takes the records of both topics; those of topics that the pipeline has no use for are to be left out."""
        by_time = sorted(labels, key=lambda record: (record.timestamp_ms, record.partition, record.offset))
        self._plan, self._labels = serving.labels, _waiting((one.timestamp_ms, one) for one in by_time)
        self._lists = _waiting(_in_offset_order(lists))
        self._state = serving.labels.new() if serving.labels.stores else None
        self._table = None if serving.lists is None else serving.lists.table()

    @classmethod
    async def read_from(cls, serving: Serving, topics: Topics, bootstrap: str, client: Mapping[str, Any]) -> Self:
        """Reads both topics whole, where the pipeline uses them. Raises BusError."""
        return cls(
            serving,
            await _whole(topics.labels, bootstrap, client) if serving.labels.stores else [],
            [record for record in await _whole(topics.lists, bootstrap, client) if not record.partition] if serving.lists else [],
        )

    def move(self, came_ms: int) -> None:
        """Takes in what came by `came_ms`."""
        if self._state is not None and (labels := _due(self._labels, came_ms)):
            self._state.take(self._plan.decode(segments(labels)))
        if self._table is not None:
            for record in _due(self._lists, came_ms):
                with suppress(ValueError):  # no entry; workers pass it over as well
                    self._table.apply(record.offset, record.key, record.value)

    def parts(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Cuts events in the order they came wherever something became known in between, or SPAN_MS went by; has moved on for each part."""
        low = 0
        while low < len(records):
            came_ms = records[low].timestamp_ms
            self.move(came_ms)
            stop_ms = min(came_ms + SPAN_MS, self._next_ms())
            high = next((at for at in range(low + 1, len(records)) if records[at].timestamp_ms >= stop_ms), len(records))
            yield records[low:high]
            low = high

    def _next_ms(self) -> float:
        return min((waiting[-1][0] for waiting in (self._labels, self._lists) if waiting), default=math.inf)

    def read(self, read: Read) -> Read:
        """Adds what is known by now."""
        if self._state is not None:
            read = replace(read, labels=LabelRead(self._state))
        return read if self._table is None else replace(read, lists=self._table)


async def _whole(topic: str, bootstrap: str, client: Mapping[str, Any]) -> list[Record]:
    async with follower(bootstrap, [topic], client) as records:
        return [record async for part, _ in whole(records, topic) for record in part]


def _in_offset_order(lists: Sequence[Record]) -> Iterator[_Came]:
    """Gives when each entry was known: never before the one that stands before it, whatever the clock of who sent it."""
    came_ms = 0
    for record in sorted(lists, key=lambda record: record.offset):
        came_ms = max(came_ms, record.timestamp_ms)
        yield came_ms, record


def _waiting(records: Iterable[_Came]) -> list[_Came]:
    """Gives them latest first, so that what is due is at the end."""
    return [*records][::-1]


def _due(waiting: list[_Came], came_ms: int) -> list[Record]:
    found = []
    while waiting and waiting[-1][0] <= came_ms:
        found.append(waiting.pop()[1])
    return found
