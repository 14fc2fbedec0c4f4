import numpy as np
import pytest

from streamapp.control.obfuscate import ATTACKS, INVISIBLE, LEET, LOOKALIKES, obfuscate
from streamapp.core.fold import fold
from streamapp.core.text import clean

TEXT = "Win cash now, call 09001234567"


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_strength_changes_nothing_and_equal_seeds_attack_alike(attack: str) -> None:
    assert obfuscate(TEXT, attack, 0.0, np.random.default_rng(1)) == TEXT
    attacked = [obfuscate(TEXT, attack, 0.8, np.random.default_rng(2)) for _ in range(2)]
    assert attacked[0] == attacked[1] != TEXT


@pytest.mark.parametrize("attack", ["lookalikes", "invisible", "leet"])
def test_the_number_to_dial_survives(attack: str) -> None:
    attacked = obfuscate(TEXT, attack, 1.0, np.random.default_rng(3))
    assert "09001234567" in attacked


def test_invisible_marks_only_add_and_full_width_only_shifts() -> None:
    attacked = obfuscate(TEXT, "invisible", 1.0, np.random.default_rng(4))
    assert "".join(letter for letter in attacked if letter not in INVISIBLE) == TEXT
    wide = obfuscate(TEXT, "full_width", 1.0, np.random.default_rng(4))
    assert wide.startswith("Ｗｉｎ ｃａｓｈ")


def test_what_is_hidden_in_our_ways_is_found_by_the_folded_view() -> None:
    plain = fold(clean(TEXT))
    for attack in ("invisible", "full_width"):
        assert fold(clean(obfuscate(TEXT, attack, 1.0, np.random.default_rng(5)))) == plain


def test_tables_hold_one_letter_each() -> None:
    assert all(len(letter) == 1 for letter in (*LOOKALIKES, *LEET))
    assert all(not look.isascii() for looks in LOOKALIKES.values() for look in looks)
