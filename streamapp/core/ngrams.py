"""Hashed n-grams: which words and pieces of words a text holds and how it is styled, as numbers, without keeping a word of it.

Word n-grams run over tokens of the folded view (letters, digits and everything beyond ASCII), character n-grams over what stands
between white space, with one blank on either side. All digits are one shape, "0", so that the next phone number or price looks like
the last; "i" and "l" are one shape, because they are drawn alike. Two or three style marks go with the words: how many words are in
capitals and how many begin with one (raw view), and how long the text is. Every n-gram counts once per text, however often it occurs:
on short messages this ranks better than logarithmic counts.

Hash: FNV-1a with 64 bits over the n-gram's UTF-8 (http://www.isthe.com/chongo/tech/comp/fnv/), then two steps of MurmurHash3's
finaliser (Austin Appleby, public domain), then the upper half scaled to the number of buckets. Families start from different bases.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.text import TextColumn
from streamapp.core.vectorise import Ngrams

NGRAMS_VERSION = "2"

WORD, CHAR = 0, 1
STYLE = 2  # base of the style marks, which are words to the model
_ORDER_MAX = 8
CAPITALS_MAX, TITLES_MAX, LENGTH_STEP, LENGTHS_MAX = 3, 5, 20, 8
STYLED_MIN = 3  # letters of a word that says something about style

PRIME = np.uint64(0x100000001B3)
_BASIS = 0xCBF29CE484222325
MIX = np.uint64(0xFF51AFD7ED558CCD)
_GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1

SHAPES = str.maketrans("i123456789", "l000000000")
_SHAPE = np.array([ord(chr(byte).translate(SHAPES)) if byte < 128 else byte for byte in range(256)], np.uint8)
_SHAPE[:33] = 32  # line ends and tabs are blanks too


def basis(seed: int, family: int) -> int:
    """Gives the state that a family's hashes start from."""
    return (_BASIS ^ ((seed * 4 + family + 1) * _GOLDEN & MASK)) & MASK


@njit(cache=True, nogil=True)
def _step(state: np.uint64, byte: int) -> np.uint64:
    return (state ^ np.uint64(byte)) * PRIME


@njit(cache=True, nogil=True)
def _bucket(state: np.uint64, buckets: np.uint64) -> np.uint64:
    """Gives the bucket of a finished hash, unsigned: a place that cannot be negative is not looked at twice."""
    state ^= state >> np.uint64(33)
    state *= MIX
    state ^= state >> np.uint64(33)
    return ((state >> np.uint64(32)) * buckets) >> np.uint64(32)


@njit(cache=True, nogil=True)
def _add(state: np.uint64, buckets: np.uint64, row: int, seen: npt.NDArray[np.int32], bucket: npt.NDArray[np.int32], o: int) -> int:
    """Appends the bucket of a finished hash unless this row has it; gives the new end of the output."""
    at = _bucket(state, buckets)
    new = seen[at] != row + 1  # no branch: whether a bucket is new cannot be predicted
    bucket[o] = at
    seen[at] = row + 1
    return o + 1 if new else o


@njit(cache=True, nogil=True)
def _add_style(
    raw: npt.NDArray[np.uint8],
    first: int,
    end: int,
    length: int,
    base: np.uint64,
    buckets: np.uint64,
    row: int,
    seen: npt.NDArray[np.int32],
    bucket: npt.NDArray[np.int32],
    o: int,
) -> int:
    """Appends the marks "C<words in capitals>", "T<words that begin with a capital>" and "L<length step>"; gives the new end."""
    capitals = 0
    titles = 0
    i = first
    while i < end:
        stop = i
        upper = 0
        while stop < end and (97 <= raw[stop] <= 122 or 65 <= raw[stop] <= 90):
            upper += raw[stop] <= 90
            stop += 1
        if stop - i >= STYLED_MIN:
            capitals += upper == stop - i
            titles += raw[i] <= 90
        i = stop + 1
    o = _add(_step(_step(base, 67), 48 + min(capitals, CAPITALS_MAX)), buckets, row, seen, bucket, o)
    o = _add(_step(_step(base, 84), 48 + min(titles, TITLES_MAX)), buckets, row, seen, bucket, o)
    behind: int = _add(_step(_step(base, 76), 48 + min(length // LENGTH_STEP, LENGTHS_MAX)), buckets, row, seen, bucket, o)
    return behind


@njit(cache=True, nogil=True)
def _is_token_byte(byte: int) -> bool:
    return (97 <= byte <= 122) | (byte >= 128) | (byte == 48)


@njit(cache=True, nogil=True)
def _add_words(
    text: npt.NDArray[np.uint8],
    end: int,
    low: int,
    high: int,
    base: np.uint64,
    states: npt.NDArray[np.uint64],
    buckets: np.uint64,
    row: int,
    seen: npt.NDArray[np.int32],
    bucket: npt.NDArray[np.int32],
    o: int,
) -> int:
    """Appends the word n-grams of text[:end], which ends with a blank; states[k] is the hash of the last k words. Gives the new end."""
    tokens = 0
    i = 0
    while i < end:
        if not _is_token_byte(text[i]):
            i += 1
            continue
        for k in range(high, 2, -1):
            states[k] = _step(states[k - 1], 32)
        pair = _step(states[1], 32)  # the two usual orders stay in registers
        single = base
        first = i
        while _is_token_byte(text[i]):
            single = _step(single, text[i])
            pair = _step(pair, text[i])
            i += 1
        for k in range(3, high + 1):
            for j in range(first, i):
                states[k] = _step(states[k], text[j])
        states[1] = single
        states[2] = pair
        tokens += 1
        for k in range(low, min(high, tokens) + 1):
            o = _add(states[k], buckets, row, seen, bucket, o)
    return o


@njit(cache=True, nogil=True)
def _add_threes_and_fours(
    text: npt.NDArray[np.uint8],
    end: int,
    base: np.uint64,
    buckets: np.uint64,
    row: int,
    seen: npt.NDArray[np.int32],
    bucket: npt.NDArray[np.int32],
    o: int,
) -> int:
    """Does what `_add_characters` does for the usual orders and ASCII, in half the time: nothing to loop over, hardly a branch to guess."""
    for i in range(end - 2):
        if text[i + 1] == 32:  # no n-gram has a blank inside
            continue
        state = _step(_step(_step(base, text[i]), text[i + 1]), text[i + 2])
        o = _add(state, buckets, row, seen, bucket, o)
        if text[i + 2] != 32:
            o = _add(_step(state, text[i + 3]), buckets, row, seen, bucket, o)
    return o


@njit(cache=True, nogil=True)
def _add_characters(
    text: npt.NDArray[np.uint8],
    end: int,
    wide: bool,
    low: int,
    high: int,
    base: np.uint64,
    buckets: np.uint64,
    row: int,
    seen: npt.NDArray[np.int32],
    bucket: npt.NDArray[np.int32],
    o: int,
) -> int:
    """Appends the character n-grams of the chunks in text[:end], each with the blank before and behind it; gives the new end.

    `wide` says that the row has characters of more than one byte.
    """
    i = 1
    while i < end:
        stop = i
        while text[stop] != 32:
            stop += 1
        stop += 1
        p = i - 1
        i = stop
        if not wide:
            while p + low <= stop:
                state = base
                for q in range(p, p + low):
                    state = _step(state, text[q])
                o = _add(state, buckets, row, seen, bucket, o)
                for q in range(p + low, min(p + high, stop)):
                    state = _step(state, text[q])
                    o = _add(state, buckets, row, seen, bucket, o)
                p += 1
            continue
        while p < stop:
            state = base
            q = p
            for k in range(1, high + 1):
                if q == stop:
                    break
                state = _step(state, text[q])
                q += 1
                while q < stop and text[q] & 0xC0 == 0x80:
                    state = _step(state, text[q])
                    q += 1
                if k >= low:
                    o = _add(state, buckets, row, seen, bucket, o)
            p += 1
            while p < stop and text[p] & 0xC0 == 0x80:
                p += 1
    return o


@njit(cache=True, nogil=True)
def _shaped(
    folded: npt.NDArray[np.uint8], first: int, end: int, shape: npt.NDArray[np.uint8], text: npt.NDArray[np.uint8]
) -> tuple[int, int]:
    """Writes the row's shapes with one blank between chunks and at both ends; gives the end and the number of characters between."""
    text[0] = 32
    m = 1
    continued = 0
    for i in range(first, end):
        byte = shape[folded[i]]
        text[m] = byte
        continued += byte & 0xC0 == 0x80
        m += not (byte == 32 and text[m - 1] == 32)
    if text[m - 1] != 32:
        text[m] = 32
        m += 1
    return m, m - 2 - continued


@njit(cache=True, nogil=True)
def _hash_rows(
    raw: npt.NDArray[np.uint8],
    raw_start: npt.NDArray[np.int64],
    folded: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    shape: npt.NDArray[np.uint8],
    word_low: int,
    word_high: int,
    char_low: int,
    char_high: int,
    seen: npt.NDArray[np.int32],
    before: int,
    bases: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    n = start.size - 1
    out_start = np.zeros(n + 1, np.int64)
    size = 4 * folded.size + 1024
    bucket = np.empty(size, np.int32)
    characters = np.empty(n, np.int64)  # where a row's second family begins
    scaled = np.uint64(seen.size)
    longest = 0
    for row in range(n):
        longest = max(longest, start[row + 1] - start[row])
    text = np.empty(longest + 3, np.uint8)
    states = np.empty(max(word_high, 2) + 1, np.uint64)
    o = 0
    for row in range(n):
        m, length = _shaped(folded, start[row], start[row + 1], shape, text)
        # every other character may be a blank, which then counts twice; one more, because `_add` writes before it knows
        most = (char_high - char_low + 1) * 2 * m + word_high * m + 4
        if o + most > size:
            size = 2 * size + most
            wider = np.empty(size, np.int32)
            wider[:o] = bucket[:o]
            bucket = wider
        if length > 0:
            o = _add_style(raw, raw_start[row], raw_start[row + 1], length, bases[2], scaled, before + row, seen, bucket, o)
        o = _add_words(text, m, word_low, word_high, bases[0], states, scaled, before + row, seen, bucket, o)
        characters[row] = o
        wide = length != m - 2
        if char_low == 3 and char_high == 4 and not wide:
            o = _add_threes_and_fours(text, m, bases[1], scaled, before + row, seen, bucket, o)
        else:
            o = _add_characters(text, m, wide, char_low, char_high, bases[1], scaled, before + row, seen, bucket, o)
        out_start[row + 1] = o
    weight = np.empty(o, np.float32)
    family = np.zeros(o, np.int8)
    for row in range(n):
        first, end = out_start[row], out_start[row + 1]
        if end > first:
            share = np.float32(1.0 / np.sqrt(np.float64(end - first)))
            for j in range(first, end):
                weight[j] = share
            for j in range(characters[row], end):
                family[j] = CHAR
    return out_start, bucket[:o], weight, family


class _Marks:
    """Which buckets a row has had: a number per bucket. Rows are counted on from call to call, so that nothing has to be cleared."""

    __slots__ = ("before", "seen")

    def __init__(self, buckets: int) -> None:
        self.seen, self.before = np.zeros(buckets, np.int32), 0

    def room(self, rows: int) -> None:
        """Makes room for the numbers of so many rows."""
        if self.before + rows > _ROWS_MAX:
            self.seen[:] = 0
            self.before = 0


_ROWS_MAX = (1 << 31) - 2
#: By number of buckets, marks that nobody uses at the moment: as many as threads ever hashed at once.
_spare: dict[int, list[_Marks]] = {}


def check_orders(word: tuple[int, int], char: tuple[int, int], buckets: int) -> None:
    """Raises ValueError for orders outside 1 to 8 or buckets outside 1 to 2^31 - 1."""
    for low, high in (word, char):
        if not 1 <= low <= high <= _ORDER_MAX:
            raise ValueError(f"n-gram orders {low} to {high}: must rise from 1 to at most {_ORDER_MAX}")
    if not 1 <= buckets < 1 << 31:
        raise ValueError(f"{buckets} buckets: must be between 1 and {(1 << 31) - 1}")


@lru_cache(maxsize=16)
def _bases(seed: int) -> npt.NDArray[np.uint64]:
    return np.array([basis(seed, WORD), basis(seed, CHAR), basis(seed, STYLE)], np.uint64)


def hash_ngrams(column: TextColumn, word: tuple[int, int], char: tuple[int, int], buckets: int, seed: int) -> Ngrams:
    """Takes n texts and inclusive ranges of orders; gives their buckets in order of first appearance: style, words, characters.

    A bucket appears once in a row, under the family that met it first; all weights of a row are equal and have L2 norm 1.
    Law: a row does not depend on the others. Raises ValueError for orders outside 1 to 8 or buckets outside 1 to 2^31 - 1.
    Cost: linear in bytes times orders, and 4 bytes per bucket, kept; a row holds at most `buckets` entries.
    """
    check_orders(word, char, buckets)
    spare = _spare.setdefault(buckets, [])
    try:
        marks = spare.pop()
    except IndexError:  # not asked before: another thread may be faster
        marks = _Marks(buckets)
    marks.room(len(column))
    start, bucket, weight, family = _hash_rows(
        column.raw, column.raw_start, column.folded, column.folded_start, _SHAPE, *word, *char, marks.seen, marks.before, _bases(seed)
    )
    marks.before += len(column)
    spare.append(marks)
    return Ngrams(start, bucket, weight, family)
