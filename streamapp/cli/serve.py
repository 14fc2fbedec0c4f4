"""A worker process put together: settings and pipeline file in, a running line out, until told to stop or something of ours breaks."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from streamapp import pipeline
from streamapp.adapters.aside import Aside
from streamapp.adapters.models import latest_version, load_model
from streamapp.adapters.probes import Probes
from streamapp.adapters.profiles_redis import Keeping, RedisProfiles
from streamapp.adapters.shared_memory import MemoryShared
from streamapp.adapters.shared_redis import RedisShared
from streamapp.bus.app import StreamApp, attach, build_app, run
from streamapp.bus.batch import BatchLimits
from streamapp.bus.emit import Delivery
from streamapp.bus.guarantee import AtLeastOnce, Guarantee
from streamapp.bus.journal import KafkaJournal, SnapshotPolicy
from streamapp.bus.labels import LabelLetters, LabelTopic
from streamapp.bus.lists import ListTopic
from streamapp.bus.producer import Producer, producing
from streamapp.bus.recovery import Group, Recovery
from streamapp.bus.security import client_arguments
from streamapp.bus.statelog import check_log, log_reader, trimming
from streamapp.bus.topics import DECLARED, Topics
from streamapp.bus.transactions import ExactlyOnce
from streamapp.cli import address_space
from streamapp.cli.absent import check_directory, without
from streamapp.cli.warming import warm_up
from streamapp.cli.watching import Watch
from streamapp.config import Settings, fail_point, models_directory
from streamapp.control.release import load_serving
from streamapp.core import growing
from streamapp.core.errors import StreamappError
from streamapp.core.labels import LabelPlan
from streamapp.core.spec import PipelineSpec
from streamapp.lookahead import beside
from streamapp.ports import Reached, nothing_happens
from streamapp.prefetch import knowing, listing, nothing_to_read, reading
from streamapp.worker import Line

log = logging.getLogger(__name__)

#: Events in flight that exactly once allows at least: two transactions' worth at 200,000 a second.
TRANSACTION_RECORDS = 32_768
#: glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD: below 32 MiB nothing is mapped alone, and half a GiB may stay when freed.
MALLOPT = ((-3, 32 << 20), (-1, 512 << 20), (-2, 16 << 20))


async def serve(settings: Settings, spec: PipelineSpec) -> None:
    """Runs one worker until SIGTERM or SIGINT; then drains within `drain_timeout_s`. SIGHUP loads the newest models and swaps them in.

    Raises what broke: the micro-batches in flight then stay un-acked and are decided again by whoever takes over.
    """
    namespace = settings.namespace or spec.namespace
    topics = Topics(namespace, events=settings.events_topic)
    serving = load(settings, spec)
    _warn(settings, serving)
    warm_up(serving)
    _calm_collector()
    _keep_memory()
    stop = asyncio.Event()
    group = f"{namespace}.{spec.pipeline.name}"
    app = build_app(group, settings.bootstrap, limits=_limits(settings), kafka=settings.kafka)
    async with producing(settings.bootstrap, settings.kafka) as producer, _guaranteed(settings, producer, group, topics) as guarantee:
        packed = settings.decisions_compression != "none"
        delivery = Delivery(producer, topics, guarantee=guarantee, members=serving.encoder.members, compressed=packed)
        partitions = await delivery.partitions_of(topics.events)
        check_log(topics, partitions, await delivery.partitions_of(topics.state))
        watch = Watch(settings, spec, topics, app, delivery, partitions)
        watch.serves(serving)
        client = client_arguments(settings.kafka)
        policy = SnapshotPolicy(settings.state_snapshot_rows, settings.state_snapshot_s)
        journal = KafkaJournal(guarantee, topics, serving.state, partitions, trimming(settings.bootstrap, topics, client), policy)
        watch.recovery = Recovery(Group(app), journal, delivery, topics, lambda: log_reader(settings.bootstrap, client), watch.loads)
        app.partition_listener = watch.recovery
        shared = shared_windows(settings, serving, namespace)
        profiles = known_profiles(settings, serving, namespace)
        watch.profiles = profiles
        prefetch = reading(serving.shared, shared, profiles) if serving.shared.stores or profiles is not None else nothing_to_read
        labels = None
        if serving.labels.stores:
            labels = LabelTopic(serving.labels, topics.labels, settings.bootstrap, client, since_ms=_labels_since_ms(spec, serving.labels))
            prefetch = knowing(prefetch, labels)
            watch.labels = labels
        lists = None
        if serving.lists is not None:
            lists = ListTopic(serving.lists, topics.lists, settings.bootstrap, client)
            prefetch = listing(prefetch, lists)
            watch.lists = lists
        ahead = beside(ThreadPoolExecutor(1, "texts"))
        line = Line(serving, delivery, prefetch, journal, watch.acknowledged, shared.write, _fail_point(), Aside().ask, ahead)
        attach(app, topics.events, line.run)
        swaps: set[asyncio.Task[None]] = set()
        async with Probes(watch.pages, watch.health, settings.metrics_host, settings.metrics_port) as probes:
            log.info("Metrics and health on http://%s:%d", settings.metrics_host, probes.port)
            beating = asyncio.create_task(watch.run())
            following = [asyncio.create_task(_for_ever(app, producer.lost()))]
            if labels is not None:
                await labels.load(watch.loads)
                letters = LabelLetters(serving.labels, topics, producer, settings.bootstrap, f"{app.conf.id}.labels", client)
                following += [asyncio.create_task(_for_ever(app, work)) for work in (labels.run(), letters.run())]
            if lists is not None:
                await lists.load(watch.loads)
                following.append(asyncio.create_task(_for_ever(app, lists.run())))
            with _signals(stop, lambda: swaps.add(asyncio.create_task(swap_models(line, watch, settings, spec)))):
                await run(app, stop)
            beating.cancel()
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            await watch.finish()
        for topic in (labels, lists):
            if topic is not None:
                await topic.close()
        await shared.close()
        if profiles is not None:
            await profiles.close()


async def _for_ever(app: StreamApp, work: Coroutine[Any, Any, None]) -> None:
    """Runs what should never end; where it fails, the worker stops, unacked."""
    try:
        await work
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is ours
        await app.crash(failure)


def _labels_since_ms(spec: PipelineSpec, plan: LabelPlan) -> int | None:
    """Gives where labels begin to matter: for the oldest event that may still be read, as far back as its windows reach."""
    kept_ms = spec.topics.retention_ms.get("events", int(DECLARED["events"].settings["retention.ms"]))
    return None if kept_ms < 0 else time.time_ns() // 1_000_000 - kept_ms - plan.keep_ms


@asynccontextmanager
async def _guaranteed(settings: Settings, producer: Producer, group: str, topics: Topics) -> AsyncIterator[Guarantee]:
    """Gives what makes outputs and state count as the settings say; ends it in order."""
    guarantee: Guarantee = AtLeastOnce(producer)
    if settings.delivery == "exactly_once":
        written = (*topics.outputs(), topics.state)
        guarantee = ExactlyOnce(
            settings.bootstrap, settings.kafka, group, written,
            events=topics.events, state=topics.state, transaction_ms=settings.transaction_ms,
        )  # fmt: skip
    try:
        yield guarantee
    finally:
        await guarantee.close()


def _fail_point() -> Reached:
    """Gives what ends this process at the step that a test has named, as SIGKILL would: nothing is flushed, closed or left in order."""
    wanted, left = fail_point()
    if not wanted:
        return nothing_happens

    def reached(step: str) -> None:
        nonlocal left
        left -= step == wanted
        if not left:
            os._exit(137)

    return reached


def load(settings: Settings, spec: PipelineSpec) -> pipeline.Serving:
    """Gives the Serving of the settings' models directory. Raises ModelRejected, ConfigError."""
    check_directory(settings)
    if address_space.counted():
        growing.reserve_nothing()
    return load_serving(spec, models_directory(settings), settings.entity_key.encode(), load_model, latest_version, settings.language)


def shared_windows(settings: Settings, serving: pipeline.Serving, namespace: str) -> MemoryShared | RedisShared:
    """Gives the way to the windows of entities that cross partitions; warns where workers would not hear of one another."""
    if settings.redis and serving.shared.stores:
        return RedisShared(serving.shared, settings.redis, namespace, settings.redis_deadline_ms)
    if serving.shared.stores:
        entities = ", ".join(store.entity for store in serving.shared.stores)
        log.warning("Windows of %s are this worker's own; set STREAMAPP_REDIS where there are several workers or restarts", entities)
    return MemoryShared(serving.shared)


def known_profiles(settings: Settings, serving: pipeline.Serving, namespace: str) -> RedisProfiles | None:
    """Gives the way to the profiles that the pipeline declares features of; None where it declares none, or there is no store."""
    url = settings.profiles_redis or settings.redis
    if not (url and serving.features.profiles.parts):
        return None
    keeping = Keeping(settings.profiles_ttl_s, settings.profiles_unknown_ttl_s, settings.profiles_stale_s, settings.profiles_kept)
    return RedisProfiles(serving.features.profiles, url, namespace, settings.redis_deadline_ms, keeping)


async def swap_models(line: Line, watch: Watch, settings: Settings, spec: PipelineSpec) -> None:
    """Loads, checks and warms up the newest models beside the line, then swaps them in between two micro-batches."""
    try:
        serving = await asyncio.to_thread(load, settings, spec)
    except StreamappError as refused:
        log.warning("Models were not swapped, %s stays: %s", line.serving.release, refused)
        return
    _warn(settings, serving)
    log.info("Release %s serves instead of %s", serving.release, line.serving.release)
    line.serving = serving
    watch.serves(serving)


def _warn(settings: Settings, serving: pipeline.Serving) -> None:
    for sentence in without(settings, serving):
        log.warning("%s", sentence)


def _calm_collector() -> None:
    """Takes what is loaded out of garbage collection and lets it run once per some batches: records make no cycles, looking costs 10 %."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _keep_memory() -> None:
    """Lets the C library keep what is freed: the next micro-batch needs the same megabytes, and fresh pages cost a tenth of its time."""
    try:
        library = ctypes.CDLL(None)
        for parameter, size in MALLOPT:
            library.mallopt(parameter, size)
    except (AttributeError, OSError, TypeError):
        log.debug("this C library has no mallopt; it keeps or gives back memory as it likes")


def _limits(settings: Settings) -> BatchLimits:
    # Exactly once, events are in flight until their transaction is committed, and the next ones are decided meanwhile.
    records_min = TRANSACTION_RECORDS if settings.delivery == "exactly_once" else 0
    return BatchLimits(
        batch_max=settings.batch_max,
        decide_ms_max=settings.decide_ms_max,
        batch_wait_ms=settings.batch_wait_ms,
        fetch_wait_ms=settings.fetch_wait_ms,
        partition_fetch_bytes=settings.partition_fetch_bytes,
        in_flight_batches_max=settings.in_flight_batches_max,
        in_flight_records_max=max(settings.in_flight_records_max, records_min),
        revoke_wait_ms=settings.revoke_wait_ms,
        drain_timeout_s=settings.drain_timeout_s,
    )


@contextmanager
def _signals(stop: asyncio.Event, reload: Callable[[], None]) -> Iterator[None]:
    """Binds SIGTERM and SIGINT to `stop`, SIGHUP to `reload`, and unbinds them."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
