"""The end of a consumer, also while its broker is away."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer

_AGAIN_S = 0.1


async def disconnect(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer.

    aiokafka's fetch task swallows a cancellation that meets it after a change of partitions; and a fetch that sleeps after a failure, as
    where the broker is away, passes its own cancellation on to whoever stops the consumer, which then stays half open.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    while not (await asyncio.wait({stopping}, timeout=_AGAIN_S))[0]:
        if consumer._fetcher is not None:  # None where it never started
            consumer._fetcher._fetch_task.cancel()
    if not stopping.cancelled():
        stopping.result()
        return
    left = list(consumer._fetcher._pending_tasks)
    for fetch in left:
        fetch.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await consumer._client.close()
