"""The kernels behind lists of words and texts, each against a plain twin."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.lists_text import PROBED, SKETCH, SketchIndex, sketches, spelled
from streamapp.core.text import text_column

FOREVER = np.iinfo(np.int64).max
some_texts = st.lists(st.text(st.sampled_from("ab1 .é-\n"), max_size=40), min_size=1, max_size=6)
words = st.sampled_from(["your", "parcel", "is", "held", "pay", "now", "here", "fee", "of", "two"])
said = st.lists(words, min_size=1, max_size=14).map(" ".join)


def words_of(folded: bytes) -> list[bytes]:
    return re.findall(rb"[0-9A-Za-z\x80-\xff]+", folded)


def mixed(word: int) -> int:
    """The finish of MurmurHash3, 32 bits."""
    word = (word ^ word >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    word = (word ^ word >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return word ^ word >> 16


def shingles(form: bytes) -> set[int]:
    return {mixed(int.from_bytes(form[i : i + 4], "little")) for i in range(max(1, len(form) - 3))} if form else set()


def share(one: set[int], other: set[int]) -> float:
    """Of the smallest hashes of both together, how many both have: of the cut sets, as sketches are."""
    one, other = set(sorted(one)[:SKETCH]), set(sorted(other)[:SKETCH])
    smallest = sorted(one | other)[:SKETCH]
    return sum(each in one and each in other for each in smallest) / len(smallest) if smallest else 0.0


@given(some_texts)
@settings(max_examples=100, deadline=None)
def test_words_are_runs_of_letters_and_digits_with_one_space_behind_each(texts: list[str]) -> None:
    column = text_column(texts)
    found = spelled(column.folded, column.folded_start)
    wanted = [words_of(column.folded_text(row).encode()) for row in range(len(texts))]
    of_rows = [found.data[found.start[row] : found.start[row + 1]].tobytes() for row in range(len(texts))]
    assert of_rows == [b"".join(word + b" " for word in row) for row in wanted]
    of_words = [found.data[found.at[place] : found.at[place + 1]].tobytes() for place in range(len(found.row))]
    assert of_words == [word + b" " for row in wanted for word in row]
    assert found.row.tolist() == [row for row, each in enumerate(wanted) for _ in each]


@given(some_texts)
@settings(max_examples=100, deadline=None)
def test_a_sketch_holds_the_smallest_hashes_of_the_shingles(texts: list[str]) -> None:
    forms = [text.encode() for text in texts]
    start = np.cumsum([0, *map(len, forms)])
    for row, form in zip(sketches(np.frombuffer(b"".join(forms), np.uint8), start).tolist(), forms, strict=True):
        wanted = sorted(shingles(form))[:SKETCH]
        assert row == [*wanted, *[1 << 32] * (SKETCH - len(wanted))]


@given(st.lists(said, min_size=1, max_size=8), said, st.sampled_from([0.5, 0.7, 0.9, 1.0]))
@settings(max_examples=150, deadline=None)
def test_what_is_like_an_entry_is_found_and_nothing_else(entries: list[str], text: str, least: float) -> None:
    """Law: what is found has its share; what has it and one of the smallest hashes in common is found."""
    index, forms = SketchIndex(), [entry.encode() for entry in entries]
    for slot, form in enumerate(forms):
        index.put(slot, tuple(sketches(np.frombuffer(form, np.uint8), np.array([0, len(form)]))[0].tolist()))
    form = text.encode()
    wanted = sketches(np.frombuffer(form, np.uint8), np.array([0, len(form)]))
    expires, now = np.full(len(entries), FOREVER), np.zeros(1, np.int64)
    found = int(index.like(wanted, least, expires, now)[0])
    shares = [share(shingles(form), shingles(entry)) for entry in forms]
    near = [bool(set(sorted(shingles(form))[:PROBED]) & set(sorted(shingles(entry))[:PROBED])) for entry in forms]
    assert found < 0 or shares[found] >= least
    assert found >= 0 or not any(one >= least and known for one, known in zip(shares, near, strict=True))
    for slot in range(len(entries)):
        index.drop(slot)
    assert int(index.like(wanted, least, expires, now)[0]) == -1


def test_a_flood_of_like_entries_is_bounded_and_still_found() -> None:
    index, form = SketchIndex(), b"your parcel is held pay the fee here "
    sketch: Any = tuple(sketches(np.frombuffer(form, np.uint8), np.array([0, len(form)]))[0].tolist())
    for slot in range(3_000):
        index.put(slot, sketch)
    found = index.like(np.array([sketch]), 1.0, np.full(3_000, FOREVER), np.zeros(1, np.int64))
    assert found[0] >= 0
