"""A broker that is away for longer than `request.timeout.ms`: what was queued fails, so that the worker can stop instead of waiting."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaTimeoutError

from streamapp.bus.columns import fill
from streamapp.bus.embedded import EmbeddedBroker
from streamapp.bus.producer import producing

DEADLINE_S = 30


async def test_what_no_broker_acknowledges_in_time_fails_and_so_does_all_that_follows(namespace: str) -> None:
    with EmbeddedBroker() as broker:
        async with asyncio.timeout(DEADLINE_S), producing(broker.address, {"request.timeout.ms": "1000"}) as producer:
            await producer.know([namespace])

            def send(partition: int) -> asyncio.Future[object]:
                (batch,) = fill([(None, b"x", [])], 1000, 0)
                return producer.enqueue(batch, namespace, partition)

            await send(0)
            broker.close()
            first, behind, beside = send(0), send(0), send(1)
            for one in (first, behind, beside):
                with pytest.raises(KafkaTimeoutError, match="not acknowledged it within 1 s"):
                    await one
            with pytest.raises(KafkaTimeoutError):
                send(2)
