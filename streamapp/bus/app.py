"""The Faust app of a worker: every default that would cost latency, safety or events is set here, with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast

import faust

from streamapp.bus.batch import Batch, BatchLimits
from streamapp.bus.security import credentials
from streamapp.bus.transport import Batches, Consumer, PartitionListener, register
from streamapp.core.errors import ConfigError

#: Kafka client settings that the caller may set, by Kafka's name, and the Faust setting with its unit that takes them.
_MILLISECONDS = {
    "session.timeout.ms": "broker_session_timeout",
    "heartbeat.interval.ms": "broker_heartbeat_interval",
    "max.poll.interval.ms": "broker_max_poll_interval",
    "request.timeout.ms": "broker_request_timeout",
}


class StreamApp(faust.App):
    """A Faust app on the batch transport that drains before it stops."""

    batch_limits: BatchLimits
    partition_listener: PartitionListener | None = None
    #: Records that the last stop left un-acked or uncommitted; None before a stop, 0 is clean.
    left_behind: int | None = None

    @property
    def batches(self) -> Consumer:
        """The batch consumer: lag, generation, partitions, hold, release, drain."""
        return cast(Consumer, self.consumer)

    async def _stop_consumer(self) -> None:
        # Faust empties the queues of the agents and has no bound on waiting; ours goes first.
        if self._consumer is not None:
            await self.batches.stop_loading()
            if self.left_behind is None and not self.crashed:
                self.left_behind = await self.batches.drain()
        await super()._stop_consumer()

    def _create_directories(self) -> None:
        """Creates none: nothing of this app is stored in files."""


def build_app(
    name: str,
    bootstrap: str,
    *,
    limits: BatchLimits | None = None,
    kafka: Mapping[str, str] | None = None,
    processing_guarantee: str = "at_least_once",
    listener: PartitionListener | None = None,
    **overrides: Any,
) -> StreamApp:
    """Takes the consumer group's name, `host:port[,host:port]`, Kafka client settings by Kafka's names; gives the app, not started.

    `overrides` are Faust settings. Raises ConfigError for settings that would lose or repeat events.
    """
    if processing_guarantee != "at_least_once":
        raise ConfigError(
            f"processing_guarantee {processing_guarantee} is refused: Faust lets outputs leave the transaction that commits their offsets",
            "leave it out; repeated verdicts carry the same decision_id",
        )
    kafka = dict(kafka or {})
    register()
    settings: dict[str, Any] = {
        "broker": [f"streamapp://{server.strip()}" for server in bootstrap.split(",")],
        "broker_credentials": credentials(kafka),
        "autodiscover": False,
        "store": "memory://",
        # group: an owner that is gone is replaced after 10 s, not 60; a stuck loop leaves after 5 min, not 1000 s
        "broker_session_timeout": 10.0,
        "broker_heartbeat_interval": 1.0,
        "broker_max_poll_interval": 300.0,
        "broker_rebalance_timeout": 30.0,
        "broker_request_timeout": 30.0,
        "broker_commit_interval": 1.0,
        # The broker has checked what it took, and TCP checks what it sends: looking again (0.4 us a record) is for who asks.
        "broker_check_crcs": kafka.get("check.crcs") == "true",
        "consumer_auto_offset_reset": "earliest",
        "stream_wait_empty": False,  # has no bound; the drain of the batch consumer has
        "stream_recovery_delay": 0.0,
        # producer: acknowledged by all replicas, in large batches, given up after 30 s instead of 1200
        "producer_acks": -1,
        "producer_max_batch_size": 1 << 20,
        "producer_max_request_size": 4 << 20,
        "producer_linger": 0.0,
        "producer_request_timeout": 30.0,
        "table_standby_replicas": 0,
        # topics are created by `topics create` with our settings, never on the way by Faust with its own
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        # its `/` is always OK and `/table` serves table data
        "web_enabled": False,
    }
    settings |= {faust_name: float(kafka[kafka_name]) / 1000 for kafka_name, faust_name in _MILLISECONDS.items() if kafka_name in kafka}
    if "auto.offset.reset" in kafka:
        settings["consumer_auto_offset_reset"] = kafka["auto.offset.reset"]
    if "client.id" in kafka:
        settings["broker_client_id"] = kafka["client.id"]
    if "group.instance.id" in kafka:
        settings["consumer_group_instance_id"] = kafka["group.instance.id"]
    settings |= overrides
    app = StreamApp(name, **settings)
    app.batch_limits = limits or BatchLimits()
    app.partition_listener = listener
    return app


def source_topic(app: faust.App, *names: str) -> Any:
    """Gives the topic whose agent gets a `Batch` per poll over all partitions of `names`."""
    return app.topic(*names, schema=Batches())


def attach(app: StreamApp, events_topic: str, work: Callable[[AsyncIterator[Batch]], Awaitable[None]]) -> None:
    """Makes `work` the agent of the events topic. A failure crashes the app, unacked: an exception that reached Faust would be acked."""

    @app.agent(source_topic(app, events_topic), name="decide")
    async def decide(stream: Any) -> None:
        try:
            await work(event.value async for event in stream.noack().events())
        except* Exception as failures:  # noqa: BLE001 - whatever it is, Faust must not see it
            await app.crash(failures.exceptions[0])


async def run(app: StreamApp, stop: asyncio.Event) -> None:
    """Runs the app on this loop until `stop` is set or it crashes; drains and stops it. Raises what it crashed with."""
    await app.start()
    crashed, asked = asyncio.ensure_future(app._crashed.wait()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({crashed, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiting in (crashed, asked):
            waiting.cancel()
        reason = app.crash_reason
        await app.stop()
    if reason is not None:
        raise reason
