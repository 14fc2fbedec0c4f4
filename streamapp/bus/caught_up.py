"""When a copy of a topic last held all of it, by the broker's own word: polls that bring nothing also come where no broker is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

#: Behind for so long, a copy is named in `degraded`.
BEHIND_MAX_S = 10.0
#: How often the broker is asked where the topic ends, and how long it may take to answer.
ASK_S, ANSWER_S = 1.0, 3.0


class CaughtUp:
    """What one copy knows of the end of its topic. `run` asks beside the polls; `look` after each of them.

    Law: the copy holds whatever was in the topic at `_at_s`; without answers it counts as behind after BEHIND_MAX_S at the latest.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._at_s = time.monotonic()
        self._asked_s = 0.0
        self._ends: Mapping[TopicPartition, int] = {}  # as they were at _asked_s; empty once they are reached

    @property
    def behind(self) -> bool:
        """Says whether it is longer than BEHIND_MAX_S ago that the copy held all of the topic, as far as the broker has told."""
        return time.monotonic() - self._at_s >= BEHIND_MAX_S

    def now(self) -> None:
        """Notes that the copy has just been read to the end."""
        self._at_s = time.monotonic()

    def look(self) -> None:
        """Notes whether what the broker last told has been reached; to be called when the records before the position are taken in."""
        if self._ends and all((at := position(self._consumer, place)) is not None and at >= end for place, end in self._ends.items()):
            self._at_s, self._ends = self._asked_s, {}

    async def run(self) -> None:
        """Asks until cancelled. An answer that does not come is no answer; whatever else is wrong shows itself where records are read."""
        while True:
            asked_s = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_S):
                    ends = await self._consumer.end_offsets(self._consumer.assignment())
                # An end that is not reached yet stays the one to reach, or a copy that is always a second behind would never arrive;
                # one that lies beyond the topic's present end never will be.
                if not self._ends or any(end < self._ends.get(place, 0) for place, end in ends.items()):
                    self._asked_s, self._ends = asked_s, ends
            except (KafkaError, OSError, TimeoutError):
                pass
            await asyncio.sleep(max(0.0, asked_s + ASK_S - time.monotonic()))


def position(consumer: AIOKafkaConsumer, place: TopicPartition) -> int | None:
    """Gives the offset of the next record as it is known without asking, None where it is not."""
    assigned: Any = consumer._subscription.subscription
    state = None if assigned is None else assigned.assignment.state_value(place)
    return state.position if state is not None and state.has_valid_position else None
