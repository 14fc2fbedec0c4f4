"""What the broker has acknowledged is let go at once: a worker calls the collector seldom, and a batch may be a megabyte."""

from __future__ import annotations

import asyncio
import gc
import weakref

import numpy as np
import pytest

from streamapp.bus.columns import Carrier
from streamapp.bus.producer import producing
from streamapp.core.events import Segment
from streamapp.core.texts import Texts


@pytest.mark.parametrize("queued", [True, False])
async def test_what_is_acknowledged_is_let_go_without_the_collector(embedded: str, namespace: str, queued: bool) -> None:
    one = Segment("t", 0, 1, np.arange(1), np.zeros(1, np.int64), [b"k"], [b""], [()])
    async with asyncio.timeout(30), producing(embedded, {}) as producer:
        await producer.know([namespace])

        async def send() -> weakref.ref[object]:
            zero = np.zeros(1, np.int32)
            [[*_, batch]] = Carrier((one,), zero, zero).batches(Texts.of([b"v"]), np.zeros(1, np.int8), 1, 10_000, 0)
            await (producer.enqueue(batch, namespace, 0) if queued else producer.enqueue_all([(batch, namespace, 0)]))
            return weakref.ref(batch.packed.base)

        gc.disable()
        try:
            held = [await send() for _ in range(5)]
            alive = [number for number, memory in enumerate(held[:-1]) if memory() is not None]
        finally:
            gc.enable()
        assert alive == [], "only the last may be held, until aiokafka sends another"
