"""A stack: what its trees see, and whose share of the margin is whose, against plain loops."""

from __future__ import annotations

import numpy as np

from streamapp.core.attribution import paths_of
from streamapp.core.linear import Linear
from streamapp.core.stack import Columns, Stack
from streamapp.core.trees import LEAF, Trees
from streamapp.core.vectorise import Inputs, Ngrams, take

BUCKETS, SEEN = 40, np.array([3, 7, 21], np.int32)
RNG = np.random.default_rng(11)


def rows_of(n: int) -> Inputs:
    """Rows of 2 numbers and 1 to 12 n-grams, unique within a row."""
    found = [np.sort(RNG.choice(BUCKETS, RNG.integers(1, 13), replace=False)).astype(np.int32) for _ in range(n)]
    start = np.concatenate(([0], np.cumsum([len(row) for row in found]))).astype(np.int64)
    bucket = np.concatenate(found)
    ngrams = Ngrams(start, bucket, RNG.uniform(0.05, 1, len(bucket)).astype(np.float32), np.zeros(len(bucket), np.int8))
    return Inputs(RNG.normal(size=(n, 2)).astype(np.float32), ngrams)


def stack_of() -> Stack:
    """Two stumps: one over a number, one over the column of bucket 7 and below it the second number."""
    feature = np.array([0, LEAF, LEAF, 3, LEAF, 1, LEAF, LEAF])
    trees = Trees(
        root=np.array([0, 3]), feature=feature, threshold=np.array([0.1, 0, 0, 0.3, 0, -0.2, 0, 0], np.float32),
        left=np.array([1, -1, -1, 4, -1, 6, -1, -1]), right=np.array([2, -1, -1, 5, -1, 7, -1, -1]),
        value=np.array([0.0, -1.0, 2.0, 0.0, 0.5, 0.0, 3.0, -2.0]), features=5, cover=np.array([10, 4, 6, 10, 7, 3, 1, 2]),
    )  # fmt: skip
    linear = Linear(RNG.normal(size=BUCKETS).astype(np.float32), np.array([0.5, -1.0], np.float32), 0.25)
    return Stack(linear, trees, Columns(SEEN, BUCKETS))


def test_columns_hold_the_weights_of_their_buckets_and_nothing_else() -> None:
    inputs = rows_of(50)
    assert inputs.ngrams is not None
    dense = Columns(SEEN, BUCKETS).of(inputs)
    for row in range(50):
        part = slice(inputs.ngrams.start[row], inputs.ngrams.start[row + 1])
        weight = dict(zip(inputs.ngrams.bucket[part].tolist(), inputs.ngrams.weight[part].tolist(), strict=True))
        assert dense[row, :2].tolist() == inputs.numeric[row].tolist()
        assert dense[row, 2:].tolist() == [weight.get(bucket, 0.0) for bucket in SEEN.tolist()]


def test_shares_of_both_members_add_up_to_the_margin() -> None:
    stack, inputs = stack_of(), rows_of(200)
    assert inputs.ngrams is not None
    paths = paths_of(stack.trees)
    shares = stack.columns.add(stack.linear.contributions(inputs), inputs, paths)
    total = shares.numeric.sum(axis=1) + np.add.reduceat(shares.ngram, inputs.ngrams.start[:-1])
    assert np.allclose(total + stack.linear.intercept + paths.bias, stack.margins(inputs)[:, 0], atol=1e-9)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    stack, inputs = stack_of(), rows_of(30)
    margins, order = stack.margins(inputs), np.array([29, 3, 3, 0])
    assert np.array_equal(stack.margins(take(inputs, order)), margins[order])
