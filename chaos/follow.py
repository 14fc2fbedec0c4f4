"""Reads topics for as long as a run lasts, by clients that are replaced when they stand still."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

#: Topic and partition.
Spot = tuple[str, int]
Settings = dict[str, Any]
STALL_S = 5.0
ASK_S = 5.0
QUIET: Mapping[str, Any] = {"log_level": 0, "topic.metadata.refresh.interval.ms": 1000, "reconnect.backoff.max.ms": 500}
READ: Mapping[str, Any] = {
    "enable.auto.commit": False, "auto.offset.reset": "earliest", "isolation.level": "read_committed", "fetch.wait.max.ms": 20,
    "fetch.error.backoff.ms": 50, "fetch.message.max.bytes": 4 << 20, "allow.auto.create.topics": True, "enable.partition.eof": True,
    **QUIET,
}  # fmt: skip


def ends(bootstrap: str, spots: Iterable[Spot], isolation: IsolationLevel = IsolationLevel.READ_COMMITTED) -> dict[Spot, int]:
    """Gives where partitions end for a reader of committed records, asked by a client of its own; one without an answer is left out."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    found: dict[Spot, int] = {}
    with suppress(KafkaException):
        latest = {TopicPartition(*spot): OffsetSpec.latest() for spot in spots}
        asked = admin.list_offsets(latest, isolation_level=isolation, request_timeout=ASK_S)
        for place, answer in asked.items():
            with suppress(KafkaException, TooLate):
                found[place.topic, place.partition] = answer.result(2 * ASK_S).offset
    return found


class Follow:
    """Reads every record of some partitions from the first on, for one thread; `at` holds what offset each goes on with.

    After a broker was away librdkafka may go on with all partitions but one, for ever (its issue 5153), and a topic that is made anew
    may have grown beyond the old position before that is noticed. So this asks again and again where the partitions end, by another
    client: a record that has been there for `stall_s` while its partition brought nothing has the client replaced, where it stands.
    """

    def __init__(
        self, bootstrap: str, group: str, spots: Iterable[Spot], client: Callable[[Settings], Any] = Consumer, stall_s: float = STALL_S
    ) -> None:
        self.at: dict[Spot, int] = dict.fromkeys(spots, 0)
        self.replaced = 0
        self._bootstrap, self._client, self._stall_s = bootstrap, client, stall_s
        self._settings: Settings = {"bootstrap.servers": bootstrap, "group.id": group, **READ}
        self._before: tuple[dict[Spot, int], dict[Spot, int]] = {}, {}  # where we were and where the partitions ended, when last asked
        self._look_at_s = time.monotonic() + stall_s
        self._again: SimpleQueue[str] = SimpleQueue()
        self._consumer = self._open()

    def read(self) -> list[Any]:
        """Gives the records that came, after 0.05 s at most, or a few seconds where a client is replaced."""
        if not self._again.empty():
            name = self._again.get()
            self._replace(dict.fromkeys((spot for spot in self.at if spot[0] == name), 0))
        elif time.monotonic() > self._look_at_s:
            self._look()
        came = []
        for message in self._consumer.consume(500, 0.05):
            if message.error() is None:
                self.at[message.topic(), message.partition()] = message.offset() + 1
                came.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:  # tells of what is no record: the marks of transactions
                self.at[message.topic(), message.partition()] = message.offset()
        return came

    def behind(self, wanted: Mapping[Spot, int]) -> dict[Spot, tuple[int, int]]:
        """Takes how far to read; gives for each partition that is not there yet where it is, and where to."""
        return {spot: (self.at[spot], end) for spot, end in wanted.items() if self.at[spot] < end}

    def begin_again(self, topic: str) -> None:
        """Reads a topic from its first record on, for it was made anew; from any thread."""
        self._again.put(topic)

    def close(self) -> None:
        """Ends the client."""
        _end(self._consumer)

    def _look(self) -> None:
        now, before, ended = dict(self.at), *self._before
        if any(now[spot] < end and now[spot] == before[spot] for spot, end in ended.items()):
            self._replace({})
        self._before = now, ends(self._bootstrap, self.at)
        self._look_at_s = time.monotonic() + self._stall_s

    def _replace(self, moved: Mapping[Spot, int]) -> None:
        _end(self._consumer)
        self.at |= moved
        self.replaced += not moved
        self._before = {}, {}
        self._consumer = self._open()

    def _open(self) -> Any:
        consumer = self._client(self._settings)
        consumer.assign([TopicPartition(*spot, at) for spot, at in self.at.items()])
        return consumer


def _end(consumer: Any) -> None:
    """Closes a client in a thread of its own: one that stands still may not come back from it."""
    closing = threading.Thread(target=consumer.close, daemon=True)
    closing.start()
    closing.join(ASK_S)
