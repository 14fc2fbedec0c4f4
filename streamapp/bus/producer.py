"""The producer of a worker's outputs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streamapp.bus.emit import BATCH_BYTES_MAX
from streamapp.bus.security import client_arguments
from streamapp.bus.topics import DEAD_LETTER_BYTES_MAX
from streamapp.core.errors import BusError


@asynccontextmanager
async def producing(bootstrap: str, kafka: Mapping[str, str]) -> AsyncIterator[AIOKafkaProducer]:
    """Gives a started producer whose acknowledgements mean that all in-sync replicas have the record, once."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,  # a micro-batch is already as large as it gets
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=DEAD_LETTER_BYTES_MAX,
        request_timeout_ms=30_000,
        retry_backoff_ms=20,
        **client_arguments(kafka),
    )
    try:
        await producer.start()
    except KafkaError as refused:
        raise BusError(f"no broker answers at {bootstrap}: {refused!r}", "start one, or set --bootstrap HOST:PORT") from refused
    try:
        yield producer
    finally:
        await producer.stop()
