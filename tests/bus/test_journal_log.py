"""The log of one partition's state: what a rebalance gave back is kept only where nobody else wrote, and a snapshot says what it holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streamapp.bus.guarantee import AtLeastOnce
from streamapp.bus.journal import KafkaJournal, Kept
from streamapp.bus.producer import producing
from streamapp.bus.security import client_arguments
from streamapp.bus.statelog import log_reader
from streamapp.bus.topics import Topics
from streamapp.core import journal as codec
from streamapp.core.events import Segment
from streamapp.core.journal import Head, Release
from streamapp.core.replay import Replay
from streamapp.ports import Settled
from tests.line import linear_model, run, segment, serving_of

SERVING = serving_of(linear_model())
PARTITIONS = 4


@asynccontextmanager
async def journal_on(broker: str, topics: Topics) -> AsyncIterator[KafkaJournal]:
    async def trim(partition: int, before: int) -> None:
        """Keeps all."""

    async with producing(broker, {}) as producer:
        await producer.know([topics.state])
        yield KafkaJournal(AtLeastOnce(producer), topics, SERVING.state, PARTITIONS, trim)


async def begun(journal: KafkaJournal) -> Kept:
    """Gives partition 0 with the record that every log begins with."""
    log_next = await journal.put(0, codec.encode(Head("delta", -1, 0, 1, PARTITIONS, -1, 0, (0,) * 5), b"")) + 1
    replay = Replay(SERVING.state.new)
    replay.position = 0
    kept = journal.loaded(0, 1, replay, log_next)
    journal.adopt(kept)
    return kept


def records(first: int, count: int) -> Segment:
    values = [
        json.dumps({"event_id": f"e{at}", "user_id": "u", "text": "hello", "event_time": at}).encode() for at in range(first, first + count)
    ]
    return segment(values, first=first)


def decided(journal: KafkaJournal, batch: Segment) -> Settled:
    return Settled(run(SERVING, [batch], journal.states([batch])), {}, Release(1, "r", ()))


@pytest.mark.parametrize(("records_of_another", "snapshot", "good"), [(0, False, True), (0, True, True), (2, False, False)])
async def test_a_worker_that_slept_does_not_take_its_late_record_for_the_end_of_the_log(
    embedded: str, namespace: str, records_of_another: int, snapshot: bool, good: bool
) -> None:
    """It wakes with a micro-batch in its hands and appends it behind what the one that took over has written."""
    topics = Topics(namespace)
    async with journal_on(embedded, topics) as journal, journal_on(embedded, topics) as other:
        kept = await begun(journal)
        in_hand = decided(journal, records(0, 1))
        if not snapshot:
            journal.withdraw(0)
        for _ in range(records_of_another):
            await other.put(0, b"what the other one did")
        await journal.append([in_hand])
        if snapshot:
            await journal.save(kept)
            journal.withdraw(0)
        back = await journal.returned(0)
    assert (back is kept) == good
    assert kept.position == 1


async def test_a_snapshot_holds_what_it_says_also_when_one_append_brings_more_than_it_waited_for(embedded: str, namespace: str) -> None:
    topics = Topics(namespace)
    async with journal_on(embedded, topics) as journal:
        kept = await begun(journal)
        before = decided(journal, records(0, 2))
        saving = asyncio.create_task(journal.save(kept))
        await asyncio.sleep(0)
        assert kept.covered is not None
        await journal.ready()
        after = decided(journal, records(2, 3))
        await journal.append([before, after])
        await saving
        await journal.append([decided(journal, records(5, 1))])
        replay = Replay(SERVING.state.new)
        async with log_reader(embedded, client_arguments({})) as reader:
            await reader.replay(topics.state, 0, replay)
    assert (replay.position, replay.snapshots, len(replay.state.seen)) == (6, 1, 6)
