"""The folded view: what a text looks like to a reader, in plain lower-case letters, whatever characters were used to write it.

Per code point the tables say what it is (`kind`), what Latin text it passes for (`latin`) and what it is in its own script (`own`:
marks stripped, lower case). Per token (letters, digits and marks without a gap) the kernel then decides:

- a token with a Latin letter is read as Latin: look-alikes, near look-alikes and leet become letters, all marks go;
- a token made of exact look-alikes only is read as Latin where Latin letters outnumber other letters in the text, so that a
  Russian text keeps its own one-letter words;
- every other token keeps its script. Its letters are only lower-cased and lose combining marks.

Digits are read as letters (`LEET`) in a token with at least as many letters as digits, unless it is a number with a short unit or
ending ("150p", "10am", "2nd"). Three or more equal characters in a row become two, digits excepted: "freeeee" is "free", "1000" is "1000".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.glyphs import DIGIT, DROP, FOREIGN, LATIN, LEET, MARK, OTHER, STRONG, SYMBOL, WEAK, fold_tables

FOLDING_VERSION = "1"

_SYMBOLS_MAX = 4  # "pa$$word"
_LEET = np.zeros(128, np.uint8)
for _digit, _letter in LEET.items():
    _LEET[ord(_digit)] = ord(_letter)


@njit(cache=True, nogil=True)
def decode(raw: npt.NDArray[np.uint8], at: int) -> tuple[np.int64, int]:
    """Takes valid UTF-8 and the index of a lead byte; gives the code point and how many bytes it takes."""
    lead = np.int64(raw[at])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | (np.int64(raw[at + 1]) & 0x3F), 2
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | (np.int64(raw[at + 1]) & 0x3F) << 6 | (np.int64(raw[at + 2]) & 0x3F), 3
    return (
        (lead & 0x07) << 18 | (np.int64(raw[at + 1]) & 0x3F) << 12 | (np.int64(raw[at + 2]) & 0x3F) << 6 | (np.int64(raw[at + 3]) & 0x3F),
        4,
    )


@njit(cache=True, nogil=True)
def _is_alnum(byte: int) -> bool:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122


@njit(cache=True, nogil=True)
def _is_mail(raw: npt.NDArray[np.uint8], at: int, end: int) -> bool:
    """Whether what follows the "@" at `at` reads as a host name with a dot in it."""
    i = at + 1
    while i < end and (_is_alnum(raw[i]) or raw[i] == 45):
        i += 1
    return i > at + 1 and i + 1 < end and raw[i] == 46 and _is_alnum(raw[i + 1])


@njit(cache=True, nogil=True)
def _put(out: npt.NDArray[np.uint8], o: int, packed: np.int64, last: np.int64, run: int) -> tuple[int, np.int64, int]:
    """Appends packed UTF-8 unless it would be the third equal unit in a row; gives the new end, last unit and its run."""
    length = packed & 0xFF
    rest = packed >> 8
    if length > 1 and rest & 0x80:
        if rest == last:
            run += 1
            if run > 2:
                return o, last, run
        else:
            last, run = rest, 1
        for _ in range(length):
            out[o] = rest & 0xFF
            rest >>= 8
            o += 1
        return o, last, run
    for _ in range(length):
        byte = rest & 0xFF
        rest >>= 8
        if byte == last:
            run += 1
            if run > 2 and not 48 <= byte <= 57:
                continue
        else:
            last, run = byte, 1
        out[o] = byte
        o += 1
    return o, last, run


@njit(cache=True, nogil=True)
def _kept(raw: npt.NDArray[np.uint8], at: int, width: int) -> np.int64:
    """Gives the character at `at` as packed UTF-8, unchanged."""
    packed = np.int64(width)
    for w in range(width):
        packed |= np.int64(raw[at + w]) << (8 * (w + 1))
    return packed


@njit(cache=True, nogil=True)
def _is_latin(raw: npt.NDArray[np.uint8], i: int, end: int, kind: npt.NDArray[np.uint8]) -> bool:
    """Whether a row has at least as many Latin letters as letters of other scripts that pass for nothing on their own."""
    balance = 0
    while i < end:
        if raw[i] < 0x80:
            balance += kind[raw[i]] == LATIN
            i += 1
            continue
        code, width = decode(raw, i)
        what = kind[code] if code < kind.size else OTHER
        if what == LATIN:
            balance += 1
        elif what == FOREIGN or what == WEAK:  # noqa: SIM109  a tuple costs the kernel time
            balance -= 1
        i += width
    return balance >= 0


@njit(cache=True, nogil=True)
def _token(
    raw: npt.NDArray[np.uint8], i: int, end: int, kind: npt.NDArray[np.uint8], latin_row: bool
) -> tuple[int, bool, bool, bool, bool]:
    """Reads the token that begins at `i`.

    Gives the index behind it, whether it is plain (only ASCII letters and digits), has Latin letters, reads as Latin, and whether its
    digits read as letters.
    """
    latins = 0
    strongs = 0
    others = 0
    digits = 0
    head = 0  # digits before the first letter
    plain = True
    while i < end:
        if raw[i] < 0x80 and kind[raw[i]] == LATIN:
            latins += 1
            i += 1
            continue
        code, width = decode(raw, i)
        what = kind[code] if code < kind.size else OTHER
        if what == OTHER:
            break
        plain = plain and width == 1 and what != SYMBOL
        if what == LATIN:
            latins += 1
        elif what == DIGIT:
            head += latins + strongs == 0
            digits += 1
        elif what == STRONG:
            strongs += 1
        elif what == FOREIGN or what == WEAK:  # noqa: SIM109  a tuple costs the kernel time
            others += 1
        i += width
    letters = latins + strongs
    as_latin = latins > 0 or (strongs > 0 and others == 0 and latin_row)
    as_leet = as_latin and 0 < digits <= letters and not (head == digits and letters <= 2)
    return i, plain, latins > 0, as_latin, as_leet


@njit(cache=True, nogil=True)
def _reads_as_letter(
    raw: npt.NDArray[np.uint8], at: int, first: int, stop: int, end: int, after_letter: bool, as_leet: bool, kind: npt.NDArray[np.uint8]
) -> bool:
    """Whether the symbol at `at` stands for a letter in the token raw[first:stop]: "c@sh", "pa$$", "$ave"; not "US$100", "me@home.org"."""
    width = decode(raw, at)[1]
    j, copies = at + width, 1
    while copies < _SYMBOLS_MAX and j + width <= stop:  # "$$" as one, "€€" too
        same = True
        for k in range(width):
            same = same and raw[j + k] == raw[at + k]
        if not same:
            break
        j, copies = j + width, copies + 1
    if j >= stop:
        return False
    code, _ = decode(raw, j)
    what = kind[code] if code < kind.size else OTHER
    if not (what == LATIN or what == STRONG or (what == DIGIT and as_leet)):  # noqa: SIM109  a tuple costs the kernel time
        return False
    return (after_letter or (raw[at] == 36 and at == first)) and not (raw[at] == 64 and _is_mail(raw, at, end))


@njit(cache=True, nogil=True)
def _leet_letter(raw: npt.NDArray[np.uint8], at: int, first: int, stop: int, leet: npt.NDArray[np.uint8]) -> np.int64:
    """Gives the letter that the digit at `at` of the token raw[first:stop] stands for.

    "1" is "l" beside another one, before "y" and at the token's end, else "i".
    """
    if raw[at] == 49 and (at + 1 == stop or raw[at + 1] == 49 or raw[at + 1] | 32 == 121 or (at > first and raw[at - 1] == 49)):
        return np.int64(108)
    return np.int64(leet[raw[at]])


@njit(cache=True, nogil=True)
def _fold_plain(
    raw: npt.NDArray[np.uint8], i: int, stop: int, out: npt.NDArray[np.uint8], o: int, last: np.int64, run: int
) -> tuple[int, np.int64, int]:
    """Appends the usual token in lower case; what `_put` gives."""
    for j in range(i, stop):
        byte = np.int64(raw[j])
        if 65 <= byte <= 90:
            byte += 32
        if byte == last:
            run += 1
            if run > 2 and byte > 57:
                continue
        else:
            last, run = byte, 1
        out[o] = byte
        o += 1
    return o, last, run


@njit(cache=True, nogil=True)
def _fold_token(
    raw: npt.NDArray[np.uint8],
    i: int,
    stop: int,
    end: int,
    has_latin: bool,
    as_latin: bool,
    as_leet: bool,
    kind: npt.NDArray[np.uint8],
    latin: npt.NDArray[np.uint64],
    own: npt.NDArray[np.uint64],
    leet: npt.NDArray[np.uint8],
    out: npt.NDArray[np.uint8],
    o: int,
    last: np.int64,
    run: int,
) -> tuple[int, np.int64, int, int, int]:
    """Appends a token that holds more than ASCII letters and digits; what `_put` gives, and the characters read and changed."""
    first = i
    count = 0
    changed = 0
    after_letter = False
    while i < stop:
        code, width = decode(raw, i)
        what = kind[code] if code < kind.size else FOREIGN
        at = i
        i += width
        count += 1
        if what == DROP or (what == MARK and has_latin):
            changed += 1
            continue
        packed = np.int64(own[code]) if code < own.size else np.int64(0)
        was_after_letter = after_letter
        after_letter = what != DIGIT
        if what == LATIN:
            packed = np.int64(latin[code])
            changed += code >= 0x80
        elif what == DIGIT:
            if as_leet and leet[code] != 0:
                packed = 1 | _leet_letter(raw, at, first, stop, leet) << 8
                changed += 1
                after_letter = True
        elif what == SYMBOL:
            after_letter = as_latin and _reads_as_letter(raw, at, first, stop, end, was_after_letter, as_leet, kind)
            if after_letter:
                packed = np.int64(latin[code])
                changed += 1
        elif as_latin and what != FOREIGN and what != MARK:
            packed = np.int64(latin[code])
            changed += 1
        o, last, run = _put(out, o, packed or _kept(raw, at, width), last, run)
    return o, last, run, count, changed


@njit(cache=True, nogil=True)
def _fold_rows(
    raw: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    kind: npt.NDArray[np.uint8],
    latin: npt.NDArray[np.uint64],
    own: npt.NDArray[np.uint64],
    leet: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    n = start.size - 1
    out = np.empty(2 * raw.size + 8, np.uint8)  # ASCII never grows, and no packed text is longer than three bytes for two
    out_start = np.zeros(n + 1, np.int64)
    chars = np.zeros(n, np.int64)
    changes = np.zeros(n, np.int64)
    o = 0
    for row in range(n):
        i, end = start[row], start[row + 1]
        last = np.int64(0)
        run = 0
        beyond = np.uint8(0)
        for j in range(i, end):
            beyond |= raw[j]
        latin_row = beyond < 0x80 or _is_latin(raw, i, end, kind)
        while i < end:
            if raw[i] == 32 and last != 32:  # the usual gap
                out[o] = 32
                o += 1
                last, run = np.int64(32), 1
                chars[row] += 1
                i += 1
                continue
            code, width = decode(raw, i)
            what = kind[code] if code < kind.size else OTHER
            if what == OTHER:  # spaces and punctuation
                packed = np.int64(own[code]) if code < own.size else np.int64(0)
                o, last, run = _put(out, o, packed or _kept(raw, i, width), last, run)
                chars[row] += 1
                i += width
                continue
            stop, plain, has_latin, as_latin, as_leet = _token(raw, i, end, kind, latin_row)
            if plain and not as_leet:
                o, last, run = _fold_plain(raw, i, stop, out, o, last, run)
                chars[row] += stop - i
            else:
                o, last, run, count, changed = _fold_token(
                    raw, i, stop, end, has_latin, as_latin, as_leet, kind, latin, own, leet, out, o, last, run
                )
                chars[row] += count
                changes[row] += changed
            i = stop
        out_start[row + 1] = o
    return out[:o], out_start, chars, changes


def fold_bytes(
    raw: npt.NDArray[np.uint8], start: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Takes n rows of valid UTF-8: bytes and their starts int64[n + 1].

    Gives the folded bytes, their starts int64[n + 1], and per row the number of characters and of changed ones (letter case and
    repeats do not count). Law: a row's result does not depend on other rows. Cost: linear in bytes.
    """
    kind, latin, own = fold_tables()
    folded, folded_start, chars, changes = _fold_rows(raw, start, kind, latin, own, _LEET)
    return folded, folded_start, chars, changes


def fold(text: str) -> str:
    """Gives the folded view of one cleaned text. Law: equals the row that `text_column` builds for it."""
    raw = np.frombuffer(text.encode(), np.uint8)
    folded, _, _, _ = fold_bytes(raw, np.array([0, raw.size], np.int64))
    return folded.tobytes().decode()
