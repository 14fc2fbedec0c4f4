"""The lists topic: compacted, in one order (its first partition), read whole by every worker and by whoever looks at a list.

Records stay for a week after they were replaced or taken away, so that the lists of any offset of that week can be put together again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from streamapp.bus.caught_up import CaughtUp
from streamapp.bus.follow import Follower, Record, follower
from streamapp.core.cascade import Degraded
from streamapp.core.errors import BusError
from streamapp.core.lists import ListPlan
from streamapp.core.lists_table import ListTable

log = logging.getLogger(__name__)

COMPONENT = "lists"
#: Records taken in between two micro-batches: about 4 ms.
FOLLOW_ROWS = 500
STALL_S = 30.0
_POLL_MS = 200
_AGAIN_S = 1.0

Told = Callable[[str, float], None]


class ListTopic:
    """One worker's copy of the lists. `load`, then `run` beside the line; `close` when done."""

    def __init__(self, plan: ListPlan, topic: str, bootstrap: str, client: Mapping[str, Any]) -> None:
        self.table, self.refused = plan.table(), 0
        self._topic, self._bootstrap, self._client = topic, bootstrap, client
        self._records: Follower
        self._caught_up: CaughtUp
        self._opened = AsyncExitStack()
        self._behind = (Degraded(COMPONENT, "behind"),)

    def read(self) -> tuple[ListTable, tuple[Degraded, ...]]:
        """Gives the copy, and that it is behind where it has not held all of the topic for more than BEHIND_MAX_S; `load` comes first."""
        return self.table, self._behind if self._caught_up.behind else ()

    async def load(self, told: Told = lambda what, share: None) -> None:
        """Takes in what the topic holds now. Raises BusError when it cannot be read or does not move for STALL_S."""
        told(COMPONENT, 0.0)
        connecting = follower(self._bootstrap, [self._topic], self._client, fetch_wait_ms=_POLL_MS)
        self._records = await self._opened.enter_async_context(connecting)
        async for found, share in whole(self._records, self._topic):
            self._take(found)
            told(COMPONENT, share)
        self._caught_up = self._records.caught_up()
        told(COMPONENT, 1.0)
        log.info("%d entries of lists, version %s", len(self.table), self.table.version)

    async def run(self) -> None:
        """Follows until cancelled; what the broker refuses is asked for again, and the copy says that it is behind."""
        await asyncio.gather(self._caught_up.run(), self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                self._take(await self._records.poll(_POLL_MS, FOLLOW_ROWS))
                self._caught_up.look()
            except BusError as failed:
                log.warning("Lists cannot be read, what is known of them is used: %s", failed)
                await asyncio.sleep(_AGAIN_S)

    async def close(self) -> None:
        """Ends the connection."""
        await self._opened.aclose()

    def _take(self, records: list[Record]) -> None:
        for record in records:
            if record.partition:
                continue
            try:
                self.table.apply(record.offset, record.key, record.value)
            except ValueError as wrong:
                self.refused += 1
                log.warning("Record %d of %s is passed over: %s", record.offset, self._topic, wrong)


async def whole(records: Follower, topic: str, ends: Mapping[Any, int] | None = None) -> AsyncIterator[tuple[list[Record], float]]:
    """Gives what a topic holds now, or before `ends`, in parts, each with the share that is read with it. Raises BusError when it stalls.

    Some of what came behind the ends may be in the last parts.
    """
    ends = await records.ends() if ends is None else ends
    if not ends:
        raise BusError(f"the broker knows no topic {topic}", "create it with `streamapp topics create`")
    moved_s, total = time.monotonic(), await records.left(ends)
    left = total
    while left:
        found = await records.poll(_POLL_MS)
        if found:
            moved_s = time.monotonic()
        elif time.monotonic() - moved_s > STALL_S:
            raise BusError(f"{topic} gives nothing, {left} records before its end", "check it with `streamapp doctor`")
        left = await records.left(ends)
        yield found, 1 - left / max(1, total)
