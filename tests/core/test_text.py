"""Cleaning and text columns on ugly inputs, with the values that must stay."""

from __future__ import annotations

import gzip
import html
import html.entities
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.text import clean, text_column


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        (" \n\t ", ""),
        ("  two   spaces  ", "two spaces"),
        ("line\none\r\ttwo", "line\none\r\ttwo"),
        ("be\x07ll\x00 \x7fand\x85more", "bell andmore"),
        ("don\x92t", "dont"),
        ("a \x00 b", "a b"),
        ("Tom &amp; Jerry &lt;3", "Tom & Jerry <3"),
        ("T&C's apply & more", "T&C's apply & more"),
        ("&amp;amp;amp;lt;", "<"),
        ("&#38;#38;#x26;gt;", ">"),
        ("\uff06lt;", "<"),
        ("&\u200blt;", "<"),
        ("&#x200b;free&#8203;", "free"),
        ("price&nbsp;&nbsp;now", "price now"),
        ("\ufefffree\ufeff", "free"),
        ("f\u200br\u200ce\u200de\u2060\u00ad", "free"),
        ("\u202eevil\u202c", "evil"),
        ("\uff26\uff32\uff25\uff25\u3000\uff11\uff10\uff10", "FREE 100"),
        ("\U0001d405\U0001d42b\U0001d41e\U0001d41e", "Free"),
        ("e\u0301", "\u00e9"),
        ("e\u200c\u0301", "\u00e9"),
        ("wait\u2026", "wait..."),
        ("lone \ud800 surrogate \udfff", "lone surrogate"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\U0001f469\U0001f467"),
        ("a" + "\u0301" * 40, "\u00e1" + "\u0301" * 29),
        ("\ufdfa" * 2, unicodedata.normalize("NFKC", "\ufdfa")[:8]),
    ],
)
def test_cleaning(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert text_column([text]).texts == [cleaned]


@settings(deadline=None)
@given(st.text(st.characters() | st.sampled_from("  &;\u0301\u00e9\u00a0\u200b\u2028\U0001f600\ufb01e"), max_size=50))
def test_a_column_is_cleaned_as_its_texts_are(text: str) -> None:
    assert text_column([text, text + " x", "\u0301" * 31 + text]).texts == [clean(text), clean(text + " x"), clean("\u0301" * 31 + text)]


def test_deeply_nested_references_end() -> None:
    text = "&lt;"
    for _ in range(300):  # the first letter or digit is written as a reference, again and again
        first = min(k for k, char in enumerate(text) if char.isalnum())
        text = f"{text[:first]}&#{ord(text[first])};{text[first + 1 :]}"
    assert html.unescape(text).count("&#") == 299
    assert clean(clean(text)) == clean(text)
    assert "&" not in clean(text)


def test_no_other_reference_begins_like_an_ampersand() -> None:
    # what collapses chains of ampersands relies on it
    assert {name for name in html.entities.html5 if name.lower().startswith("amp")} == {"amp", "amp;", "AMP", "AMP;"}


def test_compatibility_forms_hold_no_character_that_cleaning_drops() -> None:
    # dropping comes before NFKC; were this false, one round would not be enough
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs"):
            assert not {unicodedata.category(c) for c in unicodedata.normalize("NFKC", char)} & {"Cc", "Cf"}, hex(code)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("plain TEXT, 08001234567 & \u00a3100!!!", 0.0),
        ("wait\u2026 \u2018now\u2019", 0.0),
        ("fr\u0435e", 1 / 4),
        ("f\u200bree", 1 / 5),
        ("\uff46\uff52\uff45\uff45", 1.0),
        ("fr33", 2 / 4),
        ("caf\u00e9", 1 / 4),
        ("cafe\u0301", 1 / 5),
        ("\u043f\u0440\u0438\u0432\u0435\u0442, \u0430 \u0442\u044b?", 0.0),
    ],
)
def test_the_share_of_characters_that_hide_something(text: str, share: float) -> None:
    assert text_column([text]).changed_share.tolist() == pytest.approx([share])


def test_an_empty_column() -> None:
    column = text_column([])
    assert len(column) == 0 and column.raw_start.tolist() == column.folded_start.tolist() == [0]
    assert column.changed_share.dtype == np.float64 and column.changed_share.shape == (0,)


def test_ten_thousand_characters_of_any_kind_are_read() -> None:
    for piece in ("a", "a b ", "\u0301\u0323", "&amp;", "$", "a@", "\u4e2d", "\U0001f600", "\u200b", "www.", "1a", "\ufdfa"):
        text = (piece * 10_000)[:10_000]
        column = text_column([text, "neighbour"])
        assert column.texts[1] == column.folded_text(1) == "neighbour"
        assert len(column.texts[0]) <= 4 * len(text)


def test_attacks_lose_their_disguise(shared_data: Path) -> None:
    with gzip.open(shared_data / "adversarial" / "data.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    attacked = text_column([row["text"] for row in rows])
    original = text_column([row["orig"] for row in rows])
    share = {"zerowidth": 1.0, "fullwidth": 1.0, "homoglyph": 0.8, "leet": 0.8}
    for attack, least in share.items():
        words = hits = 0
        for i in (i for i, row in enumerate(rows) if row["attack"] == attack):
            # "i" and "l" are one shape
            pair = [column.folded_text(i).replace("i", "l").split() for column in (attacked, original)]
            words += len(pair[1])
            hits += sum(a == b for a, b in zip(*pair, strict=False))
        assert hits >= least * words, f"{attack}: {hits} of {words} words"


def test_a_digit_is_read_by_its_own_token_alone() -> None:
    assert text_column(["1", "1A0A"]).folded_text(1) == text_column(["1A0A"]).folded_text(0) == "iaoa"
