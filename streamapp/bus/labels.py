"""The labels topic: every worker reads the whole of it into its own copy, and one of the group answers what is no label.

Two readers, because they promise different things. `LabelTopic` belongs to no group: it reads what can still matter when it starts, then
follows; what it holds is gone with the process and read again by the next. `LabelLetters` is a group of its own that shares the partitions
out: each bad record becomes a dead letter, acknowledged before its offset is committed (at least once).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from streamapp.bus.batch import columns
from streamapp.bus.caught_up import CaughtUp, position
from streamapp.bus.columns import fill
from streamapp.bus.disconnect import disconnect
from streamapp.bus.emit import LETTERS_BYTES_MAX, letters_by_segment
from streamapp.bus.follow import knows_times
from streamapp.bus.topics import Topics
from streamapp.core.cascade import Degraded
from streamapp.core.errors import BusError
from streamapp.core.events import Segment
from streamapp.core.labels import LabelPlan, LabelRead

log = logging.getLogger(__name__)

COMPONENT = "labels"
#: Labels taken in at once: while loading, and (about 4 ms) between two micro-batches.
LOAD_ROWS, FOLLOW_ROWS = 5_000, 1_000
STALL_S = 30.0
_POLL_MS = 200
_AGAIN_S = 1.0

Told = Callable[[str, float], None]


class LabelTopic:
    """One worker's copy of what turned out to be true. `load`, then `run` beside the line; `close` when done."""

    def __init__(self, plan: LabelPlan, topic: str, bootstrap: str, client: Mapping[str, Any], *, since_ms: int | None) -> None:
        """`since_ms`: labels whose records are older (epoch ms) are not read; None reads all that the topic holds."""
        self._plan, self._topic, self._since_ms = plan, topic, since_ms
        self.state = plan.new()
        self.rejected = 0
        self._fresh, self._behind = LabelRead(self.state), LabelRead(self.state, (Degraded(COMPONENT, "behind"),))
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", retry_backoff_ms=20,
            fetch_max_wait_ms=_POLL_MS, **client,
        )  # fmt: skip
        self._caught_up = CaughtUp(self._consumer)

    def read(self) -> LabelRead:
        """Gives the copy, and `degraded` where it has not held all of the topic for more than BEHIND_MAX_S."""
        return self._behind if self._caught_up.behind else self._fresh

    @property
    def behind_records(self) -> int:
        """Records of the topic that this worker has not taken in yet, as far as the last answer of the broker tells."""
        places = [(place, position(self._consumer, place)) for place in self._consumer.assignment()]
        return sum(max(0, (self._consumer.highwater(place) or 0) - at) for place, at in places if at is not None)

    async def load(self, told: Told = lambda what, share: None) -> None:
        """Takes in what the topic holds now. Raises BusError when it cannot be read or does not move for STALL_S."""
        told(COMPONENT, 0.0)
        try:
            await self._consumer.start()
            await self._consumer._client.add_topic(self._topic)
            places = [TopicPartition(self._topic, number) for number in sorted(self._consumer.partitions_for_topic(self._topic) or ())]
            if not places:
                raise BusError(f"the broker knows no topic {self._topic}", "create it with `streamapp topics create`")
            self._consumer.assign(places)
            await self._consumer.seek_to_beginning(*places)
            if self._since_ms is not None and knows_times(self._consumer):
                for place, found in (await self._consumer.offsets_for_times(dict.fromkeys(places, self._since_ms))).items():
                    if found is not None:
                        self._consumer.seek(place, found.offset)
            ends = await self._consumer.end_offsets(places)
            begins = {place: await self._consumer.position(place) for place in places}
            moved_s, total = time.monotonic(), sum(ends.values()) - sum(begins.values())
            while left := sum([max(0, ends[place] - await self._consumer.position(place)) for place in places]):
                if await self._take(LOAD_ROWS):
                    moved_s = time.monotonic()
                elif time.monotonic() - moved_s > STALL_S:
                    raise BusError(f"{self._topic} gives nothing, {left} records before its end", "check it with `streamapp doctor`")
                told(COMPONENT, 1 - left / max(1, total))
        except (KafkaError, OSError) as failed:
            raise BusError(f"the labels on {self._topic} cannot be read: {failed!r}", "check it with `streamapp doctor`") from failed
        self._caught_up.now()
        told(COMPONENT, 1.0)
        log.info("%d labels known of %d events", self.state.new, len(self.state.book))

    async def run(self) -> None:
        """Follows until cancelled; what the broker refuses is asked for again, and the copy says that it is behind."""
        await asyncio.gather(self._caught_up.run(), self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                await self._take(FOLLOW_ROWS)
                self._caught_up.look()
            except KafkaError as failed:
                log.warning("Labels cannot be read, what is known of them is used: %r", failed)
                await asyncio.sleep(_AGAIN_S)

    async def close(self) -> None:
        """Ends the connection."""
        await disconnect(self._consumer)

    async def _take(self, rows: int) -> int:
        found = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=rows)
        segments = segments_of(found)
        if segments:
            labels = self._plan.decode(segments)
            self.rejected += len(labels.rejects)
            self.state.take(labels)
        return sum(map(len, segments))


class LabelLetters:
    """Answers what is no label with a dead letter in the partition of its number; the group's committed offset says how far."""

    def __init__(
        self, plan: LabelPlan, topics: Topics, producer: AIOKafkaProducer, bootstrap: str, group: str, client: Mapping[str, Any]
    ) -> None:
        """`group` is a consumer group of its own, shared by all workers of the pipeline."""
        self._plan, self._topics, self._producer, self._bootstrap, self._group, self._client = (
            plan, topics, producer, bootstrap, group, client,
        )  # fmt: skip

    async def run(self) -> None:
        """Answers until cancelled. A failure begins again at the committed offsets, so that no letter is lost."""
        while True:
            consumer = AIOKafkaConsumer(
                self._topics.labels, bootstrap_servers=self._bootstrap, group_id=self._group, enable_auto_commit=False,
                auto_offset_reset="earliest", max_poll_records=FOLLOW_ROWS, retry_backoff_ms=20, **self._client,
            )  # fmt: skip
            try:
                await consumer.start()
                while True:
                    segments = segments_of(await consumer.getmany(timeout_ms=1_000))
                    if segments:
                        await self._answer(segments)
                        await consumer.commit()
            except (KafkaError, OSError) as failed:
                log.warning("Bad labels wait for their dead letters: %r", failed)
                await asyncio.sleep(_AGAIN_S)
            finally:
                await disconnect(consumer)

    async def _answer(self, segments: Sequence[Segment]) -> None:
        now_ms = time.time_ns() // 1_000_000
        sent = [
            await self._producer.send_batch(batch, self._topics.dead_letters, partition=segments[place].partition)
            for place, letters in letters_by_segment(self._plan.decode(segments).rejects, segments, now_ms).items()
            for batch in fill(letters, LETTERS_BYTES_MAX, now_ms)
        ]
        for acknowledged in sent:
            await acknowledged


def segments_of(found: Mapping[TopicPartition, Sequence[Any]]) -> list[Segment]:
    """Takes what one poll brought; gives it as columns, a segment for each partition that brought something."""
    return [columns(place.topic, place.partition, 0, records) for place, records in sorted(found.items()) if records]
