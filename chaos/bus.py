"""The outside of the engine, through librdkafka: a steady feed of events, and an eye on everything that any topic holds."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError as KafkaProblem
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from chaos.stream import Record, Stream
from chaos.verify import Output

PARTITIONS = 4
LOOK_S = 30.0
QUIET: Mapping[str, Any] = {"log_level": 0, "topic.metadata.refresh.interval.ms": 1000, "reconnect.backoff.max.ms": 500}
# What it says of a broker that is away on purpose is of no use to anybody.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
T = TypeVar("T")
ROLES = ("approve", "review", "block", "decisions", "dead-letters")


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
    """Sends a stream's records to the events topic, placed by their key as Java's clients do; waits out a broker that is away."""

    def __init__(self, bootstrap: str, topic: str, stream: Stream, *, real: bool = True) -> None:
        """`real`: the broker knows idempotent producers; the embedded one is not asked for it."""
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": real, "partitioner": "murmur2_random", "linger.ms": 2,
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
        if self._producer.flush(60) or self._failed:
            raise Stuck(f"the input was not taken: {self._failed[:1] or 'no answer'}")

    @contextmanager
    def load(self, rate: int, burst: int) -> Iterator[None]:
        """Sends a burst, then `rate` events a second in pieces of uneven size, until left; then flushes."""
        stop = threading.Event()
        self.send(burst)

        def run() -> None:
            while not stop.wait(0.05):
                self.send(max(1, rate // 20))

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


class Watch:
    """Follows the events topic and every output in a thread; keeps what it saw by (partition, source offset)."""

    def __init__(self, bootstrap: str, events: str, outputs: Mapping[str, str], *, by_place: bool = True) -> None:
        """`by_place` False: answers carry no source offset, so events and answers are kept in the order in which they came."""
        self.inputs: dict[tuple[int, int], Record] = {}
        self.answers: dict[tuple[int, int], list[Output]] = defaultdict(list)
        self.plain: list[Output] = []
        self.read_again = 0  #  records that the broker gave twice: a client that is told to begin anew reads what it has read
        self._read: set[tuple[str, int, int, int]] = set()
        self.last_answer_s = time.monotonic()
        self._events, self._roles, self._by_place = events, {name: role for role, name in outputs.items()}, by_place
        self._open: dict[tuple[int, int], int] = {}  # what is still missing of an input's answer: 1 verdict, 2 decision
        self._served: list[tuple[int, int]] = []  #     (partition, epoch ms) of verdicts
        self._places = [
            TopicPartition(topic, number, OFFSET_BEGINNING) for topic in (events, *outputs.values()) for number in range(PARTITIONS)
        ]
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap, "group.id": f"{events}.watch", "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "fetch.wait.max.ms": 20, "fetch.error.backoff.ms": 50,
            "fetch.message.max.bytes": 4 << 20, "allow.auto.create.topics": True, "enable.partition.eof": True, **QUIET,
        }  # fmt: skip
        self._consumer = Consumer(self._settings)
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._consumer.assign(self._places)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def unanswered(self) -> int:
        """Gives how many of the inputs seen have no verdict or dead letter, or no decision record. Raises what stopped the watch."""
        if self._failure is not None:
            raise self._failure
        with self._lock:
            return len(self._open)

    def unanswered_places(self) -> list[tuple[int, int]]:
        """Gives which they are."""
        with self._lock:
            return sorted(self._open)

    def served_since(self, at_ms: int) -> dict[int, int]:
        """Gives, per partition, when the first verdict after `at_ms` was written, in epoch ms."""
        first: dict[int, int] = {}
        with self._lock:
            for partition, when in reversed(self._served):
                if when <= at_ms:
                    if len(first) == PARTITIONS or when < at_ms - 60_000:
                        break
                    continue
                first[partition] = min(when, first.get(partition, when))
        return first

    def look_again(self) -> int:
        """Reads all topics anew by another consumer; gives how many records there are that the first had not been given.

        After a broker was away librdkafka may go on with all partitions but one (its issue 4492); what the topics hold is what counts.
        """
        before, read_again, other, open_places = self.kept, self.read_again, Consumer(self._settings), len(self._places)
        try:
            other.assign(self._places)
            give_up = time.monotonic() + LOOK_S
            while open_places and time.monotonic() < give_up:
                for message in other.consume(500, 0.05):
                    if message.error() is None:
                        self._keep(message)
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        open_places -= 1
        finally:
            other.close()
        self.read_again = read_again
        return self.kept - before

    @property
    def kept(self) -> int:
        """Records of all topics that were seen."""
        with self._lock:
            return len(self._read)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for message in self._consumer.consume(500, 0.05):
                    if message.error() is None:
                        self._keep(message)
        except Exception as failure:  # noqa: BLE001 - told to whoever waits for an answer
            self._failure = failure

    def _keep(self, message: Any) -> None:
        topic, partition, key, value = message.topic(), message.partition(), message.key(), message.value()
        one = topic, partition, message.offset(), message.timestamp()[1]  # with its time: a topic made anew counts from 0 again
        with self._lock:
            if one in self._read:
                self.read_again += 1
                return
            self._read.add(one)
            if topic == self._events:
                place = partition, message.offset()
                self.inputs[place] = key, value
                self._settle(place)
                return
            self.last_answer_s = time.monotonic()
            output = Output(self._roles[topic], key, value, message.timestamp()[1])
            if output.role != "decisions":
                self._served.append((partition, output.at_ms))
            if not self._by_place:
                self.plain.append(output)
                return
            source = next((told for name, told in message.headers() or () if name == "source-offset"), b"-1")
            place = partition, int(source)
            self.answers[place].append(output)
            self._settle(place)

    def _settle(self, place: tuple[int, int]) -> None:
        if place not in self.inputs or not self._by_place:
            return
        roles = {output.role for output in self.answers.get(place, ())}
        if "dead-letters" in roles or ("decisions" in roles and len(roles) > 1):
            self._open.pop(place, None)
        else:
            self._open[place] = len(roles)


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
