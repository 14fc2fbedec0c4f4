"""What differs between two answers: by member, within tolerance, and never the members that are apart."""

from __future__ import annotations

import pytest

from streamapp.control.differences import EXAMPLES_MAX, Differences, agree, differing


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        (0.5, 0.5 + 9e-7, True),
        (0.5, 0.5 + 2e-6, False),
        (1e9, 1e9 + 0.5, True),
        (1, 1.0, True),
        (True, 1, False),
        (None, 0, False),
        ("a", "a", True),
        ([1, 2], [1, 2.0000001], True),
        ([1, 2], [1], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_values_agree_within_what_the_line_promises(then, now, same):
    assert agree(then, now) is same


def test_members_of_members_are_named_by_path_and_missing_ones_too():
    then = {"verdict": "block", "features": {"a": 1.0, "b": 2.0}, "reasons": [{"code": "x"}], "decided_at": 1, "old": 1}
    now = {"verdict": "approve", "features": {"a": 1.0, "b": 3.0}, "reasons": [], "decided_at": 2, "new": 1}
    assert sorted(differing(then, now, {"decided_at"})) == ["features.b", "new", "old", "reasons", "verdict"]


def test_pairs_are_counted_with_their_routes_and_some_are_kept():
    told = Differences({"at"}, "verdict")
    told.take((0, 1), {"verdict": "approve", "at": 1}, {"verdict": "approve", "at": 2})
    told.take((0, 2), {"verdict": "approve", "threshold": 1}, {"verdict": "approve", "threshold": 2})
    for offset in range(EXAMPLES_MAX + 5):
        told.take((1, offset), {"verdict": "approve", "f": {"x": 1}}, {"verdict": "block", "f": {"x": 9}})
    told.take((2, 0), {"dead_letter": "invalid_json", "path": ""}, {"verdict": "block"})
    assert (told.compared, told.equal) == (EXAMPLES_MAX + 8, 1)
    assert told.members["verdict"] == EXAMPLES_MAX + 6 and told.members["f.x"] == EXAMPLES_MAX + 5
    assert told.routes == {("approve", "block"): EXAMPLES_MAX + 5, ("dead_letter", "block"): 1}
    few = Differences((), "verdict")
    few.take((0, 2), {"verdict": "approve", "threshold": 1}, {"verdict": "approve", "threshold": 2})
    few.take((0, 3), {"verdict": "approve"}, {"verdict": "block"})
    assert [one["offset"] for one in few.examples] == [3, 2]
    assert told.examples[0] == {"partition": 1, "offset": 0, "differs": {"verdict": ["approve", "block"], "f.x": [1, 9]}}
    assert len(told.examples) == EXAMPLES_MAX
