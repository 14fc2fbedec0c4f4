"""What a worker tells about itself: metrics, health, drift. All of it after the acknowledgement; none of it can hold up a verdict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from streamapp import __version__, pipeline
from streamapp.adapters.metrics import CONTENT_TYPE, Metrics
from streamapp.adapters.probes import Health, Pages
from streamapp.adapters.profiles_redis import RedisProfiles
from streamapp.bus.app import StreamApp
from streamapp.bus.emit import Delivery
from streamapp.bus.follow import Record, follower
from streamapp.bus.labels import LabelTopic
from streamapp.bus.lists import ListTopic
from streamapp.bus.recovery import Recovery
from streamapp.bus.security import client_arguments
from streamapp.bus.topics import Topics
from streamapp.config import Settings
from streamapp.control.monitor import DAY_MS, Monitor
from streamapp.control.partial import observe, part_n, to_record
from streamapp.core.drift import DriftReport, Limits, to_json
from streamapp.core.errors import BusError
from streamapp.core.murmur2 import misplaced
from streamapp.core.observe import WindowedObservations
from streamapp.core.outcome import Outcome, merged
from streamapp.core.partials import Layout, Observations
from streamapp.core.predictions import Predictions
from streamapp.core.spec import PipelineSpec
from streamapp.core.texts import Texts

log = logging.getLogger(__name__)

#: Rows after which what was acknowledged is counted; at the latest with the next beat or scrape.
COUNTED_ROWS = 1024
#: How often lag, readiness and drift are looked at.
BEAT_S = 1.0
#: Monitoring records that are on their way at once, and seconds that a stop waits for the last of them.
PUBLISHED_AT_ONCE, FINISH_S = 256, 4.0
#: Observations of a window to which nothing was added for so long are sent as they are.
IDLE_MS = 10_000


class Watch:
    """One worker's figures; `acknowledged` is called by the line, `run` beats beside it."""

    def __init__(self, settings: Settings, spec: PipelineSpec, topics: Topics, app: StreamApp, delivery: Delivery, partitions: int) -> None:
        """`partitions` is the events topic's count."""
        self._partitions = partitions
        self._settings, self._spec, self._topics, self._app, self._delivery = settings, spec, topics, app, delivery
        self.metrics = Metrics(spec.pipeline.name, __version__)
        self.health = Health(time.monotonic)
        self.health.detail = self._detail
        self.pages = Pages(self.health, self._exposition, CONTENT_TYPE)
        self._outbox: deque[tuple[str, Observations]] = deque()  # release and its closed partials, to be published
        self._seen: list[tuple[Outcome, str, int]] = []  # acknowledged and not counted: release, epoch ms
        self._seen_rows = 0
        self._release = ""
        self._windows: WindowedObservations
        self._degraded: list[dict[str, str]] = []
        self._generation = -1
        self._mine: set[int] = set()
        self._merging: asyncio.Task[None] | None = None
        self._labels_counted: dict[str, int] = {}
        self.recovery: Recovery | None = None
        self.profiles: RedisProfiles | None = None
        self._predictions: Predictions | None = None
        self.labels: LabelTopic | None = None
        self.lists: ListTopic | None = None

    def loads(self, what: str, share: float) -> None:
        """Notes how far something is loaded; the worker is not ready before all of it is."""
        self.health.loading[what] = share

    def serves(self, serving: pipeline.Serving) -> None:
        """Names the Serving that decides from now on; what was counted under the one before is closed."""
        self._count()
        if self._release:
            self._close(self._windows.flush())
        references = serving.models[0].card.reference if serving.models else {}
        self.layout = Layout.of(serving.features.names, serving.deciders, references)
        drift = self._spec.drift
        self._windows = WindowedObservations(self.layout, drift.window_s * 1000, part_n(drift.window_n, self._partitions))
        self._predictions = serving.predictions
        self._release, self._deciders = serving.release, serving.deciders
        self.metrics.serves(serving.release)

    def acknowledged(self, outcome: Outcome, release: str, acked_ms: int) -> None:
        """Takes one micro-batch whose outputs the broker has; it is counted with others, COUNTED_ROWS or a beat later."""
        self.health.settled(self._app.batches.acks.records_in_flight)
        self._degraded = [{"component": one.component, "cause": one.cause} for one in outcome.degraded]
        if self._seen and release != self._seen[0][1]:
            self._count()
        self._seen.append((outcome, release, acked_ms))
        self._seen_rows += len(outcome.plan)
        if self._seen_rows >= COUNTED_ROWS:
            self._count()

    def _count(self) -> None:
        """Counts what was acknowledged since the last time: some numpy calls cost more than their rows, so there is one for many."""
        if not self._seen:
            return
        seen, self._seen, self._seen_rows = self._seen, [], 0
        release, now_ms = seen[0][1], seen[-1][2]
        for outcome, *_ in seen:
            self.metrics.batch(outcome)
        whole = merged([outcome for outcome, *_ in seen])
        acked_ms = np.repeat([at_ms for *_, at_ms in seen], [len(outcome.plan) for outcome, *_ in seen])
        self.metrics.rows(whole, self._deciders, release, acked_ms)
        segments = whole.plan.segments
        keys = Texts.end_to_end([one.keys for one in segments])
        given = list(chain.from_iterable(one.keys for one in segments)) if keys is None else keys
        wrong = misplaced(given, np.repeat([one.partition for one in segments], [len(one) for one in segments]), self._partitions)
        if wrong:
            self.metrics.count("streamapp_misplaced_keys_total", by=wrong)
        if release == self._release:  # the last batches of a release that was swapped out belong to a layout that is closed
            self._close(observe(self._windows, whole, now_ms))

    def _exposition(self) -> bytes:
        self._count()
        return self.metrics.exposition()

    async def run(self) -> None:
        """Beats until cancelled: lag, readiness, drift. What goes wrong here is logged with every beat; deciding goes on."""
        while True:
            try:
                now_ms = time.time_ns() // 1_000_000
                self._look(now_ms)
                self._close(self._windows.idle(now_ms, IDLE_MS))
                await self._publish()
                self._merge_where_owned()
            except Exception:
                log.exception("Metrics, readiness or drift could not be told")
            await asyncio.sleep(BEAT_S)

    async def finish(self) -> None:
        """Sends what is counted and not sent yet: the worker stops."""
        if self._merging is not None:
            self._merging.cancel()
            await asyncio.wait({self._merging})
        self._count()
        self._close(self._windows.flush())
        try:
            async with asyncio.timeout(FINISH_S):
                await self._publish()
        except TimeoutError:
            log.warning("%d monitoring records or more were not sent: the broker was too slow for a stop", len(self._outbox))

    def _look(self, now_ms: int) -> None:
        self._count()
        batches = self._app.batches
        self.metrics.lag({source.partition: lag for source, lag in batches.lag(now_ms).items()})
        self.metrics.set("streamapp_in_flight_records", batches.acks.records_in_flight)
        self._look_at_profiles(now_ms)
        for where, count in ({} if self._predictions is None else self._predictions.counted()).items():
            self.metrics.count("streamapp_predictions_total", where, by=count)
        mine = {source.partition for source in batches.partitions()}
        for lost in self._mine - mine:
            self._close(self._windows.flush(lost))
        self._mine = mine
        self.health.assigned = bool(mine)
        self.health.draining = batches.draining
        self.health.holds(batches.acks.records_in_flight)
        self._look_at_labels()
        self._look_at_lists()
        self.metrics.set("streamapp_ready", float(not self.health.unready()))
        if batches.generation not in (self._generation, -1):
            self._generation = batches.generation
            self.metrics.count("streamapp_rebalances_total")

    def _look_at_profiles(self, now_ms: int) -> None:
        profiles = self.profiles
        if profiles is None:
            return
        if profiles.loaded_ms:
            self.metrics.set("streamapp_feature_age_seconds", (now_ms - profiles.loaded_ms) / 1000, "profile")
        for where, count in profiles.counted().items():
            self.metrics.count("streamapp_profile_rows_total", where, by=count)

    def _look_at_lists(self) -> None:
        if self.lists is None:
            return
        for name, count in self.lists.table.by_list().items():
            self.metrics.set("streamapp_list_entries", count, name)
        self.metrics.set("streamapp_lists_refused_records", self.lists.refused)

    def _look_at_labels(self) -> None:
        if self.labels is None:
            return
        state, rejected = self.labels.state, self.labels.rejected
        for fate, count in (("new", state.new), ("repeated", state.repeated), ("expired", state.expired), ("rejected", rejected)):
            if by := count - self._labels_counted.get(fate, 0):
                self.metrics.count("streamapp_labels_total", fate, by=by)
                self._labels_counted[fate] = count
        self.metrics.set("streamapp_labels_behind_records", self.labels.behind_records)

    def _detail(self) -> Mapping[str, Any]:
        now_ms = time.time_ns() // 1_000_000
        lags = self._app.batches.lag(now_ms)
        return {
            "release": self._release,
            "generation": self._generation,
            "degraded": self._degraded,
            "state": self._state(),
            "partitions": {
                str(source.partition): {"lag_records": records, "lag_seconds": round(seconds, 3)}
                for source, (records, seconds) in sorted(lags.items())
            },
        }

    def _state(self) -> Mapping[str, Any]:
        recovery, now_s = self.recovery, time.monotonic()
        if recovery is None:
            return {}
        kept = {
            str(number): {"position": one.position, "rows_since_snapshot": one.rows, "log_next": one.log_next}
            for number, one in sorted(recovery.journal.figures().items())
        }
        loading = {str(number): one.figures(now_s) for number, one in sorted(recovery.loading.items())}
        return {"partitions": kept, "loading": loading}

    # -- drift

    def _close(self, partials: list[Observations]) -> None:
        self._outbox.extend((self._release, partial) for partial in partials)

    async def _publish(self) -> None:
        """Sends what waits, many on their way at once: one after the other they would outlast a stop. What is refused waits on."""
        while self._outbox:
            first = [self._outbox.popleft() for _ in range(min(len(self._outbox), PUBLISHED_AT_ONCE))]
            refused = await asyncio.gather(*(self._publish_one(*one) for one in first), return_exceptions=True)
            self._outbox.extendleft(one for one, refusal in zip(first[::-1], refused[::-1], strict=True) if refusal is not None)
            for refusal in refused:
                if isinstance(refusal, BusError):
                    log.warning("Monitoring records wait: %s", refusal)
                    return
                if refusal is not None:
                    raise refusal

    async def _publish_one(self, release: str, partial: Observations) -> None:
        record = to_record(partial, self._spec.pipeline.name, release)
        await self._delivery.publish(self._topics.monitoring, f"{partial.partition}".encode(), record, 0)

    def _merge_where_owned(self) -> None:
        """The owner of source partition 0 merges; whoever loses it stops."""
        merges = 0 in self._mine
        if self._merging is not None and (self._merging.done() or not merges):
            if self._merging.done() and not self._merging.cancelled() and (failure := self._merging.exception()):
                log.warning("Merging of drift starts again: %r", failure)
            self._merging.cancel()
            self._merging = None
        if merges and self._merging is None:
            self._merging = asyncio.create_task(self._merge())

    async def _merge(self) -> None:
        drift = self._spec.drift
        limits = Limits(psi_alarm=drift.psi_alarm, kl_alarm=drift.kl_alarm, alpha=drift.ks_alpha)
        monitor = Monitor(self._spec.pipeline.name, limits, drift.window_n, self._partitions)
        release = ""
        client = client_arguments(self._settings.kafka)
        began_ms = time.time_ns() // 1_000_000
        # Two windows and a day: what is merged anew. Reports found there say what is known already.
        since_ms = began_ms - 2 * drift.window_s * 1000 - DAY_MS
        async with follower(self._settings.bootstrap, [self._topics.monitoring], client, since_ms=since_ms) as records:
            try:
                while True:
                    found = await records.poll(int(BEAT_S * 1000))
                    learned = (self._release, self.layout) if release != self._release else None
                    release = self._release
                    now_ms = time.time_ns() // 1_000_000
                    # A report takes up to 20 ms: not on the loop that decides.
                    await self._report(await asyncio.to_thread(_merged, monitor, found, learned, began_ms, now_ms))
            finally:
                await self._report(monitor.finish())

    async def _report(self, reports: list[DriftReport]) -> None:
        for report in reports:
            self.metrics.drift(report)
        await asyncio.gather(*(self._delivery.publish(self._topics.monitoring, b"drift", to_json(report), 0) for report in reports))


def _merged(monitor: Monitor, found: list[Record], learned: tuple[str, Layout] | None, began_ms: int, now_ms: int) -> list[DriftReport]:
    reports = monitor.learn(*learned, now_ms) if learned is not None else []
    for record in found:
        reports += monitor.take(record.value or b"", now_ms, replay=record.timestamp_ms < began_ms)
    return reports + monitor.settle(now_ms)
