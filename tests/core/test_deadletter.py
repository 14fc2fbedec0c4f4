"""What a dead letter carries."""

import numpy as np

from streamapp.core.deadletter import dead_letter, describe
from streamapp.core.errors import Reject, RejectCode
from streamapp.core.events import Headers, Segment

REJECT = Reject(0, 1, RejectCode.INVALID_JSON, "$", "not JSON: unexpected end", "decode")


def segment(headers: Headers = ()) -> Segment:
    """Two records; the second is broken."""
    return Segment("m.events.v1", 3, 7, np.array([40, 41]), np.array([1, 2]), [b"a", b"b"], [b"{}", b"\xff{"], [(), headers])


def test_key_value_and_headers_stay_and_the_reason_is_beside_them() -> None:
    key, value, headers = dead_letter(REJECT, segment([("trace", b"x"), ("empty", None)]), 99)
    found = dict(headers)
    assert (key, value, found["trace"], found["empty"]) == (b"b", b"\xff{", b"x", None)
    assert found["dlq.reason"] == b"invalid_json" and found["dlq.path"] == b"$" and found["dlq.stage"] == b"decode"
    assert found["__streams.errors.topic"] == b"m.events.v1"
    assert found["__streams.errors.partition"] == b"3" and found["__streams.errors.offset"] == b"41"
    assert found["dlq.first-failed-at"] == b"99" and found["dlq.replay-count"] == b"0"


def test_a_replayed_dead_letter_keeps_its_first_time_and_count_and_no_header_stands_twice() -> None:
    _, _, first = dead_letter(REJECT, segment(), 99)
    replayed = [(name, b"2" if name == "dlq.replay-count" else value) for name, value in first]
    _, _, second = dead_letter(REJECT, segment(replayed), 500)
    names = [name for name, _ in second]
    assert len(names) == len(set(names))
    assert dict(second)["dlq.first-failed-at"] == b"99" and dict(second)["dlq.replay-count"] == b"2"


def test_as_json_it_shows_bytes_that_are_no_text_escaped() -> None:
    assert describe(REJECT, segment()) == {
        "dead_letter": "invalid_json",
        "path": "$",
        "message": "not JSON: unexpected end",
        "stage": "decode",
        "source": {"topic": "m.events.v1", "partition": 3, "offset": 41},
        "value": "\\xff{",
    }
