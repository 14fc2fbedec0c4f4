"""Laws of the whole line, from bytes to decision records, on the generator's stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp import pipeline
from streamapp.control.generate import Mix, messages
from streamapp.core.route import APPROVE, ROUTE_NAMES
from tests.line import answers, linear_model, run, segment, serving_of

N = 300


@cache
def stream() -> tuple[bytes | None, ...]:
    return tuple(one.value for one in messages(N, Mix(seed=11, garbage=0.1, spam=0.3)))


@cache
def serving() -> pipeline.Serving:
    return serving_of(linear_model())


@cache
def at_once() -> dict[tuple[int, int], dict[str, Any]]:
    return answers(serving(), [segment(stream())])


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Equal in everything; numbers of the model within 1e-6."""
    for name in ("score", "probability", "threshold"):
        a, b = left.get(name), right.get(name)
        if (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > 1e-6):
            return False
    ours = {"score", "probability", "threshold", "reasons"}
    reasons = [[reason["code"] for reason in one.get("reasons", ())] for one in (left, right)]
    rest = [{name: value for name, value in one.items() if name not in ours} for one in (left, right)]
    return reasons[0] == reasons[1] and rest[0] == rest[1]


def test_every_record_is_answered_once_and_all_routes_appear() -> None:
    found = at_once()
    assert sorted(found) == [(0, offset) for offset in range(N)]
    assert {one.get("verdict") for one in found.values()} == {*ROUTE_NAMES, None}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, N), max_size=12))
def test_however_a_stream_is_cut_decisions_agree(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), N]
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for low, high in pairwise(bounds):
        if high > low:
            found |= answers(serving(), [segment(stream()[low:high], first=low)])
    assert found.keys() == at_once().keys()
    assert all(same(found[place], at_once()[place]) for place in found)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, N), st.binary(max_size=40)), max_size=20))
def test_garbage_in_between_changes_nothing_else(garbage: list[tuple[int, bytes]]) -> None:
    mixed: list[tuple[int | None, bytes | None]] = list(enumerate(stream()))
    for place, junk in sorted(garbage, reverse=True):
        mixed.insert(place, (None, b"\xff" + junk))
    found = answers(serving(), [segment([value for _, value in mixed])])
    for offset, (original, _) in enumerate(mixed):
        decided = dict(found[0, offset])
        if original is None:
            assert decided["dead_letter"] == "invalid_utf8"
            continue
        expected = dict(at_once()[0, original])
        if "source" in decided:
            assert decided.pop("source")["offset"] == offset
            expected.pop("source")
        assert same(decided, expected)


def test_partitions_side_by_side_are_decided_as_alone() -> None:
    values = stream()
    found = answers(serving(), [segment(values[:100], 0), segment(values[100:], 1, first=100)])
    assert all(same(found[0, offset], at_once()[0, offset]) for offset in range(100))
    for offset in range(100, N):
        decided, expected = dict(found[1, offset]), dict(at_once()[0, offset])
        decided.pop("source", None), expected.pop("source", None)
        assert same(decided, expected)


class Broken:
    """A model that fails in one way."""

    def __init__(self, how: str) -> None:
        self._inner, self._how = linear_model(), how
        self.card, self.calibration = self._inner.card, self._inner.calibration

    def logits(self, inputs: Any) -> Any:
        if self._how == "raises":
            raise RuntimeError("no numbers today")
        margins = self._inner.logits(inputs)
        ways = {"empty": margins[:0], "too wide": np.hstack((margins, margins)), "flat": margins[:, 0], "no number": [["x"]] * len(margins)}
        return {**ways, "nan": margins * np.nan, "whole": margins.astype(np.int64)}.get(self._how, margins)

    def contributions(self, inputs: Any) -> Any:
        raise RuntimeError("no reasons today")


def test_without_a_model_rules_decide_then_the_default_and_the_verdict_says_so() -> None:
    found = answers(serving_of(), [segment(stream())])
    decided = [one for one in found.values() if "verdict" in one]
    assert {one["decided_by"] for one in decided} == {"rule", "default"}
    assert all(one["degraded"] == [{"component": "model", "cause": "none"}] and one["score"] is None for one in decided)
    assert all(one["reasons"] for one in decided if one["verdict"] != "approve")


@pytest.mark.parametrize("how", ["raises", "explains nothing", "empty", "too wide", "flat", "no number", "nan", "whole"])
def test_a_model_that_fails_loses_no_verdict_and_is_named(how: str) -> None:
    found = answers(serving_of(Broken(how)), [segment(stream())])
    assert found.keys() == at_once().keys()
    decided = [one for one in found.values() if "verdict" in one]
    assert all(one["degraded"] for one in decided) and all(one["reasons"] for one in decided if one["verdict"] != "approve")


def test_every_verdict_that_is_not_an_approve_has_a_reason() -> None:
    outcome = run(serving(), [segment(stream())])
    assert all(bool(reasons) == (route != APPROVE) for reasons, route in zip(outcome.reasons, outcome.route.tolist(), strict=True))


def reordered(values: Sequence[Any], order: np.ndarray) -> list[Any]:
    return [values[place] for place in order.tolist()]


def test_without_state_the_order_of_events_does_not_matter() -> None:
    order = np.random.default_rng(5).permutation(N)
    found = answers(serving(), [segment(reordered(stream(), order))])
    for offset, original in enumerate(order.tolist()):
        decided, expected = dict(found[0, offset]), dict(at_once()[0, original])
        for one in (decided, expected):
            one.pop("source", None)
            if str(one.get("event_id", "")).startswith("messages.events"):
                one.pop("event_id"), one.pop("decision_id")
        assert same(decided, expected)
