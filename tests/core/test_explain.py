"""Contributions to reasons."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from streamapp.config import load_pipeline
from streamapp.control.languages import load_language
from streamapp.core.explain import ModelReasons, group_contributions, strongest_of
from streamapp.core.language import Words
from streamapp.core.vectorise import Contributions, Ngrams

WORDS = Words(load_language("en"), load_pipeline("messages"), (), (), own=True)
NGRAMS = Ngrams(np.array([0, 3, 3]), np.arange(3, dtype=np.int32), np.ones(3, np.float32), np.array([0, 1, 1], np.int8))
SHARES = Contributions(np.array([[0.5, -2.0], [0.0, 0.25]]), np.array([1.0, 0.25, 0.5]))


def test_ngrams_are_summed_by_family_and_rows_keep_their_sum() -> None:
    grouped = group_contributions(SHARES, NGRAMS)
    assert grouped.tolist() == [[0.5, -2.0, 1.0, 0.75], [0.0, 0.25, 0.0, 0.0]]


def test_the_largest_shares_become_sentences_with_value_and_usual_value() -> None:
    reasons = ModelReasons("spam", ["urls", "capitals"], [0.5, 0.125], WORDS)
    found = reasons.top(group_contributions(SHARES, NGRAMS), np.array([[4.0, 0.5], [0.0, 0.75]]))
    assert [(one.code, one.weight) for one in found[0]] == [
        ("model_capitals", -2.0),
        ("model_word_ngrams", 1.0),
        ("model_character_ngrams", 0.75),
    ]
    assert found[0][0].text == "capitals is 0.5 (usual: 0.125), which speaks against spam"
    assert (found[0][0].value, found[0][0].limit) == (0.5, 0.125)
    assert [one.code for one in found[1]] == ["model_capitals"]  # what weighs nothing is no reason
    assert {one.code for row in found for one in row} <= set(reasons.codes)


@settings(max_examples=100, deadline=None)
@given(some.data(), some.integers(0, 5), some.integers(1, 6), some.integers(0, 6))
def test_the_strongest_are_those_of_a_stable_sort(data: some.DataObject, rows: int, groups: int, numeric: int) -> None:
    numbers = some.sampled_from([0.0, -0.0, 1.0, -1.0, 0.00005, 2.00015, -7.25, np.nan])
    grouped = data.draw(arrays.arrays(np.float64, (rows, groups), elements=numbers))
    values = data.draw(arrays.arrays(np.float64, (rows, min(numeric, groups)), elements=numbers))
    count = min(3, groups)
    place, weight, told = strongest_of(grouped, values, count)
    assert place.tolist() == np.argsort(-np.nan_to_num(np.abs(grouped)), axis=1, kind="stable")[:, :count].tolist()
    np.testing.assert_array_equal(weight, np.take_along_axis(grouped, place, axis=1).round(4))
    wide = np.hstack((values, np.zeros((rows, groups - values.shape[1]))))
    np.testing.assert_array_equal(told, np.take_along_axis(wide, place, axis=1).round(4))
