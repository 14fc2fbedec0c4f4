"""Names to numbers: a keyed 128-bit hash of every entity or event id, and the open-addressing table that finds its slot.

A name is known by its hash alone. With n names alive in a partition the chance that any two share a hash is below n^2 / 2^129
(a million: 1.5e-27); the hash is keyed, so that a producer who does not know the key cannot aim at another entity's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from streamapp.core.errors import InvariantBroken
from streamapp.core.growing import zeros
from streamapp.core.texts import Texts

Int64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

DEFAULT_KEY = (0x736C6964696E6720, 0x77696E646F777331)
FAST_ROUNDS = 1, 3  #    SipHash-1-3: keyed, and the cheapest member of the family that is in wide use
CAREFUL_ROUNDS = 2, 4  # SipHash-2-4: what its authors recommend where a hash must not give the name away

_WORD = 0xFFFFFFFF


# Kernels own no memory: without numba's reference counts (an atomic pair per array touched) the window kernel takes a third less.
compiled = njit(cache=True, nogil=True, _nrt=False)
inlined = njit(inline="always", _nrt=False)  # a step of one caller, given a name


@compiled
def _rotate(word: Any, bits: int) -> Any:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@compiled
def _round(a: Any, b: Any, c: Any, d: Any) -> Any:
    a = a + b
    c = c + d
    b = _rotate(b, 13) ^ a
    d = _rotate(d, 16) ^ c
    a = _rotate(a, 32)
    c = c + b
    a = a + d
    b = _rotate(b, 17) ^ c
    d = _rotate(d, 21) ^ a
    c = _rotate(c, 32)
    return a, b, c, d


@compiled
def _hash_rows(data: Any, start: Any, between: int, key0: Any, key1: Any, compress: int, finish: int, out: Any) -> None:
    """SipHash-c-d with 128-bit output (Aumasson and Bernstein, 2012, and the authors' 128-bit variant) of every row of bytes.

    `between` bytes stand behind each row and are not part of it.
    """
    eight = np.uint64(8)
    for row in range(len(start) - 1):
        begin, end = start[row], start[row + 1] - between
        if end == begin:  # the empty name is nobody
            out[row, 0] = 0
            out[row, 1] = 0
            continue
        a = key0 ^ np.uint64(0x736F6D6570736575)
        b = key1 ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE)
        c = key0 ^ np.uint64(0x6C7967656E657261)
        d = key1 ^ np.uint64(0x7465646279746573)
        at = begin
        while True:
            word = np.uint64(0)
            left = end - at
            if left >= 8:
                for j in range(8):
                    word |= np.uint64(data[at + j]) << (eight * np.uint64(j))
            else:
                for j in range(left):
                    word |= np.uint64(data[at + j]) << (eight * np.uint64(j))
                word |= np.uint64((end - begin) & 0xFF) << np.uint64(56)
            d ^= word
            for _ in range(compress):
                a, b, c, d = _round(a, b, c, d)
            a ^= word
            at += 8
            if left < 8:
                break
        c ^= np.uint64(0xEE)
        for _ in range(finish):
            a, b, c, d = _round(a, b, c, d)
        out[row, 0] = np.int64(a ^ b ^ c ^ d)
        b ^= np.uint64(0xDD)
        for _ in range(finish):
            a, b, c, d = _round(a, b, c, d)
        out[row, 1] = np.int64(a ^ b ^ c ^ d)


def joined(names: Sequence[str]) -> tuple[Bytes, Int64]:
    """Takes n strings; gives their UTF-8 bytes end to end and the n + 1 row starts. Lone surrogates are kept as they are."""
    text = "".join(names)
    data = text.encode("utf-8", "surrogatepass")
    start = np.zeros(len(names) + 1, np.int64)
    if len(data) == len(text):
        start[1:] = np.fromiter(map(len, names), np.int64, len(names))
    else:
        start[1:] = np.fromiter((len(name.encode("utf-8", "surrogatepass")) for name in names), np.int64, len(names))
    start.cumsum(out=start)
    return np.frombuffer(data, np.uint8), start


def hash_names(names: Sequence[str], key: tuple[int, int] = DEFAULT_KEY, rounds: tuple[int, int] = FAST_ROUNDS) -> Int64:
    """Takes n strings ("" is nobody) and a 128-bit key; gives int64[n, 2] hashes, (0, 0) for nobody."""
    # Strings end to end do not say where each begins, and asking each of them takes longer than to hash it; so a line is put between.
    data = np.frombuffer("\n".join(names).encode("utf-8", "surrogatepass"), np.uint8)
    start = np.zeros(len(names) + 1, np.int64)
    if _lines(data, start):
        return _hashed(data, start, 1, key, rounds)
    return hash_bytes(*joined(names), key, rounds)


@compiled
def _lines(data: Any, start: Any) -> bool:
    """Writes where each of the lines begins, and behind them where one more would; gives whether there are `len(start) - 1` of them."""
    line, last = 1, len(start) - 1
    for at in range(len(data)):
        if data[at] == 10:
            if line >= last:
                return False
            start[line] = at + 1
            line += 1
    start[last] = len(data) + 1
    return line == last


def hexadecimal(hashes: Int64) -> Texts:
    """Takes int64[n, 2] hashes; gives each in 32 hexadecimal digits, bytes in the order of SipHash's reference."""
    digits = hashes.astype("<i8", copy=False).tobytes().hex().encode()
    return Texts(np.frombuffer(digits, np.uint8), np.arange(0, len(digits) + 1, 32))


def hash_bytes(data: Bytes, start: Int64, key: tuple[int, int] = DEFAULT_KEY, rounds: tuple[int, int] = FAST_ROUNDS) -> Int64:
    """Takes rows of bytes end to end with their n + 1 starts; gives int64[n, 2] hashes, (0, 0) for an empty row."""
    return _hashed(data, start, 0, key, rounds)


def _hashed(data: Bytes, start: Int64, between: int, key: tuple[int, int], rounds: tuple[int, int]) -> Int64:
    out = np.empty((len(start) - 1, 2), np.int64)
    _hash_rows(data, start, between, np.uint64(key[0]), np.uint64(key[1]), *rounds, out)
    return out


# The table: one word per place, 0 where empty, else the low 32 bits of the hash above the slot number plus one. The place a word
# wants is in the word, so that a table grows and closes gaps without touching the entities. Linear probing, at most half full.


@compiled
def find(table: Any, mark: Any, low: int, high: int) -> int:
    """Gives the slot of the name with hash (low, high), or -1."""
    mask = len(table) - 1
    tag = low & _WORD
    place = tag & mask
    while True:
        word = table[place]
        if word == 0:
            return -1
        if (word >> 32) & _WORD == tag:
            slot: int = (word & _WORD) - 1
            if mark[slot, 0] == low and mark[slot, 1] == high:
                return slot
        place = (place + 1) & mask


@compiled
def insert(table: Any, low: int, slot: int) -> None:
    """Puts a slot that is not in the table where its hash wants it; the table must have an empty place."""
    mask = len(table) - 1
    tag = low & _WORD
    place = tag & mask
    while table[place] != 0:
        place = (place + 1) & mask
    table[place] = (tag << 32) | (slot + 1)


@compiled
def erase(table: Any, low: int, slot: int) -> None:
    """Takes a slot that is in the table out of it and closes the gap, so that no tombstones gather."""
    mask = len(table) - 1
    hole = (low & _WORD) & mask
    while (table[hole] & _WORD) != slot + 1:
        hole = (hole + 1) & mask
    place = hole
    while True:
        place = (place + 1) & mask
        word = table[place]
        if word == 0:
            break
        wanted = ((word >> 32) & _WORD) & mask
        if ((place - wanted) & mask) >= ((place - hole) & mask):
            table[hole] = word
            hole = place
    table[hole] = 0


@compiled
def rehash(old: Any, new: Any, low: int, high: int, by: int) -> None:
    """Moves every word of a table into an empty larger one; slots from `low` to below `high` are called `by` more from now on."""
    mask = len(new) - 1
    for word in old:
        if word != 0:
            place = ((word >> 32) & _WORD) & mask
            while new[place] != 0:
                place = (place + 1) & mask
            new[place] = word + by if low < (word & _WORD) <= high else word


def table_for(slots: int) -> Int64:
    """Gives an empty table in which `slots` names fill at most half of the places."""
    return zeros((places_for(slots),), np.int64)


def places_for(slots: int) -> int:
    """Gives how many places that table has."""
    return max(64, 1 << (2 * max(slots, 1) - 1).bit_length())


def larger(table: Int64, slots: int) -> Int64:
    """Gives a table for `slots` names with what is in this one."""
    new = table_for(slots)
    rehash(table, new, 0, 0, 0)
    return new


def address(array: npt.NDArray[Any]) -> int:
    """Gives where an array begins, for a kernel; hold it until that is through. Raises InvariantBroken for one with gaps."""
    if not array.flags.c_contiguous:
        raise InvariantBroken(f"a kernel was given an array of {array.shape} that is not contiguous")
    where: int = array.__array_interface__["data"][0]
    return where


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any) -> Any:
    """Asks the processor for the cache line of array[row] ahead of need; reads nothing and cannot fault."""
    signature = types.void(array, row)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type, _ = signature.args
        view = context.make_array(array_type)(context, builder, args[0])
        stride = cgutils.unpack_tuple(builder, view.strides)[0]
        byte = cgutils.int8_t.as_pointer()
        where = builder.gep(builder.bitcast(view.data, byte), [builder.mul(args[1], stride)])
        number = cgutils.int32_t
        module = builder.module
        name = "llvm.prefetch.p0"
        function = module.globals.get(name)
        if function is None:
            from llvmlite import ir  # type: ignore[import-untyped]

            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), name)
        builder.call(function, [where, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return signature, generate
