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

import re
import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.lookalikes import EXACT, NEAR, named

FOLDING_VERSION = "1"

OTHER, LATIN, DIGIT, DROP, FOREIGN, STRONG, WEAK, MARK, SYMBOL = range(9)

LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g"}
SYMBOLS = {"@": "a", "$": "s", "|": "l"}
_PUNCTUATION = {"‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'", "ʼ": "'", "`": "'", "´": "'", "“": '"', "”": '"', "„": '"', "″": '"',
                "«": '"', "»": '"', "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "−": "-", "\t": " ", "\n": " ", "\r": " "}  # fmt: skip
_INVISIBLE = "\u115f\u1160\u3164\uffa0\u2800"

_SIZE = 0x20000  # the first two planes; what lies above has no Latin look-alike and keeps its form
_LATIN_NAME = re.compile(
    r"(?:LATIN (?:SMALL|CAPITAL) LETTER (?:TURNED |REVERSED |INSULAR |SIDEWAYS |BARRED |DOTLESS )?([A-Z])(?: WITH .+)?"
    r"|LATIN LETTER SMALL CAPITAL (?:TURNED |REVERSED |BARRED )?([A-Z])(?: WITH .+)?|MODIFIER LETTER (?:SMALL|CAPITAL) ([A-Z])"
    r"|(?:REGIONAL INDICATOR SYMBOL|(?:NEGATIVE CIRCLED|NEGATIVE SQUARED|CROSSED NEGATIVE SQUARED) LATIN CAPITAL) LETTER ([A-Z]))"
)


class FoldTables(NamedTuple):
    """By code point below 0x20000: `kind`; `latin` and `own` as packed UTF-8 (length | byte << 8 | byte << 16 ...), 0 keeps it."""

    kind: npt.NDArray[np.uint8]
    latin: npt.NDArray[np.uint64]
    own: npt.NDArray[np.uint64]


def _packed(text: str) -> int:
    raw = text.encode()
    return 0 if len(raw) > 7 else int.from_bytes(bytes([len(raw)]) + raw, "little")


def _is_free_mark(char: str) -> bool:
    """Marks that belong to no script in particular; the vowel signs of Indic, Thai or kana are part of their letters."""
    return unicodedata.category(char)[0] == "M" and unicodedata.name(char, "").startswith(("COMBINING ", "VARIATION SELECTOR"))


@cache
def fold_tables() -> FoldTables:
    """Gives the tables, built once (about 0.1 s). Law: a code point that Unicode does not know is OTHER and kept."""
    kind = np.zeros(_SIZE, np.uint8)
    latin = np.zeros(_SIZE, np.uint64)
    own = np.zeros(_SIZE, np.uint64)
    exact, near = dict(named(EXACT)), dict(named(NEAR))
    every = np.arange(_SIZE, dtype=np.uint32).view("U1")
    kind[np.strings.isalpha(every)] = FOREIGN
    for code in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, _SIZE)):
        char = chr(code)
        category = unicodedata.category(char)
        if category in ("Cn", "Co", "Cs"):
            continue
        if category == "Cf" or char in _INVISIBLE:
            kind[code] = DROP
            continue
        if category[0] == "M" and code not in near:
            kind[code] = DROP if _is_free_mark(char) else MARK
            continue
        bare = "".join(c for c in unicodedata.normalize("NFD", char) if not _is_free_mark(c)) or char
        base = ord(bare[0])
        name = _LATIN_NAME.fullmatch(unicodedata.name(chr(base), ""))
        own[code] = _packed(bare.lower())
        if char in _PUNCTUATION:
            own[code] = _packed(_PUNCTUATION[char])
        elif category[0] == "Z":
            own[code] = _packed(" ")
        elif char in SYMBOLS:
            kind[code], latin[code] = SYMBOL, _packed(SYMBOLS[char])
        elif code < 128:
            kind[code] = LATIN if char.isalpha() else DIGIT if char.isdigit() else OTHER
            latin[code] = _packed(char.lower())
        elif base in exact:
            kind[code] = LATIN if unicodedata.name(chr(base)).startswith("LATIN") else STRONG
            latin[code] = _packed(exact[base])
        elif name or (base < 128 and chr(base).isalpha()):
            kind[code], latin[code] = LATIN, _packed(next(filter(None, name.groups())).lower() if name else chr(base).lower())
        elif base in near:
            kind[code], latin[code] = (SYMBOL if category[0] == "S" else WEAK), _packed(near[base])
        if category == "Nd" and code >= 128:
            value = str(unicodedata.decimal(char))
            kind[code], own[code] = WEAK, _packed(value)
            latin[code] = latin[code] or _packed(LEET.get(value, value))
    return FoldTables(kind, latin, own)


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
def _put(out: npt.NDArray[np.uint8], o: int, packed: int, last: int, run: int) -> tuple[int, int, int]:
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
def fold_rows(
    raw: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    kind: npt.NDArray[np.uint8],
    latin: npt.NDArray[np.uint64],
    own: npt.NDArray[np.uint64],
    leet: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Folds n rows of valid UTF-8.

    Gives the folded bytes, their starts int64[n + 1], and per row the number of characters and of changed ones (letter case and
    repeats do not count). Law: a row's result does not depend on other rows. Cost: linear in bytes.
    """
    n = start.size - 1
    # no packed text is longer than three bytes for two, and ASCII never grows
    out = np.empty(2 * raw.size + 8, np.uint8)
    out_start = np.empty(n + 1, np.int64)
    chars = np.empty(n, np.int64)
    changes = np.empty(n, np.int64)
    out_start[0] = 0
    o = 0
    for row in range(n):
        i, end = start[row], start[row + 1]
        count = np.int64(0)
        changed = np.int64(0)
        last = np.int64(0)
        run = np.int64(0)
        ascii_row = True
        for j in range(i, end):
            if raw[j] >= 0x80:
                ascii_row = False
                break
        latin_row = True
        if not ascii_row:
            balance = 0
            j = i
            while j < end:
                code, width = decode(raw, j)
                j += width
                what = kind[code] if code < kind.size else OTHER
                if what == LATIN:
                    balance += 1
                elif what == FOREIGN or what == WEAK:
                    balance -= 1
            latin_row = balance >= 0
        while i < end:
            byte = raw[i]
            if byte < 0x80 and kind[byte] == OTHER:  # spaces and punctuation, one byte each
                o, last, run = _put(out, o, np.int64(own[byte]), last, run)
                count += 1
                i += 1
                continue
            code, width = decode(raw, i)
            what = kind[code] if code < kind.size else OTHER
            if what == OTHER:
                packed = np.int64(own[code]) if code < own.size else np.int64(0)
                if packed == 0:
                    packed = np.int64(width)
                    for w in range(width):
                        packed |= np.int64(raw[i + w]) << (8 * (w + 1))
                o, last, run = _put(out, o, packed, last, run)
                count += 1
                i += width
                continue
            # one token: what it is made of
            stop = i
            latins = 0
            strongs = 0
            others = 0
            digits = 0
            head_digits = 0
            plain = True
            while stop < end:
                byte = raw[stop]
                if byte < 0x80:
                    what = kind[byte]
                    if what == LATIN:
                        latins += 1
                    elif what == DIGIT:
                        if latins + strongs == 0:
                            head_digits += 1
                        digits += 1
                    elif what == SYMBOL:
                        plain = False
                    else:
                        break
                    stop += 1
                    continue
                code, width = decode(raw, stop)
                what = kind[code] if code < kind.size else OTHER
                if what == OTHER:
                    break
                plain = False
                if what == LATIN:
                    latins += 1
                elif what == STRONG:
                    strongs += 1
                elif what == FOREIGN or what == WEAK:
                    others += 1
                stop += width
            as_latin = latins > 0 or (strongs > 0 and others == 0 and latin_row)
            letters = latins + strongs
            as_leet = as_latin and 0 < digits <= letters and not (head_digits == digits and letters <= 2)
            if plain and not as_leet:  # the usual word: lower case is all
                for j in range(i, stop):
                    byte = raw[j]
                    if 65 <= byte <= 90:
                        byte += np.uint8(32)
                    if byte == last:
                        run += 1
                        if run > 2 and byte > 57:
                            continue
                    else:
                        last = np.int64(byte)
                        run = 1
                    out[o] = byte
                    o += 1
                count += stop - i
                i = stop
                continue
            after_letter = False
            while i < stop:
                code, width = decode(raw, i)
                what = kind[code] if code < kind.size else FOREIGN
                count += 1
                if what == DROP or (what == MARK and latins > 0):
                    changed += 1
                    i += width
                    continue
                packed = np.int64(own[code]) if code < own.size else np.int64(0)
                if what == LATIN:
                    packed = np.int64(latin[code])
                    if code >= 0x80:
                        changed += 1
                    after_letter = True
                elif what == DIGIT:
                    if as_leet and leet[code] != 0:
                        letter = np.int64(leet[code])
                        # "1" stands for "l" beside another one, before "y" and at the end of a token; else for "i"
                        if code == 49 and (
                            i + 1 == stop or raw[i + 1] == 49 or (i > 0 and raw[i - 1] == 49) or raw[i + 1] == 121 or raw[i + 1] == 89
                        ):
                            letter = np.int64(108)
                        packed = 1 | letter << 8
                        changed += 1
                        after_letter = True
                    else:
                        after_letter = False
                elif what == STRONG or what == WEAK:
                    if as_latin:
                        packed = np.int64(latin[code])
                        changed += 1
                    after_letter = True
                elif what == SYMBOL:
                    j = i + width
                    while j < stop and raw[j] == raw[i]:  # "$$" as one
                        j += 1
                    follows = False
                    if j < stop:
                        after, _ = decode(raw, j)
                        beyond = kind[after] if after < kind.size else OTHER
                        follows = beyond == LATIN or beyond == STRONG or (beyond == DIGIT and as_leet)
                    if (
                        follows
                        and as_latin
                        and (after_letter or (code == 36 and (i == start[row] or raw[i - 1] <= 32)))
                        and not (code == 64 and _is_mail(raw, i, end))
                    ):
                        packed = np.int64(latin[code])
                        changed += 1
                        after_letter = True
                    else:
                        after_letter = False
                else:
                    after_letter = True
                if packed == 0:
                    packed = np.int64(width)
                    for w in range(width):
                        packed |= np.int64(raw[i + w]) << (8 * (w + 1))
                o, last, run = _put(out, o, packed, last, run)
                i += width
        out_start[row + 1] = o
        chars[row] = count
        changes[row] = changed
    return out[:o], out_start, chars, changes


def fold_bytes(
    raw: npt.NDArray[np.uint8], start: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Takes n rows of valid UTF-8, uint8 bytes and int64[n + 1] starts; gives what `fold_rows` gives."""
    kind, latin, own = fold_tables()
    folded, folded_start, chars, changes = fold_rows(raw, start, kind, latin, own, _LEET)
    return folded, folded_start, chars, changes


def fold(text: str) -> str:
    """Gives the folded view of one cleaned text. Law: equals the row that `text_column` builds for it."""
    raw = np.frombuffer(text.encode(), np.uint8)
    folded, _, _, _ = fold_bytes(raw, np.array([0, raw.size], np.int64))
    return folded.tobytes().decode()
