"""Arrays that grow where they lie: contents, where they lie afterwards, and what happens where a system has no space for that."""

from __future__ import annotations

import gc

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core import growing
from streamapp.core.dedupe import DECISION
from streamapp.core.growing import RESERVED_FROM, fresh, grown, zeros

LARGE = RESERVED_FROM // 8


def numbered(rows: int) -> np.ndarray:
    array = fresh((rows,), np.int64)
    array[:] = np.arange(rows)
    return array


@pytest.mark.parametrize(("dtype", "tail"), [(np.int64, ()), (np.int32, (3,)), (np.int64, (0,)), (DECISION, ())])
@pytest.mark.parametrize("rows", [1, 1000, LARGE - 1, LARGE, 3 * LARGE + 17])
def test_an_array_keeps_what_it_held(dtype, tail, rows):
    array = fresh((rows, *tail), dtype)
    assert array.shape == (rows, *tail) and array.dtype == np.dtype(dtype) and array.flags.c_contiguous and array.flags.writeable
    content = np.random.default_rng(rows).integers(0, 256, array.nbytes, np.uint8).tobytes()
    array.reshape(-1).view(np.uint8)[:] = np.frombuffer(content, np.uint8)
    larger = grown(array, 2 * rows)
    assert larger.shape == (2 * rows, *tail) and larger[:rows].tobytes() == content
    assert not any(larger[rows:].tobytes())
    larger[rows:] = larger[:rows]  # and can be written


def test_a_large_array_grows_where_it_lies_until_its_space_is_used_up(monkeypatch):
    monkeypatch.setattr(growing, "RESERVED", 8 * 4 * LARGE)
    array = numbered(LARGE)
    larger = grown(array, 4 * LARGE)
    assert larger.ctypes.data == array.ctypes.data and (larger[:LARGE] == np.arange(LARGE)).all() and not larger[LARGE:].any()
    beyond = grown(larger, 4 * LARGE + 1)
    assert beyond.ctypes.data != array.ctypes.data and (beyond[:LARGE] == np.arange(LARGE)).all()
    again = grown(beyond, 8 * LARGE)
    assert again.ctypes.data == beyond.ctypes.data


def test_memory_lives_as_long_as_any_of_its_arrays():
    held = [numbered(LARGE)]
    held.append(grown(held.pop(0), 2 * LARGE))
    gc.collect()
    assert (held[0][:LARGE] == np.arange(LARGE)).all()


@pytest.mark.parametrize("part", [slice(1, None), slice(None, None, 2)])
def test_what_does_not_begin_a_space_is_copied(part):
    array = numbered(2 * LARGE)
    larger = grown(array[part], 2 * LARGE)
    larger[:] = -1
    assert (array == np.arange(2 * LARGE)).all()


def test_a_system_without_space_copies(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(growing.mmap, "mmap", refuse)
    monkeypatch.setattr(growing, "_space_of", lambda array: None)
    larger = grown(numbered(LARGE), 2 * LARGE)
    assert (larger[:LARGE] == np.arange(LARGE)).all() and len(larger) == 2 * LARGE
    assert not zeros((LARGE,), np.int64).any()


def test_a_system_that_counts_address_space_is_spared(monkeypatch):
    monkeypatch.setattr(growing, "_sparing", False)  # put back afterwards
    assert growing._space_of(zeros((LARGE,), np.int64)) is not None
    growing.reserve_nothing()
    array = zeros((LARGE,), np.int64)
    larger = grown(array, 2 * LARGE)
    assert growing._space_of(array) is None and growing._space_of(larger) is None and not larger.any()


def test_zeros_are_zero_and_untouched():
    table = zeros((64 * LARGE,), np.int64)
    before = resident_bytes()
    assert not table[::LARGE].any()
    assert resident_bytes() - before < table.nbytes // 4


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3 * LARGE), min_size=1, max_size=5))
def test_growing_in_any_steps_keeps_everything(steps):
    held, rows = [numbered(1)], 1
    for step in steps:
        held.append(grown(held.pop(), rows + step))
        held[0][rows:] = np.arange(rows, rows + step)
        rows += step
    assert (held[0] == np.arange(rows)).all()
