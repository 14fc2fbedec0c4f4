"""A worker's copies of labels and lists while their broker hangs, comes back and is killed: they say that they are behind, in time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from streamapp.bus import caught_up
from streamapp.bus.feed import feeder
from streamapp.bus.labels import LabelTopic
from streamapp.bus.lists import ListTopic
from streamapp.config import load_pipeline
from streamapp.control.release import assemble
from streamapp.core.lists_entry import encode, entry_of

DEADLINE_S = 60.0
LIMIT_S = 4.0
LIST = "blocked_addresses"


@pytest.fixture
def broker() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A broker that can be stopped by signals, and its address."""
    command = [sys.executable, "-m", "streamapp.bus.embedded", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


class Copies:
    """Both copies of one worker, followed."""

    def __init__(self, address: str, namespace: str) -> None:
        self.spec = load_pipeline("payments")
        serving = assemble(self.spec, {}, b"test-key-of-16-b")
        assert serving.lists is not None
        self.topic = f"{namespace}.lists.v1"
        self.address = address
        self.lists = ListTopic(serving.lists, self.topic, address, {})
        self.labels = LabelTopic(serving.labels, f"{namespace}.labels.v1", address, {}, since_ms=None)

    def behind(self) -> list[str]:
        """Gives what verdicts would name now."""
        return [f"{one.component}: {one.cause}" for one in (*self.lists.read()[1], *self.labels.read().degraded)]

    async def put(self, entry: str) -> None:
        key, made = entry_of(LIST, self.spec.lists[LIST], entry, None, owner="", reason="", added_at=1, expires_at=0)
        async with feeder(self.address, self.topic, in_one_order=True) as lists:
            await lists.send([key], [encode(made)])


async def until(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up, f"did not happen: {what}"
        await asyncio.sleep(0.02)


async def for_the_limit(since_s: float, look: Callable[[], object]) -> None:
    """Looks until the limit is over: nothing else than time decides what is said then."""
    while time.monotonic() <= since_s + LIMIT_S:
        look()
        await asyncio.sleep(0.05)


async def test_a_copy_whose_broker_is_away_says_so_within_the_limit_and_no_longer_when_it_is_back(
    broker: tuple[subprocess.Popen[str], str], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caught_up, "BEHIND_MAX_S", LIMIT_S)
    process, address = broker
    copies = Copies(address, namespace)
    try:
        await copies.put("192.0.2.1")
        async with feeder(address, f"{namespace}.labels.v1"):
            pass  # the topic is there now
        await copies.lists.load()
        await copies.labels.load()
        running = asyncio.gather(copies.lists.run(), copies.labels.run())
        told: list[str] = []
        await for_the_limit(time.monotonic() + LIMIT_S / 2, lambda: told.extend(copies.behind()))
        assert told == [], "quiet topics of a broker that answers"
        os.kill(process.pid, signal.SIGSTOP)
        await for_the_limit(time.monotonic(), copies.behind)
        assert copies.behind() == ["lists: behind", "labels: behind"], "a broker that hangs"
        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: not copies.behind(), "back again")
        version = copies.lists.table.version
        await copies.put("192.0.2.2")
        await until(lambda: copies.lists.table.version != version, "what is put on a list afterwards is known")
        process.kill()
        process.wait(DEADLINE_S)
        await for_the_limit(time.monotonic(), copies.behind)
        assert copies.behind() == ["lists: behind", "labels: behind"], "a broker that is gone"
        assert not running.done(), "it is asked for again for ever"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    finally:
        await copies.lists.close()
        await copies.labels.close()


PLACE = TopicPartition("t", 0)


class Growing:
    """A consumer of a topic that grows all the time; `at` is how far its copy has come."""

    end, at = 100, 0

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    async def end_offsets(self, _: set[TopicPartition]) -> dict[TopicPartition, int]:
        return {PLACE: self.end}


async def test_a_copy_that_is_always_a_little_behind_a_busy_topic_is_not_called_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Growing()
    monkeypatch.setattr(caught_up, "ASK_S", 0.02)
    monkeypatch.setattr(caught_up, "BEHIND_MAX_S", 0.5)
    monkeypatch.setattr(caught_up, "position", lambda consumer, place: topic.at)
    copy = caught_up.CaughtUp(cast(AIOKafkaConsumer, topic))
    asking = asyncio.create_task(copy.run())
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        topic.end += 10
        topic.at = topic.end - 50  # five turns, and two questions, behind
        copy.look()
        assert not copy.behind
        await asyncio.sleep(0.01)
    topic.end = topic.at = 5  # the topic was made anew: the end that was to be reached is there no more
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        copy.look()
        await asyncio.sleep(0.01)
    assert not copy.behind
    asking.cancel()
