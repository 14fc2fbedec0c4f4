"""Columns as JSON and rows woven from them: equal to what msgspec writes, one row at a time."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.json_columns import FEW_ROWS, Part, Picked, numbers, picked, strings, whole_numbers, woven
from streamapp.core.texts import Texts

_json = msgspec.json.Encoder().encode
BOTH_WAYS = pytest.mark.parametrize("times", [1, FEW_ROWS + 1])  # as lists, and by kernels
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@BOTH_WAYS
@settings(deadline=None)  # a kernel may be compiled first
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)))))
def test_strings_are_escaped_as_json_asks(times: int, values: list[str]) -> None:
    values = values * times
    assert list(strings(values)) == [_json(value) for value in values]


@BOTH_WAYS
@settings(deadline=None)
@given(st.lists(st.from_regex("[ -~]{0,20}", fullmatch=True)))
def test_plain_strings_never_leave_the_kernel_and_say_the_same(times: int, values: list[str]) -> None:
    values = values * times
    assert list(strings(values)) == [_json(value) for value in values]


def test_half_a_surrogate_pair_is_refused_as_msgspec_does() -> None:
    for times in (1, FEW_ROWS):
        with pytest.raises(UnicodeEncodeError):
            strings(["fine", "\ud800"] * times)


@BOTH_WAYS
@settings(deadline=None)
@given(st.lists(INT64))
def test_whole_numbers_have_all_their_digits(times: int, values: list[int]) -> None:
    values = values * times
    assert list(whole_numbers(np.array(values, np.int64))) == [b"%d" % value for value in values]


@BOTH_WAYS
@settings(deadline=None)
@given(st.lists(st.floats()))
def test_numbers_read_back_equal_and_are_null_where_there_is_none(times: int, values: list[float]) -> None:
    values = values * times
    told = [json.loads(one) for one in numbers(np.array(values, np.float64))]
    assert told == [value if math.isfinite(value) else None for value in values]


@BOTH_WAYS
@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=9), st.integers(0, 2), INT64), max_size=30), st.binary(max_size=5), st.binary(max_size=5))
def test_rows_are_all_parts_one_behind_the_other(times: int, rows: list[tuple[bytes, int, int]], same: bytes, end: bytes) -> None:
    rows = rows * times
    few, places = [b"a", b"", b"ccc"], np.array([row[1] for row in rows], np.int8)
    parts: list[Part] = [
        same, Texts.of([row[0] for row in rows]), same, b"-", picked(few, places), Picked(Texts.of(few), places.astype(np.int64)),
        whole_numbers(np.array([row[2] for row in rows], np.int64)), end,
    ]  # fmt: skip
    told = list(woven(len(rows), parts))
    assert told == [same + row[0] + same + b"-" + few[row[1]] * 2 + b"%d" % row[2] + end for row in rows]
