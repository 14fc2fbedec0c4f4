"""The ways people hide words from filters, done to our own training texts: look-alikes, zero-width marks, leet, full-width forms."""

from __future__ import annotations

import numpy as np

LOOKALIKES = {
    "a": "аɑα", "b": "ЬƄ", "c": "сϲ", "d": "ԁɗ", "e": "еҽ", "g": "ɡց", "h": "һհ", "i": "іι", "j": "јϳ", "k": "κк", "l": "ӏⅼ", "m": "мⅿ",
    "n": "ոп", "o": "оοօ", "p": "рρ", "q": "ԛգ", "r": "гᴦ", "s": "ѕꜱ", "t": "тτ", "u": "υս", "v": "νѵ", "w": "ԝѡ", "x": "хχ", "y": "уү",
    "z": "ᴢʐ", "A": "АΑ", "B": "ВΒ", "C": "СϹ", "E": "ЕΕ", "H": "НΗ", "I": "ІΙ", "K": "КΚ", "M": "МΜ", "N": "Ν", "O": "ОΟ", "P": "РΡ",
    "S": "Ѕ", "T": "ТΤ", "X": "ХΧ", "Y": "ҮΥ", "Z": "Ζ",
}  # fmt: skip
MATHEMATICAL = (0x1D400, 0x1D434, 0x1D468, 0x1D4D0, 0x1D56C, 0x1D5A0, 0x1D5D4, 0x1D608, 0x1D63C, 0x1D670)
"""Where Unicode's styled Latin alphabets begin that have no hole (bold, italic, script, fraktur, sans, monospace)."""
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
LEET = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!", "l": "1|", "o": "0", "s": "5$", "t": "7+", "z": "2"}
ATTACKS = ("lookalikes", "invisible", "leet", "full_width")


def obfuscate(text: str, attack: str, strength: float, generator: np.random.Generator) -> str:
    """Gives `text` with about the share `strength` of its attackable characters attacked; digits stay, a number must be dialled."""
    chance = generator.random(len(text)) < strength
    pick = generator.integers(0, 1 << 30, len(text))
    return "".join(_attacked(letter, attack, int(pick[i])) if chance[i] else letter for i, letter in enumerate(text))


def _attacked(letter: str, attack: str, pick: int) -> str:
    if attack == "invisible":
        return letter + INVISIBLE[pick % len(INVISIBLE)] if letter.isalpha() else letter
    if attack == "leet":
        choices = LEET.get(letter.lower(), letter)
        return choices[pick % len(choices)]
    if attack == "full_width":
        return chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter
    if not (letter.isascii() and letter.isalpha()):
        return letter
    place = ord(letter) - 65 if letter.isupper() else ord(letter) - 97 + 26
    choices = LOOKALIKES.get(letter, "") + "".join(chr(first + place) for first in MATHEMATICAL)
    return choices[pick % len(choices)]
