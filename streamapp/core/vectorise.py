"""Feature columns to model inputs: scaled numerics beside hashed n-grams (ragged, one row after the other)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.card import Scaler
from streamapp.core.windows_index import compiled

Int64 = npt.NDArray[np.int64]
SLICE_WASTE_CELLS = 8192
"""Padding a slice may carry: what one more run of the graph costs, counted in cells (12 us at 1.5 ns)."""
SLICE_CELLS_MAX = 65_536
"""Cells of a slice with more than one row: about 36 bytes each in the graph, so that its steps hand on through the cache.
Measured at 4,096 rows of 250: 1.05 us per row, against 2.7 us without a bound."""


@dataclass(slots=True, frozen=True)
class Ngrams:
    """Hashed n-grams of n texts, ragged: row i is `bucket[start[i]:start[i + 1]]`; buckets are unique within a row."""

    start: npt.NDArray[np.int64]  #     n + 1
    bucket: npt.NDArray[np.int32]  #    total
    weight: npt.NDArray[np.float32]  #  total; L2 norm 1 per non-empty row
    family: npt.NDArray[np.int8]  #     total; 0 word n-gram, 1 character n-gram


@dataclass(slots=True, frozen=True)
class Inputs:
    """What a model takes for n rows."""

    numeric: npt.NDArray[np.float32]  #  n x k, scaled by the card, in the card's order
    ngrams: Ngrams | None
    raw: npt.NDArray[np.float64] | None = None  # n x all features, for tiers that scale their inputs otherwise


@dataclass(slots=True, frozen=True)
class Contributions:
    """Signed shares of the margin, aligned with Inputs: `numeric` n x k, `ngram` total (ragged by Ngrams.start)."""

    numeric: npt.NDArray[np.float64]
    ngram: npt.NDArray[np.float64]


def scale(values: npt.NDArray[np.float64], scaler: Scaler) -> npt.NDArray[np.float32]:
    """Gives the model's numeric input [n, k] of feature values [n, k] in the scaler's order; a constant feature has scale 1."""
    if scaler.low:
        values = np.clip(values, scaler.low, scaler.high)
    standard: npt.NDArray[np.float64] = (values - np.asarray(scaler.mean)) / np.asarray(scaler.scale)
    return standard.astype(np.float32)


def scaled(values: npt.NDArray[np.float64], places: npt.NDArray[np.intp], scaler: Scaler) -> npt.NDArray[np.float32]:
    """Gives `scale` of the columns at `places` [k] of all features [n, m], by a kernel and to the last bit."""
    out = np.empty((len(values), len(places)), np.float32)
    _scale(np.ascontiguousarray(values.T), places, *_constants(scaler), out)
    return out


@lru_cache(maxsize=64)
def _constants(scaler: Scaler) -> tuple[npt.NDArray[np.float64], ...]:
    """Gives low, high, mean and scale as columns; nothing is clipped at infinity."""
    k = len(scaler.names)
    low, high = (scaler.low, scaler.high) if scaler.low else ((-np.inf,) * k, (np.inf,) * k)
    return np.array(low), np.array(high), np.array(scaler.mean), np.array(scaler.scale)


@compiled
def _scale(columns: Any, places: Any, low: Any, high: Any, mean: Any, scale: Any, out: Any) -> None:
    for at in range(len(places)):
        column = columns[places[at]]
        for row in range(len(out)):
            value = column[row]
            if value < low[at]:  # what is not a number is neither below nor above
                value = low[at]
            elif value > high[at]:
                value = high[at]
            out[row, at] = (value - mean[at]) / scale[at]


def take(inputs: Inputs, rows: npt.NDArray[np.intp]) -> Inputs:
    """Gives the inputs of `rows` alone, in their order; a row may be asked for more than once."""
    if inputs.ngrams is None:
        return Inputs(inputs.numeric[rows], None)
    return Inputs(inputs.numeric[rows], take_ngrams(inputs.ngrams, rows))


def take_ngrams(ngrams: Ngrams, rows: npt.NDArray[np.intp]) -> Ngrams:
    """Gives the n-grams of `rows` alone, in their order."""
    lengths = np.diff(ngrams.start)[rows]
    start = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    places = np.arange(start[-1]) + np.repeat(ngrams.start[rows] - start[:-1], lengths)
    return Ngrams(start, ngrams.bucket[places], ngrams.weight[places], ngrams.family[places])


def slices(ngrams: Ngrams) -> list[Int64]:
    """Cuts all rows into slices of similar lengths to be padded together, short ones first; each row is in exactly one.

    Laws: padded to its longest row, a slice has at most 2 x max(its n-grams, SLICE_WASTE_CELLS) cells, and at most SLICE_CELLS_MAX
    unless it is one row. O(n log n).
    """
    lengths = np.diff(ngrams.start)
    if len(lengths) * int(lengths.max(initial=0)) <= SLICE_WASTE_CELLS:  # thin traffic: one slice, whatever the rows
        return [np.arange(len(lengths))]
    order = np.argsort(lengths, kind="stable")
    return np.split(order, _cuts(lengths[order], SLICE_WASTE_CELLS, SLICE_CELLS_MAX))


def pad(ngrams: Ngrams, rows: Int64) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Gives bucket and weight of `rows` as [len(rows), L] each, L the longest of them and at least 1; padding weighs 0."""
    lengths = ngrams.start[rows + 1] - ngrams.start[rows]
    width = max(1, int(lengths.max(initial=0)))
    index = np.empty((len(rows), width), np.int32)
    weight = np.empty((len(rows), width), np.float32)
    _pad(ngrams.start, ngrams.bucket, ngrams.weight, rows, index, weight)
    return index, weight


def unpad(ngrams: Ngrams, rows: Int64, padded: npt.NDArray[np.float64], out: npt.NDArray[np.float64]) -> None:
    """Puts the values [len(rows), L] of padded rows where their n-grams stand in `out` [total]: the way back from `pad`."""
    _unpad(ngrams.start, rows, padded, out)


@njit(cache=True, nogil=True)
def _cuts(lengths: Int64, waste_max: int, cells_max: int) -> Int64:
    """Takes lengths in increasing order; gives the places to cut so that no piece wastes or holds more cells than it may."""
    cuts = np.empty(len(lengths), np.int64)
    count, first, used = 0, 0, 0
    for row in range(len(lengths)):
        used += lengths[row]
        cells = (row + 1 - first) * lengths[row]
        if cells - used > waste_max or (cells > cells_max and row > first):
            cuts[count], count, first, used = row, count + 1, row, lengths[row]
    return cuts[:count]


@njit(cache=True, nogil=True)
def _pad(
    start: Int64,
    bucket: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
    rows: Int64,
    index_out: npt.NDArray[np.int32],
    weight_out: npt.NDArray[np.float32],
) -> None:
    """Copies each row's n-grams to the front of its line and fills the rest with bucket 0 of weight 0."""
    for line in range(len(rows)):
        low, high = start[rows[line]], start[rows[line] + 1]
        length = high - low
        index_out[line, :length] = bucket[low:high]
        weight_out[line, :length] = weight[low:high]
        index_out[line, length:] = 0
        weight_out[line, length:] = 0.0


@njit(cache=True, nogil=True)
def _unpad(start: Int64, rows: Int64, padded: npt.NDArray[np.float64], out: npt.NDArray[np.float64]) -> None:
    for line in range(len(rows)):
        low, high = start[rows[line]], start[rows[line] + 1]
        out[low:high] = padded[line, : high - low]
