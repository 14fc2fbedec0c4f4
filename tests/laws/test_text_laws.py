"""Laws of text: cleaning settles at once, kernels equal their plain twins, and no row knows of the others."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.features import text as text_features
from streamapp.core.fold import fold
from streamapp.core.ngrams import hash_ngrams
from streamapp.core.text import clean, text_column
from streamapp.core.tokens import tokens
from tests.oracle.text_twins import features_twin, fold_twin, ngrams_twin, weight_of

#: Everything a str can hold, lone surrogates too, and pieces that meet often in attacks.
ANY = st.text(st.characters(), max_size=60)
PIECES = st.lists(
    st.sampled_from(
        [
            *"aAelI10373$@|.-!?&;#x ",
            *("  ", "\n", "\t", "\x00", "\x85", "\ud800", "\u200b", "\ufeff", "\u00ad", "\u0301", "\u0323", "\u0344", "\u00e9", "\u0430"),
            *("\u043e", "\u0431", "\u03bf", "\u0661", "\u0665", "\u0966", "\ufbae", "\u0d82", "\u4e2d", "\uff41", "\uff06", "\U0001d41a"),
            *("\U0001f1ec", "\U00020000", "\u3000", "\u00a0", "\u2028", "\u20ac", "\u0130", "\u1e9e", "amp;", "&amp;", "&#38;", "&lt"),
            *("&#x26;", "http://", "https://", "www.", "me@x.co", "FREE", "won", "free", "Stra\u00dfe", "\u043f\u0440\u0438"),
        ]
    ),
    max_size=40,
).map("".join)
TEXT = st.one_of(ANY, PIECES)
ORDERS = st.tuples(st.integers(1, 5), st.integers(0, 3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(TEXT)
@settings(max_examples=400, deadline=None)
def test_cleaning_is_total_and_settles_at_once(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert once.encode().decode() == once
    assert "  " not in once and once == once.strip()
    assert not set(once) & set("\ufeff\u200b\u00ad\x00\x85")


@given(st.lists(TEXT, max_size=6))
@settings(max_examples=200, deadline=None)
def test_a_column_holds_the_cleaned_texts_and_their_folded_views(texts: list[str]) -> None:
    column = text_column(texts)
    assert column.texts == [clean(text) for text in texts]
    for row, text in enumerate(column.texts):
        assert column.raw[column.raw_start[row] : column.raw_start[row + 1]].tobytes().decode() == text
        assert column.folded_text(row) == fold(text) == fold_twin(text)[0]
    assert ((column.changed_share >= 0.0) & (column.changed_share <= 1.0)).all()


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_what_folding_changes_of_a_clean_text_is_counted(text: str) -> None:
    cleaned = clean(text)
    assert text_column([cleaned]).changed_share[0] == fold_twin(cleaned)[1] / max(len(cleaned), 1)


@given(st.lists(TEXT, max_size=6))
@settings(max_examples=200, deadline=None)
def test_features_equal_their_twin(texts: list[str]) -> None:
    column = text_column(texts)
    values = text_features.compute(column)
    for row, text in enumerate(column.texts):
        assert {name: float(values[name][row]) for name in values if name != "changed_share"} == features_twin(text)


@given(st.lists(TEXT, max_size=5), ORDERS, ORDERS, st.integers(1, 5000), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_ngrams_equal_their_twin_and_can_be_named(
    texts: list[str], word: tuple[int, int], char: tuple[int, int], buckets: int, seed: int
) -> None:
    column = text_column(texts)
    hashed = hash_ngrams(column, word, char, buckets, seed)
    for row, text in enumerate(texts):
        here = slice(hashed.start[row], hashed.start[row + 1])
        twin = ngrams_twin(column.texts[row], column.folded_text(row), word, char, buckets, seed)
        assert list(zip(hashed.bucket[here].tolist(), hashed.family[here].tolist(), strict=True)) == list(twin.items())
        assert (hashed.weight[here] == np.float32(weight_of(max(len(twin), 1)))).all()
        named = tokens(text, word, char, buckets, seed)
        assert list(dict.fromkeys(bucket for bucket, _, _ in named)) == list(twin)
        assert all(twin[bucket] == family or bucket in [b for b, f, _ in named if f == 0] for bucket, family, _ in named)


@given(st.lists(TEXT, min_size=1, max_size=8), st.data())
@settings(max_examples=100, deadline=None)
def test_cutting_a_batch_changes_no_row(texts: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(texts)))
    whole = text_column(texts)
    values = text_features.compute(whole)
    hashed = hash_ngrams(whole, (1, 2), (3, 4), 4096, 7)
    first = 0
    for part in (texts[:cut], texts[cut:]):
        column = text_column(part)
        rows = slice(first, first + len(part))
        for name, column_values in text_features.compute(column).items():
            assert np.array_equal(column_values, values[name][rows])
        mine = hash_ngrams(column, (1, 2), (3, 4), 4096, 7)
        there = slice(hashed.start[first], hashed.start[first + len(part)])
        assert np.array_equal(mine.bucket, hashed.bucket[there]) and np.array_equal(mine.weight, hashed.weight[there])
        assert np.array_equal(mine.start, hashed.start[first : first + len(part) + 1] - hashed.start[first])
        first += len(part)
