"""Who is told which partitions came and went, and holds each until its state is loaded."""

from __future__ import annotations

from typing import Protocol

from streamapp.bus.acks import Partition


class PartitionListener(Protocol):
    """Told about partitions of batched topics, so that it can load their state; set as `app.partition_listener` before the start."""

    async def on_assigned(self, generation: int, partitions: frozenset[Partition]) -> None:
        """Runs in its own task, cancelled by the next rebalance; all `partitions` are held until `release(partition, offset)`."""
        ...

    async def on_revoked(self, generation: int, partitions: frozenset[Partition]) -> None:
        """Runs in its own task after the acknowledged progress of `partitions` was committed."""
        ...
