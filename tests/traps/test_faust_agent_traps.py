"""What agents, tables and windows of Faust 0.15 do today, and why the transport brings acks, outputs and state of its own.

When one of these fails after an upgrade, the detour may go.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.producer import AIOKafkaProducer
from faust.transport.producer import ProducerBuffer

from tests.bus.transport_ground import committed, until

KEY = ("terminal", (0.0, 10.0))  # a window of 1970


@pytest.fixture
async def app() -> AsyncIterator[faust.App]:
    stock_app = faust.App("traps", broker="kafka://127.0.0.1:1", autodiscover=False, store="memory://")
    yield stock_app
    if stock_app._consumer is not None:
        stock_app._consumer._thread.thread_loop.close()  # made with the consumer, closed only by a thread that ran


# -- 3 send, sink and flush of agents


async def test_an_awaited_send_is_not_delivered(app: faust.App, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def send(*_: Any, **__: Any) -> asyncio.Future[Any]:
        return delivered

    async def producer() -> Any:
        return SimpleNamespace(send=send)

    topic = app.topic("verdicts", value_type=bytes, value_serializer="raw")
    monkeypatch.setattr(topic, "_get_producer", producer)
    sent: Any = await topic.send(value=b"1")
    assert not sent.done() and not delivered.done(), "the broker has acknowledged nothing, and the agent goes on to its ack"


async def test_a_sink_gets_neither_key_nor_anybody_who_waits(app: faust.App, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    delivered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def send(**what: Any) -> asyncio.Future[Any]:
        told.append(what)
        return delivered

    sink = app.topic("verdicts")
    monkeypatch.setattr(sink, "send", send)

    @app.agent(app.topic("events"), sink=[sink])
    async def line(stream: Any) -> Any:
        async for value in stream:
            yield value

    await line._delegate_to_sinks(b"1")
    assert told == [{"value": b"1"}]
    assert not delivered.done()


async def test_a_flush_gives_up_after_a_tenth_of_a_second_with_messages_left(app: faust.App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProducerBuffer, "state", "running")
    buffer = ProducerBuffer()
    buffer.app = app
    buffer.pending.put_nowait(SimpleNamespace())
    await asyncio.wait_for(buffer.flush(), 30)
    assert buffer.size == 1


# -- 4 records that are lost


async def test_concurrency_commits_past_a_record_that_is_still_in_work(
    embedded: str, embedded_faust: dict[str, Any], namespace: str
) -> None:
    """The loss itself: whoever starts after a crash goes on behind a record that nobody has finished."""
    topic = f"{namespace}.events.v1"
    app = faust.App(namespace, broker=f"kafka://{embedded}", broker_commit_interval=0.1, **embedded_faust)
    app._create_directories = lambda: None  # type: ignore[method-assign]
    begun: list[bytes] = []
    done: list[bytes] = []
    never = asyncio.Event()

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"), concurrency=2)
    async def line(stream: Any) -> None:
        async for value in stream:
            begun.append(value)
            if value == b"0":
                await never.wait()
            done.append(value)

    producer = AIOKafkaProducer(bootstrap_servers=embedded)
    await producer.start()
    await producer.partitions_for(topic)
    for number in range(3):
        await producer.send_and_wait(topic, b"%d" % number, partition=0)
    await producer.stop()
    await app.start()
    try:
        await until(lambda: len(done) == 2 and b"0" in begun, "the other records are done")
        give_up = time.monotonic() + 20
        while (await committed(embedded, namespace, topic))[0] != 3:
            assert time.monotonic() < give_up, "Faust no longer commits past what is in work"
        assert done == [b"1", b"2"]
    finally:
        never.set()
        await app.stop()


# -- 5 windows and tables


def windowed(app: faust.App) -> Any:
    return app.Table("counts", default=int, partitions=1).tumbling(10.0, expires=10.0).table


async def test_a_restored_window_never_expires(app: faust.App) -> None:
    table = windowed(app)
    restored = SimpleNamespace(key=KEY, value=3, message=SimpleNamespace(value=b"3", partition=0, offset=0, tp=None))
    table.apply_changelog_batch([restored])
    await table._del_old_keys()
    assert dict(table.data) == {KEY: 3}


async def test_windows_expire_by_the_clock_on_the_wall(app: faust.App) -> None:
    """A replay of old events loses each window at once, though no later event has been seen."""
    table = windowed(app)
    table.data[KEY] = 3
    table._maybe_set_key_ttl(KEY, 0)
    assert table._partition_latest_timestamp == defaultdict(int, {0: KEY[1][1]})
    await table._del_old_keys()
    assert dict(table.data) == {}


async def test_no_table_can_be_written_in_take(embedded: str, embedded_faust: dict[str, Any], namespace: str) -> None:
    topic = f"{namespace}.events.v1"
    app = faust.App(namespace, broker=f"kafka://{embedded}", **embedded_faust)
    app._create_directories = lambda: None  # type: ignore[method-assign]
    table = faust.App(f"{namespace}-tables", broker="kafka://127.0.0.1:1", autodiscover=False, store="memory://").Table(
        "counts", default=int
    )
    refused: list[TypeError] = []

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"))
    async def line(stream: Any) -> None:
        async for _ in stream.take(10, within=0.1):
            try:
                table["k"] += 1
            except TypeError as outside:
                refused.append(outside)

    producer = AIOKafkaProducer(bootstrap_servers=embedded)
    await producer.start()
    await producer.partitions_for(topic)
    await producer.send_and_wait(topic, b"1", partition=0)
    await producer.stop()
    await app.start()
    try:
        await until(lambda: bool(refused), "take refuses the write")
        assert "outside of stream iteration" in str(refused[0])
    finally:
        await app.stop()
