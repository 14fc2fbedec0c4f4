"""The producer of a worker's outputs: aiokafka's, with a door through which whole record batches are queued without waiting."""

from __future__ import annotations

import asyncio
import copy
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.produce import ProduceRequest

from streamapp.bus.security import client_arguments
from streamapp.bus.topics import BATCH_BYTES_MAX, DEAD_LETTER_BYTES_MAX
from streamapp.core.errors import BusError

#: How long the broker may be away before an output is given up and the worker stops, unless `request.timeout.ms` says otherwise.
REQUEST_TIMEOUT_MS = 30_000


class _NoNode(set[int]):
    """aiokafka's list of nodes with a request on its way; that no node is ever in it lets requests overlap."""

    def add(self, node: int) -> None:
        """Does nothing: a partition with a batch on its way is left out all the same, so order and idempotence hold."""


class _Produce(ProduceRequest):
    """aiokafka's produce request, whose bytes are joined once: its own encoder copies every batch at each of six levels."""

    def build(self, request_struct_class: type[Any]) -> Any:
        return super().build(_JOINED.get(request_struct_class, request_struct_class))


def _joined(request: Any) -> bytes:
    name = request.transactional_id
    parts: list[Any] = [_INT16(-1)] if name is None else [_INT16(len(name.encode())), name.encode()]
    parts += [_INT16(request.required_acks), _INT32(request.timeout), _INT32(len(request.topics))]
    for topic, partitions in request.topics:
        parts += [_INT16(len(topic.encode())), topic.encode(), _INT32(len(partitions))]
        for partition, batch in partitions:
            parts += [_INT32(partition), _INT32(len(batch)), batch]
    return b"".join(parts)


#: Requests of versions 3 to 8 have one layout. A class each: an encoder in the instance would be a cycle, and hold its megabytes.
_JOINED = {one: type(one.__name__, (one,), {"encode": _joined}) for one in ProduceRequest._CLASSES if one.API_VERSION >= 3}
_INT16, _INT32 = struct.Struct(">h").pack, struct.Struct(">i").pack


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

    async def start(self) -> None:
        """Connects. Raises KafkaError."""
        await super().start()
        self._watching = asyncio.create_task(self._watch(self._request_timeout_ms / 1000))

    async def stop(self) -> None:
        """Sends what is queued, and closes."""
        await super().stop()  # it waits for every answer, so somebody has to give up where none comes
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, patience_s: float) -> None:
        queue = self._message_accumulator
        while True:
            await asyncio.sleep(patience_s / 10)
            oldest = [*(batches[0] for batches in queue._batches.values() if batches), *queue._pending_batches]
            if any(batch.expired() for batch in oldest):
                break
        await self._sender.close()  # first, so that nothing is sent that was given up
        given_up = [*(batch for batches in queue._batches.values() for batch in batches), *queue._pending_batches]
        queue.fail_all(KafkaTimeoutError(f"the broker has not acknowledged it within {patience_s:g} s"))
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
        queue = self._message_accumulator
        if queue._closed:
            raise ProducerClosed
        if queue._exception is not None:
            raise copy.copy(queue._exception)
        if partition not in (self.client.cluster.partitions_for_topic(topic) or ()):
            raise KafkaTimeoutError(f"the broker does not tell of {topic}-{partition}")
        answer: asyncio.Future[Any] = queue._append_batch(batch, TopicPartition(topic, partition)).future
        return answer


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
        raise BusError(f"no broker answers at {bootstrap}: {refused!r}", "start one, or set --bootstrap HOST:PORT") from refused
    return producer
