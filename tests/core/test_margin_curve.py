"""The margin along one input: the search finds what trying every value finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.attribution import paths_of
from streamapp.core.margin_curve import DOWN, NOT_FOUND, UP, steps_of
from streamapp.core.trees import LEAF, Trees
from streamapp.core.vectorise import Inputs
from tests.core.test_attribution import grown, values_of


def twin(trees: Trees, row: np.ndarray, inputs: list[int], direction: np.ndarray, bounds: np.ndarray) -> tuple[int, int, float]:
    """Tries every interval of every input: the input, the bound and the threshold, or NOT_FOUND."""
    best: tuple[int, int, float] = (NOT_FOUND, len(bounds), np.nan)
    for at in inputs:
        cuts = np.unique(trees.threshold[trees.feature == at])
        middle = [*cuts, cuts[-1] + 1] if len(cuts) else [row[at]]  # one value of each interval
        rows = np.repeat(row[None], len(middle), axis=0)
        rows[:, at] = middle
        margins = trees.margins(Inputs(rows, None))[:, 0]
        now = int(np.searchsorted(cuts, row[at]))
        for place, bound in enumerate(bounds):
            if direction[at] == UP:
                good = [t for t in range(now) if (margins[: t + 1] < bound).all()]
                cut = max(good, default=None)
            else:
                good = [t for t in range(now, len(cuts)) if (margins[t + 1 :] < bound).all()]
                cut = min(good, default=None)
            if cut is not None and place < best[1]:
                best = (at, place, float(cuts[cut]))
    return best


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_search_finds_what_trying_finds(seed: int) -> None:
    trees = grown(seed)
    rng = np.random.default_rng(seed)
    paths = paths_of(trees)
    steps = steps_of(paths)
    values = values_of(seed, 20)
    margins = trees.margins(Inputs(values, None))[:, 0]
    bounds = np.sort(margins[:, None] + rng.normal(-0.5, 1.0, (20, 2)), axis=1)
    direction = rng.choice(np.array([UP, DOWN], np.int8), 4)
    order = np.stack([rng.permutation(4)[:3] for _ in range(20)]).astype(np.int32)
    order[::5, 1:] = -1
    found = steps.search(values, order, direction, bounds, margins)
    for row in range(20):
        wanted = twin(trees, values[row], [at for at in order[row].tolist() if at >= 0], direction, bounds[row])
        at, bound, cut = found[row].tolist()
        if wanted[0] == NOT_FOUND:
            assert at == NOT_FOUND
        else:
            assert (at, bound) == wanted[:2]
            assert steps.threshold[steps.first[at] + cut] == np.float32(wanted[2])


def test_an_input_without_a_split_is_passed_over() -> None:
    trees = grown(3)
    wider = Trees(trees.root, trees.feature, trees.threshold, trees.left, trees.right, trees.value, 5, trees.cover)
    steps = steps_of(paths_of(wider))
    row, low = values_of(1, 1, 5), np.array([[-1e9, -1e8]])
    assert steps.search(row, np.array([[4, -1]], np.int32), np.full(5, UP, np.int8), low, np.zeros(1)).tolist() == [[NOT_FOUND] * 3]
    assert not (trees.feature[trees.feature != LEAF] == 4).any()
