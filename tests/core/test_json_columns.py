"""Columns as JSON and rows woven from them: equal to what msgspec writes, one row at a time."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.json_columns import Part, Picked, numbers, strings, whole_numbers, woven
from streamapp.core.texts import Texts

_json = msgspec.json.Encoder().encode
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@settings(deadline=None)  # a kernel may be compiled first
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)))))
def test_strings_are_escaped_as_json_asks(values: list[str]) -> None:
    assert list(strings(values)) == [_json(value) for value in values]


@settings(deadline=None)
@given(st.lists(st.from_regex("[ -~]{0,20}", fullmatch=True)))
def test_plain_strings_never_leave_the_kernel_and_say_the_same(values: list[str]) -> None:
    assert list(strings(values)) == [_json(value) for value in values]


def test_half_a_surrogate_pair_is_refused_as_msgspec_does() -> None:
    with pytest.raises(UnicodeEncodeError):
        strings(["fine", "\ud800"])


@settings(deadline=None)
@given(st.lists(INT64))
def test_whole_numbers_have_all_their_digits(values: list[int]) -> None:
    assert list(whole_numbers(np.array(values, np.int64))) == [b"%d" % value for value in values]


@settings(deadline=None)
@given(st.lists(st.floats()))
def test_numbers_read_back_equal_and_are_null_where_there_is_none(values: list[float]) -> None:
    told = [json.loads(one) for one in numbers(np.array(values, np.float64))]
    assert told == [value if math.isfinite(value) else None for value in values]


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=9), st.integers(0, 2), INT64), max_size=30), st.binary(max_size=5), st.binary(max_size=5))
def test_rows_are_all_parts_one_behind_the_other(rows: list[tuple[bytes, int, int]], same: bytes, end: bytes) -> None:
    few = Texts.of([b"a", b"", b"ccc"])
    parts: list[Part] = [
        same, Texts.of([row[0] for row in rows]), same, b"-", Picked.of(few, np.array([row[1] for row in rows], np.int8)),
        whole_numbers(np.array([row[2] for row in rows], np.int64)), end,
    ]  # fmt: skip
    told = list(woven(len(rows), parts))
    assert told == [same + row[0] + same + b"-" + few[row[1]] + b"%d" % row[2] + end for row in rows]
