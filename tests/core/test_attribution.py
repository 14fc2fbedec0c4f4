"""Contributions along the paths of trees: they add up to the margin, and the kernel walks as plain Python does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.attribution import Paths, paths_of
from streamapp.core.errors import InvariantBroken
from streamapp.core.trees import LEAF, Trees
from streamapp.core.vectorise import Inputs


def grown(seed: int, count: int = 12, features: int = 4, depth: int = 4) -> Trees:
    """Gives random trees with ties among thresholds; some are a single leaf."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, float, int, int, float, int]] = []

    def put(left_depth: int, cover: int) -> int:
        here = len(rows)
        if left_depth == 0 or cover < 2 or rng.random() < 0.2:
            rows.append((LEAF, 0.0, LEAF, LEAF, float(rng.normal()), cover))
            return here
        rows.append((0, 0.0, 0, 0, 0.0, cover))
        left_cover = int(rng.integers(1, cover))
        left = put(left_depth - 1, left_cover)
        right = put(left_depth - 1, cover - left_cover)
        rows[here] = (int(rng.integers(features)), float(rng.integers(-3, 4)), left, right, 0.0, cover)
        return here

    root = [put(depth, 1000) for _ in range(count)]
    feature, threshold, left, right, value, cover = (np.array(column) for column in zip(*rows, strict=True))
    return Trees(np.array(root), feature, threshold.astype(np.float32), left, right, value, features, cover)


def values_of(seed: int, n: int = 50, features: int = 4) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).integers(-4, 5, (n, features)).astype(np.float32)


def twin(trees: Trees, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """One row in plain Python: at each step, the mean of the leaves below the child less that below its parent."""
    assert trees.cover is not None

    def expected(node: int) -> float:
        if trees.feature[node] == LEAF:
            return float(trees.value[node])
        left, right = int(trees.left[node]), int(trees.right[node])
        assert trees.cover is not None
        return (trees.cover[left] * expected(left) + trees.cover[right] * expected(right)) / (trees.cover[left] + trees.cover[right])

    shares = np.zeros(trees.features)
    for root in trees.root.tolist():
        node = root
        while trees.feature[node] != LEAF:
            at = trees.feature[node]
            child = int(trees.left[node] if row[at] <= trees.threshold[node] else trees.right[node])
            shares[at] += expected(child) - expected(node)
            node = child
    return shares


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_bias_and_shares_are_the_margin_and_the_kernel_is_its_twin(seed: int) -> None:
    trees, values = grown(seed), values_of(seed)
    paths = paths_of(trees)
    shares = paths.contributions(values)
    assert np.abs(paths.bias + shares.sum(axis=1) - trees.margins(Inputs(values, None))[:, 0]).max() <= 1e-9
    assert np.abs(shares[:5] - [twin(trees, row) for row in values[:5]]).max() <= 1e-9


def test_a_row_is_told_the_same_whatever_comes_with_it() -> None:
    paths, values = paths_of(grown(1)), values_of(2)
    alone = np.concatenate([paths.contributions(values[row : row + 1]) for row in range(len(values))])
    assert np.array_equal(paths.contributions(values), alone)
    assert paths.contributions(values[:0]).shape == (0, 4)


def test_an_input_that_no_tree_asks_for_has_no_share() -> None:
    trees = grown(3)
    wider = Trees(trees.root, trees.feature, trees.threshold, trees.left, trees.right, trees.value, 6, trees.cover)
    shares = paths_of(wider).contributions(values_of(3, features=6))
    assert not shares[:, 4:].any() and shares[:, :4].any()


def test_trees_that_nobody_counted_tell_nothing() -> None:
    trees = grown(4)
    for cover in (None, np.zeros(len(trees.value), np.int64)):
        with pytest.raises(InvariantBroken, match="how many training rows"):
            paths_of(Trees(trees.root, trees.feature, trees.threshold, trees.left, trees.right, trees.value, 4, cover))


def test_paths_are_values() -> None:
    one, other = paths_of(grown(5)), paths_of(grown(5))
    assert isinstance(one, Paths) and one.bias == other.bias and np.array_equal(one.gain, other.gain)
