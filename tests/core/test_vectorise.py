import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.card import Scaler
from streamapp.core.explain import group_contributions
from streamapp.core.linear import Linear
from streamapp.core.vectorise import (
    SLICE_CELLS_MAX,
    SLICE_WASTE_CELLS,
    Inputs,
    Ngrams,
    pad,
    scale,
    scaled,
    slices,
    take,
    take_ngrams,
    unpad,
)


def ragged(lengths: list[int], seed: int = 0) -> Ngrams:
    rng = np.random.default_rng(seed)
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    total = int(start[-1])
    bucket = rng.integers(0, 50, total).astype(np.int32)
    return Ngrams(start, bucket, rng.random(total).astype(np.float32), rng.integers(0, 2, total).astype(np.int8))


def test_scale_clips_to_the_training_range_then_standardises() -> None:
    scaler = Scaler(names=("a", "b"), mean=(1.0, 0.0), scale=(2.0, 1.0), low=(0.0, -1.0), high=(5.0, 1.0))
    scaled = scale(np.array([[3.0, 0.5], [1e9, -7.0]]), scaler)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [[1.0, 0.5], [2.0, -1.0]]


def test_scale_without_bounds_clips_nothing_and_takes_no_rows() -> None:
    scaler = Scaler(names=("a",), mean=(1.0,), scale=(2.0,))
    assert scale(np.array([[1e9]]), scaler)[0, 0] == np.float32((1e9 - 1) / 2)
    assert scale(np.empty((0, 1)), scaler).shape == (0, 1)


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_columns_are_scaled_by_a_kernel_to_the_last_bit(bounded: bool, order: str) -> None:
    rng = np.random.default_rng(3)
    values = np.array(rng.standard_normal((17, 5)) * 3, order=order)
    values[3, 4] = np.nan
    bounds = {"low": (-2.0, -1.0, 0.1), "high": (1.0, 2.0, 3.0)} if bounded else {}
    scaler, places = Scaler(("a", "b", "c"), (0.1, 0.2, 0.3), (3.0, 1.1, 0.7), **bounds), np.array([4, 0, 2])
    assert scaled(values, places, scaler).tobytes() == np.ascontiguousarray(scale(values[:, places], scaler)).tobytes()


def test_pad_puts_each_row_in_front_and_weighs_the_rest_nothing() -> None:
    ngrams = ragged([2, 0, 3])
    index, weight = pad(ngrams, np.array([2, 1, 0]))
    assert index.dtype == np.int32
    assert weight.dtype == np.float32
    assert index.tolist() == [ngrams.bucket[2:].tolist(), [0, 0, 0], [*ngrams.bucket[:2].tolist(), 0]]
    assert weight.tolist() == [ngrams.weight[2:].tolist(), [0.0] * 3, [*ngrams.weight[:2].tolist(), 0.0]]


def test_a_slice_of_empty_rows_is_one_cell_wide() -> None:
    index, weight = pad(ragged([0, 0]), np.array([0, 1]))
    assert index.tolist() == [[0], [0]]
    assert weight.tolist() == [[0.0], [0.0]]


def cuts_in_python(lengths: list[int]) -> list[list[int]]:
    """The rule of `slices` in words: go on with the slice until one more row would waste too much or make it too large."""
    found: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        grown = [*found[-1], row]
        cells = len(grown) * lengths[row]
        if cells - sum(lengths[r] for r in grown) > SLICE_WASTE_CELLS or (cells > SLICE_CELLS_MAX and found[-1]):
            found.append([row])
        else:
            found[-1] = grown
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, 20_000), st.just(70_000)), min_size=1, max_size=60))
def test_slices_hold_each_row_once_and_waste_little(lengths: list[int]) -> None:
    ngrams = Ngrams(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), *(np.empty(0, t) for t in (np.int32, np.float32, np.int8)))
    found = slices(ngrams)
    assert [sorted(rows.tolist()) for rows in found] == [sorted(rows) for rows in cuts_in_python(lengths)]
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    for rows in found:
        used = [lengths[row] for row in rows]
        assert len(used) * max(used) <= 2 * max(sum(used), SLICE_WASTE_CELLS)
        assert len(used) * max(used) <= SLICE_CELLS_MAX or len(used) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.data())
def test_unpad_is_the_way_back_and_take_is_a_choice_of_rows(lengths: list[int], data: st.DataObject) -> None:
    ngrams = ragged(lengths)
    out = np.full(len(ngrams.bucket), np.nan)
    for rows in slices(ngrams):
        unpad(ngrams, rows, pad(ngrams, rows)[1].astype(np.float64), out)
    assert out.tolist() == ngrams.weight.astype(np.float64).tolist()

    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    part = take_ngrams(ngrams, np.array(chosen, np.intp))
    rows_of = [ngrams.bucket[ngrams.start[row] : ngrams.start[row + 1]].tolist() for row in chosen]
    assert [part.bucket[a:b].tolist() for a, b in zip(part.start, part.start[1:], strict=False)] == rows_of


def test_take_without_ngrams_takes_the_numbers() -> None:
    part = take(Inputs(np.arange(6, dtype=np.float32).reshape(3, 2), None), np.array([2, 0]))
    assert part.numeric.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert part.ngrams is None


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.integers(0, 30), max_size=6))
def test_a_kernel_adds_up_what_numpy_does(lengths: list[int]) -> None:
    rng = np.random.default_rng(1)
    model = Linear(rng.standard_normal(50).astype(np.float32), rng.standard_normal(2).astype(np.float32), 0.25)
    numeric = rng.standard_normal((len(lengths), 2)).astype(np.float32)
    for inputs in (Inputs(numeric, ragged(lengths)), Inputs(numeric, None)):
        assert model.added_up(inputs) == pytest.approx(model.margins(inputs), abs=1e-12)
        rows = np.arange(len(lengths))[::-2]
        mine = take(inputs, rows)
        assert model.grouped(inputs, rows).tolist() == group_contributions(model.contributions(mine), mine.ngrams).tolist()


def test_linear_margins_are_the_sum_of_the_shares_row_by_row() -> None:
    ngrams = ragged([3, 0, 5])
    rng = np.random.default_rng(1)
    linear = Linear(rng.normal(size=50).astype(np.float32), rng.normal(size=2).astype(np.float32), 0.25)
    inputs = Inputs(rng.normal(size=(3, 2)).astype(np.float32), ngrams)
    expected = []
    for row in range(3):
        margin = 0.25 + sum(float(inputs.numeric[row, j]) * float(linear.numeric_weight[j]) for j in range(2))
        for place in range(ngrams.start[row], ngrams.start[row + 1]):
            margin += float(linear.bucket_weight[ngrams.bucket[place]]) * float(ngrams.weight[place])
        expected.append(margin)
    assert linear.margins(inputs)[:, 0].tolist() == pytest.approx(expected, abs=1e-12)
    assert linear.margins(Inputs(inputs.numeric, None)).shape == (3, 1)
