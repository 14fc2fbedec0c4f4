"""Labels move the delayed windows of what they name: late, twice, corrected, taken back; what is no label is named."""

from __future__ import annotations

from typing import Any

import pytest

from streamapp.core.errors import ConfigError, RejectCode
from streamapp.core.events import Flag
from streamapp.core.labels import LabelState
from streamapp.core.spec import parse_spec
from tests.label_line import DAY_MS, DOCUMENT, SERVING, ask, label, records

LATER = 100 * DAY_MS
NAMES = SERVING.features.names


def state_of(*labels: dict[str, Any]) -> LabelState:
    known = SERVING.labels.new()
    taken = SERVING.labels.decode([records(labels, [LATER] * len(labels))])
    assert not taken.rejects
    known.take(taken)
    return known


def answer(known: LabelState | None, time: int, **who: Any) -> dict[str, float]:
    _, values = ask(known, [time], **who)
    return dict(zip(NAMES, values[0].tolist(), strict=True))


def test_a_label_counts_from_its_delay_until_it_leaves_the_window() -> None:
    known = state_of(label("a", 1000, "fraud"))
    for after, held in ((7 * DAY_MS - 1, 0), (7 * DAY_MS, 1), (8 * DAY_MS - 1, 1), (8 * DAY_MS, 0)):
        found = answer(known, 1000 + after)
        assert (found["known_1d_count"], found["known_1d_risk"]) == (held, held), after
    assert answer(known, 1000 + 8 * DAY_MS)["known_7d_count"] == 1


def test_every_entity_that_is_named_has_windows_of_its_own() -> None:
    known = state_of(label("a", 0, "stolen", "t", "c"), label("b", 0, "genuine", "t", "d"), label("c", 0, "fraud", None, "d"))
    found = answer(known, DAY_MS, customer="d")
    assert (found["customer_known_2d_positives"], found["customer_known_2d_risk"]) == (1, 0.5)
    found = answer(known, 7 * DAY_MS, terminal="t")
    assert (found["known_7d_count"], found["known_7d_risk"]) == (2, 0.5)
    found = answer(known, 7 * DAY_MS, terminal=None)
    assert (found["known_7d_count"], found["terminal_id_labels_windows_missing"]) == (0, 1)


def test_weights_are_in_the_risk_and_not_in_the_count() -> None:
    known = state_of(label("a", 0, "fraud", weight=0.25), label("b", 0, "genuine", weight=1.0), label("c", 0, "fraud", weight=0))
    found = answer(known, 7 * DAY_MS)
    assert (found["known_1d_count"], found["known_1d_risk"]) == (3, 0.2)


def test_nothing_to_go_by_gives_the_declared_default() -> None:
    assert answer(state_of(), DAY_MS)["customer_known_2d_risk"] == 0.25
    missing = answer(None, DAY_MS)
    assert (missing["customer_known_2d_risk"], missing["customer_id_labels_windows_missing"]) == (0.25, 1)
    assert answer(state_of(label("a", 0, "fraud", weight=0)), DAY_MS)["customer_known_2d_risk"] == 0.25


def test_the_latest_word_counts_whatever_came_last() -> None:
    words = [
        label("a", 0, "fraud", labelled_at=10), label("a", 0, "genuine", labelled_at=20), label("b", 0, "genuine", labelled_at=20),
        label("b", 0, "fraud", labelled_at="1970-01-01T00:00:00.030Z"),
    ]  # fmt: skip
    for order in (words, words[::-1]):
        found = answer(state_of(*order), 7 * DAY_MS)
        assert (found["known_1d_count"], found["known_1d_risk"]) == (2, 0.5)
    found = answer(state_of(*words, label("b", 0, "unknown", labelled_at=40)), 7 * DAY_MS)
    assert (found["known_1d_count"], found["known_1d_risk"]) == (1, 0)


def test_a_correction_may_name_another_terminal_and_another_time() -> None:
    known = state_of(label("a", 0, "fraud", "t", labelled_at=1), label("a", DAY_MS, "fraud", "u", labelled_at=2))
    assert answer(known, 7 * DAY_MS, terminal="t")["known_1d_count"] == 0
    assert answer(known, 7 * DAY_MS, terminal="u")["known_1d_count"] == 0
    assert answer(known, 8 * DAY_MS, terminal="u")["known_1d_count"] == 1


def test_a_label_that_comes_twice_says_nothing_new() -> None:
    known = state_of(label("a", 0, "fraud"), label("a", 0, "fraud"))
    assert (known.new, known.repeated) == (1, 1)
    assert answer(known, 7 * DAY_MS)["known_1d_count"] == 1


def test_what_no_window_can_see_any_more_is_let_go() -> None:
    known = state_of(label("a", 0, "fraud"))
    assert answer(known, LATER)["known_30d_count"] == 0
    known.take(SERVING.labels.decode([records([label("b", 0, "fraud"), label("c", LATER - 8 * DAY_MS, "fraud")], [LATER, LATER])]))
    assert (known.new, known.expired) == (2, 1)
    assert answer(known, LATER)["known_30d_count"] == 1


def test_labels_that_are_known_before_old_events_come_take_nothing_from_them() -> None:
    """A worker that has been away for long reads all labels first, then the events of the days before."""
    known = state_of(*(label(f"e{day}", day * DAY_MS, "fraud") for day in range(90)))
    for day in (8, 40, 96):
        assert answer(known, day * DAY_MS)["known_30d_count"] == min(30, day - 6), day


def test_the_book_forgets_what_is_too_old_before_it_grows() -> None:
    known = SERVING.labels.new()
    for day in range(100):
        said = [label(f"{day}-{place}", day * DAY_MS, "genuine", f"t{place}") for place in range(50)]
        known.take(SERVING.labels.decode([records(said, [day * DAY_MS] * 50)]))
        assert answer(known, day * DAY_MS)["known_30d_count"] <= 50
    assert known.new == 100 * 50
    assert len(known.book) < 4 * 50 * 38
    assert answer(known, 99 * DAY_MS, terminal="t3")["known_30d_count"] == 30


def test_more_labels_than_the_cap_are_flagged() -> None:
    known = state_of(*(label(f"e{place}", place, "fraud") for place in range(4200)))
    outcome, _ = ask(known, [7 * DAY_MS + 5000])
    assert outcome.plan.flags.tolist() == [Flag.OVERFLOW]


@pytest.mark.parametrize(
    ("value", "code", "path"),
    [
        (b"not json", RejectCode.INVALID_JSON, "$"),
        (None, RejectCode.NULL_VALUE, "$"),
        ({"event_time": 1, "label": "fraud", "customer_id": "c"}, RejectCode.MISSING_FIELD, "$.event_id"),
        ({"event_id": "a", "label": "fraud", "customer_id": "c"}, RejectCode.MISSING_FIELD, "$.event_time"),
        ({"event_id": "a", "event_time": 1, "label": "fraud"}, RejectCode.MISSING_FIELD, "$.customer_id"),
        ({"event_id": "a", "event_time": 1, "customer_id": "c"}, RejectCode.MISSING_FIELD, "$.label"),
        (label("a", 1, "guilty"), RejectCode.PATTERN_MISMATCH, "$.label"),
        (label("a", 1, "fraud", weight=1.5), RejectCode.OUT_OF_RANGE, "$.weight"),
        (label("a", 1, "fraud", weight="x"), RejectCode.WRONG_TYPE, "$.weight"),
        (label("a", 1, "fraud", labelled_at="soon"), RejectCode.INVALID_TIME, "$.labelled_at"),
        (label("a", 1, "fraud", labelled_at=[1]), RejectCode.INVALID_TIME, "$.labelled_at"),
        ({**label("a", 1, "fraud"), "event_time": "yesterday"}, RejectCode.INVALID_TIME, "$.event_time"),
    ],
)
def test_what_is_no_label_is_named_and_its_neighbours_count(value: Any, code: RejectCode, path: str) -> None:
    taken = SERVING.labels.decode([records([label("x", 1, "fraud"), value, label("y", 2, "genuine")], [9, 9, 9])])
    assert [(reject.index, reject.code, reject.path) for reject in taken.rejects] == [(1, code, path)]
    assert taken.said[:, 0].tolist() == [1, 2]


def test_a_label_from_the_future_takes_the_time_of_its_record() -> None:
    taken = SERVING.labels.decode([records([label("a", 1, "fraud", labelled_at=10 * DAY_MS)], [DAY_MS])])
    assert taken.said[0].tolist() == [1, DAY_MS, 1, 1000]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": None}, "velocity.known_1d.fed_by: there is no [labels]"),
        ({"labels": {"positive": [], "negative": ["genuine"]}}, "labels.positive: names no label"),
        ({"labels": {"positive": ["fraud"], "negative": ["fraud"]}}, "labels: `fraud` is both"),
        ({"labels": {"positive": ["unknown"], "negative": ["genuine"]}}, "labels: `unknown` is both, or is what takes a label back"),
        ({"labels": {"positive": ["fraud"]}}, "labels.negative"),
    ],
)
def test_mistakes_in_the_pipeline_file_are_named(change: dict[str, Any], said: str) -> None:
    document = {name: part for name, part in {**DOCUMENT, **change}.items() if part is not None}
    with pytest.raises(ConfigError) as failure:
        parse_spec(document, "tests")
    assert said in str(failure.value)


def test_a_pipeline_without_labels_has_no_label_windows() -> None:
    from tests.line import serving_of

    assert serving_of().labels.stores == () and serving_of().labels.features == ()
