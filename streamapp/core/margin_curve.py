"""The margin of boosted trees as a function of one input, all others as they are: where it stays below a bound, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.attribution import Paths
from streamapp.core.trees import LEAF

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

DEPTH_MAX = 64
UP, DOWN, NEITHER = 1, -1, 0
NOT_FOUND = -1


@dataclass(slots=True, frozen=True)
class Steps:
    """Where the margin can step: each input's thresholds in order, which of them a node has, and the trees that ask for the input."""

    paths: Paths
    threshold: Float32  #       of all inputs, one after the other, ascending and unique within each
    first: Int64  #             k + 1: input i's are threshold[first[i]:first[i + 1]]
    rank: Int32  #              m: a node's threshold among those of its input
    tree: Int32  #              of all inputs: the trees that ask for it
    first_tree: Int64  #        k + 1
    longest: int  #             thresholds of the input that has most

    def search(self, numeric: Float32, order: Int32, direction: npt.NDArray[np.int8], bounds: Float64, margins: Float64) -> Int64:
        """Takes m rows, inputs to try for each [m, t] (-1: none), each input's direction of risk [k], bounds [m, b] and margins [m].

        Gives [m, 3]: input, which bound (the lowest that an input reaches, the first input among equals) and the number of the threshold;
        NOT_FOUND where no input reaches any. UP: at or below threshold t, and at all smaller values, the margin is below the bound, and t
        is the largest such; DOWN: above threshold t and at all larger values, and t is the smallest. O(m x t x trees x leaves).
        """
        found = np.full((len(numeric), 3), NOT_FOUND, np.int64)
        paths = self.paths
        curve = np.zeros(self.longest + 2)
        search(
            paths.root, paths.feature, paths.threshold, paths.child, paths.value, self.threshold, self.first, self.rank, self.tree,
            self.first_tree, np.ascontiguousarray(numeric), order, direction, bounds, margins, curve, found,
        )  # fmt: skip
        return found


def steps_of(paths: Paths) -> Steps:
    """Gives the steps of trees."""
    first, first_tree = np.zeros(paths.features + 1, np.int64), np.zeros(paths.features + 1, np.int64)
    rank = np.zeros(len(paths.feature), np.int32)
    tree_of = np.searchsorted(paths.root, np.arange(len(paths.feature)), side="right") - 1
    thresholds, trees = [], []
    for place in range(paths.features):
        nodes = np.flatnonzero(paths.feature == place)
        mine, which = np.unique(paths.threshold[nodes], return_inverse=True)
        rank[nodes] = which
        thresholds.append(mine)
        trees.append(np.unique(tree_of[nodes]))
        first[place + 1], first_tree[place + 1] = first[place] + len(mine), first_tree[place] + len(trees[-1])
    return Steps(
        paths, np.concatenate(thresholds).astype(np.float32), first, rank, np.concatenate(trees).astype(np.int32), first_tree,
        max(map(len, thresholds), default=0),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def search(
    root: Int32, feature: Int32, threshold: Float32, child: Int32, value: Float64, steps: Float32, first: Int64, rank: Int32,
    tree: Int32, first_tree: Int64, numeric: Float32, order: Int32, direction: npt.NDArray[np.int8], bounds: Float64, margins: Float64,
    curve: Float64, found: Int64,
) -> None:  # fmt: skip
    """Fills `found`; `curve` is room for the steps of the input that has most."""
    for row in range(len(numeric)):
        best = bounds.shape[1]
        for attempt in range(order.shape[1]):
            at = order[row, attempt]
            if at < 0 or best == 0:
                break
            count = first[at + 1] - first[at]
            if count == 0:
                continue
            # Interval i holds the values above threshold i - 1 up to threshold i; the last one is above all.
            now = np.searchsorted(steps[first[at] : first[at + 1]], numeric[row, at])
            begin, end = (0, now) if direction[at] == UP else (now, count)
            trees = tree[first_tree[at] : first_tree[at + 1]]
            draw(root, feature, threshold, child, value, rank, trees, numeric[row], at, begin, end, curve)
            base = margins[row] - curve[now]
            for bound in range(best):
                cut = reach(curve, begin, end, direction[at], bounds[row, bound] - base)
                if cut != NOT_FOUND:
                    best = bound
                    found[row, 0], found[row, 1], found[row, 2] = at, bound, cut
                    break


@njit(cache=True, nogil=True)
def draw(
    root: Int32, feature: Int32, threshold: Float32, child: Int32, value: Float64, rank: Int32, trees: Int32, numeric: Float32, at: int,
    begin: int, end: int, curve: Float64,
) -> None:  # fmt: skip
    """Puts into `curve` what `trees` add up to in each interval begin..end of input `at`; where it is asked for, both ways are gone."""
    node_at, low_at, high_at = np.empty(DEPTH_MAX, np.int64), np.empty(DEPTH_MAX, np.int64), np.empty(DEPTH_MAX, np.int64)
    curve[begin : end + 2] = 0.0
    for tree in trees:
        waiting = 1
        node_at[0], low_at[0], high_at[0] = root[tree], begin, end
        while waiting > 0:
            waiting -= 1
            node, low, high = node_at[waiting], low_at[waiting], high_at[waiting]
            asked = feature[node]
            while asked != LEAF:
                cut = rank[node]  # left: intervals up to `cut`
                if asked != at:
                    node = child[node, 0 if numeric[asked] <= threshold[node] else 1]
                elif high <= cut:
                    node = child[node, 0]
                elif low > cut:
                    node = child[node, 1]
                else:
                    node_at[waiting], low_at[waiting], high_at[waiting] = child[node, 1], cut + 1, high
                    waiting += 1
                    node, high = child[node, 0], cut
                asked = feature[node]
            curve[low] += value[node]
            curve[high + 1] -= value[node]
    for interval in range(begin, end):
        curve[interval + 1] += curve[interval]


@njit(cache=True, nogil=True)
def reach(curve: Float64, begin: int, end: int, direction: int, bound: float) -> int:
    """Gives the threshold up to which (UP, from below) or above which (DOWN, from above) the curve stays below the bound."""
    cut = NOT_FOUND
    if direction == UP:
        for interval in range(begin, end):
            if curve[interval] >= bound:
                break
            cut = interval
    else:
        for interval in range(end, begin, -1):
            if curve[interval] >= bound:
                break
            cut = interval - 1
    return cut
