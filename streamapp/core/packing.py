"""Columns of int64 as few bytes, and back: each column in the form that is smallest for it, found in one pass, without a compressor.

Forms: one constant; the same as an earlier column; distances from the smallest, or steps from row to row, in as many bytes as the widest
needs; one byte into a table of at most 256 numbers. Packing and unpacking are inverse for every int64, wherever sums overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import ConfigError
from streamapp.core.windows_index import compiled, inlined

Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]

CONSTANT, SAME, NARROW, STEPS, TABLE = 0, 1, 2, 3, 4
TABLE_MAX = 256
_PLACES = 1024  # of the hash table behind TABLE: 2^k, at most a quarter full
_HEAD_BYTES = 24


@inlined
def _write(out: Any, at: int, value: int, width: int) -> int:
    for byte in range(width):
        out[at + byte] = (value >> (8 * byte)) & 255
    return at + width


@inlined
def _read(data: Any, at: int, width: int) -> Any:
    value: Any = 0
    for byte in range(width):
        value |= np.int64(data[at + byte]) << (8 * byte)
    return value


@inlined
def _width(span: int) -> int:
    """Gives the bytes for numbers 0..span; 8 where the span itself has overflowed."""
    if span < 0:
        return 8
    width = 0
    while width < 8 and (span >> (8 * width)) > 0:
        width += 1
    return width


@compiled
def _tabulate(column: Any, place: Any, table: Any, index: Any) -> int:
    """Gives how many different numbers the column has, with their table and each row's index; -1 when they are more than TABLE_MAX."""
    for slot in range(len(place)):
        place[slot] = -1
    count = 0
    for i in range(len(column)):
        slot = ((column[i] * np.int64(-7046029254386353131)) >> 40) & (len(place) - 1)
        while place[slot] >= 0 and table[place[slot]] != column[i]:
            slot = (slot + 1) & (len(place) - 1)
        if place[slot] < 0:
            if count == len(table):
                return -1
            place[slot], table[count] = count, column[i]
            count += 1
        index[i] = place[slot]
    return count


@compiled
def _earlier(columns: Any, c: int) -> int:
    """Gives the first column before c that equals it, -1 without one."""
    for other in range(c):
        i = 0
        while i < columns.shape[1] and columns[other, i] == columns[c, i]:
            i += 1
        if i == columns.shape[1]:
            return other
    return -1


@compiled
def _pack(columns: Any, out: Any, place: Any, table: Any, index: Any) -> int:
    at, n = 0, columns.shape[1]
    for c in range(columns.shape[0]):
        column = columns[c]
        low = high = column[0]
        step_low = step_high = column[1] - column[0] if n > 1 else 0
        for i in range(1, n):
            low, high = min(low, column[i]), max(high, column[i])
            step = column[i] - column[i - 1]
            step_low, step_high = min(step_low, step), max(step_high, step)
        if low == high:
            out[at], at = CONSTANT, at + 1
            at = _write(out, at, low, 8)
            continue
        twin = _earlier(columns, c)
        if twin >= 0:
            out[at], at = SAME, at + 1
            at = _write(out, at, twin, 2)
            continue
        width, step_width = _width(high - low), _width(step_high - step_low)
        count = _tabulate(column, place, table, index) if width > 1 and step_width > 1 else -1
        if count >= 0 and 8 * count + n < min(width, step_width) * n:
            out[at], at = TABLE, at + 1
            at = _write(out, at, count - 1, 1)
            for entry in range(count):
                at = _write(out, at, table[entry], 8)
            for i in range(n):
                out[at + i] = index[i]
            at += n
        elif step_width < width:
            out[at], out[at + 1], at = STEPS, step_width, at + 2
            at = _write(out, at, column[0], 8)
            at = _write(out, at, step_low, 8)
            for i in range(1, n):
                at = _write(out, at, column[i] - column[i - 1] - step_low, step_width)
        else:
            base = low if width < 8 else 0
            out[at], out[at + 1], at = NARROW, width, at + 2
            at = _write(out, at, base, 8)
            for i in range(n):
                at = _write(out, at, column[i] - base, width)
    return at


@compiled
def _unpack(data: Any, columns: Any) -> Any:  # noqa: C901  # one branch per form
    """Fills the columns; gives the bytes read, -1 where the bytes are none of ours or end too early."""
    at: Any = 0
    n, size = columns.shape[1], len(data)
    for c in range(columns.shape[0]):
        if at + 3 > size:
            return -1
        form, at = data[at], at + 1
        if form == CONSTANT:
            if at + 8 > size:
                return -1
            value, at = _read(data, at, 8), at + 8
            for i in range(n):
                columns[c, i] = value
        elif form == SAME:
            twin, at = _read(data, at, 2), at + 2
            if twin >= c:
                return -1
            for i in range(n):
                columns[c, i] = columns[twin, i]
        elif form == TABLE:
            table, at = at + 1, at + 1 + 8 * (np.int64(data[at]) + 1)
            if at + n > size:
                return -1
            for i in range(n):
                entry = table + 8 * np.int64(data[at + i])
                if entry + 8 > size:
                    return -1
                columns[c, i] = _read(data, entry, 8)
            at += n
        elif form == NARROW:
            width, at = np.int64(data[at]), at + 1
            if width > 8 or at + 8 + width * n > size:
                return -1
            base, at = _read(data, at, 8), at + 8
            for i in range(n):
                columns[c, i] = base + _read(data, at, width)
                at += width
        elif form == STEPS:
            width, at = np.int64(data[at]), at + 1
            if width > 8 or at + 16 + width * (n - 1) > size:
                return -1
            value, base, at = _read(data, at, 8), _read(data, at + 8, 8), at + 16
            columns[c, 0] = value
            for i in range(1, n):
                value += base + _read(data, at, width)
                at += width
                columns[c, i] = value
        else:
            return -1
    return at


def pack(columns: Int64) -> bytes:
    """Takes c columns of n rows, int64[c, n]; gives their bytes, nothing for no rows."""
    count, n = columns.shape
    if n == 0 or count == 0:
        return b""
    out = np.empty(count * (_HEAD_BYTES + 8 * n), np.uint8)
    place, table, index = np.empty(_PLACES, np.int16), np.empty(TABLE_MAX, np.int64), np.empty(n, np.uint8)
    return out[: _pack(columns, out, place, table, index)].tobytes()


def unpack(data: bytes | memoryview, count: int, n: int) -> tuple[Int64, int]:
    """Takes bytes and the shape they were packed from; gives int64[count, n] and how many bytes they were. Raises ConfigError."""
    columns = np.empty((count, n), np.int64)
    if n == 0 or count == 0:
        return columns, 0
    used = int(_unpack(np.frombuffer(data, np.uint8), columns))
    if used < 0:
        raise ConfigError("packed columns are damaged or of another format", "rebuild the state: `streamapp state reset`")
    return columns, used
