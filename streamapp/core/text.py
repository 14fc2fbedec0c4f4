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
from streamapp.core.gather import gathered
from streamapp.core.texts import Texts

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
    """Two views of n cleaned texts as concatenated UTF-8: row i of a view is `view[view_start[i]:view_start[i + 1]]`."""

    raw: npt.NDArray[np.uint8]
    raw_start: npt.NDArray[np.int64]  #      n + 1
    folded: npt.NDArray[np.uint8]
    folded_start: npt.NDArray[np.int64]  #   n + 1
    changed_share: npt.NDArray[np.float64]  # n: see `text_column`

    def __len__(self) -> int:
        return len(self.raw_start) - 1

    @property
    def texts(self) -> list[str]:
        """The cleaned texts; made anew each time."""
        return list(map(bytes.decode, Texts(self.raw, self.raw_start)))

    def folded_text(self, row: int) -> str:
        """Gives the folded view of one row as a str."""
        return self.folded[self.folded_start[row] : self.folded_start[row + 1]].tobytes().decode()


@njit(cache=True, nogil=True)
def _clean_ascii(source: npt.NDArray[np.uint8], start: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Cleans rows of UTF-8 whose non-ASCII characters are clean already: ASCII controls, runs of spaces, both ends. Gives bytes, starts."""
    n = start.size - 1
    out = np.empty(source.size, np.uint8)
    out_start = np.empty(n + 1, np.int64)
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
    return out[:o], out_start


@njit(cache=True, nogil=True)
def _beyond_kernels(data: npt.NDArray[np.uint8], start: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Gives which rows have characters beyond ASCII, or references to any."""
    found = np.zeros(start.size - 1, np.bool_)
    for row in range(start.size - 1):
        for i in range(start[row], start[row + 1]):
            found[row] |= (data[i] >= 128) | (data[i] == 38)
    return found


#: Row, characters as received, characters that cleaning changed.
_Hidden = tuple[int, int, int]


def _without_kernels(row: int, text: str, hidden: list[_Hidden]) -> str:
    """Gives a text so that ASCII is all there is left to clean, and notes what that hides."""
    if _is_clean(text):
        return text
    plain = clean(text)
    if plain != text and not (source := _unescape(text)).isascii():
        hidden.append((row, len(source), _hidden(source)))
    return plain


def _from_strings(texts: Sequence[str], hidden: list[_Hidden]) -> Texts:
    simple = (text.isascii() and "&" not in text for text in texts)
    return Texts.of([
        (text if easy else _without_kernels(row, text, hidden)).encode() for row, (text, easy) in enumerate(zip(texts, simple, strict=True))
    ])  # fmt: skip


def _from_bytes(texts: Texts, hidden: list[_Hidden]) -> Texts:
    pieces, size = [texts.data], len(texts.data)
    begin, end = texts.start[:-1].copy(), texts.start[1:].copy()
    rows, whole = np.flatnonzero(_beyond_kernels(texts.data, texts.start)), texts.data.tobytes()
    for row, low, high in zip(rows.tolist(), begin[rows].tolist(), end[rows].tolist(), strict=True):
        text = whole[low:high].decode()
        plain = _without_kernels(row, text, hidden)
        if plain is not text:
            pieces.append(np.frombuffer(plain.encode(), np.uint8))
            begin[row], size = size, size + len(pieces[-1])
            end[row] = size
    return texts if len(pieces) == 1 else gathered(np.concatenate(pieces), begin, end)


def text_column(texts: Sequence[str] | Texts) -> TextColumn:
    """Takes n texts as they were received (not cleaned: cleaning hides the evidence), also as UTF-8; gives the column.

    `changed_share` is the share of the received characters that hide a Latin letter or digit (styled, full-width, marked, look-alike,
    leet) or nothing at all (format characters, combining marks); 0 for an empty text.
    Laws: `texts[i] == clean(given[i])`; a row does not depend on the others. Cost: linear; ASCII rows never leave the kernels.
    """
    hidden: list[_Hidden] = []
    given = _from_bytes(texts, hidden) if isinstance(texts, Texts) else _from_strings(texts, hidden)
    raw, raw_start = _clean_ascii(given.data, given.start)
    folded, folded_start, chars, changes = fold_bytes(raw, raw_start)
    for row, count, changed in hidden:
        chars[row] = count
        changes[row] = min(changes[row] + changed, count)
    return TextColumn(raw, raw_start, folded, folded_start, changes / np.maximum(chars, 1))
