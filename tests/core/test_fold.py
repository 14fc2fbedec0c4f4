"""What the folded view shows, example by example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamapp.core.fold import fold
from streamapp.core.glyphs import LATIN, STRONG, fold_tables
from streamapp.core.lookalikes import EXACT, NEAR, named
from streamapp.core.text import text_column


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("", ""),
        ("Call NOW", "call now"),
        ("freeeeee!!!!! ..... \u00a31000", "free!! .. \u00a31000"),
        ("soo good", "soo good"),
        ("line\none\ttwo", "line one two"),
        # look-alikes
        ("fr\u0435\u0435 \u0440r\u0456ze", "free prize"),
        ("\u0440\u0430\u0443 me", "pay me"),
        ("w\u03bfn \u13dfa\ua731h \ua4daall", "won cash call"),
        ("t\u0665 st\u06beps \u0966ff", "to stops off"),
        ("\u1d04\u029f\u1d00\u026a\u1d0d", "claim"),
        ("\u01dd\u0279\u0250", "era"),
        ("\U0001f1ec\U0001f1e7 \U0001f175\U0001f181\U0001f174\U0001f174", "gb free"),
        # marks
        ("caf\u00e9 na\u00efve \u00d8re Stra\u00dfe", "cafe naive ore strasse"),
        ("f\u0332r\u0332e\u0332e\u0332", "free"),
        # other scripts keep their own words
        (
            "\u041f\u0440\u0438\u0432\u0435\u0442, \u0430 \u0442\u044b \u0443 \u043d\u0430\u0441?",
            "\u043f\u0440\u0438\u0432\u0435\u0442, \u0430 \u0442\u044b \u0443 \u043d\u0430\u0441?",
        ),
        ("\u0645\u0631\u062d\u0628\u0627", "\u0645\u0631\u062d\u0628\u0627"),
        ("\u092a\u0930\u0940\u0915\u094d\u0937\u093e \u0967\u0968", "\u092a\u0930\u0940\u0915\u094d\u0937\u093e 12"),
        ("\u6211\u7528iPhone\u624b\u673a", "\u6211\u7528iphone\u624b\u673a"),
        ("\U0001f600\U0001f600\U0001f600\U0001f600", "\U0001f600\U0001f600"),
        # leet in words, not in numbers
        ("fr33 c4sh t0 cla1m, cal1 n0w", "free cash to claim, call now"),
        ("w1nn3r he11o l0ve1y 7onigh7 7on19h7", "winner hello lovely tonight 7on19h7"),
        ("08001234567 150p 10am 2nd 4u \u00a31000 24/7 80082", "08001234567 150p 10am 2nd 4u \u00a31000 24/7 80082"),
        ("c@sh pa$$word $ave he||o", "cash password save hello"),
        ("US$100 $5 me@home.org @you a$", "us$100 $5 me@home.org @you a$"),
        # quotes and dashes
        ("\u2018it\u2019s\u2019 \u201cyou\u201d \u2013 me", "'it's' \"you\" - me"),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_folding_a_folded_text_changes_nothing_in_words() -> None:
    text = "Y\u03bfu h4v3 w\u043en \u00a31000 c4sh"
    assert fold(fold(text)) == fold(text)


def test_every_named_lookalike_is_in_the_tables_and_none_is_in_both() -> None:
    kind, latin, _ = fold_tables()
    exact, near = dict(named(EXACT)), dict(named(NEAR))
    assert not set(exact) & set(near)
    for code, letter in exact.items():
        assert kind[code] in (LATIN, STRONG), hex(code)
        assert int(latin[code]).to_bytes(8, "little")[1:].rstrip(b"\0") == letter.encode(), hex(code)
    assert len(exact) > 300


def test_ascii_letters_and_digits_stand_for_themselves() -> None:
    kind, latin, own = fold_tables()
    for code in map(ord, "azAZ"):
        assert kind[code] == LATIN and int(latin[code]) == 1 | ord(chr(code).lower()) << 8
    assert [int(own[ord(digit)]) >> 8 for digit in "0189"] == [ord(digit) for digit in "0189"]
    assert latin.dtype == own.dtype == np.uint64


def test_coverage_of_the_published_lookalikes(shared_data: Path) -> None:
    """How many published confusables of one Latin letter fold to that letter inside a Latin word ("i" and "l" are one shape)."""
    lines = (shared_data / "confusables" / "confusables.txt").read_text(encoding="utf-8-sig").splitlines()
    pairs = [(line.split(";")[0].strip(), line.split(";")[1].strip()) for line in lines if ";" in line and not line.startswith("#")]
    letters = [
        (chr(int(source, 16)), chr(int(target, 16)).lower())
        for source, target in pairs
        if " " not in source + target and int(source, 16) > 127 and int(target, 16) < 128 and chr(int(target, 16)).isalpha()
    ]
    column = text_column([f"bb{source}bb" for source, _ in letters])
    hits = sum(
        column.folded_text(i).replace("i", "l") in (f"bb{target}bb".replace("i", "l"), "bb") for i, (_, target) in enumerate(letters)
    )
    assert hits >= 0.75 * len(letters), f"{hits} of {len(letters)}"
