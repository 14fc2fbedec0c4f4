"""The n-grams of one text by name, in the order and buckets of the kernel in `ngrams.py`: what `trace` tells, and the kernel's oracle."""

from __future__ import annotations

import re

from streamapp.core.ngrams import (
    CAPITALS_MAX,
    CHAR,
    LENGTH_STEP,
    LENGTHS_MAX,
    MASK,
    MIX,
    PRIME,
    SHAPES,
    STYLE,
    STYLED_MIN,
    TITLES_MAX,
    WORD,
    basis,
    check_orders,
)  # fmt: skip
from streamapp.core.text import text_column

_ASCII_WORDS = re.compile("[A-Za-z]+")
_TOKENS = re.compile("[a-z0-9\x80-\U0010ffff]+")
_DIGITS = str.maketrans("0123456789", "##########")


def _hashed(gram: str, base: int, buckets: int) -> int:
    state = base
    for byte in gram.encode():
        state = (state ^ byte) * int(PRIME) & MASK
    state ^= state >> 33
    state = state * int(MIX) & MASK
    state ^= state >> 33
    return (state >> 32) * buckets >> 32


def _style(raw: str, length: int) -> list[tuple[str, str]]:
    """Gives (mark, its name in words) of a text's style."""
    styled = [word for word in _ASCII_WORDS.findall(raw) if len(word) >= STYLED_MIN]
    capitals = min(sum(word.isupper() for word in styled), CAPITALS_MAX)
    titles = min(sum(word[0].isupper() for word in styled), TITLES_MAX)
    step = min(length // LENGTH_STEP, LENGTHS_MAX)
    longer = f"{step * LENGTH_STEP} or more" if step == LENGTHS_MAX else f"{step * LENGTH_STEP} to {(step + 1) * LENGTH_STEP - 1}"
    return [
        (f"C{capitals}", f"<words in capitals: {capitals}{' or more' * (capitals == CAPITALS_MAX)}>"),
        (f"T{titles}", f"<words with a capital first: {titles}{' or more' * (titles == TITLES_MAX)}>"),
        (f"L{step}", f"<characters: {longer}>"),
    ]


def tokens(text: str, word: tuple[int, int], char: tuple[int, int], buckets: int, seed: int) -> list[tuple[int, int, str]]:
    """Takes one text as it was received; gives (bucket, family, n-gram) in the kernel's order, one entry per occurrence.

    Digits are shown as "#", style marks in words. Several n-grams may share a bucket. Cost: about 1 µs per n-gram; meant for `trace`.
    """
    check_orders(word, char, buckets)
    column = text_column([text])
    chunks = column.folded_text(0).split()
    folded = " ".join(chunks)
    found: list[tuple[int, int, str]] = []
    if folded:
        base = basis(seed, STYLE)
        found += [(_hashed(mark, base, buckets), WORD, name) for mark, name in _style(column.texts[0], len(folded))]
    base = basis(seed, WORD)
    words = _TOKENS.findall(folded)
    for last in range(1, len(words) + 1):
        for order in range(word[0], min(word[1], last) + 1):
            gram = " ".join(words[last - order : last])
            found += [(_hashed(gram.translate(SHAPES), base, buckets), WORD, gram.translate(_DIGITS))]
    base = basis(seed, CHAR)
    for chunk in chunks:
        padded = f" {chunk} "
        for first in range(len(padded)):
            for order in range(char[0], min(char[1], len(padded) - first) + 1):
                gram = padded[first : first + order]
                found += [(_hashed(gram.translate(SHAPES), base, buckets), CHAR, gram.translate(_DIGITS))]
    return found
