"""Partials of all partitions and workers become drift reports: merged in any order, corrected when one comes late."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from streamapp.control.partial import Partial, from_record
from streamapp.core.drift import DriftReport, Limits, WindowKind, drift_report
from streamapp.core.errors import InvariantBroken
from streamapp.core.partials import Layout, Observations

DAY_MS = 86_400_000
#: Merged windows that are kept for corrections: two days of five-minute windows.
KEEP_WINDOWS = 600
#: Partials of a release that this worker has not loaded (yet) that wait for it.
KEEP_UNKNOWN = 1000


@dataclass(slots=True)
class _Merged:
    """One window of one release, as far as its partials have come."""

    end_ms: int
    observed: Observations | None = None
    reach: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by partition: offsets of the partials merged
    overlapping: int = 0
    changed_ms: int = 0  #   when the last partial came
    reported_n: int = -1
    revision: int = 0


class Monitor:
    """Merges partials into reports; no I/O, time is an argument.

    Law: the last revision of a window depends on the set of its partials, not on their order, nor on redelivery.
    A window is reported when every source partition has passed its end, when nothing has come for `settle_ms` after its end by
    the clock, and again whenever a later partial changes it; besides, after every `window_n` events, whatever their time.
    """

    def __init__(self, pipeline: str, limits: Limits, window_n: int, partitions: int, settle_ms: int = 30_000) -> None:
        """`partitions` is the source topic's count; `window_n` events make a count window."""
        self.pipeline, self.limits, self.window_n = pipeline, limits, window_n
        self.partitions, self.settle_ms = partitions, settle_ms
        self.ignored = 0  #  records that were nobody's partial: redelivered, of a release never loaded, or unreadable
        self._layouts: dict[str, Layout] = {}
        self._unknown: list[tuple[Partial, bool]] = []  # with `replay`
        self._windows: dict[tuple[WindowKind, int, str], _Merged] = {}
        self._passed: dict[int, int] = {}  #  by partition: event time up to which its windows are behind it
        self._count: dict[str, tuple[Observations, set[int]]] = {}
        self._in_alarm: dict[tuple[WindowKind, str], dict[int, bool]] = {}
        self._decoder = msgspec.json.Decoder(Partial | DriftReport)

    def learn(self, release: str, layout: Layout, now_ms: int = 0) -> list[DriftReport]:
        """Names the reference bins of a release; gives the reports of the partials that waited for it."""
        self._layouts[release] = layout
        waiting, self._unknown = self._unknown, []
        reports = [report for record, replay in waiting for report in self._merge(record, now_ms, replay)]
        return reports + self._due()

    def take(self, value: bytes, now_ms: int, replay: bool = False) -> list[DriftReport]:
        """Takes one record of the monitoring topic; gives the reports it completes.

        With `replay` the record is history: it fills the windows, and a report in it says what is known already.
        """
        try:
            record = self._decoder.decode(value)
        except msgspec.DecodeError:
            self.ignored += 1
            return []
        if isinstance(record, Partial):
            return self._merge(record, now_ms, replay) + ([] if replay else self._due())
        if replay and record.window.kind != "count":
            known = self._window(record.window.kind, record.window.start_ms, record.window.end_ms, record.release, now_ms)
            known.reported_n, known.revision = record.window.n, max(known.revision, record.revision)
        return []

    def settle(self, now_ms: int) -> list[DriftReport]:
        """Gives the reports of windows that have ended and to which nothing was added for `settle_ms`; also corrections."""
        due = [
            key
            for key, window in self._windows.items()
            if now_ms >= window.end_ms and now_ms - window.changed_ms >= self.settle_ms and self._is_news(window)
        ]
        return [self._report(key) for key in due]

    def finish(self) -> list[DriftReport]:
        """Gives the reports of everything that was not reported yet, as it stands: the worker stops."""
        reports = [self._report(key) for key, window in self._windows.items() if key[0] == "time" and self._is_news(window)]
        return reports + [self._report_count(release) for release in tuple(self._count)]

    def _merge(self, record: Partial, now_ms: int, replay: bool) -> list[DriftReport]:
        """Gives the count windows that this partial fills; `_due` gives the others."""
        layout = self._layouts.get(record.release)
        if record.pipeline != self.pipeline or (layout is not None and layout.key != record.layout):
            self.ignored += 1
            return []
        if layout is None:
            self._unknown.append((record, replay))
            self.ignored += len(self._unknown) > KEEP_UNKNOWN
            self._unknown = self._unknown[-KEEP_UNKNOWN:]
            return []
        try:
            partial = from_record(record, layout)
        except (KeyError, ValueError):
            self.ignored += 1
            return []
        passed = partial.end_ms if partial.final else partial.start_ms
        self._passed[partial.partition] = max(passed, self._passed.get(partial.partition, passed))
        if not self._add(("time", partial.start_ms, record.release), partial.end_ms, partial, now_ms):
            self.ignored += 1
            return []
        day = partial.start_ms // DAY_MS * DAY_MS
        self._add(("day", day, record.release), day + DAY_MS, partial, now_ms)
        self._forget()
        return self._counted(partial, record.release, replay)

    def _due(self) -> list[DriftReport]:
        # One partial may have moved its partition past the end of several windows.
        return [self._report(key) for key, window in self._windows.items() if self._is_news(window) and self._is_complete(window)]

    def _add(self, key: tuple[WindowKind, int, str], end_ms: int, partial: Observations, now_ms: int) -> bool:
        window = self._window(key[0], key[1], end_ms, key[2], now_ms)
        first, last = partial.first_offset, partial.last_offset
        known = window.reach.setdefault(partial.partition, [])
        if partial.n and key[0] == "time":
            if any(a <= first and last <= b for a, b in known):
                return False
            window.overlapping += any(a <= last and first <= b for a, b in known)
            known.append((first, last))
        window.observed = partial if window.observed is None else window.observed + partial
        window.changed_ms = now_ms
        return True

    def _window(self, kind: WindowKind, start_ms: int, end_ms: int, release: str, now_ms: int) -> _Merged:
        return self._windows.setdefault((kind, start_ms, release), _Merged(end_ms, changed_ms=now_ms))

    def _counted(self, partial: Observations, release: str, replay: bool) -> list[DriftReport]:
        merged, partitions = self._count.get(release, (None, set[int]()))
        merged = partial if merged is None else merged + partial
        self._count[release] = merged, partitions | {partial.partition}
        if merged.n < self.window_n:
            return []
        if replay:
            del self._count[release]
            return []
        return [self._report_count(release)]

    def _report_count(self, release: str) -> DriftReport:
        merged, partitions = self._count.pop(release)
        return self._write("count", release, merged, tuple(sorted(partitions)), revision=1, complete=True, overlapping=0)

    def _report(self, key: tuple[WindowKind, int, str]) -> DriftReport:
        kind, start, release = key
        window = self._windows[key]
        if window.observed is None:
            raise InvariantBroken(f"A window without partials is to be reported: {key}")
        window.reported_n, window.revision = window.observed.n, window.revision + 1
        merged = replace(window.observed, start_ms=start, end_ms=window.end_ms)
        return self._write(
            kind, release, merged, tuple(sorted(window.reach)), window.revision, self._is_complete(window), window.overlapping
        )

    def _write(
        self, kind: WindowKind, release: str, merged: Observations, partitions: tuple[int, ...], revision: int, complete: bool,
        overlapping: int,
    ) -> DriftReport:  # fmt: skip
        alarms = self._in_alarm.setdefault((kind, release), {})
        # Count windows follow one another by arrival; the others by their start.
        place = max(alarms, default=-1) + 1 if kind == "count" else merged.start_ms
        before = 0
        for earlier in sorted((start for start in alarms if start < place), reverse=True):
            if not alarms[earlier]:
                break
            before += 1
        report = drift_report(
            merged, self.limits, pipeline=self.pipeline, release=release, kind=kind, revision=revision, complete=complete,
            partitions=partitions, windows_in_alarm=before, overlapping=overlapping,
        )  # fmt: skip
        alarms[place] = report.alarm
        if len(alarms) > KEEP_WINDOWS:
            del alarms[min(alarms)]
        return report

    def _is_news(self, window: _Merged) -> bool:
        return window.observed is not None and window.observed.n != window.reported_n

    def _is_complete(self, window: _Merged) -> bool:
        return all(self._passed.get(partition, window.end_ms - 1) >= window.end_ms for partition in range(self.partitions))

    def _forget(self) -> None:
        while len(self._windows) > KEEP_WINDOWS:
            oldest = min(self._windows, key=lambda key: self._windows[key].changed_ms)
            del self._windows[oldest]
