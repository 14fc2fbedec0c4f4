"""Rows of profiles by example: what is read, what is computed at load, and what is refused with its place."""

from __future__ import annotations

import io
import math
from typing import Any

import orjson
import pytest

from streamapp.control.profiles import read_rows, row_of, strangers
from streamapp.core.profiles import ProfilePlan

PART = ProfilePlan.of(["account_age_days", "karma"]).parts[0]
DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS


def row(**record: Any) -> dict[str, float]:
    """Gives the columns of which something is known."""
    _, values, _ = row_of({"user_id": "u", **record}, PART, "user_id", NOW_MS)
    return {name: value for name, value in zip(PART.columns, values, strict=True) if not math.isnan(value)}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"karma": None}, {}),
        ({"account_age_days": 3}, {"account_created_ms": NOW_MS - 3 * DAY_MS}),
        ({"account_age_days": 3, "updated_at": NOW_MS - DAY_MS}, {"account_created_ms": NOW_MS - 4 * DAY_MS}),
        ({"account_created_at": "1970-01-02T00:00:00Z", "account_age_days": 3}, {"account_created_ms": DAY_MS}),
        ({"account_created_at": str(DAY_MS)}, {"account_created_ms": DAY_MS}),
        ({"is_verified": True, "follower_count": "12"}, {"is_verified": 1, "follower_count": 12}),
        ({"is_verified": "False", "reply_rate": "", "karma": None}, {"is_verified": 0}),
        ({"blocks_received": 3}, {"block_rate": 3}),
        ({"blocks_received": 3, "messages_sent": 0}, {"block_rate": 3}),
        ({"blocks_received": 3, "messages_sent": "12"}, {"block_rate": 0.25}),
        ({"blocks_received": 3, "messages_sent": 12, "block_rate": 0.5}, {"block_rate": 0.5}),
        ({"messages_sent": 12, "karma": -1.5}, {"karma": -1.5}),
    ],
)
def test_rows(record: dict[str, Any], expected: dict[str, float]) -> None:
    assert row(**record) == expected


@pytest.mark.parametrize(
    ("record", "member"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"follower_count": "many"}, "follower_count"),
        ({"follower_count": [1]}, "follower_count"),
        ({"karma": 1e400}, "karma"),
        ({"blocks_received": "x"}, "blocks_received"),
        ({"updated_at": "yesterday"}, "updated_at"),
        ({"updated_at": 1.5}, "updated_at"),
        ({"account_created_at": 10**30}, "account_created_at"),
    ],
)
def test_what_is_no_profile_is_named(record: dict[str, Any], member: str) -> None:
    with pytest.raises(ValueError, match=f"^{member}: "):
        row(**record)


@pytest.mark.parametrize("record", [{}, {"karme": 5}, {"updated_at": NOW_MS}])
def test_a_row_that_names_no_column_is_no_profile_and_replaces_none(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="names no column of a profile"):
        row(**record)
    (rows,) = read_rows(io.BytesIO(orjson.dumps({"user_id": "u", **record})), PART, "user_id", NOW_MS)
    assert rows.keys == [] and rows.values.shape == (0, len(PART.columns)) and len(rows.mistakes) == 1


LINES = b'{"user_id": 7, "karma": 1}\n[1]\n{"user_id": "b", "karma": 2}\nno\n{"user_id": "7", "karma": 3}\n{"user_id": "c", "karma": "x"}\n'


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_bad_lines_are_told_with_their_number_and_stop_nothing(size: int) -> None:
    chunks = list(read_rows(io.BytesIO(LINES), PART, "user_id", NOW_MS, size=size))
    last = {key: values[-1] for rows in chunks for key, values in zip(rows.keys, rows.values, strict=True)}
    assert {key: float(value) for key, value in last.items()} == {"7": 3.0, "b": 2.0}
    assert sum(rows.lines for rows in chunks) == 6
    assert [mistake.split(":")[0] for rows in chunks for mistake in rows.mistakes] == ["line 2", "line 4", "line 6"]


def test_csv_is_read_under_its_header() -> None:
    text = "user_id,is_verified,karma\r\nana,true,\r\nbö,no,2.5\r\nc,1,2,3\r\n"
    (rows,) = read_rows(io.BytesIO(text.encode()), PART, "user_id", NOW_MS, as_csv=True)
    assert rows.keys == ["ana", "bö"] and rows.updated_ms.tolist() == [NOW_MS, NOW_MS]
    assert rows.values[:, PART.columns.index("is_verified")].tolist() == [1, 0]
    assert math.isnan(rows.values[0, -1]) and rows.values[1, -1] == 2.5
    assert len(rows.mistakes) == 1 and "more fields" in rows.mistakes[0]


def test_a_member_that_nothing_is_made_of_is_told() -> None:
    assert strangers(["user_id", "karma", "folower_count"], PART, "user_id") == [
        "folower_count: is read by nobody (did you mean `follower_count`?)"
    ]
