"""Hashed n-grams: golden values, shapes, bounds and names."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from streamapp.core import ngrams
from streamapp.core.ngrams import CHAR, WORD, hash_ngrams
from streamapp.core.text import text_column
from streamapp.core.tokens import tokens
from streamapp.core.vectorise import Ngrams


def hashed(*texts: str) -> Ngrams:
    return hash_ngrams(text_column(texts), (1, 2), (3, 4), 32768, 17)


def row(text: str) -> set[int]:
    return set(hashed(text).bucket.tolist())


def names(text: str, family: int) -> list[str]:
    return [name for _, of, name in tokens(text, (1, 2), (3, 4), 32768, 17) if of == family]


def test_golden_values() -> None:
    # models are trained on these numbers: a change needs a new NGRAMS_VERSION
    result = hashed("Call 08712460324 now", "", "fr\u0435e \u00a3100 \u041f\u0440\u0438\u0432\u0435\u0442!")
    assert result.start.tolist() == [0, 26, 26, 61]
    assert result.bucket[:8].tolist() == [10568, 25903, 22890, 8125, 10862, 28362, 5565, 22200]
    assert (
        hashlib.sha256(result.bucket.astype("<i4").tobytes() + result.family.tobytes()).hexdigest()
        == "5d900c208f09350d3438d918f47e92f8d8fb1966a962b64e420842cb5a63f61f"
    )


def test_types_and_weights() -> None:
    result = hashed("win a prize", "", "win")
    assert (result.start.dtype, result.bucket.dtype, result.weight.dtype, result.family.dtype) == (np.int64, np.int32, np.float32, np.int8)
    for first, end in ((0, 1), (2, 3)):
        weight = result.weight[result.start[first] : result.start[end]].astype(np.float64)
        assert np.square(weight).sum() == pytest.approx(1.0, abs=1e-5)
    assert result.start[1] == result.start[2]


def test_what_looks_alike_hashes_alike() -> None:
    assert row("call 08712460324") == row("call 09058094583")
    assert row("will ill") == row("wiil lli")
    assert row("fr\u0435e") == row("free")
    assert row("free") != row("tree")


def test_style_counts() -> None:
    def style(text: str) -> list[str]:
        return names(text, WORD)[:3]

    assert style("FREE entry NOW to Win") == ["<words in capitals: 2>", "<words with a capital first: 3>", "<characters: 20 to 39>"]
    assert style("ok") == ["<words in capitals: 0>", "<words with a capital first: 0>", "<characters: 0 to 19>"]
    assert style("ABC " * 100) == [
        "<words in capitals: 3 or more>",
        "<words with a capital first: 5 or more>",
        "<characters: 160 or more>",
    ]


def test_names_tell_the_ngrams_without_the_digits() -> None:
    assert names("Win \u00a3100 now", WORD)[3:] == ["win", "\u00a3###", "win \u00a3###", "now", "\u00a3### now"]
    assert names("a bc", CHAR) == [" a ", " bc", " bc ", "bc "]
    assert tokens("", (1, 2), (3, 4), 32768, 17) == []


def test_families_and_seeds_are_apart() -> None:
    column = text_column(["abc"])
    words = hash_ngrams(column, (1, 1), (8, 8), 1 << 20, 1).bucket[3:]
    characters = hash_ngrams(column, (1, 1), (3, 3), 1 << 20, 1).bucket[4:]
    other = hash_ngrams(column, (1, 1), (8, 8), 1 << 20, 2).bucket[3:]
    assert len(words) == 1 and len(characters) == 3 and words[0] not in characters and words[0] != other[0]


def test_long_and_wide_rows_stay_within_bounds() -> None:
    rng = np.random.default_rng(3)
    long = "".join(chr(c) for c in rng.integers(0x61, 0x7B, 10_000))
    spaced = " ".join(long)
    wide = "".join(chr(c) for c in rng.integers(0x4E00, 0x9FFF, 10_000))
    result = hash_ngrams(text_column([long, spaced, wide, "x"]), (1, 5), (1, 8), 64, 0)
    assert np.diff(result.start).max() <= 64
    assert result.bucket.min() >= 0 and result.bucket.max() < 64
    full = hash_ngrams(text_column([spaced, long]), (1, 5), (1, 8), 1 << 20, 0)
    assert np.diff(full.start).tolist() == [len(set(full.bucket[full.start[i] : full.start[i + 1]].tolist())) for i in range(2)]


@pytest.mark.parametrize(
    ("word", "char", "buckets"),
    [((0, 1), (3, 4), 8), ((2, 1), (3, 4), 8), ((1, 2), (3, 9), 8), ((1, 2), (3, 4), 0), ((1, 2), (3, 4), 1 << 31)],
)
def test_impossible_parameters_are_refused(word: tuple[int, int], char: tuple[int, int], buckets: int) -> None:
    with pytest.raises(ValueError, match=r"orders|buckets"):
        hash_ngrams(text_column(["x"]), word, char, buckets, 0)
    with pytest.raises(ValueError, match=r"orders|buckets"):
        tokens("x", word, char, buckets, 0)


def test_marks_of_rows_that_were_hashed_before_are_no_marks_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    column = text_column(["one two", "two one two"])
    first = hash_ngrams(column, (1, 2), (3, 4), 128, 3)
    monkeypatch.setattr(ngrams, "_ROWS_MAX", 5)  # the third call begins to count again
    for _ in range(4):
        again = hash_ngrams(column, (1, 2), (3, 4), 128, 3)
        assert again.bucket.tolist() == first.bucket.tolist()
        assert again.start.tolist() == first.start.tolist()
