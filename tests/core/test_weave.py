"""Named rows equal what encoding each row as an object gives."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from streamapp.core.weave import NamedRows

NAMES = ("a", "long_name", 'quo"te', "d", "e", "f")


@settings(deadline=None)  # the first call compiles the kernel
@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_any_numbers_come_out_as_an_object_per_row(values: np.ndarray) -> None:
    names = NAMES[: values.shape[1]]
    rows = list(NamedRows(names).encode(values))
    assert [json.loads(row) for row in rows] == [
        {name: value if np.isfinite(value) else None for name, value in zip(names, row, strict=True)} for row in values.tolist()
    ]


@pytest.mark.parametrize("order", ["C", "F"])
def test_bytes_are_those_of_a_struct_per_row(order: str) -> None:
    values = np.array(
        [[1.0, 0.5, -3.25], [1e-9, 123456789.0, 1 / 3], [-0.0, 0.0, -1.0], [999_999.0, -999_999.0, 1e6], [10.0, 99.0, -100.0]], order=order
    )
    assert list(NamedRows(("a", "b", "c")).encode(values)) == [
        msgspec.json.encode(dict(zip(("a", "b", "c"), row, strict=True))) for row in values.tolist()
    ]


@pytest.mark.parametrize(("shape", "rows"), [((0, 3), []), ((2, 0), [b"{}", b"{}"])])
def test_nothing_is_nothing(shape: tuple[int, int], rows: list[bytes]) -> None:
    assert list(NamedRows(NAMES[: shape[1]]).encode(np.empty(shape))) == rows
