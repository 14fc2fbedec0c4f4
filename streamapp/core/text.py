"""From message texts to byte columns: cleaning (one definition for training and serving), the raw view and the folded view beside it."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.fold import fold_bytes

CLEANING_VERSION = "1"

_PASSES = 4  # nested references ("&amp;lt;") are resolved this often; what still reads as one loses its ampersand
_MARKS_MAX = 30  # combining marks in a row; Unicode's stream-safe text has the same bound, and sorting longer runs is quadratic
_GROWTH = 4
_AMPERSANDS = re.compile(r"&(?:(?:amp|AMP|#0*38(?![0-9])|#[xX]0*26(?![0-9a-fA-F]));?)+")
_SPACES = re.compile(" {2,}")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def _classed(codes: Sequence[int]) -> str:
    """Gives the inside of a regular expression's character class for ascending code points."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Gives (characters that cleaning drops, runs of combining marks that are too long)."""
    dropped, marks = [], []
    for code in (*range(0x20000), *range(0xE0000, 0xE0080)):
        char = chr(code)
        if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in "\n\r\t":
            dropped.append(code)
        elif unicodedata.combining(char):
            marks.append(code)
    return re.compile(f"[{_classed(dropped)}]+"), re.compile(f"([{_classed(marks)}]{{{_MARKS_MAX}}})[{_classed(marks)}]+")


def _unescape(text: str) -> str:
    return html.unescape(_AMPERSANDS.sub("&", text)) if "&" in text else text


def _compose(text: str) -> str:
    dropped, marks = _patterns()
    if not text.isprintable():  # whatever cleaning drops is not printable; the search costs ten times as much
        text = dropped.sub("", text)
    if text.isascii():
        return text
    if len(text) - len(text.encode("ascii", "ignore")) <= _MARKS_MAX:
        return unicodedata.normalize("NFKC", text)
    return marks.sub(r"\1", unicodedata.normalize("NFKC", marks.sub(r"\1", text)))


def clean(text: str) -> str:
    """Takes any str; gives it HTML-unescaped, NFKC, without control and format characters, single-spaced and stripped.

    Dropped: categories Cc (except \\n, \\r, \\t), Cf (zero-width characters, soft hyphen, byte order mark, direction marks) and Cs
    (lone surrogates, which UTF-8 cannot carry). Combining marks beyond 30 in a row are dropped too, and what makes the text more
    than four times as long (a ligature can stand for eighteen characters).
    Laws: total; `clean(clean(text)) == clean(text)`; the result encodes as UTF-8. Cost: linear.
    """
    most = _GROWTH * len(text)
    for _ in range(_PASSES):
        plain = _compose(_unescape(text))[:most]
        if plain == text:
            break
        text = plain
    else:
        text = _compose(_compose(text.replace("&", "")))
    return (_SPACES.sub(" ", text) if "  " in text else text).strip()


def _is_clean(text: str) -> bool:
    """Whether cleaning would change nothing but ASCII spaces: a tenth of the time that it takes to see it by cleaning."""
    if "&" in text or not text.isprintable():
        return False
    if not unicodedata.is_normalized("NFKC", text):
        return False
    return len(text.encode()) - len(text) <= _MARKS_MAX or not _patterns()[1].search(text)


@cache
def _hiding() -> frozenset[str]:
    """Gives the characters that cleaning replaces by ASCII letters or digits, or drops as invisible."""
    found = set()
    for code in (*range(0x80, 0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x20000), *range(0xE0000, 0xE0080)):
        char = chr(code)
        category = unicodedata.category(char)
        if category == "Cf":
            found.add(char)
        elif category not in ("Cn", "Cs", "Co", "Mn"):
            plain = unicodedata.normalize("NFKC", char)
            if plain != char and plain.isascii() and plain.isalnum():
                found.add(char)
    return frozenset(found)


def _hidden(source: str) -> int:
    """Gives how many characters of an unescaped text cleaning replaces by letters or digits, or drops as invisible."""
    return sum(map(_hiding().__contains__, "".join(_BEYOND_ASCII.findall(source))))


@dataclass(slots=True, frozen=True)
class TextColumn:
    """n cleaned texts and their two views as concatenated UTF-8: row i of a view is `view[view_start[i]:view_start[i + 1]]`."""

    texts: list[str]
    raw: npt.NDArray[np.uint8]
    raw_start: npt.NDArray[np.int64]  #      n + 1
    folded: npt.NDArray[np.uint8]
    folded_start: npt.NDArray[np.int64]  #   n + 1
    changed_share: npt.NDArray[np.float64]  # n: see `text_column`

    def __len__(self) -> int:
        return len(self.texts)

    def folded_text(self, row: int) -> str:
        """Gives the folded view of one row as a str."""
        return self.folded[self.folded_start[row] : self.folded_start[row + 1]].tobytes().decode()


@njit(cache=True, nogil=True)
def _clean_ascii(
    source: npt.NDArray[np.uint8], start: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Cleans rows of UTF-8 whose non-ASCII characters are clean already: ASCII controls, runs of spaces, both ends.

    Gives bytes, starts and which rows were changed.
    """
    n = start.size - 1
    out = np.empty(source.size, np.uint8)
    out_start = np.empty(n + 1, np.int64)
    touched = np.empty(n, np.bool_)
    out_start[0] = 0
    o = 0
    for row in range(n):
        first = o
        blank = True  # at the start, or after a space
        for i in range(start[row], start[row + 1]):
            byte = source[i]
            if byte == 32:
                if blank:
                    continue
                blank = True
            elif byte < 32 or byte == 127:
                if byte != 9 and byte != 10 and byte != 13:
                    continue
                if o == first:
                    continue
                blank = False
            else:
                blank = False
            out[o] = byte
            o += 1
        while o > first and (out[o - 1] == 32 or out[o - 1] == 9 or out[o - 1] == 10 or out[o - 1] == 13):
            o -= 1
        out_start[row + 1] = o
        touched[row] = o - first != start[row + 1] - start[row]
    return out[:o], out_start, touched


def text_column(texts: Sequence[str]) -> TextColumn:
    """Takes n texts as they were received (not cleaned: cleaning hides the evidence); gives the column.

    `changed_share` is the share of the received characters that hide a Latin letter or digit (styled, full-width, marked, look-alike,
    leet) or nothing at all (format characters, combining marks); 0 for an empty text.
    Laws: `texts[i] == clean(given[i])`; a row does not depend on the others. Cost: linear; ASCII rows never leave the kernels.
    """
    n = len(texts)
    cleaned = list(texts)
    hidden: list[tuple[int, int, int]] = []  # row, characters as received, characters that cleaning changed
    for row, text in enumerate(cleaned):
        if not (text.isascii() and "&" not in text) and not _is_clean(text):
            plain = cleaned[row] = clean(text)
            if plain != text and not (source := _unescape(text)).isascii():
                hidden.append((row, len(source), _hidden(source)))
    encoded = [text.encode() for text in cleaned]
    start = np.zeros(n + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, n), out=start[1:])
    raw, raw_start, touched = _clean_ascii(np.frombuffer(b"".join(encoded), np.uint8), start)
    if touched.any():
        for row in np.flatnonzero(touched).tolist():
            cleaned[row] = raw[raw_start[row] : raw_start[row + 1]].tobytes().decode()
    folded, folded_start, chars, changes = fold_bytes(raw, raw_start)
    for row, count, changed in hidden:
        chars[row] = count
        changes[row] = min(changes[row] + changed, count)
    return TextColumn(cleaned, raw, raw_start, folded, folded_start, changes / np.maximum(chars, 1))
