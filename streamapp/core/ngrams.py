"""Hashed n-grams of the folded view: which words and pieces of words a text holds, as numbers, without keeping a word of it.

Word n-grams run over tokens (letters, digits and everything beyond ASCII); a token of five or more digits counts by its length only,
so that the next phone number looks like the last. Character n-grams run over what stands between white space, with one blank on
either side. "i", "l" and "1" are one letter here, because they are one shape.

Hash: FNV-1a with 64 bits over the n-gram's UTF-8 (http://www.isthe.com/chongo/tech/comp/fnv/), then the finaliser of MurmurHash3
(Austin Appleby, public domain), then the upper half scaled to the number of buckets. Word and character n-grams start from different bases.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.text import TextColumn, text_column
from streamapp.core.vectorise import Ngrams

NGRAMS_VERSION = "1"

WORD, CHAR = 0, 1
_LONG_NUMBER = 5  # digits from which a number counts by its length
_ORDER_MAX = 8

_PRIME = np.uint64(0x100000001B3)
_BASIS = 0xCBF29CE484222325
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def basis(seed: int, family: int) -> int:
    """Gives the state that a family's hashes start from."""
    return (_BASIS ^ ((seed * 2 + family + 1) * _GOLDEN & _MASK)) & _MASK


@njit(cache=True, nogil=True)
def _step(state: np.uint64, byte: int) -> np.uint64:
    return (state ^ np.uint64(byte)) * _PRIME


@njit(cache=True, nogil=True)
def _bucket(state: np.uint64, buckets: np.uint64) -> np.int64:
    state ^= state >> np.uint64(33)
    state *= _MIX
    state ^= state >> np.uint64(33)
    return np.int64(((state >> np.uint64(32)) * buckets) >> np.uint64(32))


@njit(cache=True, nogil=True)
def _add(
    at: np.int64,
    kind: int,
    epoch: int,
    first: int,
    o: int,
    seen: npt.NDArray[np.int64],
    bucket: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
    family: npt.NDArray[np.int8],
) -> int:
    """Counts bucket `at` once more in this row, whose output begins at `first`; gives the new end of the output."""
    entry = seen[at]
    if entry >> 32 == epoch:
        weight[first + (entry & 0xFFFFFFFF)] += np.float32(1.0)
        return o
    seen[at] = epoch << 32 | (o - first)
    bucket[o] = at
    weight[o] = np.float32(1.0)
    family[o] = kind
    return o + 1


@njit(cache=True, nogil=True)
def _hash_rows(
    folded: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    word_low: int,
    word_high: int,
    char_low: int,
    char_high: int,
    buckets: int,
    word_basis: np.uint64,
    char_basis: np.uint64,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    n = start.size - 1
    out_start = np.empty(n + 1, np.int64)
    out_start[0] = 0
    size = 4 * folded.size + 1024
    bucket = np.empty(size, np.int32)
    weight = np.empty(size, np.float32)
    family = np.empty(size, np.int8)
    seen = np.zeros(buckets, np.int64)
    scaled = np.uint64(buckets)
    longest = 0
    for row in range(n):
        longest = max(longest, start[row + 1] - start[row])
    text = np.empty(longest + 3, np.uint8)
    states = np.empty(word_high + 1, np.uint64)
    logs = np.empty(64, np.float64)
    for i in range(1, 64):
        logs[i] = 1.0 + np.log(np.float64(i))
    o = np.int64(0)
    for row in range(n):
        epoch = np.int64(row + 1)
        first = o
        length = start[row + 1] - start[row]
        # one blank between chunks and at both ends, look-alike shapes merged
        m = 1
        text[0] = 32
        for i in range(start[row], start[row + 1]):
            byte = folded[i]
            if byte <= 32:
                if text[m - 1] != 32:
                    text[m] = 32
                    m += 1
            else:
                text[m] = byte
                m += 1
        if text[m - 1] != 32:
            text[m] = 32
            m += 1
        most = min(buckets, (char_high - char_low + 1) * (2 * length + 1) + word_high * (length + 1))
        if o + most > size:
            size = 2 * size + most
            bigger_bucket = np.empty(size, np.int32)
            bigger_bucket[:o] = bucket[:o]
            bucket = bigger_bucket
            bigger_weight = np.empty(size, np.float32)
            bigger_weight[:o] = weight[:o]
            weight = bigger_weight
            bigger_family = np.empty(size, np.int8)
            bigger_family[:o] = family[:o]
            family = bigger_family
        # words
        tokens = 0
        i = 0
        while i < m:
            byte = text[i]
            if not (byte >= 0x80 or 97 <= byte <= 122 or 48 <= byte <= 57):
                i += 1
                continue
            stop = i
            digits = 0
            while stop < m and (text[stop] >= 0x80 or 97 <= text[stop] <= 122 or 48 <= text[stop] <= 57):
                digits += 48 <= text[stop] <= 57
                stop += 1
            number = digits == stop - i and digits >= _LONG_NUMBER
            for k in range(word_high, 1, -1):
                states[k] = _step(states[k - 1], 32)
            states[1] = word_basis
            for j in range(i, stop):
                byte = text[j]
                if number:
                    byte = np.uint8(48)
                elif byte == 105 or byte == 108:
                    byte = np.uint8(49)
                for k in range(1, word_high + 1):
                    states[k] = _step(states[k], byte)
            tokens += 1
            for k in range(word_low, min(word_high, tokens) + 1):
                o = _add(_bucket(states[k], scaled), WORD, epoch, first, o, seen, bucket, weight, family)
            i = stop
        # characters
        for j in range(m):
            if text[j] == 105 or text[j] == 108:
                text[j] = 49
        i = 1
        while i < m:
            stop = i
            while text[stop] != 32:
                stop += 1
            end = stop + 1
            p = i - 1
            while p < end:
                state = char_basis
                q = p
                k = 1
                while k <= char_high and q < end:
                    state = _step(state, text[q])
                    q += 1
                    while q < end and text[q] & 0xC0 == 0x80:
                        state = _step(state, text[q])
                        q += 1
                    if k >= char_low:
                        o = _add(_bucket(state, scaled), CHAR, epoch, first, o, seen, bucket, weight, family)
                    k += 1
                p += 1
                while p < end and text[p] & 0xC0 == 0x80:
                    p += 1
            i = stop + 1
        total = 0.0
        for j in range(first, o):
            count = np.int64(weight[j])
            value = logs[count] if count < 64 else 1.0 + np.log(np.float64(count))
            weight[j] = value
            total += value * value
        if total > 0.0:
            scale = 1.0 / np.sqrt(total)
            for j in range(first, o):
                weight[j] = np.float32(weight[j] * scale)
        out_start[row + 1] = o
    return out_start, bucket[:o], weight[:o], family[:o]


def _checked(word: tuple[int, int], char: tuple[int, int], buckets: int) -> None:
    for low, high in (word, char):
        if not 1 <= low <= high <= _ORDER_MAX:
            raise ValueError(f"n-gram orders {low} to {high}: must rise from 1 to at most {_ORDER_MAX}")
    if not 1 <= buckets < 1 << 31:
        raise ValueError(f"{buckets} buckets: must be between 1 and {(1 << 31) - 1}")


def hash_ngrams(column: TextColumn, word: tuple[int, int], char: tuple[int, int], buckets: int, seed: int) -> Ngrams:
    """Takes n texts and inclusive ranges of orders; gives their buckets in order of first appearance, words before characters.

    A bucket appears once in a row, under the family that met it first; weight = (1 + ln(count)), scaled to L2 norm 1 per row.
    Law: a row does not depend on the others. Raises ValueError for orders outside 1 to 8 or buckets outside 1 to 2^31 - 1.
    Cost: linear in bytes times orders, plus 8 bytes per bucket and call; a row holds at most `buckets` entries.
    """
    _checked(word, char, buckets)
    start, bucket, weight, family = _hash_rows(
        column.folded,
        column.folded_start,
        word[0],
        word[1],
        char[0],
        char[1],
        buckets,
        np.uint64(basis(seed, WORD)),
        np.uint64(basis(seed, CHAR)),
    )
    return Ngrams(start, bucket, weight, family)


def _is_token(char: str) -> bool:
    return char >= "\x80" or "a" <= char <= "z" or "0" <= char <= "9"


def _words(folded: str) -> list[str]:
    return "".join(c if _is_token(c) else " " for c in folded).split(" ")


def _hashed(gram: str, start: int, buckets: int) -> int:
    state = start
    for byte in gram.translate(_SHAPES).encode():
        state = (state ^ byte) * int(_PRIME) & _MASK
    state ^= state >> 33
    state = state * int(_MIX) & _MASK
    state ^= state >> 33
    return (state >> 32) * buckets >> 32


_SHAPES = str.maketrans("il", "11")


def tokens(text: str, word: tuple[int, int], char: tuple[int, int], buckets: int, seed: int) -> list[tuple[int, int, str]]:
    """Takes one text as it was received; gives (bucket, family, n-gram) in the kernel's order, one entry per occurrence.

    A long number is named "<11 digits>". Several n-grams may share a bucket. Cost: about 1 µs per n-gram; meant for `trace`.
    """
    _checked(word, char, buckets)
    folded = text_column([text]).folded_text(0)
    found: list[tuple[int, int, str]] = []
    words = [w for w in _words(folded) if w]
    shapes = ["0" * len(w) if len(w) >= _LONG_NUMBER and w.isascii() and w.isdigit() else w for w in words]
    names = [w if w == s and not s.startswith("0" * _LONG_NUMBER) else f"<{len(w)} digits>" for w, s in zip(words, shapes, strict=True)]
    start = basis(seed, WORD)
    for last in range(1, len(words) + 1):
        for order in range(word[0], min(word[1], last) + 1):
            found.append((_hashed(" ".join(shapes[last - order : last]), start, buckets), WORD, " ".join(names[last - order : last])))
    start = basis(seed, CHAR)
    for chunk in folded.split(" "):
        if not chunk:
            continue
        padded = f" {chunk} "
        for first in range(len(padded)):
            for order in range(char[0], min(char[1], len(padded) - first) + 1):
                gram = padded[first : first + order]
                found.append((_hashed(gram, start, buckets), CHAR, gram))
    return found
