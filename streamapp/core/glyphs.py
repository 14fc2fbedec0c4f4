"""What every character is to the eye: a letter, its look-alike, a mark, or nothing; as tables by code point for the folding kernel."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamapp.core.lookalikes import EXACT, NEAR, named

#: Kinds: between tokens; letters and their marks of one script; digits; invisible; letters without a Latin look-alike; exact and near
#: look-alikes; marks that belong to a script; signs that stand for letters between letters.
OTHER, LATIN, DIGIT, DROP, FOREIGN, STRONG, WEAK, MARK, SYMBOL = range(9)

LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g"}
SYMBOLS = {"@": "a", "$": "s", "|": "l"}
_PUNCTUATION = {
    **dict.fromkeys("‘’‚‛′ʼ`´", "'"),
    **dict.fromkeys("“”„″«»", '"'),
    **dict.fromkeys("‐‑‒–—−", "-"),
    **dict.fromkeys("\t\n\r", " "),
}
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
