"""An event that was answered before a crash and is decided otherwise after it: what is still missing says what was answered."""

from __future__ import annotations

import numpy as np

from streamapp.bus.answered import Answered, unlogged
from streamapp.bus.emit import Delivery
from streamapp.bus.topics import Topics
from streamapp.core.dedupe import DECISION
from streamapp.core.route import APPROVE, BLOCK, REVIEW, ROUTE_NAMES, UNDECIDED
from streamapp.core.texts import Texts
from tests.line import linear_model, run, segment, serving_of

APPROVED, BLOCKED = (
    b'{"event_id":"\\",\\"features\\":{","verdict":"approve","score":0.1}',
    b'{"event_id":"e","verdict":"block","score":0.9}',
)


def decision(verdict: bytes, features: bytes = b'{"a":1.0}') -> bytes:
    return verdict[:-1] + b',"shadow_rules":["x"],"features":' + features + b',"text_sha256":"00"}'


def test_outputs_beyond_the_journal_are_sorted_by_what_they_lack() -> None:
    outputs = [
        ("approve", 7, APPROVED),
        ("decisions", 5, decision(BLOCKED)),
        ("letters", 6, b"raw"),
        ("block", 4, BLOCKED),
        ("decisions", 4, b""),
    ]
    found = unlogged(outputs, "decisions", "letters")
    assert found and (found.verdicts.tolist(), found.decisions.tolist()) == ([4, 6, 7], [4, 5])
    assert found.told == {7: APPROVED}, "4 has both, 6 is a dead letter"
    assert found.logged == {5: decision(BLOCKED)}
    assert found.before(8) and not found.before(7)
    assert not unlogged([], "decisions", "letters") and unlogged([], "decisions", "letters").before(0)


def test_a_decision_record_takes_the_verdict_that_is_out_and_a_verdict_the_record_that_is_out() -> None:
    offsets, route = np.array([10, 11, 12, 13]), np.array([BLOCK, BLOCK, REVIEW, APPROVE], np.int8)
    verdicts = Texts.of([BLOCKED] * 4)
    decisions = Texts.of([decision(BLOCKED, b'{"a":%d.0}' % row) for row in range(4)])
    found = Answered(np.array([10]), np.array([11, 12]), {10: APPROVED}, {11: decision(APPROVED), 12: b'{"unknown":1}'})
    logged = found.as_told(offsets, verdicts, decisions)
    assert logged is not None
    again = APPROVED[:-1] + b',"decided_again":true,"shadow_rules":["x"],"features":{"a":0.0},"text_sha256":"00"}'
    assert list(logged) == [again, *list(decisions)[1:]], "its features are those of now"
    taken, told = found.as_logged(offsets, route, verdicts, "verdict")
    assert taken.tolist() == [BLOCK, APPROVE, REVIEW, APPROVE] and list(told) == [BLOCKED, APPROVED, BLOCKED, BLOCKED]
    assert route.tolist() == [BLOCK, BLOCK, REVIEW, APPROVE], "the outcome itself is not touched"
    routes, missing = found.missing(offsets, taken)
    assert routes.tolist() == [UNDECIDED, APPROVE, REVIEW, APPROVE] and missing.tolist() == [True, False, False, True]
    assert found.as_told(offsets, verdicts, None) is None


def test_a_copy_will_repeat_what_was_said() -> None:
    found = unlogged([("approve", 10, APPROVED), ("decisions", 11, decision(BLOCKED)), ("letters", 12, b"raw")], "decisions", "letters")
    decided = np.zeros(4, DECISION)
    decided["route"], decided["score"], decided["decided_by"] = REVIEW, 0.5, 2
    names = {"verdict": "verdict", "score": "score"}
    assert found.remember(np.array([10, 11, 12, 13]), decided, names, ("rule", "fast", "default"))
    assert decided["route"].tolist() == [APPROVE, BLOCK, REVIEW, REVIEW] and decided["score"].tolist() == [0.1, 0.9, 0.5, 0.5]
    assert decided["decided_by"].tolist() == [2] * 4, "who decided was not said"
    assert not found.remember(np.array([13]), decided[3:], names, ())


def test_a_copy_in_the_micro_batch_of_its_original_repeats_what_was_said_before_the_crash() -> None:
    serving = serving_of(linear_model())
    event = b'{"event_id":"e","user_id":"u","text":"see you there","event_time":5}'
    other = event.replace(b'"e"', b'"f"')
    outcome = run(serving, [segment([event, other, event])])
    said = next(route for route in ROUTE_NAMES if route != ROUTE_NAMES[outcome.route[0]])
    delivery = Delivery(None, Topics("t"), guarantee=object())  # type: ignore[arg-type]  # nothing is sent
    record = b'{"verdict":"%b","score":7.5,"decided_by":"rule"}' % said.encode()
    nothing = np.empty(0, np.int64)
    delivery.answered_already(0, Answered(np.array([0]), nothing, said={0: record}))
    before = int(outcome.route[1])
    delivery.remember(outcome, serving.deciders)
    assert [ROUTE_NAMES[outcome.route[2]], outcome.score[2], serving.deciders[outcome.decided_by[2]]] == [said, 7.5, "rule"]
    assert outcome.route[1] == before
