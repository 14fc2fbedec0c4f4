"""A state that a rebalance took and gave back is kept only where nobody else has written to its log meanwhile."""

from __future__ import annotations

import json

import pytest

from streamapp.bus.journal import KafkaJournal, SnapshotPolicy
from streamapp.bus.producer import producing
from streamapp.bus.topics import Topics
from streamapp.core.journal import Release
from streamapp.core.replay import Replay
from streamapp.ports import Settled
from tests.line import linear_model, run, segment, serving_of

SERVING = serving_of(linear_model())


async def trim(partition: int, before: int) -> None:
    """Removes nothing."""


@pytest.mark.parametrize(("records_of_another", "snapshot", "good"), [(0, False, True), (0, True, True), (2, False, False)])
async def test_a_worker_that_slept_does_not_take_its_late_record_for_the_end_of_the_log(
    embedded: str, namespace: str, records_of_another: int, snapshot: bool, good: bool
) -> None:
    """It wakes with a micro-batch in its hands and appends it behind what the one that took over has written."""
    topics = Topics(namespace)
    batch = segment([json.dumps({"event_id": "a", "user_id": "u", "text": "hello", "event_time": 5}).encode()])
    async with producing(embedded, {}) as mine, producing(embedded, {}) as theirs:
        journal, other = (KafkaJournal(one, topics, SERVING.state, 4, trim, SnapshotPolicy()) for one in (mine, theirs))
        await mine.know([topics.state])
        replay = Replay(SERVING.state.new)
        replay.position = 0
        journal.adopt(journal.loaded(0, 1, replay, 0))
        (state,) = journal.states([batch])
        outcome = run(SERVING, [batch], [state])
        journal.withdraw(0)
        for _ in range(records_of_another):
            await other.put(0, b"what the other one did")
        await journal.append([Settled(outcome, {}, Release(1, "r", ()))])
        if snapshot:
            back = await journal.returned(0)
            assert back is not None
            journal.adopt(back)
            await journal.save(back)
            journal.withdraw(0)
        kept = await journal.returned(0)
    assert (kept is not None) == good
    assert kept is None or kept.position == 1
