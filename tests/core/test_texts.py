"""Texts are a sequence of byte strings, whatever they are made of, and slices share what they are cut from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from streamapp.core.texts import Strings, Texts


@given(some.lists(some.binary(max_size=20)), some.integers(-25, 25), some.integers(-25, 25))
def test_texts_are_the_list_they_were_made_of(values: list[bytes], low: int, high: int) -> None:
    texts = Texts.of(values)
    assert list(texts) == values and len(texts) == len(values)
    assert [texts[place] for place in range(-len(values), len(values))] == values + values
    cut = texts[low:high]
    assert list(cut) == values[low:high] and cut.bytes() == sum(map(len, values[low:high]))
    assert cut.lengths().tolist() == [len(value) for value in values[low:high]]
    assert Texts.of(texts) is texts


def test_a_place_that_is_not_there_and_a_step_are_refused() -> None:
    texts = Texts.of([b"a", b"bc"])
    with pytest.raises(IndexError):
        texts[2]
    with pytest.raises(ValueError, match="without a step"):
        texts[::2]
    assert np.shares_memory(texts.data, texts[1:].data)
    assert list(Texts.nothing(2)) == [b"", b""]


@given(some.lists(some.lists(some.binary(max_size=5), max_size=4), max_size=4), some.booleans())
def test_parts_are_put_end_to_end(parts: list[list[bytes]], as_texts: bool) -> None:
    given = [Texts.of([b"ahead", *part])[1:] if as_texts else part for part in parts]
    found = Texts.end_to_end(given)
    assert found is not None and list(found) == [one for part in parts for one in part]
    assert Texts.end_to_end([*parts, [b"x", None]]) is None


def test_strings_are_what_their_bytes_say() -> None:
    strings = Strings(Texts.of([b"a", b"", b"bc"]))
    assert strings == ["a", "", "bc"] and [*strings] == ["a", "", "bc"] and strings[2] == "bc" and strings[:2] == ["a", ""]
    assert strings != ["a"] and len(strings) == 3 and "bc" in strings
