"""Fetches sent without aiokafka's tasks: the next one leaves before a micro-batch is decided, so that the broker gathers meanwhile.

aiokafka's way is a task per request, a wait over all that may happen, an interpreted schema per field, and five turns of the loop from
taking records to asking for more; the micro-batch would be decided in between. What an answer means stays aiokafka's business, and so
does all that is not plain: partitions without a position or a leader, followers, errors. Layouts: Kafka's protocol guide, Fetch version 4.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.consumer.fetcher import FetchResult

from streamapp.bus.direct import INT32, Exchange, text
from streamapp.core.errors import InvariantBroken

API_KEY, VERSION = 1, 4
#: An answer of so many bytes says that there is more: who waits then, waits in front of a backlog.
BACKLOG_BYTES = 256 * 1024
#: Up to so many bytes the next fetch leaves after the wait as it is set; with more it leaves later, at most so many times as late.
#: A micro-batch costs some milliseconds however small it is: where traffic is not thin, fewer and larger ones leave time to spare.
THIN_BYTES, LATER_MAX = 8 * 1024, 5
#: Where the bytes stand that aiokafka's records of one partition are read from.
ANSWERED = "answered"
_REQUEST, _WANTED, _FOUND, _ABORTED, _LENGTH = (struct.Struct(layout) for layout in (">iiiib", ">iqi", ">ihqqi", ">qq", ">h"))

#: By topic: partition, offset, most bytes.
Wanted = Sequence[tuple[str, Sequence[tuple[int, int, int]]]]


class _Asked(NamedTuple):
    """What aiokafka looks at of a request when it is answered."""

    topics: Wanted


class _Told(NamedTuple):
    """An answer as aiokafka decodes it: by topic (partition, error, high mark, stable offset, aborted transactions, records)."""

    topics: Sequence[tuple[str, Sequence[tuple[int, int, int, int, Sequence[tuple[int, int]], bytes]]]]
    size: int
    API_VERSION: int = VERSION


def asked(max_wait_ms: int, min_bytes: int, max_bytes: int, isolation: int, wanted: Wanted) -> bytes:
    """Gives a fetch request's bytes behind its header."""
    parts = [_REQUEST.pack(-1, max_wait_ms, min_bytes, max_bytes, isolation), INT32.pack(len(wanted))]
    for topic, partitions in wanted:
        parts += [text(topic), INT32.pack(len(partitions)), *(_WANTED.pack(*one) for one in partitions)]
    return b"".join(parts)


def told(unread: BytesIO) -> _Told:
    """Takes an answer behind its header; gives what it says. Raises struct.error for a torn one."""
    read, size = unread.read, 0
    read(4)  # how long we are held back
    topics = []
    for _ in range(*INT32.unpack(read(4))):
        topic = read(*_LENGTH.unpack(read(2))).decode()
        partitions = []
        for _ in range(*INT32.unpack(read(4))):
            partition, error, high, stable, aborted_count = _FOUND.unpack(read(_FOUND.size))
            aborted = [_ABORTED.unpack(read(_ABORTED.size)) for _ in range(aborted_count)]
            (length,) = INT32.unpack(read(4))
            size += max(0, length)
            partitions.append((partition, error, high, stable, aborted, read(max(0, length))))
        topics.append((topic, partitions))
    return _Told(topics, size)


class _Asking(Exchange):
    """One fetch on its way."""

    __slots__ = ("_answered", "assignment", "connection", "node", "wanted")

    def __init__(
        self, node: int, connection: Any, assignment: Any, wanted: Wanted, answered: Callable[[_Asking, BytesIO | None], None]
    ) -> None:
        super().__init__()
        self.node, self.connection, self.assignment, self.wanted, self._answered = node, connection, assignment, wanted, answered

    def set_result(self, answer: BytesIO) -> None:
        self._over = True
        self._answered(self, answer)

    def set_exception(self, failure: BaseException) -> None:
        self._over = True
        self._answered(self, None)


class _InHand:
    """aiokafka's client, as its fetcher sees it while it takes an answer that is there already."""

    def __init__(self, client: Any, answer: _Told) -> None:
        self._client, self._answer = client, answer

    async def send(self, node: int, request: Any) -> _Told:
        return self._answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Fetches:
    """Asks for records on behalf of aiokafka's fetcher, which fetches itself whenever this does not."""

    def __init__(self, consumer: Any, wait_ms: int, idle_wait_ms: int) -> None:
        """`consumer` is aiokafka's; after records came the next fetch leaves `wait_ms` later (LATER_MAX), and finds what has gathered.

        It may be held by the broker for `idle_wait_ms`, until the first record comes: a lonely one does not wait.
        """
        self._fetcher, self._subscription, self._client = consumer._fetcher, consumer._subscription, consumer._client
        self._wait_s, self._idle_wait_ms = wait_ms / 1000, idle_wait_ms
        self._due: asyncio.TimerHandle | None = None
        self._size = 0  #      bytes of the last answer
        self._asking: set[_Asking] = set()

    def taken(self, *, more: bool) -> None:
        """Notes that records were taken; `more`: some were left behind, or would have been, so nothing waits."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if more or self._size >= BACKLOG_BYTES:
            self._send()
        else:
            later = min(max(self._size / THIN_BYTES, 1), LATER_MAX)
            self._due = asyncio.get_running_loop().call_later(later * self._wait_s, self._send)

    def close(self) -> None:
        """Sends no more."""
        if self._due is not None:
            self._due.cancel()

    def give_up(self, patience_s: float) -> None:
        """Closes connections on which a fetch has not been answered for so long; aiokafka connects again."""
        late = time.monotonic() - patience_s
        for one in [one for one in self._asking if one.sent_at < late]:
            one.connection.close(reason=CloseReason.CONNECTION_TIMEOUT)

    def _send(self) -> None:
        self._due = None
        fetcher, subscription = self._fetcher, self._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if fetcher._closed or assignment is None or not assignment.active:
            return
        wanted = self._wanted(assignment)
        if not wanted:
            fetcher._notify(fetcher._wait_consume_future)  # aiokafka knows what is to be done
        for node, (connection, topics) in wanted.items():
            asking = _Asking(node, connection, assignment, list(topics.items()), self._answered)
            fetcher._in_flight.add(node)  # it leaves this broker alone
            self._asking.add(asking)
            said = asked(self._idle_wait_ms, 1, fetcher._fetch_max_bytes, fetcher._isolation_level, asking.wanted)
            asking.write(connection, API_KEY, VERSION, [said])

    def _wanted(self, assignment: Any) -> Mapping[int, tuple[Any, dict[str, list[tuple[int, int, int]]]]]:
        """Gives, by broker, its connection and what to fetch; nothing where any partition is not plain, or nobody has asked for it."""
        fetcher = self._fetcher
        found: dict[int, tuple[Any, dict[str, list[tuple[int, int, int]]]]] = {}
        unread: set[int] = set()
        for place in assignment.tps:
            state, node = assignment.state_value(place), fetcher._select_read_replica(place)
            if node in fetcher._in_flight or state.paused:
                continue
            if place in fetcher._records:
                unread.add(node)
                continue
            if node not in found:
                connection = self._connection(node)
                if connection is None:
                    return {}
                found[node] = connection, {}
            if not state.has_valid_position:
                return {}
            found[node][1].setdefault(place.topic, []).append((place.partition, state.position, fetcher._max_partition_fetch_bytes))
        return {node: one for node, one in found.items() if node not in unread}

    def _connection(self, node: int | None) -> Any:
        connection = self._client._conns.get((node, ConnectionGroup.DEFAULT))
        if connection is None or not connection.connected() or self._fetcher._client_rack:
            return None
        lowest, highest = connection._versions.get(API_KEY, (0, 0))
        return connection if lowest <= VERSION <= highest else None

    def _answered(self, asking: _Asking, answer: BytesIO | None) -> None:
        fetcher = self._fetcher
        self._asking.discard(asking)
        fetcher._in_flight.discard(asking.node)
        if answer is None or fetcher._closed or not asking.assignment.active:
            fetcher._notify(fetcher._wait_consume_future)
            return
        found = told(answer)
        self._size = found.size
        real, fetcher._client = fetcher._client, _InHand(fetcher._client, found)
        try:
            news = _at_once(fetcher._proc_fetch_request(asking.assignment, asking.node, _Asked(asking.wanted)))
        finally:
            fetcher._client = real
        self._keep(found)
        if news:
            for waiter in fetcher._fetch_waiters:
                fetcher._notify(waiter)
        elif any(error for _, partitions in found.topics for _, error, *_ in partitions):
            fetcher._notify(fetcher._wait_consume_future)
        else:
            self._send()

    def _keep(self, found: _Told) -> None:
        """Puts the bytes of an answer beside what aiokafka makes of them: partitions with anything unread are not asked for."""
        for topic, partitions in found.topics:
            for partition, *_, data in partitions:
                result = self._fetcher._records.get(TopicPartition(topic, partition))
                if type(result) is FetchResult:
                    setattr(result._partition_records, ANSWERED, data)


def _at_once(steps: Coroutine[Any, Any, Any]) -> Any:
    """Runs what has nothing to wait for."""
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value
    steps.close()
    raise InvariantBroken("aiokafka waits for something while it takes an answer that is there")
