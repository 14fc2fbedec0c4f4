"""One micro-batch ahead: in order, nothing waits for what has not come, and what another thread read is what would have been read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.lookahead import ROWS_MIN, beside, looking_ahead


async def _arriving(queue: asyncio.Queue[int | None]) -> AsyncIterator[int]:
    while (batch := await queue.get()) is not None:
        yield batch


def _come(log: list[str], batch: int) -> int:
    log.append(f"come {batch}")
    return batch


async def test_a_batch_that_waits_is_looked_at_before_the_one_in_front_is_given() -> None:
    queue, log = asyncio.Queue[int | None](), list[str]()
    for batch in (1, 2, 3, None):
        queue.put_nowait(batch)
    async for one in looking_ahead(_arriving(queue), lambda batch: _come(log, batch)):
        log.append(f"decide {one}")
        await asyncio.sleep(0)
    assert log == ["come 1", "come 2", "decide 1", "come 3", "decide 2", "decide 3"]


async def test_a_lonely_batch_is_given_without_waiting_for_the_next() -> None:
    queue = asyncio.Queue[int | None]()
    async with asyncio.timeout(5), aclosing(looking_ahead(_arriving(queue), lambda batch: batch)) as arriving:
        for batch in (1, 2):
            queue.put_nowait(batch)
            assert await anext(arriving) == batch


async def test_what_the_source_fails_with_is_raised() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise OSError("gone")

    async def take_all() -> None:
        async for one in looking_ahead(failing(), lambda batch: batch):
            assert one == 1

    with pytest.raises(OSError, match="gone"):
        await take_all()


async def test_the_source_is_let_go_when_nobody_wants_more() -> None:
    queue = asyncio.Queue[int | None]()
    queue.put_nowait(1)
    ahead = looking_ahead(_arriving(queue), lambda batch: batch)
    assert await anext(ahead) == 1
    await ahead.aclose()
    await asyncio.sleep(0)  # the task that was cancelled just now ends
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_only_large_plans_with_texts_are_read_beside_the_loop() -> None:
    read: list[int] = []
    texts: Any = SimpleNamespace(features=SimpleNamespace(reads_texts=True, read_texts=lambda plan: read.append(len(plan))))
    none: Any = SimpleNamespace(features=SimpleNamespace(reads_texts=False))
    small: Any = range(ROWS_MIN - 1)
    large: Any = range(ROWS_MIN)
    with ThreadPoolExecutor(1) as executor:
        ahead = beside(executor)
        assert ahead(small, texts) is None and ahead(large, none) is None
        reading = ahead(large, texts)
        assert reading is not None
        await reading
    assert read == [ROWS_MIN]
