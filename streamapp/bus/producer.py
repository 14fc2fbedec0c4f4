"""The producer of a worker's outputs: aiokafka's, with a door through which whole record batches are queued without waiting."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.produce import ProduceRequest

from streamapp.bus import direct
from streamapp.bus.direct import Gathering, Parcel, Posted, Sent, together
from streamapp.bus.security import client_arguments
from streamapp.bus.topics import BATCH_BYTES_MAX, DEAD_LETTER_BYTES_MAX
from streamapp.bus.unreachable import unreachable

__all__ = ["Parcel", "Producer", "connected", "producing", "together"]

#: How long the broker may be away before an output is given up and the worker stops, unless `request.timeout.ms` says otherwise.
REQUEST_TIMEOUT_MS = 30_000


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
        self._watching: asyncio.Task[None] | None = None
        self._posted: set[Posted] = set()
        self._repeating: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()  # something that was posted is answered, or given up

    async def start(self) -> None:
        """Connects. Raises KafkaError."""
        await super().start()
        self._watching = asyncio.create_task(self._watch(self._request_timeout_ms / 1000))

    async def stop(self) -> None:
        """Sends what is queued, and closes."""
        while self._posted or self._repeating:
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
            if any(batch.expired() for batch in oldest) or any(one.sent_at < late for one in self._posted):
                break
        await self._sender.close()  # first, so that nothing is sent that was given up
        given_up = [*(batch for batches in queue._batches.values() for batch in batches), *queue._pending_batches]
        failure = KafkaTimeoutError(f"the broker has not acknowledged it within {patience_s:g} s")
        queue.fail_all(failure)
        for one in self._posted:
            one.give_up(failure)
        self._posted.clear()
        self._settled.set()
        for batch in given_up:
            batch._drain_waiter.exception()  # nobody waits for it here, and asyncio would tell of it later

    async def _exchange(self, node: int, batches: dict[Any, Any]) -> None:
        await _Send(self._sender, batches).do(node)
        self._sender._muted_partitions.difference_update(batches)

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

        A batch whose partition has nothing queued or on its way is written to the socket before this returns, with all others for that
        broker in one request; what it refuses, or does not answer, is said again through the queue, under the same sequence numbers.
        Law: as for `enqueue`. Raises KafkaError.
        """
        queue, muted, transaction = self._open_queue(), self._sender._muted_partitions, self._txn_manager
        leader, queued = self.client.cluster.leader_for_partition, queue._batches
        gathering = Gathering(len(parcels))
        direct_to: dict[int, list[Sent]] = {}
        for number, (batch, topic, partition) in enumerate(parcels):
            place = TopicPartition(topic, partition)
            node = leader(place)
            if place in muted or place in queued or self._connection(node) is None:
                gathering.waits_for(number, self.enqueue(batch, topic, partition))
                continue
            muted.add(place)  # the queue leaves it alone until there is an answer
            sequence = transaction.sequence_number(place)
            transaction.increment_sequence_number(place, batch.record_count())
            batch._set_producer_state(transaction.producer_id, transaction.producer_epoch, sequence)
            direct_to.setdefault(node, []).append(Sent(number, place, batch))
        for node, sent in direct_to.items():
            connection = self._connection(node)
            posted = Posted(node, sent, gathering, self._answered, _version(connection))
            self._posted.add(posted)
            posted.post(connection, self._sender._acks, self._request_timeout_ms)
        return gathering.answer

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
        self._posted.discard(posted)
        left = {one.place for one in again}
        self._sender._muted_partitions.difference_update(one.place for one in posted.sent if one.place not in left)
        if again:
            self._repeat(posted, again)
        self._wake()

    def _repeat(self, posted: Posted, again: Sequence[Sent]) -> None:
        """Hands what was refused to aiokafka, as if it had sent it itself: its rules say what is tried again and what is given up."""
        queue, messages = self._message_accumulator, {}
        if queue._exception is not None:
            posted.give_up(copy.copy(queue._exception))
            return
        for number, place, batch in again:
            message = MessageBatch(place, batch, queue._batch_ttl, 0)
            message._ctime = posted.sent_at
            message.drain_ready()  # its sequence number stays
            queue._pending_batches.add(message)
            message.future.add_done_callback(lambda _, message=message: queue._pending_batches.discard(message))
            posted.to.waits_for(number, message.future)
            messages[place] = message
        task = asyncio.create_task(self._exchange(posted.node, messages))
        self._repeating.add(task)
        task.add_done_callback(self._repeated)

    def _repeated(self, task: asyncio.Task[None]) -> None:
        self._repeating.discard(task)
        self._wake()

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
