"""What workers answered, by place: the last answer counts, and what is no answer to an event that is asked about is passed over."""

from __future__ import annotations

from io import BytesIO

from streamapp.bus.follow import Record
from streamapp.cli.answered import Answered
from streamapp.core.deadletter import SOURCE_TOPIC


def answer(ms: int, offset: bytes | None, value: bytes | None = b'{"verdict":"approve"}', **headers: bytes) -> Record:
    said = {"source-offset": offset} | {name.replace("dlq_", "dlq."): header for name, header in headers.items()}
    return Record("t", 0, 0, ms, None, value, said)


def told(*records: Record) -> dict[tuple[int, int], dict[str, object]]:
    found = Answered(BytesIO(), {(0, number) for number in range(5)}, "ns.events.v1")
    for record in records:
        found.take(record)
    return dict(found.records())


def test_of_several_answers_the_one_that_came_last_counts_in_whatever_order_they_are_read() -> None:
    first, last = answer(10, b"1"), answer(20, b"1", b'{"verdict":"block"}')
    assert told(first, last) == told(last, first) == {(0, 1): {"verdict": "block"}}


def test_what_names_no_event_that_is_asked_about_is_passed_over() -> None:
    assert told(answer(1, None), answer(1, b""), answer(1, b"x7"), answer(1, b"-1"), answer(1, b"9")) == {}
    assert told(answer(1, b"1", b"[1]"), answer(1, b"2", b"{")) == {(0, 1): {}, (0, 2): {}}


def test_a_dead_letter_answers_by_its_reason_where_it_is_of_these_events() -> None:
    refused = {"dlq_reason": b"invalid_json", "dlq_path": b"$.text"}
    ours, others = (answer(1, b"1", b"{broken", **refused, **{SOURCE_TOPIC: topic}) for topic in (b"ns.events.v1", b"ns.labels.v1"))
    assert told(ours) == {(0, 1): {"dead_letter": "invalid_json", "path": "$.text"}}
    assert told(others) == {}
