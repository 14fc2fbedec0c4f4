"""Fits the heavy model of a text cascade: boosted trees beside the linear model, a logistic over both, cuts for the rows it will see."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from streamapp.control.boost import trees_of
from streamapp.control.calibration import choose_calibration
from streamapp.control.fit import Fitted, Progress, Recipe, Table, fit, matrix, unseen
from streamapp.control.split import Split
from streamapp.control.thresholds import approve_threshold, block_threshold
from streamapp.core.calibrate import probability
from streamapp.core.card import Calibration, Threshold
from streamapp.core.linear import Linear
from streamapp.core.stack import Columns, Stack
from streamapp.core.trees import Trees
from streamapp.core.vectorise import Inputs, scale

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


@dataclass(slots=True, frozen=True)
class StackRecipe:
    """Everything that decides how the trees and the cuts of a stack come out of its data; it stands in the card."""

    columns: int = 512  #          n-gram buckets the trees may look at, chosen by how differently the classes use them
    trees: int = 200
    rate: float = 0.08
    leaves: int = 8
    rows_per_leaf: int = 5
    columns_per_tree: float = 0.3
    ridge: float = 1.0
    approve: float | None = None  # the fast tier's cuts, what lies between them comes to this model; None: the linear model's own
    block: float | None = None
    positives_min: int = 5  #      of the rows between them; fewer say nothing about a promise


@dataclass(slots=True, frozen=True)
class FittedStack:
    """The stack with all that makes it a model, the linear model it contains, and what it gave rows it did not train on."""

    stack: Stack
    linear: Fitted
    calibration: Calibration
    block: Threshold
    approve: Threshold
    weights: tuple[float, float, float]  # of linear margin, tree margin and 1 in the logistic
    unseen_margins: Float64  #             of the training rows, by folds
    between: tuple[float, float]  #        the fast tier's cuts

    def inputs(self, table: Table) -> Inputs:
        """Gives the model inputs of raw rows."""
        return Inputs(scale(table.values, self.linear.scaler), table.ngrams)

    def margins(self, table: Table) -> Float64:
        """Gives the margins [n] of raw rows."""
        return self.stack.margins(self.inputs(table))[:, 0]

    def reaches(self, fast: Float64) -> Labels:
        """Takes what the fast tier believes [n]; gives which rows come to this model."""
        reached: Labels = (fast >= self.between[0]) & (fast < self.between[1])
        return reached

    def probability(self, table: Table) -> Float64:
        """Gives the calibrated probabilities [n] of raw rows."""
        return probability(self.margins(table)[:, None], "binary", self.calibration)[:, 0]


def fit_stack(
    table: Table, names: tuple[str, ...], split: Split, recipe: Recipe, own: StackRecipe, buckets: int, progress: Progress
) -> FittedStack:
    """Takes raw rows and their split; gives the stack fitted on the training part.

    The logistic is fitted on margins of rows that neither member trained on (folds), the calibration is chosen on the validation part, and
    the cuts keep their promises for the cascade: on rows that the linear model, as the fast tier, leaves between its own cuts.
    """
    linear = fit(table, names, split, replace(recipe, augment=False), buckets, None, progress)
    train, validation = table.rows(split.train), table.rows(split.validation)
    inputs = Inputs(scale(train.values, linear.scaler), train.ngrams)
    sparse = matrix(inputs, buckets)
    grown = np.empty(len(train.positive))
    folds = list(StratifiedKFold(recipe.folds, shuffle=True, random_state=recipe.seed).split(grown, train.positive))
    for done, (inside, outside) in enumerate(folds, 1):
        columns = _columns(sparse[inside], train.positive[inside], len(names), own.columns)
        dense = columns.of(inputs)
        grown[outside] = _booster(dense[inside], train.positive[inside], own, recipe.seed).predict(dense[outside], raw_score=True)
        progress("fit trees", done / (recipe.folds + 1))
    columns = _columns(sparse, train.positive, len(names), own.columns)
    dense = columns.of(inputs)
    trees = trees_of(_booster(dense, train.positive, own, recipe.seed), dense.shape[1])
    progress("fit trees", 1.0)

    members = np.stack((linear.unseen_margins, grown), axis=1)
    logistic = LogisticRegression(C=1.0, max_iter=1000).fit(members, train.positive)
    weights = (float(logistic.coef_[0, 0]), float(logistic.coef_[0, 1]), float(logistic.intercept_[0]))
    stack = Stack(*_weighed(linear.linear, trees, weights), columns)
    folded = members @ np.array(weights[:2]) + weights[2]
    margins = stack.margins(Inputs(scale(validation.values, linear.scaler), validation.ngrams))[:, 0]
    calibration, _ = choose_calibration(folded, train.positive, margins, validation.positive)
    judged, fast = unseen(split, folded, margins), unseen(split, linear.unseen_margins, linear.margins(validation))
    truth = unseen(split, train.positive, validation.positive)
    low = own.approve if own.approve is not None else linear.approve.value
    high = own.block if own.block is not None else linear.block.value
    between = (0.0 if low is None else low, math.inf if high is None else high)
    block, approve = cascade_cuts(
        probability(fast[:, None], "binary", linear.calibration)[:, 0], probability(judged[:, None], "binary", calibration)[:, 0],
        truth, between, recipe, own.positives_min,
    )  # fmt: skip
    return FittedStack(stack, linear, calibration, block, approve, weights, folded, between)


def cascade_cuts(
    fast: Float64, heavy: Float64, positive: Labels, fast_cuts: tuple[float, float], recipe: Recipe, positives_min: int
) -> tuple[Threshold, Threshold]:
    """Takes what both tiers believe of n unseen rows and the fast tier's cuts; gives the heavy tier's block and approve cuts.

    Block keeps the precision promise on the rows that reach the heavy tier, and the recall, if one is promised, for the cascade: what
    the fast tier blocks counts. Approve keeps the miss rate of the cascade: what the fast tier lets pass counts against it.
    """
    between = (fast >= fast_cuts[0]) & (fast < fast_cuts[1])
    total, passed = int(positive.sum()), int((positive & (fast < fast_cuts[0])).sum())
    inside = max(1, int(positive[between].sum()))
    allowed = max(0.0, recipe.miss_rate * total - passed) / inside
    least, blocked = recipe.precision - recipe.precision_slack, int((positive & (fast >= fast_cuts[1])).sum())
    wanted = None if recipe.recall is None else max(0.0, recipe.recall * total - blocked) / inside
    block = block_threshold(heavy[between], positive[between], recipe.precision, positives_min, least, wanted)
    if recipe.recall is not None:
        block = msgspec.structs.replace(block, promise=f"recall of the cascade >= {recipe.recall:g} with precision >= {recipe.precision:g}")
    ceiling = 1.0 if block.value is None else block.value
    approve = approve_threshold(heavy[between], positive[between], allowed, positives_min, ceiling)
    promise = f"miss rate of the cascade <= {recipe.miss_rate:g}"
    return block, Threshold(approve.value, promise, approve.observed, approve.low, approve.high, approve.positives)


def _columns(sparse: csr_matrix, positive: Labels, k: int, count: int) -> Columns:
    """The buckets whose document frequencies differ most between the classes, in standard errors; ascending."""
    present = csr_matrix(sparse[:, k:] != 0)
    yes, no = (np.asarray(present[rows].sum(axis=0)).ravel() for rows in (positive, ~positive))
    p, q = yes / max(1, positive.sum()), no / max(1, (~positive).sum())
    error = np.sqrt((p * (1 - p) + 1e-4) / max(1, positive.sum()) + (q * (1 - q) + 1e-4) / max(1, (~positive).sum()))
    apart = np.abs(p - q) / error
    chosen = np.sort(np.argsort(-apart, kind="stable")[:count])
    return Columns(chosen.astype(np.int32), len(apart))


def _booster(dense: npt.NDArray[np.float32], positive: Labels, own: StackRecipe, seed: int) -> lightgbm.Booster:
    """One thread and `deterministic`: equal data, recipe and LightGBM give equal trees on any machine."""
    parameters = {
        "objective": "binary", "learning_rate": own.rate, "num_leaves": own.leaves, "min_data_in_leaf": own.rows_per_leaf,
        "feature_fraction": own.columns_per_tree, "lambda_l2": own.ridge, "seed": seed, "deterministic": True, "force_col_wise": True,
        "num_threads": 1, "use_missing": False, "verbosity": -1, "max_bin": 63,
    }  # fmt: skip
    return lightgbm.train(parameters, lightgbm.Dataset(dense, positive.astype(np.float32)), own.trees)


def _weighed(linear: Linear, trees: Trees, weights: tuple[float, float, float]) -> tuple[Linear, Trees]:
    of_linear, of_trees, constant = weights
    words, numbers = (weight * np.float32(of_linear) for weight in (linear.bucket_weight, linear.numeric_weight))
    scaled = Linear(words.astype(np.float32), numbers.astype(np.float32), linear.intercept * of_linear + constant)
    return scaled, replace(trees, value=trees.value * of_trees)
