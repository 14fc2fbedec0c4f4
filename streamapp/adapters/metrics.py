"""Prometheus: counted once per micro-batch into plain numbers, given their metric form only when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from streamapp.core.route import ROUTE_NAMES

if TYPE_CHECKING:
    from streamapp.core.drift import DriftReport
    from streamapp.core.outcome import Outcome

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
Labels = tuple[str, ...]


class Definition(NamedTuple):
    """One metric: what it counts, under which labels. No label is an id of an event, user or tenant."""

    kind: Literal["counter", "gauge", "histogram", "summary"]
    text: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()


#: Every metric there is. Counters: for rates. Gauges: as things are now. Histograms: for quantiles over workers.
DEFINITIONS: Mapping[str, Definition] = {
    "streamapp_events_total": Definition("counter", "Records read and settled: decided or dead-lettered."),
    "streamapp_verdicts_total": Definition("counter", "Verdicts acknowledged by the broker.", ("route", "release", "decided_by")),
    "streamapp_rule_hits_total": Definition("counter", "Events a rule hits, whoever decided them.", ("rule", "mode")),
    "streamapp_dead_letters_total": Definition("counter", "Records that could not be decided.", ("reason",)),
    "streamapp_degraded_total": Definition("counter", "Micro-batches that a part could not serve.", ("component", "cause")),
    "streamapp_decision_latency_seconds": Definition(
        "histogram", "From the source record's timestamp to the acknowledgement of its verdict.", (),
        (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 5.0, 60.0),
    ),
    "streamapp_probability": Definition(
        "histogram", "Calibrated probability, where a model answered.", ("release",),
        (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
    ),
    "streamapp_batch_rows": Definition("histogram", "Records in a micro-batch.", (), tuple(4.0**power for power in range(8))),
    "streamapp_stage_seconds": Definition("summary", "Time of a micro-batch in one stage.", ("stage",)),
    "streamapp_tier_rows_total": Definition(
        "counter", "Rows that were due at a tier of a cascade: it decided them, passed them on or did not answer.", ("tier", "result")
    ),
    "streamapp_feature_missing_total": Definition("counter", "Feature values that were missing and took their default.", ("feature",)),
    "streamapp_feature_clipped_total": Definition("counter", "Feature values that were out of bounds and clipped.", ("feature",)),
    "streamapp_feature_age_seconds": Definition("gauge", "Age of the newest values of a feature set.", ("feature_set",)),
    "streamapp_profile_rows_total": Definition("counter", "Rows whose profile came from the process or had to be asked for.", ("source",)),
    "streamapp_predictions_total": Definition("counter", "Rows whose score came from the prediction cache or the tiers.", ("source",)),
    "streamapp_misplaced_keys_total": Definition("counter", "Keys that lie where the default partitioner would not have put them."),
    "streamapp_labels_total": Definition("counter", "Records of the labels topic, by what became of them.", ("fate",)),
    "streamapp_labels_behind_records": Definition("gauge", "Records of the labels topic that this worker has not taken in yet."),
    "streamapp_list_entries": Definition("gauge", "Entries of a list that this worker knows, expired ones included.", ("list",)),
    "streamapp_lists_refused_records": Definition("gauge", "Records of the lists topic that were no entries and are passed over."),
    "streamapp_lag_records": Definition("gauge", "Records of an owned partition that are not settled yet.", ("partition",)),
    "streamapp_lag_seconds": Definition("gauge", "Age of the oldest record of an owned partition that is not settled yet.", ("partition",)),
    "streamapp_rebalances_total": Definition("counter", "Assignments received from the group."),
    "streamapp_in_flight_records": Definition("gauge", "Records between read and acknowledgement."),
    "streamapp_drift_reports_total": Definition("counter", "Drift reports of windows, by whether they alarm.", ("window", "alarm")),
    "streamapp_drift_psi": Definition("gauge", "Population stability index of the last window.", ("window", "feature")),
    "streamapp_drift_windows_in_alarm": Definition("gauge", "Windows in a row, up to the last, in which something drifted.", ("window",)),
    "streamapp_missing_share": Definition("gauge", "Share of missing values in the last window.", ("window", "feature")),
    "streamapp_quality_alarms": Definition("gauge", "Features with too many missing or outlying values in the last window.", ("window",)),
    "streamapp_confidence_mean": Definition("gauge", "Mean of max(p, 1 - p) in the last window.", ("window", "release")),
    "streamapp_ready": Definition("gauge", "1 when partitions are assigned and everything is loaded."),
    "streamapp_build_info": Definition("gauge", "Always 1; says what runs.", ("pipeline", "version", "release")),
}  # fmt: skip


class _Histogram:
    """Counts per bucket, the last one open; sum of the values."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = tuple(bounds)
        self.bounds, self.counts, self.total = np.array(bounds), np.zeros(len(bounds) + 1, np.int64), 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Takes n values, none NaN; a value on a bound is below it, as Prometheus has it."""
        self.counts += np.bincount(np.searchsorted(self.bounds, values, side="left"), minlength=len(self.counts))
        self.total += float(values.sum())

    def one(self, value: float) -> None:
        """Takes one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Gives (upper bound, cumulative count) pairs."""
        return [(str(bound), float(count)) for bound, count in zip([*self.bounds.tolist(), "+Inf"], np.cumsum(self.counts), strict=True)]


class Metrics(Collector):
    """The metrics of one worker. Law: what `decided` was told adds up, however it was cut into micro-batches (but per-batch metrics)."""

    def __init__(self, pipeline: str, version: str, registry: CollectorRegistry | None = None) -> None:
        """Registers itself with `registry`, a new one by default: nothing global, so two workers in one process stay apart."""
        self.registry = registry or CollectorRegistry(auto_describe=False)
        self._pipeline, self._version = pipeline, version
        self._counters: dict[str, Counter[Labels]] = {}
        self._gauges: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        self._summaries: dict[str, dict[Labels, list[float]]] = {}
        for name, definition in DEFINITIONS.items():
            if definition.kind == "counter":
                self._counters[name] = Counter({(): 0}) if not definition.labels else Counter()
            elif definition.kind == "gauge":
                self._gauges[name] = {}
            elif definition.kind == "summary":
                self._summaries[name] = {}
            else:
                self._histograms[name] = {(): _Histogram(definition.bounds)} if not definition.labels else {}
        self._dirt: dict[Labels, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}  # by feature names: missing, clipped
        self.registry.register(self)

    def decided(self, outcome: Outcome, deciders: Sequence[str], release: str, acked_ms: int) -> None:
        """Counts one micro-batch whose verdicts and dead letters the broker has, at epoch ms `acked_ms`."""
        self.batch(outcome)
        self.rows(outcome, deciders, release, np.full(len(outcome.plan), acked_ms))

    def batch(self, outcome: Outcome) -> None:
        """Counts what is told of a micro-batch as a whole."""
        self._histogram("streamapp_batch_rows").one(len(outcome.plan) + len(outcome.plan.rejects))
        for name, ms in outcome.stage_ms.items():
            self.timed(name, ms / 1e3)
        for degraded in outcome.degraded:
            self.count("streamapp_degraded_total", degraded.component, degraded.cause)
        for use in outcome.uses:
            rows = (("decided", use.decided), ("passed_on", use.answered - use.decided), ("unanswered", use.due - use.answered))
            for result, count in rows:
                self.count("streamapp_tier_rows_total", use.name, result, by=count)

    def rows(self, outcome: Outcome, deciders: Sequence[str], release: str, acked_ms: npt.NDArray[np.int64]) -> None:
        """Counts n rows, of one micro-batch or of several (`merged`), acknowledged at epoch ms `acked_ms` [n], and the rejects."""
        plan, n = outcome.plan, len(outcome.plan)
        refused = int(np.count_nonzero(outcome.route < 0))  # counted below, among the rejects
        self.count("streamapp_events_total", by=n - refused + len(plan.rejects))
        for reject in plan.rejects:
            self.count("streamapp_dead_letters_total", reject.code.value)
        if not n:
            return
        # A clock that is behind the broker's would count below zero.
        self._histogram("streamapp_decision_latency_seconds").add(np.maximum(acked_ms - plan.received_at, 0) / 1e3)
        self._histogram("streamapp_probability", release).add(outcome.probability[~np.isnan(outcome.probability)])
        told = outcome.route >= 0  # a verdict that the broker refused for its size is a dead letter, and has no route
        places = outcome.route[told].astype(np.int64) * len(deciders) + outcome.decided_by[told]
        pairs = np.bincount(places, minlength=len(ROUTE_NAMES) * len(deciders))
        verdicts = self._counters["streamapp_verdicts_total"]
        for pair in np.flatnonzero(pairs).tolist():
            route, decider = divmod(pair, len(deciders))
            verdicts[ROUTE_NAMES[route], release, deciders[decider]] += int(pairs[pair])
        hits = outcome.hits
        for mode, codes, table in (("live", hits.codes, hits.hit), ("shadow", hits.shadow_codes, hits.shadow)):
            if codes:
                for place in np.flatnonzero(table.any(axis=0)).tolist():
                    self.count("streamapp_rule_hits_total", codes[place], mode, by=int(np.count_nonzero(table[:, place])))
        features = outcome.features
        dirt = self._dirt.get(features.names)
        if dirt is None:
            dirt = self._dirt[features.names] = (np.zeros(len(features.names), np.int64), np.zeros(len(features.names), np.int64))
        dirt[0][:] += features.missing
        dirt[1][:] += features.clipped

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Adds to a counter of DEFINITIONS; raises KeyError for a name that is not there."""
        self._counters[name][labels] += by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Sets a gauge of DEFINITIONS; raises KeyError for a name that is not there."""
        self._gauges[name][labels] = value

    def timed(self, stage: str, seconds: float) -> None:
        """Adds one run of a stage."""
        total = self._summaries["streamapp_stage_seconds"].setdefault((stage,), [0.0, 0.0])
        total[0] += 1
        total[1] += seconds

    def lag(self, by_partition: Mapping[int, tuple[int, float]]) -> None:
        """Takes (records, seconds) of every owned partition; partitions that are not there any more disappear."""
        self._gauges["streamapp_lag_records"] = {(str(p),): records for p, (records, _) in by_partition.items()}
        self._gauges["streamapp_lag_seconds"] = {(str(p),): seconds for p, (_, seconds) in by_partition.items()}

    def serves(self, release: str) -> None:
        """Names the release that decides from now on."""
        self._gauges["streamapp_build_info"] = {(self._pipeline, self._version, release): 1.0}

    def drift(self, report: DriftReport) -> None:
        """Shows the figures of a drift report."""
        kind = report.window.kind
        self.count("streamapp_drift_reports_total", kind, "true" if report.alarm else "false")
        self.set("streamapp_drift_windows_in_alarm", report.windows_in_alarm, kind)
        self.set("streamapp_quality_alarms", sum(bool(feature.quality) for feature in report.features.values()), kind)
        for name, feature in (*report.features.items(), ("score", report.score)):
            self.set("streamapp_missing_share", feature.missing_share, kind, name)
            if feature.psi is not None:
                self.set("streamapp_drift_psi", feature.psi, kind, name)
        if report.confidence.mean is not None:
            self.set("streamapp_confidence_mean", report.confidence.mean, kind, report.release)

    def exposition(self) -> bytes:
        """Gives what GET /metrics answers, in Prometheus's text format 0.0.4."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Gives every metric of DEFINITIONS, in their order."""
        self._counters["streamapp_feature_missing_total"] = self._dirty(0)
        self._counters["streamapp_feature_clipped_total"] = self._dirty(1)
        for name, definition in DEFINITIONS.items():
            if definition.kind == "counter":
                counter = CounterMetricFamily(name, definition.text, labels=definition.labels)
                for labels, value in self._counters[name].items():
                    counter.add_metric(labels, value)
                yield counter
            elif definition.kind == "gauge":
                gauge = GaugeMetricFamily(name, definition.text, labels=definition.labels)
                for labels, level in self._gauges[name].items():
                    gauge.add_metric(labels, level)
                yield gauge
            elif definition.kind == "summary":
                summary = SummaryMetricFamily(name, definition.text, labels=definition.labels)
                for labels, (runs, seconds) in self._summaries[name].items():
                    summary.add_metric(labels, int(runs), seconds)
                yield summary
            else:
                histogram = HistogramMetricFamily(name, definition.text, labels=definition.labels)
                for labels, seen in self._histograms[name].items():
                    histogram.add_metric(labels, seen.buckets(), seen.total)
                yield histogram

    def _dirty(self, which: Literal[0, 1]) -> Counter[Labels]:
        total: Counter[Labels] = Counter()
        for names, counts in self._dirt.items():
            for feature, count in zip(names, counts[which].tolist(), strict=True):
                total[feature,] += count
        return total

    def _histogram(self, name: str, *labels: str) -> _Histogram:
        found = self._histograms[name].get(labels)
        if found is None:
            found = self._histograms[name][labels] = _Histogram(DEFINITIONS[name].bounds)
        return found
