"""While a slow tier is asked, states have moved without their decisions: no snapshot is taken of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamapp.bus.journal import KafkaJournal, Kept
from streamapp.bus.topics import Topics
from streamapp.core.state import StatePlan
from streamapp.core.windows_partition import PartitionState
from tests.line import SPEC


class Watched(PartitionState):
    """A state that notes when it is copied."""

    copied = False

    def snapshot(self) -> Any:
        self.copied = True
        return super().snapshot()


async def test_a_snapshot_waits_until_what_moves_holds_its_decisions_and_deciding_waits_for_the_snapshot() -> None:
    plan, put = StatePlan(SPEC), list[bytes]()

    class Saving(KafkaJournal):
        async def put(self, partition: int, record: bytes) -> int:
            put.append(record)
            return len(put)

    async def trim(partition: int, before: int) -> None:
        """Nothing is kept anywhere."""

    new = plan.new()
    state = Watched(new.clock, new.seen, new.stores)
    journal = Saving(None, Topics("t"), plan, 1, trim)  # type: ignore[arg-type]
    kept = Kept(0, 1, state, 0, [], 0, -1, {})
    with journal.moving():
        saving = asyncio.create_task(journal.save(kept))
        waiting = asyncio.create_task(journal.ready())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(saving), 0.05)
        assert not state.copied and not waiting.done()
    await asyncio.wait_for(saving, 5)
    await asyncio.wait_for(waiting, 5)
    assert state.copied and put
