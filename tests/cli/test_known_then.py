"""Labels and lists as their topics told them: each event knows what had come by then, and nothing that came later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.bus.follow import Record
from streamapp.bus.past import segments
from streamapp.cli.known_then import SPAN_MS, KnownThen
from streamapp.control.rerun import Rerun
from streamapp.core import lists_entry
from streamapp.pipeline import Read
from tests.label_line import DAY_MS, SERVING, ask, label
from tests.line import SPEC, serving_of


def told(ms: int, offset: int, value: Mapping[str, Any] | bytes, key: bytes | None = None) -> Record:
    return Record("t", 0, offset, ms, key, value if isinstance(value, bytes) else json.dumps(value).encode(), {})


def test_labels_are_known_from_when_they_came() -> None:
    labels = [told(200, 1, label("b", 20, "fraud")), told(100, 0, label("a", 10, "genuine")), told(300, 2, b"no label")]
    known = KnownThen(SERVING, labels, [])
    answered = []
    for came_ms in (50, 100, 250, 900):
        known.move(came_ms)
        read = known.read(Read())
        assert read.labels is not None and read.lists is None
        answered.append(ask(read.labels.state, [8 * DAY_MS])[1][0].tolist())
    assert answered[0] != answered[1] != answered[2] == answered[3]


def test_lists_are_those_of_the_time() -> None:
    serving = serving_of()
    listed = SPEC.lists["blocked_users"]
    key, entry = lists_entry.entry_of("blocked_users", listed, "u1", None, owner="", reason="", added_at=0, expires_at=0)
    lists = [told(100, 0, lists_entry.encode(entry), key), told(150, 1, b"no entry", b"no key"), Record("t", 0, 2, 200, key, None, {})]
    known = KnownThen(serving, [], lists)
    again = Rerun(serving, lambda _: known.read(Read()))
    routes = []
    for offset, came_ms in enumerate((50, 120, 250)):
        known.move(came_ms)
        event = {"event_id": f"e{offset}", "user_id": "u1", "text": "hello there", "event_time": came_ms}
        ((place, line),) = again.answers(segments([told(came_ms, offset, event)]), features=True)
        answer = json.loads(line)
        assert place == (0, offset) and answer["decided_at"] == came_ms and "features" in answer
        routes.append((answer["verdict"], answer["decided_by"]))
    assert routes[1] == ("block", "list:blocked_users") and routes[0] == routes[2] != routes[1]


def entry_record(ms: int, offset: int, *, remove: bool = False) -> Record:
    key, entry = lists_entry.entry_of(
        "blocked_users", SPEC.lists["blocked_users"], "u1", None, owner="", reason="", added_at=0, expires_at=0
    )
    return Record("t", 0, offset, ms, key, None if remove else lists_entry.encode(entry), {})


def event_record(ms: int, offset: int) -> Record:
    return told(ms, offset, {"event_id": f"e{offset}", "user_id": "u1", "text": "hello there", "event_time": ms})


def test_each_event_of_a_slice_knows_what_had_come_by_then() -> None:
    serving = serving_of()
    known = KnownThen(serving, [], [entry_record(1_500, 0), entry_record(4_000, 1, remove=True), entry_record(4_001, 2)])
    again = Rerun(serving, lambda _: known.read(Read()))
    routes, decided_at = [], []
    for part in known.parts([event_record(ms, at) for at, ms in enumerate((1_000, 1_499, 1_500, 1_501, 3_999, 4_000, 9_000_000))]):
        for _, line in again.answers(segments(part), features=False):
            answer = json.loads(line)
            routes.append(answer["verdict"] == "block")
            decided_at.append(answer["decided_at"])
    assert routes == [False, False, True, True, True, False, True]
    assert all(at - ms < SPAN_MS for at, ms in zip(decided_at, (1_000, 1_499, 1_500, 1_501, 3_999, 4_000, 9_000_000), strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5_000), max_size=40), st.lists(st.integers(0, 5_000), max_size=6))
def test_parts_are_the_slice_in_its_order_and_hold_nothing_that_came_in_between(times: list[int], entries: list[int]) -> None:
    known = KnownThen(serving_of(), [], [entry_record(ms, at) for at, ms in enumerate(sorted(entries))])
    records = [event_record(ms, at) for at, ms in enumerate(sorted(times))]
    found = list(known.parts(records))
    assert [record for part in found for record in part] == records
    for part in found:
        first, last = part[0].timestamp_ms, part[-1].timestamp_ms
        assert last - first < SPAN_MS and not [ms for ms in entries if first < ms <= last]


def test_entries_are_taken_by_offset_whatever_the_clocks_of_who_sent_them() -> None:
    serving = serving_of()
    known = KnownThen(serving, [], [entry_record(990, 1, remove=True), entry_record(1_000, 0)])
    again = Rerun(serving, lambda _: known.read(Read()))
    verdicts = []
    for part in known.parts([event_record(995, 0), event_record(1_000, 1)]):
        verdicts += [json.loads(line)["verdict"] for _, line in again.answers(segments(part), features=False)]
    assert "block" not in verdicts, "the entry was taken off again before anybody could know it"


def test_a_rerun_is_the_same_however_it_is_cut_and_refuses_what_is_no_event() -> None:
    values = [
        b"{broken" if at % 7 == 3 else json.dumps({"event_id": f"e{at % 11}", "user_id": f"u{at % 3}", "text": f"win {at} now"}).encode()
        for at in range(60)
    ]
    records = [Record("t", at % 3, at // 3, 1000 + at, None, value, {}) for at, value in enumerate(values)]
    found = []
    for size in (1, 7, 60):
        again = Rerun(serving_of(), lambda _: Read())
        answers: dict[Any, Any] = {}
        for first in range(0, len(records), size):
            answers |= again.answers(segments(records[first : first + size]), features=False)
        found.append({place: {**json.loads(line), "decided_at": 0} for place, line in answers.items()})
    assert found[0] == found[1] == found[2]
    assert {one.get("dead_letter") for one in found[0].values()} == {None, "invalid_json"} and len(found[0]) == 60
