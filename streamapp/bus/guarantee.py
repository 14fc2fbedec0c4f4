"""When what a micro-batch has sent counts: with each acknowledgement (at least once), or all together with a transaction (exactly once).

Both stand behind one port, so that Delivery, KafkaJournal and Recovery are the same code under either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from aiokafka.producer.message_accumulator import BatchBuilder

from streamapp.bus.producer import Parcel, Producer

#: Ends when everything counts; gives the partitions of which it does not, because they have another owner. Raises BusError.
Counted = Awaitable[frozenset[int]]


class Effects(Protocol):
    """What is sent and counts as a whole: the records of one micro-batch, or one record beside them."""

    def enqueue(self, batch: BatchBuilder, topic: str, partition: int) -> asyncio.Future[Any]:
        """Queues a batch; gives the broker's answer to come. `partition` is that of topic and source alike. Raises KafkaError."""
        ...

    def enqueue_all(self, parcels: Sequence[Parcel]) -> asyncio.Future[Sequence[int]]:
        """Queues batches; gives the base offset of each to come, -1 where it is not known. Raises KafkaError."""
        ...

    def leave(self) -> Counted | None:
        """Says that nothing more comes; gives when it counts, None where it does as soon as it is acknowledged."""
        ...


class Guarantee(Protocol):
    """The port: how outputs and state records reach the broker under one kind of delivery."""

    #: Whether record batches carry the mark of a transaction.
    transactional: bool

    async def know(self, topics: Sequence[str]) -> None:
        """Waits until it is known where the partitions of `topics` are. Raises KafkaError."""
        ...

    def enter(self) -> Effects:
        """Opens the effects of the next micro-batch; `leave` closes them in this order."""
        ...

    def oldest(self) -> Effects:
        """Gives the effects of the micro-batch that entered first of those that have not left."""
        ...

    def leave(self, micro_batches: int) -> Counted | None:
        """Closes the effects of the oldest micro-batches; gives when all of them count, None where they do already."""
        ...

    def aside(self) -> Effects:
        """Opens effects beside the micro-batches: the opening of a journal, a chunk of a snapshot."""
        ...

    async def own(self, partition: int) -> None:
        """Makes this worker the only one whose records of a source partition will count; comes before its state is read.

        Raises BusError.
        """
        ...

    def give_up(self, partition: int) -> None:
        """Notes that a source partition is ours no longer: what does not count yet need not count any more."""
        ...

    async def close(self) -> None:
        """Ends what is open; what does not count by now never will."""
        ...


class AtLeastOnce:
    """One idempotent producer for all partitions: what is acknowledged counts. It costs nothing beside the producer."""

    transactional = False

    def __init__(self, producer: Producer) -> None:
        self._producer, self.enqueue, self.enqueue_all = producer, producer.enqueue, producer.enqueue_all

    async def know(self, topics: Sequence[str]) -> None:
        """Waits until the producer knows the topics. Raises KafkaError."""
        await self._producer.know(topics)

    def enter(self) -> Effects:
        """Gives the producer's queue."""
        return self

    oldest = aside = enter

    def leave(self, micro_batches: int = 1) -> Counted | None:
        """Gives None: what is acknowledged counts."""
        return None

    async def own(self, partition: int) -> None:
        """Does nothing: a former owner that still sends repeats verdicts, equal ones (docs/guarantees.md)."""

    def give_up(self, partition: int) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Does nothing: the producer belongs to whoever made it."""
