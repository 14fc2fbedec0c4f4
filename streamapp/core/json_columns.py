"""Columns as JSON, one text per row, and rows woven from them: no Python object per field and row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core import json_numbers
from streamapp.core.copying import copy_bytes
from streamapp.core.texts import Strings, Texts
from streamapp.core.windows_index import compiled, joined

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_QUOTE, _BACKSLASH, _BLANK, _BEYOND_ASCII, _MINUS, _COMMA = ord('"'), ord("\\"), 32, 128, ord("-"), ord(",")
_DIGITS_MAX = 20  # of an int64, with its sign
_json = msgspec.json.Encoder().encode


#: Up to so many rows a column is a list of bytes: some forty kernel calls cost more than joining ten rows does.
FEW_ROWS = 32


class Picked(NamedTuple):
    """A column with few values: row i has texts[places[i]]."""

    texts: Texts
    places: Int64  # n


#: What rows are woven from: the same bytes in each row, a text per row, or one of a few.
Part = bytes | Texts | Picked | list[bytes]


def picked(values: Sequence[bytes], places: npt.NDArray[Any]) -> Part:
    """Gives the column whose row i is values[places[i]]; places are of any whole or truth type."""
    if len(places) <= FEW_ROWS:
        return [values[place] for place in places.tolist()]
    return Picked(Texts.of(values), places.astype(np.int64))


def strings(values: Sequence[str]) -> Part:
    """Takes n strings; gives each with quotes around it, escaped where JSON asks for it. Raises UnicodeEncodeError for half a pair."""
    if len(values) <= FEW_ROWS:
        return list(map(_json, values))
    data, start = (values.texts.data, values.texts.start) if isinstance(values, Strings) else joined(values)
    out, places = np.empty(len(data) + 2 * len(values), np.uint8), start + 2 * np.arange(len(start))
    if not _quoted(data, start, out):
        return Texts.of(list(map(_json, values)))
    return Texts(out, places)


def whole_numbers(values: Int64) -> Part:
    """Takes n whole numbers; gives their digits."""
    if len(values) <= FEW_ROWS:
        return [b"%d" % value for value in values.tolist()]
    out, start = np.empty(len(values) * _DIGITS_MAX, np.uint8), np.zeros(len(values) + 1, np.int64)
    _digits(values, out, start)
    return Texts(out, start)


def numbers(values: Float64) -> Part:
    """Takes n numbers; gives digits that read back equal; null for what is not finite."""
    data, n = json_numbers.array(values)[1:-1], len(values)  # without its brackets
    if n <= FEW_ROWS:
        return data.tobytes().split(b",") if n else []
    out, start = np.empty(len(data), np.uint8), np.zeros(n + 1, np.int64)
    _split(data, out, start)
    return Texts(out, start)


def woven(n: int, parts: Sequence[Part]) -> Texts:
    """Gives n rows: the texts of all parts, one behind the other. Cost: linear in bytes, and a microsecond or two per part."""
    if n <= FEW_ROWS:
        return Texts.of(
            list(map(b"".join, zip(*(repeat(part, n) if isinstance(part, bytes) else _rows(part) for part in parts), strict=True)))
        )
    start = np.zeros(n + 1, np.int64)
    same, picked = 0, list[tuple[bytes, Bytes, Int64, Int64]]()
    each, before = np.arange(n), b""
    for part in parts:
        if isinstance(part, bytes):
            before += part
            continue
        texts, index = part if isinstance(part, Picked) else (Texts.of(part), each)
        _count(start, texts.start, index)
        picked.append((before, texts.data, texts.start, index))
        same, before = same + len(before), b""
    start.cumsum(out=start)
    start += (same + len(before)) * np.arange(n + 1)
    out, at = np.empty(start[-1], np.uint8), start[:-1].copy()
    for ahead, data, begin, index in (*picked, (before, *_NOTHING, np.zeros(n, np.int64))):
        _put(out, at, np.frombuffer(ahead, np.uint8), data, begin, index)
    return Texts(out, start)


def _rows(part: Texts | Picked | list[bytes]) -> Sequence[bytes]:
    if isinstance(part, Picked):
        few = list(part.texts)
        return [few[place] for place in part.places.tolist()]
    return part


_NOTHING = np.zeros(0, np.uint8), np.zeros(2, np.int64)


@compiled
def _quoted(data: Any, start: Any, out: Any) -> bool:
    """Writes the rows with quotes around them; gives False when one may need escapes, and is not done then."""
    for i in range(len(data)):
        if data[i] < _BLANK or data[i] >= _BEYOND_ASCII or data[i] == _QUOTE or data[i] == _BACKSLASH:
            return False
    o = 0
    for row in range(len(start) - 1):
        length = start[row + 1] - start[row]
        out[o] = _QUOTE
        copy_bytes(out, o + 1, data, start[row], length)
        out[o + length + 1] = _QUOTE
        o += length + 2
    return True


@compiled
def _digits(values: Any, out: Any, start: Any) -> None:
    o = 0
    for row in range(len(values)):
        value = values[row]
        # Unsigned: the smallest number has no positive twin.
        left = np.uint64(value)
        if value < 0:
            out[o] = _MINUS
            o += 1
            left = np.uint64(0) - left
        count, rest = 1, left // np.uint64(10)
        while rest > 0:
            count += 1
            rest //= np.uint64(10)
        for j in range(count):
            out[o + count - 1 - j] = 48 + left % np.uint64(10)
            left //= np.uint64(10)
        o += count
        start[row + 1] = o


@compiled
def _split(data: Any, out: Any, start: Any) -> None:
    """Writes what stands between the commas, and where each begins (and the last ends)."""
    o, row = 0, 0
    for i in range(len(data)):
        if data[i] == _COMMA:
            row += 1
            start[row] = o
        else:
            out[o] = data[i]
            o += 1
    start[len(start) - 1] = o


@compiled
def _count(total: Any, start: Any, index: Any) -> None:
    """Adds the length of each row's text to total[row + 1]."""
    for row in range(len(index)):
        pick = index[row]
        total[row + 1] += start[pick + 1] - start[pick]


@compiled
def _put(out: Any, at: Any, before: Any, data: Any, start: Any, index: Any) -> None:
    """Writes `before` and the picked text at each row's place, and moves the places behind it."""
    ahead = len(before)
    for row in range(len(at)):
        pick = index[row]
        length = start[pick + 1] - start[pick]
        copy_bytes(out, at[row], before, 0, ahead)
        copy_bytes(out, at[row] + ahead, data, start[pick], length)
        at[row] += ahead + length
