"""Labels and lists as their topics told them: each event knows what had come by then, and nothing that came later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streamapp.bus.follow import Record
from streamapp.bus.past import segments
from streamapp.cli.known_then import KnownThen
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
