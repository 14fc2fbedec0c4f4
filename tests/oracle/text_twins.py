"""The text kernels once more in plain Python, from their descriptions: slow, obvious, and sharing no code with the kernels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from streamapp.core import glyphs

KIND, LATIN, OWN = glyphs.fold_tables()


def _kind(char: str) -> int:
    return int(KIND[ord(char)]) if ord(char) < len(KIND) else glyphs.OTHER


def _unpacked(packed: int, char: str) -> str:
    raw = packed.to_bytes(8, "little")
    return raw[1 : 1 + raw[0]].decode() if packed else char


def _latin(char: str) -> str:
    return _unpacked(int(LATIN[ord(char)]), char)


def _own(char: str) -> str:
    return _unpacked(int(OWN[ord(char)]), char) if ord(char) < len(OWN) else char


def _pieces(text: str) -> Iterator[str]:
    """Cuts a text into tokens and single characters between them."""
    token = ""
    for char in text:
        if _kind(char) == glyphs.OTHER:
            if token:
                yield token
            token = ""
            yield char
        else:
            token += char
    if token:
        yield token


def _symbol_is_letter(token: str, at: int, after_letter: bool, as_leet: bool, rest: str) -> bool:
    symbol = token[at]
    behind = at + 1
    while behind < min(len(token), at + 4) and token[behind] == symbol:
        behind += 1
    if behind >= len(token):
        return False
    following = _kind(token[behind])
    if not (following in (glyphs.LATIN, glyphs.STRONG) or (following == glyphs.DIGIT and as_leet)):
        return False
    if symbol == "@" and re.match(r"@[A-Za-z0-9-]+\.[A-Za-z0-9]", rest):
        return False
    return after_letter or (symbol == "$" and at == 0)


def _fold_token(token: str, rest: str, latin_text: bool) -> tuple[str, int]:
    kinds = [_kind(char) for char in token]
    latins, strongs, digits = (kinds.count(kind) for kind in (glyphs.LATIN, glyphs.STRONG, glyphs.DIGIT))
    others = kinds.count(glyphs.FOREIGN) + kinds.count(glyphs.WEAK)
    head = 0
    for kind in kinds:
        if kind in (glyphs.LATIN, glyphs.STRONG):
            break
        head += kind == glyphs.DIGIT
    as_latin = latins > 0 or (strongs > 0 and others == 0 and latin_text)
    as_leet = as_latin and 0 < digits <= latins + strongs and not (head == digits and latins + strongs <= 2)
    out, changed, after_letter = "", 0, False
    for at, (char, kind) in enumerate(zip(token, kinds, strict=True)):
        if kind == glyphs.DROP or (kind == glyphs.MARK and latins):
            changed += 1
            continue
        follows_letter, after_letter = after_letter, kind != glyphs.DIGIT
        if kind == glyphs.LATIN:
            out += _latin(char)
            changed += char > "\x7f"
        elif kind == glyphs.DIGIT and as_leet and char in glyphs.LEET:
            before, behind = token[at - 1 : at] if at else "", token[at + 1 : at + 2]
            as_l = char == "1" and (behind in ("", "1", "y", "Y") or before == "1")
            out += "l" if as_l else glyphs.LEET[char]
            changed, after_letter = changed + 1, True
        elif kind == glyphs.SYMBOL:
            after_letter = as_latin and _symbol_is_letter(token, at, follows_letter, as_leet, rest[at:])
            out += _latin(char) if after_letter else _own(char)
            changed += after_letter
        elif kind in (glyphs.STRONG, glyphs.WEAK) and as_latin:
            out += _latin(char)
            changed += 1
        else:
            out += _own(char)
    return out, changed


def fold_twin(text: str) -> tuple[str, int]:
    """Gives the folded view of a cleaned text and how many of its characters folding changed."""
    kinds = [_kind(char) for char in text]
    latin_text = kinds.count(glyphs.LATIN) >= kinds.count(glyphs.FOREIGN) + kinds.count(glyphs.WEAK)
    out, changed, at = "", 0, 0
    for piece in _pieces(text):
        if _kind(piece[0]) == glyphs.OTHER:
            out += _own(piece)
        else:
            folded, hidden = _fold_token(piece, text[at:], latin_text)
            out += folded
            changed += hidden
        at += len(piece)
    return re.sub(r"([^0-9])\1{2,}", r"\1\1", out, flags=re.DOTALL), changed


_URL = re.compile(r"https?://(?:www\.)?(?=[^\x00-\x20])|(?<![A-Za-z0-9])www\.(?=[^\x00-\x20])", re.IGNORECASE | re.ASCII)
_MAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-][A-Za-z0-9.-]*\.[A-Za-z]{2,}")


def _lowered(text: str) -> str:
    return "".join(char.lower() if char.isupper() and len(char.lower()) == 1 else char for char in text)


def features_twin(text: str) -> dict[str, float]:
    """Gives the ten counts and shares of a cleaned text."""
    words = text.split()
    letters = [char for char in text if char.isalpha()]
    runs = [match.group() for match in re.finditer(r"(\S)\1{2,}", text)]
    return {
        "char_count": float(len(text)),
        "word_count": float(len(words)),
        "average_word_length": sum(map(len, words)) / len(words) if words else 0.0,
        "url_count": float(len(_URL.findall(text))),
        "email_count": float(len(_MAIL.findall(text))),
        "exclamation_count": float(text.count("!")),
        "question_count": float(text.count("?")),
        "capital_ratio": sum(char.isupper() for char in letters) / len(letters) if letters else 0.0,
        "unique_word_ratio": len({_lowered(word) for word in words}) / len(words) if words else 0.0,
        "repeat_ratio": sum(map(len, runs)) / len(text) if text else 0.0,
    }


MASK = (1 << 64) - 1


def _bucket(gram: str, seed: int, family: int, buckets: int) -> int:
    state = 0xCBF29CE484222325 ^ ((seed * 4 + family + 1) * 0x9E3779B97F4A7C15 & MASK)
    for byte in gram.encode():
        state = (state ^ byte) * 0x100000001B3 & MASK
    state ^= state >> 33
    state = state * 0xFF51AFD7ED558CCD & MASK
    state ^= state >> 33
    return (state >> 32) * buckets >> 32


def ngrams_twin(raw: str, folded: str, word: tuple[int, int], char: tuple[int, int], buckets: int, seed: int) -> dict[int, int]:
    """Gives bucket -> family of one row, in order of first appearance."""
    found: dict[int, int] = {}
    shaped = re.sub("[\x00-\x20]+", " ", re.sub("[0-9]", "0", folded.replace("i", "l"))).strip(" ")
    if shaped:
        styled = re.findall("[A-Za-z]{3,}", raw)
        capitals = min(3, sum(entry.isupper() for entry in styled))
        titles = min(5, sum(entry[0].isupper() for entry in styled))
        for mark in (f"C{capitals}", f"T{titles}", f"L{min(8, len(shaped) // 20)}"):
            found.setdefault(_bucket(mark, seed, 2, buckets), 0)
    words = re.findall("[a-z0\x80-\U0010ffff]+", shaped)
    for last in range(len(words)):
        for order in range(word[0], word[1] + 1):
            if order <= last + 1:
                found.setdefault(_bucket(" ".join(words[last + 1 - order : last + 1]), seed, 0, buckets), 0)
    for chunk in shaped.split():
        padded = f" {chunk} "
        for first in range(len(padded)):
            for order in range(char[0], char[1] + 1):
                if first + order <= len(padded):
                    found.setdefault(_bucket(padded[first : first + order], seed, 1, buckets), 1)
    return found


def weight_of(entries: int) -> float:
    """Gives the weight of each of a row's buckets: all equal, L2 norm 1."""
    return 1.0 / math.sqrt(entries)
