"""Counts and shares of a message's text, over the cleaned (raw) view; `changed_share` comes with the column."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.features.catalogue import FeatureDef
from streamapp.core.fold import decode
from streamapp.core.text import TextColumn

_LONG = 1e6  # more characters than a text of 10,000 can grow to when it is cleaned


def _defined(name: str, description: str, high: float) -> FeatureDef:
    return FeatureDef(name=name, version=1, description=description, created_at="2026-11-21", tags=("text",), low=0.0, high=high)


FEATURES: tuple[FeatureDef, ...] = (
    _defined("char_count", "characters (code points) of the cleaned text", _LONG),
    _defined("word_count", "words: stretches without white space", _LONG),
    _defined("average_word_length", "characters in words / words; 0 without words", _LONG),
    _defined("url_count", "addresses: `http://`, `https://`, or `www.` at the start of a word, with something behind it", _LONG),
    _defined("email_count", "e-mail addresses: name@host with a dotted host that ends in two letters or more", _LONG),
    _defined("exclamation_count", "exclamation marks", _LONG),
    _defined("question_count", "question marks", _LONG),
    _defined("capital_ratio", "capital letters / letters; 0 without letters", 1.0),
    _defined("unique_word_ratio", "distinct words, letter case ignored / words; 0 without words", 1.0),
    _defined("repeat_ratio", "characters in runs of three or more equal ones, white space aside / characters; 0 for an empty text", 1.0),
    _defined("changed_share", "characters that hide a Latin letter, a digit or nothing at all / characters as received", 1.0),
)

_ALPHA, _UPPER, _SPACE = 1, 2, 4


@cache
def _letters() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Gives, by code point, the bits above as Python's str knows them, and the lower-case code point (simple mappings only)."""
    every = np.arange(0x110000, dtype=np.uint32).view("U1")
    upper = np.strings.isupper(every)
    bits = np.strings.isalpha(every) * _ALPHA + upper * _UPPER + np.strings.isspace(every) * _SPACE
    lower = np.arange(0x110000, dtype=np.int32)
    for code in np.flatnonzero(upper).tolist():
        if len(small := chr(code).lower()) == 1:
            lower[code] = ord(small)
    return bits.astype(np.uint8), lower


@njit(cache=True, nogil=True)
def _is_alnum(byte: int) -> bool:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122


@njit(cache=True, nogil=True)
def _is_letter(byte: int) -> bool:
    return 65 <= byte <= 90 or 97 <= byte <= 122


@njit(cache=True, nogil=True)
def _starts(raw: npt.NDArray[np.uint8], at: int, end: int, word: npt.NDArray[np.uint8]) -> bool:
    """Whether raw[at:end] begins with the lower-case ASCII `word`, letter case ignored."""
    if at + word.size > end:
        return False
    for k in range(word.size):
        byte = raw[at + k]
        if 65 <= byte <= 90:
            byte += np.uint8(32)
        if byte != word[k]:
            return False
    return True


@njit(cache=True, nogil=True)
def _url_end(
    raw: npt.NDArray[np.uint8],
    at: int,
    first: int,
    end: int,
    http: npt.NDArray[np.uint8],
    https: npt.NDArray[np.uint8],
    www: npt.NDArray[np.uint8],
) -> int:
    """Gives the index behind an address's beginning at `at` ("http://www."), or `at` where none begins."""
    i = at
    if _starts(raw, at, end, http):
        i += http.size
    elif _starts(raw, at, end, https):
        i += https.size
    if i > at:
        if i < end and raw[i] > 32:
            if _starts(raw, i, end, www) and i + www.size < end and raw[i + www.size] > 32:
                return i + www.size
            return i
        return at
    if _starts(raw, at, end, www) and (at == first or not _is_alnum(raw[at - 1])) and at + www.size < end and raw[at + www.size] > 32:
        return at + www.size
    return at


@njit(cache=True, nogil=True)
def _mail_end(raw: npt.NDArray[np.uint8], at: int, free: int, end: int) -> int:
    """Takes the index of an "@" and the first index no earlier address holds; gives the index behind the address, or `at`."""
    if at <= free:
        return at
    before = raw[at - 1]
    if not (_is_alnum(before) or before == 46 or before == 95 or before == 37 or before == 43 or before == 45):
        return at
    i = at + 1
    behind = at
    while i < end and (_is_alnum(raw[i]) or raw[i] == 45 or raw[i] == 46):
        if raw[i] == 46 and i > at + 1 and i + 2 < end and _is_letter(raw[i + 1]) and _is_letter(raw[i + 2]):
            behind = i + 3
        i += 1
    if behind > at:
        while behind < end and _is_letter(raw[behind]):
            behind += 1
    return behind


@njit(cache=True, nogil=True)
def _measure(  # noqa: C901  one pass over the bytes; each count is one branch
    raw: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint8],
    lower: npt.NDArray[np.int32],
    http: npt.NDArray[np.uint8],
    https: npt.NDArray[np.uint8],
    www: npt.NDArray[np.uint8],
) -> npt.NDArray[np.float64]:
    """Gives float64[10, n]. Words are told apart by 64-bit FNV-1a hashes: two of a text's words share one with odds of 1 in 10^19."""
    n = start.size - 1
    out = np.zeros((10, n), np.float64)
    longest = 0
    for row in range(n):
        longest = max(longest, start[row + 1] - start[row])
    slots = 16
    while slots < longest + 2:  # at most half as many words as bytes: never more than half full
        slots *= 2
    word_hash = np.zeros(slots, np.uint64)
    word_row = np.zeros(slots, np.int64)
    prime = np.uint64(0x100000001B3)
    for row in range(n):
        first, end = start[row], start[row + 1]
        chars = 0
        words = 0
        inside = 0
        urls = 0
        mails = 0
        shouts = 0
        asks = 0
        letters = 0
        capitals = 0
        distinct = 0
        repeated = 0
        last = np.int64(-1)
        run = 0
        url_free = first
        mail_free = first
        state = np.uint64(0xCBF29CE484222325)
        in_word = False
        mask = 16
        while mask < end - first + 2:
            mask *= 2
        mask -= 1
        i = first
        while i <= end:
            if i < end:
                code = np.int64(raw[i])
                width = 1
                if code >= 0x80:
                    code, width = decode(raw, i)
                what = bits[code]
            else:
                code, width, what = np.int64(32), 1, np.uint8(_SPACE)  # the end closes the last word
            if what & _SPACE:
                if in_word:
                    words += 1
                    slot = np.int64((state ^ state >> np.uint64(29)) & np.uint64(mask))
                    while word_row[slot] == row + 1 and word_hash[slot] != state:
                        slot = (slot + 1) & mask
                    if word_row[slot] != row + 1:
                        word_row[slot] = row + 1
                        word_hash[slot] = state
                        distinct += 1
                    state = np.uint64(0xCBF29CE484222325)
                    in_word = False
                last = np.int64(-1)
                run = 0
                if i < end:
                    chars += 1
                i += width
                continue
            chars += 1
            inside += 1
            in_word = True
            state = (state ^ np.uint64(lower[code])) * prime
            if code == last:
                run += 1
                if run == 3:
                    repeated += 3
                elif run > 3:
                    repeated += 1
            else:
                last = code
                run = 1
            if what & _ALPHA:
                letters += 1
                if what & _UPPER:
                    capitals += 1
                if (code == 104 or code == 72 or code == 119 or code == 87) and i >= url_free:
                    behind = _url_end(raw, i, first, end, http, https, www)
                    if behind > i:
                        urls += 1
                        url_free = behind
            elif code == 33:
                shouts += 1
            elif code == 63:
                asks += 1
            elif code == 64:
                behind = _mail_end(raw, i, mail_free, end)
                if behind > i:
                    mails += 1
                    mail_free = behind
            i += width
        out[0, row] = chars
        out[1, row] = words
        out[3, row] = urls
        out[4, row] = mails
        out[5, row] = shouts
        out[6, row] = asks
        if words:
            out[2, row] = inside / words
            out[8, row] = distinct / words
        if letters:
            out[7, row] = capitals / letters
        if chars:
            out[9, row] = repeated / chars
    return out


_HTTP, _HTTPS, _WWW = (np.frombuffer(word, np.uint8) for word in (b"http://", b"https://", b"www."))


def compute(column: TextColumn) -> dict[str, npt.NDArray[np.float64]]:
    """Takes n texts; gives the columns of FEATURES, float64[n] each. Law: a row does not depend on the others. Cost: linear in bytes."""
    measured = _measure(column.raw, column.raw_start, *_letters(), _HTTP, _HTTPS, _WWW)
    values = {definition.name: measured[k] for k, definition in enumerate(FEATURES[:-1])}
    values["changed_share"] = column.changed_share
    return values
