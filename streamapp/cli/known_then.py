"""What the topics said of labels and lists when events came: their records, taken in as time goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from streamapp.bus.follow import Record, follower
from streamapp.bus.lists import whole
from streamapp.bus.past import segments
from streamapp.bus.topics import Topics
from streamapp.core.labels import LabelRead
from streamapp.pipeline import Read, Serving


class KnownThen:
    """Moves on with the time at which records came: an event knows what came before its slice, as a worker's before its micro-batch."""

    def __init__(self, serving: Serving, labels: Sequence[Record], lists: Sequence[Record]) -> None:
        """Takes the records of both topics; those of topics that the pipeline has no use for are to be left out."""
        self._plan, self._labels, self._lists = serving.labels, _in_time(labels), _in_time(lists)
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

    def read(self, read: Read) -> Read:
        """Adds what is known by now."""
        if self._state is not None:
            read = replace(read, labels=LabelRead(self._state))
        return read if self._table is None else replace(read, lists=self._table)


async def _whole(topic: str, bootstrap: str, client: Mapping[str, Any]) -> list[Record]:
    async with follower(bootstrap, [topic], client) as records:
        return [record async for part, _ in whole(records, topic) for record in part]


def _in_time(records: Sequence[Record]) -> list[Record]:
    """Gives them latest first, so that what is due is at the end; records of one time in offset order."""
    return sorted(records, key=lambda record: (record.timestamp_ms, record.partition, record.offset), reverse=True)


def _due(waiting: list[Record], came_ms: int) -> list[Record]:
    found = []
    while waiting and waiting[-1].timestamp_ms <= came_ms:
        found.append(waiting.pop())
    return found
