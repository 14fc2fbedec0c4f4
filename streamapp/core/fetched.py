"""Fetched record batches (message format v2) to columns by a kernel: no Python object per record, as long as all of them are plain.

Plain is not compressed, and each record has a key, a value and no headers. Whatever else a fetch holds is left to aiokafka.
Layout: KIP-98 and Kafka's protocol guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamapp.core.events import Headers, Segment
from streamapp.core.gather import gathered
from streamapp.core.windows_index import compiled

Int64 = npt.NDArray[np.int64]

_HEAD_BYTES = 61
_LEAST_BYTES = 9  # of a record: its length, attributes, time, place, an empty key and value, no header
_COMPRESSED, _APPEND_TIME, _CONTROL = 0x07, 0x08, 0x20  # in the attributes
_OFFSET, _TIME, _KEY, _KEY_END, _VALUE, _VALUE_END = range(6)


class PlainFetch:
    """The records of one fetch of one partition, in offset order, taken from the front."""

    __slots__ = ("_columns", "_data", "_taken", "after")

    def __init__(self, data: npt.NDArray[np.uint8], columns: Int64, after: int) -> None:
        self._data, self._columns, self._taken = data, columns, 0
        self.after = after  # the offset behind the last batch, whatever of it was left out

    @property
    def left(self) -> int:
        """Records not taken yet."""
        return len(self._columns.T) - self._taken

    def take(self, limit: int) -> Records:
        """Gives up to `limit` records."""
        low, high = self._taken, self._taken + min(self.left, limit)
        self._taken = high
        offset, time, key, key_end, value, value_end = self._columns[:, low:high]
        return Records(offset, time, gathered(self._data, key, key_end), gathered(self._data, value, value_end), [()] * len(offset))


class Records(NamedTuple):
    """n records of one partition as columns, in offset order."""

    offsets: Int64
    timestamps: Int64  # epoch ms
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

    def of(self, topic: str, partition: int, generation: int) -> Segment:
        """Gives the records of this partition."""
        return Segment(topic, partition, generation, self.offsets, self.timestamps, self.keys, self.values, self.headers)


def plain_fetch(data: bytes, since: int) -> PlainFetch | None:
    """Takes the record batches of an answer, the last of which may be torn; gives the records from offset `since` on.

    None where something is not plain, or not as it should be. Neither checksums nor transactions are looked at.
    """
    view = np.frombuffer(data, np.uint8)
    most = _most(view)
    if most < 0:
        return None
    columns = np.empty((6, most), np.int64)
    count, after = _read(view, since, columns)
    return None if count < 0 else PlainFetch(view, columns[:, :count], after)


@compiled
def _fixed(data: Any, at: int, width: int) -> Any:
    """Gives the signed number in `width` bytes from `at` on, the highest first."""
    value: Any = np.int64(np.int8(data[at]))
    for byte in range(1, width):
        value = (value << 8) | np.int64(data[at + byte])
    return value


@compiled
def _most(data: Any) -> int:
    """Gives at most how many records there are; -1 where a batch is not plain."""
    at, count = 0, 0
    while len(data) - at >= _HEAD_BYTES:
        size = _fixed(data, at + 8, 4) + 12
        if data[at + 16] != 2 or size < _HEAD_BYTES or data[at + 22] & _COMPRESSED:
            return -1
        if size > len(data) - at:
            break
        records = _fixed(data, at + 57, 4)
        if records < 0 or records > size // _LEAST_BYTES + 1:
            return -1
        count += records
        at += size
    return count


@compiled
def _varint(data: Any, at: int, end: int) -> Any:
    """Gives the number whose zigzag varint begins at `at`, and where it ends: beyond `end` where it is torn."""
    wide: Any = np.int64(0)
    shift = 0
    while at < end and shift < 63:
        byte = np.int64(data[at])
        wide |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (wide >> 1) ^ -(wide & 1), at
        shift += 7
    return np.int64(0), end + 1


@compiled
def _read(data: Any, since: int, columns: Any) -> Any:
    """Writes the records from offset `since` on; gives (their number, the offset behind the last batch), -1 where one is not plain."""
    at, count, after = 0, 0, since
    while len(data) - at >= _HEAD_BYTES:
        size = _fixed(data, at + 8, 4) + 12
        stop = at + size
        if stop > len(data):
            break
        base, attributes = _fixed(data, at, 8), data[at + 22]
        first, most = _fixed(data, at + 27, 8), _fixed(data, at + 35, 8)
        records = 0 if attributes & _CONTROL else _fixed(data, at + 57, 4)
        place = at + _HEAD_BYTES
        for _ in range(records):
            length, place = _varint(data, place, stop)
            end = place + length
            if place > stop or length < 0 or end > stop:
                return -1, after
            later, place = _varint(data, place + 1, end)
            delta, place = _varint(data, place, end)
            size_of, key = _varint(data, place, end)
            key_end = key + size_of
            if size_of < 0 or key_end > end:
                return -1, after
            size_of, value = _varint(data, key_end, end)
            place = value + size_of
            if size_of < 0 or place + 1 != end or data[place] != 0:  # no headers: one zero, and nothing behind it
                return -1, after
            if base + delta >= since:
                columns[_OFFSET, count] = base + delta
                columns[_TIME, count] = most if attributes & _APPEND_TIME else first + later
                columns[_KEY, count], columns[_KEY_END, count] = key, key_end
                columns[_VALUE, count], columns[_VALUE_END, count] = value, place
                count += 1
            place = end
        after = max(after, base + _fixed(data, at + 23, 4) + 1)
        at = stop
    return count, after


def warm_up() -> None:
    """Compiles the kernels (or loads them from the cache), so that no fetch waits for it."""
    nothing = plain_fetch(b"", 0)
    if nothing is not None:
        nothing.take(0)
