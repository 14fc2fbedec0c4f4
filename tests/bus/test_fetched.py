"""Record batches read by a kernel say what aiokafka says, or are left to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as some

from streamapp.core.fetched import plain_fetch

Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
ROWS: list[Row] = [(1_700_000_000_000 + at, b"k%d" % at, b"v" * at, []) for at in range(300)]
_ATTRIBUTES, _CONTROL, _APPENDED, _TRANSACTIONAL = 22, 0x20, 0x08, 0x10


def batch(base: int, rows: list[Row], attributes: int = 0, codec: int = 0) -> bytes:
    """Gives a record batch as a broker keeps it, its first record at offset `base`."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for place, (time, key, value, headers) in enumerate(rows):
        builder.append(place, time, key, value, headers)
    data = bytearray(builder.build())
    data[:8] = base.to_bytes(8, "big")
    data[_ATTRIBUTES] |= attributes
    return bytes(data)


def by_aiokafka(data: bytes, since: int) -> list[Any]:
    """Gives (offset, time, key, value) of every record from `since` on, control records left out."""
    batches, found = MemoryRecords(data), []
    while batches.has_next():
        one: Any = batches.next_batch()
        if not one.is_control_batch:
            found += [(record.offset, record.timestamp, record.key, record.value) for record in one if record.offset >= since]
    return found


def by_kernel(data: bytes, since: int, limit: int) -> tuple[list[Any], int] | None:
    """Gives the same, taken `limit` at a time, and the offset behind it."""
    fetch, found = plain_fetch(data, since), []
    if fetch is None:
        return None
    while fetch.left:
        some_rows = fetch.take(limit)
        assert len(some_rows.offsets) <= limit and not any(some_rows.headers)
        found += zip(some_rows.offsets.tolist(), some_rows.timestamps.tolist(), some_rows.keys, some_rows.values, strict=True)
    return found, fetch.after


@pytest.mark.parametrize("since", [0, 100, 103, 150, 399])
@pytest.mark.parametrize("limit", [1, 64, 10_000])
def test_records_are_those_that_aiokafka_reads(since: int, limit: int) -> None:
    data = b"".join(
        [
            batch(100, ROWS[:40]), batch(200, ROWS[:1], _CONTROL | _TRANSACTIONAL), batch(300, ROWS[5:90], _APPENDED),
            batch(385, ROWS[:200], _TRANSACTIONAL), batch(900, ROWS[:2])[:-1],
        ]
    )  # fmt: skip
    assert by_kernel(data, since, limit) == (by_aiokafka(data, since), 585)


def test_an_answer_of_markers_only_moves_the_position() -> None:
    assert by_kernel(batch(7, ROWS[:1], _CONTROL), 7, 10) == ([], 8)
    assert by_kernel(b"", 7, 10) == ([], 7)


@pytest.mark.parametrize(
    "data",
    [
        batch(0, ROWS, codec=1), batch(0, [(1, None, b"v", [])]), batch(0, [(1, b"k", None, [])]),
        batch(0, [(1, b"k", b"v", [("h", b"x")])]),
        batch(0, ROWS[:2])[:16] + b"\1" + batch(0, ROWS[:2])[17:],
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_aiokafka(data: bytes) -> None:
    assert plain_fetch(data, 0) is None


@settings(deadline=None)  # a kernel may be compiled first
@given(some.integers(0, 400), some.binary(min_size=1, max_size=8), some.integers(-2, 300))
def test_damaged_bytes_never_lead_out_of_the_fetch(place: int, damage: bytes, since: int) -> None:
    data = bytearray(batch(0, ROWS[:9]) + batch(9, ROWS[:9]))
    place %= len(data) - len(damage)
    data[place : place + len(damage)] = damage
    found = plain_fetch(bytes(data), since)
    if found is not None:
        columns = found._columns[2:]
        assert (columns >= 0).all() and (columns <= len(data)).all() and (np.diff(columns.reshape(2, 2, -1), axis=1) >= 0).all()
