"""What Faust 0.15 does today and the transport routes around: when one of these fails after an upgrade, the detour may go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiokafka.codec
import aiokafka.consumer.group_coordinator as group_coordinator
import faust
import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer import fetcher
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer import AIOKafkaProducer
from aiokafka.producer.message_accumulator import MessageBatch
from faust.transport.drivers import aiokafka as stock
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streamapp.bus.app import build_app, source_topic
from streamapp.bus.transport import Producer
from streamapp.core.errors import ConfigError

SOURCE = TP("events", 0)


def message(offset: int, value: Any, tp: TP = SOURCE) -> ConsumerMessage:
    return ConsumerMessage(tp.topic, tp.partition, offset, 0.0, 0, None, None, value, None, 0, 0, tp)


@pytest.fixture
async def app() -> AsyncIterator[faust.App]:
    stock_app = faust.App("traps", broker="kafka://127.0.0.1:1", autodiscover=False)
    yield stock_app
    if stock_app._consumer is not None:
        stock_app._consumer._thread.thread_loop.close()  # made with the consumer, closed only by a thread that ran


# -- (a) the accelerated iterator


async def test_cython_iterator_inlines_the_ack_so_a_batch_would_ack_its_one_offset(app: faust.App) -> None:
    from faust._cython.streams import StreamIterator

    consumer = app.consumer
    app.topics._acking_topics.add("events")
    asked: list[Any] = []
    consumer.ack = asked.append
    event_message = message(500, b"batch of 501 records")
    event_message.incref()
    event = app.create_event(None, b"", None, event_message)
    StreamIterator(app.topic("events").stream()).after(event, True, None)  # noqa: FBT003  # positional in Cython
    assert asked == [], "Consumer.ack is asked now: overriding it would be enough"
    assert consumer._acked[SOURCE] == [500]
    consumer._committed_offset[SOURCE] = 10
    assert consumer._new_offset(SOURCE) is None, "the commit stalls at the gap that the other records of the batch leave"


async def test_nothing_of_a_batched_topic_reaches_that_ack() -> None:
    app = build_app("x", "127.0.0.1:1")
    app.topics.add(source_topic(app, "events"))
    await app.topics._update_indices()
    assert "events" in app.topics.sources
    assert not app.topics.acks_enabled_for("events")


# -- (b), (c) bounds that count events and sleep


async def test_stream_buffer_maxsize_counts_events_not_records(app: faust.App) -> None:
    assert app.topic("events").queue.maxsize == app.conf.stream_buffer_maxsize == 4096


async def test_polling_without_active_partitions_sleeps_a_whole_second(app: faust.App, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(app.consumer, "sleep", sleep)
    await app.consumer._wait_next_records(timeout=0.01)
    assert slept == [1]


# -- 1 acks of agents that raise


@pytest.mark.parametrize("taking", [False, True], ids=["iteration", "take"])
async def test_an_agent_that_raises_acks(embedded: str, embedded_faust: dict[str, Any], namespace: str, taking: bool) -> None:
    topic = f"{namespace}.events.v1"
    app = faust.App(namespace, broker=f"kafka://{embedded}", **embedded_faust)
    app._create_directories = lambda: None  # type: ignore[method-assign]
    failed = []

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"))
    async def line(stream: Any) -> None:
        async for _ in stream.take(10, within=0.1) if taking else stream:
            failed.append(1)
            raise RuntimeError("the line failed")

    producer = AIOKafkaProducer(bootstrap_servers=embedded)
    await producer.start()
    await producer.partitions_for(topic)
    await producer.send_and_wait(topic, b"1", partition=0)
    await producer.stop()
    await app.start()
    try:
        deadline = time.monotonic() + 20
        while not (failed and app.consumer._acked_index[TP(topic, 0)] | set(_committed(app, topic))):
            assert time.monotonic() < deadline, "Faust no longer acks what an agent failed on"
            await asyncio.sleep(0.02)
    finally:
        await app.stop()


def _committed(app: faust.App, topic: str) -> Iterator[int]:
    offset = app.consumer._committed_offset[TP(topic, 0)]
    if offset:
        yield offset


# -- 2 bytes are decoded


async def test_value_type_bytes_decodes_json_and_our_schema_does_not(app: faust.App) -> None:
    plain = await app.topic("events", value_type=bytes).decode(message(1, b'{"a": 1}'))
    assert plain.value == {"a": 1}
    for value in (b'{"a": 1}', b"{", None):
        event = await source_topic(app, "events").decode(message(1, value))
        assert event.value is value


# -- 4 the gap logic


async def test_gap_logic_commits_past_the_record_in_flight_after_a_gap(app: faust.App) -> None:
    consumer = app.consumer
    consumer._committed_offset[SOURCE] = 10
    await consumer._add_gap(SOURCE, 11, 15)  # what the fetch loop does when 15 follows 10
    consumer._acked[SOURCE] = [16]  #           16 is done, 15 is not
    assert consumer._new_offset(SOURCE) == 17


# -- 6 defaults


def test_defaults_that_are_overridden() -> None:
    stock_conf = faust.App("defaults", broker="kafka://127.0.0.1:1", autodiscover=False).conf
    ours = build_app("defaults", "127.0.0.1:1").conf
    faust_now = {
        "broker_max_poll_interval": 1000.0,
        "broker_session_timeout": 60.0,
        "producer_request_timeout": 1200.0,
        "producer_max_batch_size": 16384,
        "table_standby_replicas": 1,
        "web_enabled": True,
        "topic_allow_declare": True,
        "stream_wait_empty": True,
        "broker_commit_interval": 2.8,
    }
    assert {name: getattr(stock_conf, name) for name in faust_now} == faust_now
    assert [name for name, value in faust_now.items() if getattr(ours, name) == value] == []
    assert ours.table_standby_replicas == 0
    assert ours.producer_acks == -1
    assert str(ours.store) == "memory:"


class Unstarted(AIOKafkaConsumer):
    """Never started, so that there is nothing to close and to complain about."""

    def __del__(self) -> None:
        pass


async def test_fetch_wait_is_hard_coded_and_ours_is_not(app: faust.App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock.aiokafka, "AIOKafkaConsumer", Unstarted)
    thread = app.consumer._thread
    assert thread._create_worker_consumer(app.transport)._fetch_max_wait_ms == 1500
    ours = build_app("x", "127.0.0.1:1")
    client = ours.consumer._thread
    assert client._create_worker_consumer(ours.transport)._fetch_max_wait_ms == ours.batch_limits.fetch_wait_ms < 100


async def test_idempotence_is_off_and_ours_is_on(app: faust.App) -> None:
    def settings(of: faust.App) -> dict[str, Any]:
        return {**of.producer._settings_default(), **of.producer._settings_auth(), **of.producer._settings_extra()}

    assert "enable_idempotence" not in settings(app)
    assert settings(build_app("x", "127.0.0.1:1"))["enable_idempotence"] is True


# -- 7 shared dictionaries


async def test_transaction_producers_are_shared_between_apps_and_ours_are_not(app: faust.App) -> None:
    other = faust.App("other", broker="kafka://127.0.0.1:1", autodiscover=False)
    assert app.producer._transaction_producers is other.producer._transaction_producers is stock.Producer._transaction_producers
    one, two = (build_app(name, "127.0.0.1:1").producer for name in ("one", "two"))
    assert isinstance(one, Producer)
    assert one._transaction_producers is not two._transaction_producers
    assert one._trn_locks is not two._trn_locks


# -- 9 codecs, 12 web and sensors


def test_lz4_and_zstd_are_readable() -> None:
    assert aiokafka.codec.has_lz4()
    assert aiokafka.codec.has_zstd()


async def test_neither_web_server_nor_prometheus_sensor_is_started() -> None:
    app = build_app("x", "127.0.0.1:1")
    assert [type(service).__name__ for service in app.boot_strategy.web_server()] == []
    assert "Prometheus" not in " ".join(type(sensor).__name__ for sensor in app.sensors)


def test_exactly_once_of_faust_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave the transaction"):
        build_app("x", "127.0.0.1:1", processing_guarantee="exactly_once")


# -- what of aiokafka the transport holds on to


def test_seams_of_aiokafka_are_where_they_were() -> None:
    for owner, names in (
        (fetcher.Fetcher, ("_proc_fetch_request", "_select_read_replica", "_create_fetch_waiter", "_notify", "fetched_records")),
        (fetcher.FetchResult, ("has_more", "check_assignment", "_update_position")),
        (fetcher.FetchError, ("check_raise",)),
        (fetcher.PartitionRecords, ("_consumer_record", "_unpack_records")),
        (group_coordinator.GroupCoordinator, ("_do_heartbeat", "check_errors", "request_rejoin")),
        (SubscriptionState, ("fetch_context", "fetcher_idle_time")),
        (AIOKafkaConnection, ("_next_correlation_id", "_handle_frame", "connected", "close")),
        (MessageBatch, ("drain_ready", "failure")),
        (AIOKafkaConsumer, ("seek", "pause", "resume", "commit")),
    ):
        assert [name for name in names if name not in dir(owner)] == [], f"{owner.__name__} has changed"
    kept = {"_check_crcs", "_aborted_transactions", "_records_iterator", "next_fetch_offset"}  # what the kernel for fetches looks at
    assert kept <= set(fetcher.PartitionRecords.__init__.__code__.co_names), "PartitionRecords has changed"
