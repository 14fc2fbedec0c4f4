"""The outside of the engine, through librdkafka: a steady feed of events, and what is asked of topics and groups."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError as KafkaProblem
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from chaos.follow import QUIET, Spot, ends
from chaos.stream import Stream

PARTITIONS = 4
# What it says of a broker that is away on purpose is of no use to anybody.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
T = TypeVar("T")
FLUSH_S = 60.0
ROLES = ("approve", "review", "block", "decisions", "dead-letters")
#: Headers of records of ours on a topic of theirs.
PROBE = [("probe", b"")]


class Stuck(Exception):
    """Something that was promised did not happen in time."""


def await_true(
    what: Callable[[], bool], why: str, timeout_s: float, check: Callable[[], None] = lambda: None, every_s: float = 0.02
) -> None:
    """Waits until `what` holds, asking again and again and calling `check`, which may raise; raises Stuck when it does not in time."""
    give_up = time.monotonic() + timeout_s
    while not what():
        check()
        if time.monotonic() > give_up:
            raise Stuck(f"{why}: not within {timeout_s:g} s")
        time.sleep(every_s)


def topics_of(namespace: str) -> dict[str, str]:
    """Gives the output topics of a namespace by their roles."""
    verdicts = {role: f"{namespace}.verdicts.{role}.v1" for role in ROLES[:3]}
    return verdicts | {"decisions": f"{namespace}.decisions.v1", "dead-letters": f"{namespace}.dead-letters.v1"}


class Feed:
    """Sends a stream's records to the events topic, placed by their key as Java's clients do; waits out a broker that is away.

    One request at a time keeps their order. What an outage makes it send twice is on the topic twice, and decided by its place. An
    idempotent librdkafka (2.x) sends nothing any more after a broker was away for some ten seconds.
    """

    def __init__(self, bootstrap: str, topic: str, stream: Stream) -> None:
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "max.in.flight": 1, "partitioner": "murmur2_random", "linger.ms": 2,
            "message.timeout.ms": 300_000, **QUIET,
        })  # fmt: skip
        self._topic, self._stream = topic, stream
        self._failed: list[str] = []
        self.sent = 0

    def send(self, count: int) -> None:
        """Queues `count` more records."""
        for key, value in self._stream.take(count):
            self._producer.produce(self._topic, key=key, value=value, on_delivery=self._delivered)
            self.sent += 1
        self._producer.poll(0)

    def flush(self) -> None:
        """Waits until the broker has all; raises Stuck."""
        left = self._producer.flush(FLUSH_S)
        if left or self._failed:
            raise Stuck(f"the input was not taken: {self._failed[0] if self._failed else f'no answer for {left} records in {FLUSH_S:g} s'}")

    @contextmanager
    def load(self, rate: int, burst: int) -> Iterator[None]:
        """Sends a burst, then `rate` events a second in pieces of uneven size, until left; then flushes."""
        stop = threading.Event()
        self.send(burst)

        def run() -> None:
            try:
                while not stop.wait(0.05):
                    self.send(max(1, rate // 20))
            except (BufferError, KafkaException) as failure:
                self._failed.append(str(failure))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        self.flush()

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._failed.append(str(error))


class Administration:
    """Topics and groups of one broker, asked by librdkafka."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})

    def create(self, *names: str, partitions: int = PARTITIONS) -> None:
        """Creates topics; raises KafkaException."""
        for one in self._admin.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
            one.result(30)

    def delete(self, *names: str) -> None:
        """Deletes topics and waits until they are gone; raises KafkaException, Stuck."""
        for one in self._admin.delete_topics(list(names)).values():
            one.result(30)
        await_true(lambda: not set(names) & set(self._admin.list_topics(timeout=10).topics), f"{names} are deleted", 30)

    def seal(self, topic: str) -> dict[Spot, int]:
        """Lets a topic take nothing more; gives where its partitions end then. Raises KafkaException, Stuck.

        The broker obeys a moment after it has said yes, so each partition is tried until it refuses.
        """
        self.limit(topic, 1)
        sealed: set[int] = set()

        def told(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                sealed.add(message.partition() or 0)

        producer = Producer({"bootstrap.servers": self._bootstrap, **QUIET})

        def refused() -> bool:
            for number in set(range(PARTITIONS)) - sealed:
                producer.produce(topic, partition=number, headers=PROBE, on_delivery=told)
            producer.flush(5)
            return len(sealed) == PARTITIONS

        await_true(refused, f"{topic} takes nothing more", 30)
        found = ends(self._bootstrap, [(topic, number) for number in range(PARTITIONS)])
        if len(found) < PARTITIONS:
            raise Stuck(f"the broker does not say where the partitions of {topic} end")
        return found

    def undecided(self, topic: str) -> bool:
        """Says whether a transaction is open on a topic: what nobody can read yet."""
        spots = [(topic, number) for number in range(PARTITIONS)]
        return ends(self._bootstrap, spots) != ends(self._bootstrap, spots, IsolationLevel.READ_UNCOMMITTED)

    def limit(self, topic: str, max_bytes: int | None) -> None:
        """Sets what the topic takes at once; None: the broker's default again."""
        change = AlterConfigOpType.DELETE if max_bytes is None else AlterConfigOpType.SET
        entry = ConfigEntry("max.message.bytes", None if max_bytes is None else str(max_bytes), incremental_operation=change)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for one in self._admin.incremental_alter_configs([resource]).values():
            one.result(30)

    def members(self, group: str) -> int:
        """Gives how many members a stable group has; 0 while it rebalances or the broker is away."""

        async def ask(admin: AIOKafkaAdminClient) -> int:
            (answer,) = await admin.describe_consumer_groups([group])
            (found,) = answer.groups
            return len(found[5]) if found[2] == "Stable" else 0

        try:
            return self._of_group(ask)
        except (KafkaProblem, OSError):
            return 0

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Gives the group's committed offsets of a topic by partition."""

        async def ask(admin: AIOKafkaAdminClient) -> dict[int, int]:
            found = await admin.list_consumer_group_offsets(group)
            return {place.partition: told.offset for place, told in found.items() if place.topic == topic}

        return self._of_group(ask)

    def _of_group(self, ask: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """librdkafka aborts the process when it is asked about a group whose broker was away; this client does not."""

        async def run() -> T:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=5000)
            try:
                await admin.start()
                return await ask(admin)
            finally:
                await admin.close()

        return asyncio.run(run())
