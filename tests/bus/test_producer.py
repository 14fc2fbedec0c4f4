"""A broker that is away for longer than `request.timeout.ms`: what was queued fails, so that the worker can stop instead of waiting."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

from streamapp.bus.columns import fill
from streamapp.bus.embedded import EmbeddedBroker
from streamapp.bus.producer import connected, producing
from streamapp.core.errors import BusError

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


async def test_a_batch_whose_partition_has_no_leader_is_not_given_up_alone(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker() as broker:
        async with asyncio.timeout(DEADLINE_S), producing(broker.address, {"request.timeout.ms": "1000"}) as producer:
            await producer.send_and_wait(namespace, b"x", partition=0)
            monkeypatch.setattr(producer.client.cluster, "leader_for_partition", lambda place: -1)
            # The sequence numbers of the first would be missing before the next: a broker takes none behind such a gap.
            for _ in range(2):
                with pytest.raises(KafkaTimeoutError):
                    await producer.send_and_wait(namespace, b"y", partition=0)
            with pytest.raises(BusError, match="not acknowledged an output within 1 s"):
                await producer.lost()


async def test_a_connection_that_breaks_while_the_coordinator_is_looked_for_ends_nothing(
    embedded: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # aiokafka as it is: its sender ends with "Unexpected error during batch delivery", and the producer never sends again.
    asked, real = [], AIOKafkaClient.coordinator_lookup

    async def lookup(self: AIOKafkaClient, kind: object, key: str) -> object:
        asked.append(key)
        if len(asked) < 3:
            raise KafkaConnectionError("Connection closed")
        return await real(self, kind, key)

    monkeypatch.setattr(AIOKafkaClient, "coordinator_lookup", lookup)
    async with asyncio.timeout(DEADLINE_S):
        producer = await connected(embedded, {}, transactional_id=namespace)
        await producer.stop()
    assert asked == [namespace] * 3
