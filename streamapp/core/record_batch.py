"""Kafka's record batch (message format v2) written from columns: no Python per record, and the checksum by the processor.

Every record has a key (or none), a value, and one header whose value is a whole number in decimal digits. Layout: KIP-98 and Kafka's
protocol guide. The checksum is CRC-32C (Castagnoli, RFC 3720) from the attributes to the end.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from streamapp.core.copying import copy_bytes, word_at
from streamapp.core.texts import Texts
from streamapp.core.windows_index import compiled

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

HEAD_BYTES = 61  # of a batch, before its records
_CHECKED_FROM = 21  # the attributes: what stands before is not in the checksum
_RECORD_BYTES_MAX = 64  # of one record beside its key, value and the header's name: seven lengths, two bytes, twenty digits
_GROWTH_BYTES_MAX = 16  # of a record that gets another place and another time: three lengths
_HEAD = struct.Struct(">qiibIhiqqqhii")
_TRANSACTIONAL, _ZSTD = 0x10, 4  # in the attributes: it counts with a commit; how the records are compressed
_POLYNOMIAL = 0x82F63B78


def _table() -> npt.NDArray[np.uint32]:
    """Gives the remainders of all bytes: for processors without the instruction."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


TABLE = _table()
HARDWARE = platform.machine() == "x86_64" and bool(llvm.get_host_cpu_features().get("sse4.2"))


@intrinsic
def _crc_word(typing_context: Any, crc: Any, word: Any) -> Any:
    """Takes the checksum so far and eight more bytes (uint64, the first byte lowest); gives the checksum behind them, by SSE 4.2."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir

        number = ir.IntType(64)
        name = "llvm.x86.sse42.crc32.64.64"
        function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(number, [number, number]), name)
        return builder.call(function, args)

    return types.uint64(types.uint64, types.uint64), generate


@compiled
def _crc_bytes(data: Any, begin: int, end: int, crc: Any, table: Any) -> Any:
    for at in range(begin, end):
        crc = np.uint32(table[(crc ^ data[at]) & np.uint32(0xFF)] ^ (crc >> np.uint32(8)))
    return crc


@compiled
def _crc_by_table(data: Any, begin: int, end: int, table: Any) -> Any:
    return _crc_bytes(data, begin, end, np.uint32(0xFFFFFFFF), table) ^ np.uint32(0xFFFFFFFF)


@compiled
def _crc_by_instruction(data: Any, begin: int, end: int, table: Any) -> Any:
    crc = np.uint64(0xFFFFFFFF)
    words = (end - begin) // 8
    for number in range(words):
        crc = _crc_word(crc, word_at(data, begin + 8 * number))
    return _crc_bytes(data, begin + 8 * words, end, np.uint32(crc), table) ^ np.uint32(0xFFFFFFFF)


_crc = _crc_by_instruction if HARDWARE else _crc_by_table


def checksum(data: Bytes, begin: int = 0) -> int:
    """Gives the CRC-32C of data[begin:]."""
    return int(_crc(data, begin, len(data), TABLE))


@compiled
def _length_of(number: int) -> int:
    """Gives the bytes of a number as a zigzag varint."""
    wide, length = (number << 1) ^ (number >> 63), 1
    while wide >= 0x80:
        wide >>= 7
        length += 1
    return length


@compiled
def _put(out: Any, at: int, number: int) -> int:
    wide = (number << 1) ^ (number >> 63)
    while wide >= 0x80:
        out[at] = (wide & 0x7F) | 0x80
        wide >>= 7
        at += 1
    out[at] = wide
    return at + 1


@compiled
def _copy(out: Any, at: int, data: Any, begin: int, end: int) -> int:
    copy_bytes(out, at, data, begin, end - begin)
    return at + end - begin


@compiled
def _write(
    rows: Any, first: int, last: int, keys: Any, key_start: Any, keyless: Any, values: Any, value_start: Any, name: Any, numbers: Any,
    room: int, out: Any, begin: int,
) -> Any:  # fmt: skip
    """Writes records of rows[first:last] behind a head at `begin` while they fit into `room` bytes, at least one.

    Gives (rows done, where the batch ends).
    """
    at = begin + 61
    for place in range(first, last):
        row = rows[place]
        delta = place - first
        key_length, value_length = key_start[row + 1] - key_start[row], value_start[row + 1] - value_start[row]
        digits, left = 1, numbers[row] // 10
        while left > 0:
            digits += 1
            left //= 10
        key_bytes = 1 if keyless[row] else _length_of(key_length) + key_length
        # Four of one byte each: attributes, time, header count, length of the digits.
        body = 4 + _length_of(delta) + key_bytes + _length_of(value_length) + value_length + _length_of(len(name)) + len(name) + digits
        if at + _length_of(body) + body > begin + room and delta > 0:
            return place, at
        at = _put(out, at, body)
        out[at], out[at + 1] = 0, 0
        at = _put(out, at + 2, delta)
        if keyless[row]:
            out[at] = 1  # minus one: none
            at += 1
        else:
            at = _copy(out, _put(out, at, key_length), keys, key_start[row], key_start[row + 1])
        at = _copy(out, _put(out, at, value_length), values, value_start[row], value_start[row + 1])
        at = _put(out, at, 1)
        at = _copy(out, _put(out, at, len(name)), name, 0, len(name))
        at = _put(out, at, digits) + digits
        left = numbers[row]
        for j in range(digits):
            out[at - 1 - j] = 48 + left % 10
            left //= 10
    return last, at


@compiled
def _fixed(out: Any, at: int, number: int, width: int) -> int:
    """Writes a number in so many bytes, the highest first."""
    for byte in range(width):
        out[at + byte] = (number >> (8 * (width - 1 - byte))) & 0xFF
    return at + width


@compiled
def _head(out: Any, begin: int, end: int, attributes: int, last_delta: int, timestamp_ms: int) -> None:
    at = _fixed(out, begin, 0, 8)
    at = _fixed(out, at, end - begin - 12, 4)
    at = _fixed(out, at, -1, 4)
    out[at] = 2  # the version of the format
    at = _fixed(out, at + 1, 0, 4)
    at = _fixed(out, at, attributes, 2)
    at = _fixed(out, at, last_delta, 4)
    at = _fixed(out, at, timestamp_ms, 8)
    at = _fixed(out, at, timestamp_ms, 8)
    at = _fixed(out, at, -1, 8)
    at = _fixed(out, at, -1, 2)
    at = _fixed(out, at, -1, 4)
    _fixed(out, at, last_delta + 1, 4)


@compiled
def _write_all(
    group: Any, bound: Any, rows: Any, keys: Any, key_start: Any, keyless: Any, values: Any, value_start: Any, name: Any, numbers: Any,
    room: int, attributes: int, timestamp_ms: int, out: Any, made: Any,
) -> int:  # fmt: skip
    """Sorts the rows by group (those below 0 are left out) and writes each group's batches, one behind the other; gives how many.

    made[b] becomes (group, begin, end, records); `bound` (groups + 1, zeros) and `rows` are room to sort in.
    """
    for row in range(len(group)):
        if group[row] >= 0:
            bound[group[row] + 1] += 1
    for one in range(1, len(bound)):
        bound[one] += bound[one - 1]
    for row in range(len(group)):
        if group[row] >= 0:
            rows[bound[group[row]]] = row
            bound[group[row]] += 1  # in the end where the group ends, which is where the next begins
    first = at = count = 0
    for one in range(len(bound) - 1):
        last = bound[one]
        while first < last:
            done, end = _write(rows, first, last, keys, key_start, keyless, values, value_start, name, numbers, room, out, at)
            _head(out, at, end, attributes, done - first - 1, timestamp_ms)
            made[count, 0], made[count, 1], made[count, 2], made[count, 3] = one, at, end, done - first
            first, at, count = done, end, count + 1
    return count


def write_batches(
    group: npt.NDArray[np.integer[Any]], groups: int, keys: Texts, keyless: npt.NDArray[np.bool_], values: Texts, name: Bytes,
    numbers: Int64, room: int, timestamp_ms: int, *, transactional: bool = False,
) -> list[tuple[int, Bytes, int]]:  # fmt: skip
    """Takes for each row its group (0 to groups - 1; below 0: it is left out), a key (or none), a value and a number from 0 on.

    Gives (group, batch, records) by group, rows in order; a batch has at most `room` bytes (one record, where that alone is larger).
    `seal` puts in its producer and checksum. `transactional`: it counts with a commit (KIP-98). All batches share one buffer.
    """
    n = len(group)
    out = np.empty(values.bytes() + keys.bytes() + n * (HEAD_BYTES + _RECORD_BYTES_MAX + len(name)), np.uint8)
    made = np.empty((n, 4), np.int64)
    count = _write_all(
        np.asarray(group, np.int64), np.zeros(groups + 1, np.int64), np.empty(n, np.int64), keys.data, keys.start, keyless, values.data,
        values.start, name, numbers, room, _TRANSACTIONAL if transactional else 0, timestamp_ms, out, made,
    )  # fmt: skip
    return [(one, out[begin:end], records) for one, begin, end, records in made[:count].tolist()]


@compiled
def _get(data: Any, at: int) -> Any:
    """Gives the number whose zigzag varint begins at `at`, and where it ends."""
    wide: Any = np.int64(0)
    shift = 0
    while data[at] & 0x80:
        wide |= np.int64(data[at] & 0x7F) << shift
        shift += 7
        at += 1
    wide |= np.int64(data[at]) << shift
    return (wide >> 1) ^ -(wide & 1), at + 1


@compiled
def _append(data: Any, count: int, first: int, later_ms: int, out: Any, at: int) -> int:
    """Writes the records of a batch as those from place `first` on of another, which began `later_ms` before; gives where they end."""
    begin = 61
    for place in range(first, first + count):
        length, begin = _get(data, begin)
        end = begin + length
        time, rest = _get(data, begin + 1)
        _, rest = _get(data, rest)
        time += later_ms
        at = _put(out, at, 1 + _length_of(time) + _length_of(place) + end - rest)
        out[at] = data[begin]
        at = _copy(out, _put(out, _put(out, at + 1, time), place), data, rest, end)
        begin = end
    return at


def is_compressed(batch: Bytes) -> bool:
    """Says whether the records of a batch are compressed."""
    return bool(batch[_CHECKED_FROM + 1] & 0x07)


def merged(batches: Sequence[Bytes]) -> Bytes:
    """Takes batches of one kind that are not compressed; gives one with the records of all in order, still to be sealed."""
    heads = [_HEAD.unpack_from(batch.data) for batch in batches]
    counts = [head[-1] for head in heads]
    out = np.empty(sum(map(len, batches)) + _GROWTH_BYTES_MAX * sum(counts), np.uint8)
    base, latest, at, place = heads[0][7], max(head[8] for head in heads), HEAD_BYTES, 0
    for batch, head, count in zip(batches, heads, counts, strict=True):
        at = _append(batch, count, place, head[7] - base, out, at)
        place += count
    _HEAD.pack_into(out.data, 0, 0, at - 12, -1, 2, 0, heads[0][5], place - 1, base, latest, -1, -1, -1, place)
    return out[:at]


def with_zstd(batch: Bytes, records: bytes) -> Bytes:
    """Takes a batch and what zstd makes of its records; gives the batch that carries them so, still to be sealed (KIP-110)."""
    found = np.empty(HEAD_BYTES + len(records), np.uint8)
    found[:HEAD_BYTES], found[HEAD_BYTES:] = batch[:HEAD_BYTES], np.frombuffer(records, np.uint8)
    found[_CHECKED_FROM + 1] |= _ZSTD
    struct.pack_into(">i", found.data, 8, len(found) - 12)
    return found


def seal(batch: Bytes, producer_id: int, producer_epoch: int, sequence: int) -> None:
    """Puts the producer's place in its sequence and the checksum into a batch; may be called again."""
    _seal(batch, producer_id, producer_epoch, sequence, TABLE)


@compiled
def _seal(batch: Any, producer_id: int, producer_epoch: int, sequence: int, table: Any) -> None:
    _fixed(batch, _fixed(batch, _fixed(batch, 43, producer_id, 8), producer_epoch, 2), sequence, 4)
    _fixed(batch, 17, _crc(batch, _CHECKED_FROM, len(batch), table), 4)


def warm_up() -> None:
    """Compiles the kernels (or loads them from the cache), so that no micro-batch waits for it."""
    zero, given = np.zeros(1, np.int64), Texts.of([b"x"])
    written = Texts(given.data.copy(), given.start)  # by a kernel, as keys of a fetch and values of many rows are
    none = np.zeros(1, np.bool_)
    batches = [
        write_batches(zero, 1, keys, none, values, given.data, zero, 1000, 0)[0][1]
        for keys in (given, written) for values in (given, written)
    ]  # fmt: skip
    seal(merged(batches), 0, 0, 0)
