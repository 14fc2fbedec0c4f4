"""What waits for the monitoring topic: on its way at once, refused records stay in order, and a stop is not outlasted."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.bus.topics import Topics
from streamapp.cli import watching
from streamapp.cli.watching import Watch
from streamapp.core.errors import BusError


class Broker:
    """A delivery that takes what it is told to take, when it is told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.refused: set[bytes] = set()
        self.on_their_way = self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    async def publish(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        self.on_their_way += 1
        self.most = max(self.most, self.on_their_way)
        await asyncio.sleep(0)
        await self.open.wait()
        self.on_their_way -= 1
        if value in self.refused:
            raise BusError("the broker does not take it", "check it")
        self.sent.append(value)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def watch(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Watch with nothing but its outbox."""
    monkeypatch.setattr(watching, "to_record", lambda partial, name, release: b"%d" % partial.number)
    one: Any = Watch.__new__(Watch)
    one._outbox, one._delivery, one._topics = deque(), broker, Topics("ns")
    one._spec = SimpleNamespace(pipeline=SimpleNamespace(name="messages"))
    one._merging, one._count, one._windows = None, lambda: None, SimpleNamespace(flush=list)
    one._outbox.extend(("r", SimpleNamespace(partition=number % 4, number=number)) for number in range(1000))
    return one


async def test_all_that_waits_is_on_its_way_at_once_and_in_order(watch: Any, broker: Broker) -> None:
    await watch._publish()
    assert broker.sent == [b"%d" % number for number in range(1000)] and not watch._outbox
    assert broker.most == watching.PUBLISHED_AT_ONCE


async def test_what_is_refused_waits_in_its_order_and_is_sent_the_next_time(watch: Any, broker: Broker) -> None:
    broker.refused = {b"3", b"7"}
    await watch._publish()
    assert [one.number for _, one in watch._outbox][:3] == [3, 7, watching.PUBLISHED_AT_ONCE]
    broker.refused = set()
    await watch._publish()
    assert sorted(map(int, broker.sent)) == list(range(1000)) and not watch._outbox


async def test_a_stop_does_not_wait_for_a_broker_that_does_not_answer(
    watch: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "FINISH_S", 0.05)
    broker.open.clear()
    await asyncio.wait_for(watch.finish(), 10)
    assert "were not sent" in caplog.text
