"""Reports depend on the set of partials: any order, redelivery, late ones, unknown releases, restarts."""

from __future__ import annotations

import json

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.control.monitor import Monitor
from streamapp.control.partial import Partial, from_record, part_n, to_record
from streamapp.core.card import Reference
from streamapp.core.drift import DriftReport, Limits
from streamapp.core.errors import RejectCode
from streamapp.core.observe import Rejected, WindowedObservations
from streamapp.core.partials import Layout, Observations

REFERENCES = {
    "a": Reference(edges=(1.0, 2.0, 3.0), counts=(250, 250, 250, 250), n=1000, mean=2.0, std=1.118),
    "score": Reference(edges=(0.25, 0.55), counts=(300, 300, 400), n=1000, mean=0.45, std=0.2872),
}
LAYOUT = Layout.of(("a", "b"), ("rule", "fast"), REFERENCES)
WINDOW_MS = 1000


def stream(partition: int, times: list[int], shift: float = 0.0, size: int = 10**9, first: int = 0) -> list[Observations]:
    """The partials of one partition; values follow from the row's number."""
    windows = WindowedObservations(LAYOUT, WINDOW_MS, part_n=size, grace_ms=0)
    n = len(times)
    row = np.arange(first, first + n)
    rejected = Rejected.of([0], [partition], [times[0]], [RejectCode.BLANK_TEXT])
    closed = windows.add(
        partition=np.full(n, partition), offset=row, event_time=np.array(times), values=np.column_stack([row % 4 + 0.5 + shift, row % 3]),
        score=row % 10 / 10, probability=row % 10 / 10, route=(row % 3).astype(np.int8), decided_by=(row % 2).astype(np.int8),
        flags=np.zeros(n, np.int32), missing=np.array([1, 0]), clipped=np.array([0, 2]), rejected=rejected,
    )  # fmt: skip
    return closed + windows.flush()


def records(*partials: Observations, release: str = "r1") -> list[bytes]:
    return [to_record(partial, "messages", release) for partial in partials]


def monitor(window_n: int = 10**9, partitions: int = 2, learnt: bool = True) -> Monitor:
    made = Monitor("messages", Limits(), window_n, partitions, settle_ms=5000)
    if learnt:
        made.learn("r1", LAYOUT)
    return made


def take(into: Monitor, values: list[bytes], now_ms: int = 0, replay: bool = False) -> list[DriftReport]:
    return [report for value in values for report in into.take(value, now_ms, replay)]


def test_a_record_carries_a_partial_without_loss() -> None:
    for partial in stream(3, [10] * 50 + [1500] * 5):
        record = msgspec.json.decode(to_record(partial, "messages", "r1"), type=Partial)
        back = from_record(record, LAYOUT)
        assert back.totals.tolist() == partial.totals.tolist()
        plain = ("partition", "start_ms", "end_ms", "final", "first_offset", "last_offset", "first_time", "last_time")
        assert [getattr(back, name) for name in plain] == [getattr(partial, name) for name in plain]


def test_a_window_is_reported_when_every_partition_has_passed_it() -> None:
    made = monitor()
    # Partition 0 moves on at 1500; partition 1 only later.
    assert take(made, records(*stream(0, [1, 2, 3, 1500]))) == []
    reports = take(made, records(*stream(1, [5, 6, 1001])))
    assert [(r.window.kind, r.window.start_ms, r.window.end_ms, r.window.n, r.complete, r.partitions) for r in reports] == [
        ("time", 0, 1000, 5, True, (0, 1))
    ]
    assert reports[0].rejects == {"blank_text": 2} and reports[0].revision == 1


def test_a_late_partial_corrects_the_report() -> None:
    made = monitor()
    take(made, records(*stream(0, [1, 2, 1500]), *stream(1, [5, 1001])))
    late = stream(1, [7, 8, 9], first=100)
    (corrected,) = [r for r in take(made, records(*late)) if r.window.start_ms == 0]
    assert (corrected.window.n, corrected.revision) == (6, 2)


def test_a_silent_partition_does_not_hold_a_window_for_ever() -> None:
    made = monitor()
    assert take(made, records(*stream(0, [1, 2, 1500])), now_ms=2000) == []
    assert made.settle(6999) == []
    first, second = made.settle(7000)
    assert (first.window.start_ms, first.window.n, first.complete, first.partitions) == (0, 2, False, (0,))
    assert second.window.start_ms == 1000
    assert made.settle(8000) == []


def test_the_day_is_reported_from_the_same_partials() -> None:
    day = 86_400_000
    made = monitor(partitions=1)
    reports = take(made, records(*stream(0, [1, 2, 50_000, day - 1, day + 1, day + 2000])))
    (whole,) = [r for r in reports if r.window.kind == "day"]
    assert (whole.window.start_ms, whole.window.end_ms, whole.window.n, whole.complete) == (0, day, 4, True)
    assert [r.window.n for r in reports if r.window.kind == "time"] == [2, 1, 1, 1]


def test_a_count_window_closes_after_n_events_of_all_partitions() -> None:
    made = monitor(window_n=100)
    partials = [p for partition in (0, 1) for p in stream(partition, [1] * 120, size=part_n(100, 2))]
    reports = [r for r in take(made, records(*partials)) if r.window.kind == "count"]
    # Partials of 100 and 20 from each: the second window takes what is there when it has enough.
    assert [(r.window.n, r.partitions) for r in reports] == [(100, (0,)), (120, (0, 1))]
    assert part_n(5000, 4) == 1250 and part_n(5000, 64) == 500 and part_n(100, 2) == 100


def test_drift_is_reported_and_counted_while_it_lasts() -> None:
    made = monitor(window_n=200, partitions=1)
    values = [stream(0, [1] * 200, shift=shift, first=at * 200) for at, shift in enumerate([0.0, 3.0, 3.0, 0.0, 3.0])]
    reports = [r for partials in values for r in take(made, records(*partials)) if r.window.kind == "count"]
    assert [(r.alarm, r.windows_in_alarm) for r in reports] == [(False, 0), (True, 1), (True, 2), (False, 0), (True, 1)]
    assert reports[1].features["a"].drifted


def test_redelivery_changes_nothing_and_an_overlap_is_told() -> None:
    made, again = monitor(), monitor()
    values = records(*stream(0, [1, 2, 3, 1500]), *stream(1, [5, 6, 1001]))
    once, twice = take(made, values), take(again, [value for value in values for _ in range(2)])
    assert once == twice and again.ignored == len(values)
    # A worker that crashed decides some rows again, cut otherwise.
    overlap = stream(0, [3, 4], first=2)
    (told,) = [r for r in take(made, records(*overlap)) if r.window.start_ms == 0]
    assert told.overlapping == 1


def test_partials_of_an_unknown_release_wait_for_it() -> None:
    made = monitor(partitions=1, learnt=False)
    assert take(made, records(*stream(0, [1, 2, 1500]))) == []
    (report,) = made.learn("r1", LAYOUT)
    assert report.window.n == 2
    # Several parts of one window wait: one report, not one per part.
    waiting = monitor(partitions=1, learnt=False)
    assert take(waiting, records(*stream(0, [1, 2, 3, 4, 5, 1500], size=2)), replay=True) == []
    assert [r.window.n for r in waiting.learn("r1", LAYOUT)] == [5]
    other = Layout.of(("a",), ("rule", "fast"), {})
    stranger = monitor(learnt=False)
    stranger.learn("r1", other)
    assert take(stranger, records(*stream(0, [1, 1500]))) == [] and stranger.ignored == 2


def test_records_that_are_nobodys_partial_are_counted() -> None:
    made = monitor()
    good = json.loads(records(*stream(0, [1]))[0])
    bad = [b"", b"{}", b'{"type":"partial"}', b"\xff", json.dumps({**good, "pipeline": "payments"}).encode()]
    del good["features"]["a"]
    assert take(made, [*bad, json.dumps(good).encode()]) == [] and made.ignored == 6


def test_a_new_owner_reads_history_and_repeats_nothing() -> None:
    first = monitor()
    values = records(*stream(0, [1, 2, 3, 1500]), *stream(1, [5, 6, 1001]))
    history = values + [msgspec.json.encode(report) for report in take(first, values)]
    second = monitor()
    assert take(second, history, replay=True) == []
    assert [r for r in second.settle(10**9) if r.window.start_ms == 0 and r.window.kind == "time"] == []
    # A correction goes on from the last revision.
    (corrected,) = [r for r in take(second, records(*stream(1, [7], first=50)), now_ms=10**9) if r.window.start_ms == 0 and r.window.n == 6]
    assert corrected.revision == 2


def test_what_is_left_is_reported_at_the_end() -> None:
    made = monitor(window_n=10)
    take(made, records(*stream(0, [1, 2, 3])))
    assert sorted((r.window.kind, r.window.n, r.complete) for r in made.finish()) == [("count", 3, True), ("time", 3, False)]


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 3500), min_size=1, max_size=40), st.integers(2, 9))
def test_the_last_revision_does_not_depend_on_the_order(random: object, times: list[int], size: int) -> None:
    values = [v for partition in (0, 1) for v in records(*stream(partition, times, size=size))]

    def last(order: list[bytes]) -> dict[int, tuple]:
        made = monitor()
        reports = take(made, order) + made.settle(10**9)
        return {
            r.window.start_ms: (r.window, r.features, r.score, r.routes, r.rejects, r.alarm)
            for r in reports if r.window.kind == "time"
        }  # fmt: skip

    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert last(values) == last(shuffled)
