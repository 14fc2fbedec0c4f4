"""The producer of a worker's outputs: aiokafka's, with a door through which whole record batches are queued without waiting."""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain, count
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, ProducerClosed
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.produce import ProduceRequest

from streamapp.bus import direct
from streamapp.bus.direct import Gathering, Parcel, Posted, Sent, together
from streamapp.bus.security import client_arguments
from streamapp.bus.topics import BATCH_BYTES_MAX, DEAD_LETTER_BYTES_MAX
from streamapp.bus.unreachable import unreachable
from streamapp.core.errors import BusError

__all__ = ["Parcel", "Producer", "connected", "producing", "together"]

#: How long the broker may be away before an output is given up and the worker stops, unless `request.timeout.ms` says otherwise.
REQUEST_TIMEOUT_MS = 30_000
#: So many batches of a partition may be on their way at once: the broker remembers as many, and knows each of them when it is repeated.
IN_FLIGHT_MAX = 5
#: So long a broker surely knows a producer that it took a batch from; it forgets one that is silent for a day (producer.id.expiration.ms).
KNOWN_S = 3600.0
#: What is to be written to each broker: at most one batch of each partition.
ByNode = dict[int, dict[TopicPartition, Sent]]


class _NoNode(set[int]):
    """aiokafka's list of nodes with a request on its way; that no node is ever in it lets requests overlap."""

    def add(self, node: int) -> None:
        """Does nothing: a partition with a batch on its way is left out all the same, so order and idempotence hold."""


class _Message:
    """A request's header and body in pieces; aiokafka asks how long they are, puts that in front, and has the bytes."""

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __radd__(self, size: bytes) -> bytes:
        return b"".join([size, *self._parts])


class _Body(list[Any]):
    """A request's body in pieces; aiokafka puts the header in front."""

    def __radd__(self, head: bytes) -> _Message:
        return _Message([head, *self])


class _Produce(ProduceRequest):
    """aiokafka's produce request, whose bytes are joined once: its own way copies every batch at each of eight levels."""

    def build(self, request_struct_class: type[Any]) -> Any:
        return super().build(_LEAN.get(request_struct_class, request_struct_class))


def _in_pieces(request: Any) -> _Body:
    return _Body(direct.body(request.transactional_id, request.required_acks, request.timeout, request.topics))


#: A class per version: an encoder in the instance would be a cycle, and hold its megabytes.
_LEAN = {
    one: type(one.__name__, (one,), {"encode": _in_pieces}) for one in ProduceRequest._CLASSES if one.API_VERSION >= direct.VERSION_MIN
}


class _Send(SendProduceReqHandler):
    """aiokafka's exchange of one produce request with its own `_Produce`."""

    def create_request(self) -> _Produce:
        request = super().create_request()
        return _Produce(request._transactional_id, request.required_acks, request._timeout, request._topics)


class Producer(AIOKafkaProducer):
    """aiokafka's producer with a queue per partition that never makes the caller wait, and with several requests per node on their way.

    What the broker has not acknowledged within `request_timeout_ms` fails, and with it all that is queued and all that comes: aiokafka
    would send an idempotent batch again for ever.
    """

    def __init__(self, **settings: Any) -> None:
        """Takes what AIOKafkaProducer takes."""
        super().__init__(**settings)
        self._sender._in_flight = _NoNode()
        self._sender._send_produce_req = self._exchange
        self._sender._find_coordinator = self._coordinator
        self._watching: asyncio.Task[None] | None = None
        self._posted: dict[Posted, None] = {}  # oldest first
        self._flying: dict[TopicPartition, int] = {}  # so many of its batches are in them
        self._refused: dict[TopicPartition, list[tuple[Posted, Sent]]] = {}  # to be said again, in order, once none flies
        self._turns = count()
        self._known_at: dict[TopicPartition, float] = {}  # when the broker took a batch of ours last
        self._settled = asyncio.Event()  # something that was posted is answered, or given up
        self._gave_up = asyncio.Event()
        # aiokafka would give up a batch alone where no leader is known, and take its sequence numbers: none behind it is accepted then.
        self._message_accumulator._batch_ttl = math.inf

    async def start(self) -> None:
        """Connects. Raises KafkaError."""
        await super().start()
        self._watching = asyncio.create_task(self._watch(self._request_timeout_ms / 1000))

    async def stop(self) -> None:
        """Sends what is queued, and closes."""
        while self._posted:
            self._settled.clear()
            await self._settled.wait()
        await super().stop()  # it waits for every answer, so somebody has to give up where none comes
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, patience_s: float) -> None:
        queue = self._message_accumulator
        while True:
            await asyncio.sleep(patience_s / 10)
            oldest = [*(batches[0] for batches in queue._batches.values() if batches), *queue._pending_batches]
            late = time.monotonic() - patience_s
            if any(batch._ctime < late for batch in oldest) or any(one.sent_at < late for one in self._posted):
                break
        self._gave_up.set()
        await self._sender.close()  # first, so that nothing is sent that was given up
        given_up = [*(batch for batches in queue._batches.values() for batch in batches), *queue._pending_batches]
        failure = KafkaTimeoutError(f"the broker has not acknowledged it within {patience_s:g} s")
        queue.fail_all(failure)
        for posted in self._posted:
            posted.give_up(failure)
        for _, one in chain.from_iterable(self._refused.values()):
            one.told(failure)
        self._posted.clear()
        self._refused.clear()
        self._settled.set()
        for batch in given_up:
            batch._drain_waiter.exception()  # nobody waits for it here, and asyncio would tell of it later

    async def _exchange(self, node: int, batches: dict[Any, Any]) -> None:
        await _Send(self._sender, batches).do(node)
        self._sender._muted_partitions.difference_update(batches)
        self._post_queued(batches)

    async def _coordinator(self, kind: Any, key: str) -> Any:
        """Finds who carries the transactions; where a broker that restarts closes the connection meanwhile, aiokafka would send no more."""
        sender = self._sender
        while True:
            try:
                return await type(sender)._find_coordinator(sender, kind, key)
            except KafkaError as failed:
                if not isinstance(failed.__cause__, KafkaConnectionError):
                    raise
                await asyncio.sleep(sender._retry_backoff)

    async def lost(self) -> None:
        """Waits until the broker has left something unacknowledged for too long; raises BusError then."""
        await self._gave_up.wait()
        waited_s = self._request_timeout_ms / 1000
        raise BusError(f"the broker has not acknowledged an output within {waited_s:g} s", "check it with `streamapp doctor`")

    async def know(self, topics: Sequence[str]) -> None:
        """Waits until it is known where the partitions of `topics` are; `enqueue` needs that. Raises KafkaError."""
        for topic in topics:
            await self.partitions_for(topic)

    def enqueue(self, batch: BatchBuilder, topic: str, partition: int) -> asyncio.Future[Any]:
        """Puts `batch` behind what is queued for the partition and gives the broker's answer to come; raises KafkaError, never waits.

        aiokafka's own `send_batch` waits until the batch before it on that partition has left, and the line would stand still meanwhile.
        Law: batches of one partition arrive in the order of the calls.
        The caller bounds how much is queued: a worker has so many micro-batches in flight.
        """
        queue = self._open_queue()
        if partition not in (self.client.cluster.partitions_for_topic(topic) or ()):
            raise KafkaTimeoutError(f"the broker does not tell of {topic}-{partition}")
        answer: asyncio.Future[Any] = queue._append_batch(batch, TopicPartition(topic, partition)).future
        return answer

    def enqueue_all(self, parcels: Sequence[Parcel]) -> asyncio.Future[Sequence[int]]:
        """Does what `enqueue` does for several batches at once; gives the base offset of each to come, -1 where it is not known.

        A batch whose partition has nothing queued, and fewer than IN_FLIGHT_MAX on their way, is written to the socket before this
        returns, with all others for that broker in one request; what it refuses, or does not answer, is said again through the queue,
        under the same sequence numbers, and before anything that came later. Law: as for `enqueue`. Raises KafkaError.
        """
        queued, leader = self._open_queue()._batches, self.client.cluster.leader_for_partition
        gathering, now_s = Gathering(len(parcels)), time.monotonic()
        by_node: ByNode = {}
        open_to: dict[Any, bool] = {}
        transaction = self._txn_manager
        for number, (batch, topic, partition) in enumerate(parcels):
            place = TopicPartition(topic, partition)
            node = leader(place)
            sent = by_node.get(node, {})
            if node not in open_to:
                open_to[node] = self._connection(node) is not None
            if place in queued or place in sent or not open_to[node] or not self._has_room(place, now_s):
                gathering.waits_for(number, self.enqueue(batch, topic, partition))
                continue
            sequence = transaction.sequence_number(place)
            transaction.increment_sequence_number(place, batch.record_count())
            batch._set_producer_state(transaction.producer_id, transaction.producer_epoch, sequence)
            by_node.setdefault(node, sent)[place] = Sent(place, batch, gathering, number, None)
        self._post(by_node)
        return gathering.answer

    def _has_room(self, place: TopicPartition, now_s: float) -> bool:
        """Gives whether one more batch of a partition may be on its way.

        Several are only where the broker knows which sequence number comes next: else it would take the second without the first.
        """
        flying = self._flying.get(place, 0)
        if not flying:
            return place not in self._sender._muted_partitions
        known = self._known_at.get(place, -KNOWN_S) > now_s - KNOWN_S
        return known and flying < IN_FLIGHT_MAX and place not in self._refused

    def _post(self, by_node: ByNode) -> None:
        """Writes one request per broker; the queue leaves these partitions alone until there is an answer."""
        for node, sent in by_node.items():
            for place in sent:
                self._flying[place] = self._flying.get(place, 0) + 1
            self._sender._muted_partitions.update(sent)
            connection = self._connection(node)
            posted = Posted(next(self._turns), tuple(sent.values()), self._answered, _version(connection))
            self._posted[posted] = None
            posted.post(connection, self._sender._acks, self._request_timeout_ms)

    def _open_queue(self) -> Any:
        queue = self._message_accumulator
        if queue._closed:
            raise ProducerClosed
        if queue._exception is not None:
            raise copy.copy(queue._exception)
        return queue

    def _connection(self, node: int | None) -> Any:
        """Gives the open connection to a broker over which requests may be written at once, None where there is none."""
        transaction = self._txn_manager
        if transaction.transactional_id is not None or not transaction.has_pid():
            return None
        connection = self.client._conns.get((node, ConnectionGroup.DEFAULT))
        return connection if connection is not None and connection.connected() and _version(connection) else None

    def _answered(self, posted: Posted, again: Sequence[Sent]) -> None:
        self._posted.pop(posted, None)
        now_s, flying = time.monotonic(), self._flying
        for one in again:
            self._refused.setdefault(one.place, []).append((posted, one))
        for one in posted.sent:
            flying[one.place] -= 1
            if one.place not in self._refused:
                self._known_at[one.place] = now_s
            if not flying[one.place]:
                del flying[one.place]
                self._sender._muted_partitions.discard(one.place)
                if one.place in self._refused:
                    self._say_again(self._refused.pop(one.place))
        if self._message_accumulator._batches:
            self._post_queued([one.place for one in posted.sent])
        self._wake()

    def _say_again(self, refused: list[tuple[Posted, Sent]]) -> None:
        """Puts what was refused of a partition before what is queued: aiokafka's rules say what is tried again and what is given up."""
        queue = self._message_accumulator
        for posted, one in sorted(refused, key=lambda pair: pair[0].turn, reverse=True):
            if queue._exception is not None:
                one.told(copy.copy(queue._exception))
                continue
            message = one.queued
            if message is None:
                message = MessageBatch(one.place, one.batch, queue._batch_ttl, 0)
                message._ctime = posted.sent_at
                message.drain_ready()  # its sequence number stays
                queue._pending_batches.add(message)
                message.future.add_done_callback(lambda _, message=message: queue._pending_batches.discard(message))
                if one.to is not None:
                    one.to.waits_for(one.number, message.future)
            queue.reenqueue(message)

    def _post_queued(self, places: Iterable[TopicPartition]) -> None:
        """Writes what is queued for partitions as far as there is room; what has been said before is left to aiokafka."""
        queue, now_s = self._message_accumulator, time.monotonic()
        leader, waiting = self.client.cluster.leader_for_partition, [place for place in places if place in queue._batches]
        while waiting:
            by_node: ByNode = {}
            for place in waiting:
                first, node = queue._batches[place][0], leader(place)
                if first.retry_count or first.is_empty() or not self._has_room(place, now_s) or self._connection(node) is None:
                    continue
                message = queue._pop_batch(place)
                by_node.setdefault(node, {})[place] = Sent(place, message._builder, None, 0, message)
            self._post(by_node)
            waiting = [place for sent in by_node.values() for place in sent if place in queue._batches]

    def _wake(self) -> None:
        """Lets aiokafka look at its queue, as a partition is free again, and tells whoever waits for the end."""
        self._settled.set()
        queue = self._message_accumulator
        if queue._batches and not queue._waiter_future.done():
            queue._waiter_future.set_result(None)


def _version(connection: Any) -> int:
    """Gives the version of produce requests that a broker and `direct` both speak, 0 where there is none."""
    lowest, highest = connection._versions.get(direct.API_KEY, (0, 0))
    version = min(int(highest), direct.VERSION_MAX)
    return version if version >= max(int(lowest), direct.VERSION_MIN) else 0


@asynccontextmanager
async def producing(bootstrap: str, kafka: Mapping[str, str]) -> AsyncIterator[Producer]:
    """Gives a started producer whose acknowledgements mean that all in-sync replicas have the record, once. Raises BusError."""
    producer = await connected(bootstrap, kafka, retry_backoff_ms=20)
    try:
        yield producer
    finally:
        await producer.stop()


async def connected(bootstrap: str, kafka: Mapping[str, str], **more: Any) -> Producer:
    """Gives the same for the caller to stop; `more` are aiokafka's arguments. Raises BusError."""
    producer = Producer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,  # a micro-batch is already as large as it gets
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=DEAD_LETTER_BYTES_MAX,
        request_timeout_ms=int(kafka.get("request.timeout.ms", REQUEST_TIMEOUT_MS)),
        **more,
        **client_arguments(kafka),
    )
    try:
        await producer.start()
    except BaseException as refused:
        await producer.stop()
        if not isinstance(refused, KafkaError):
            raise
        raise await unreachable(bootstrap, client_arguments(kafka), refused) from refused
    return producer
