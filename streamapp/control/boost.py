"""Fits boosted trees: LightGBM on the float32 inputs that serve, its trees as tables, calibration and cuts on what came later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from streamapp.control.calibration import choose_calibration
from streamapp.control.split import Split
from streamapp.control.thresholds import approve_threshold, block_threshold, wilson
from streamapp.core.calibrate import probability
from streamapp.core.card import Calibration, Scaler, Threshold
from streamapp.core.errors import ConfigError
from streamapp.core.trees import LEAF, Trees, below
from streamapp.core.vectorise import Inputs

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]


@dataclass(slots=True, frozen=True)
class BoostRecipe:
    """Everything that decides how a booster comes out of its data; it stands in the card as hyper-parameters."""

    seed: int = 17
    trees: int = 100
    rate: float = 0.1
    depth: int = 5
    leaves: int = 31
    rows_per_leaf: int = 50
    train_share: float = 0.7
    validation_share: float = 0.15
    gap_ms: int = 0
    cold_ms: int = 3 * 86_400_000  #  each event also trains as a state sees it that forgets all so often
    missing_share: float = 0.15  #    of rows are seen as if the store of shared windows did not answer
    precision: float = 0.95  #        the promise of block
    precision_low: float = 0.92  #    below which its 95 % interval must not reach
    recall: float | None = None  #    what block is to catch of all positives beside that; None: as many as it can
    miss_rate: float | None = None  # the promise of approve; None: it goes by cost
    positives_min: int = 20  #        fewer say nothing about a promise
    cost_miss: float = 150.0  #       dollars of an approved fraud
    cost_review: float = 3.0  #       dollars of a look by people
    cost_alarm: float = 5.0  #        dollars of a blocked honest payment


@dataclass(slots=True, frozen=True)
class Boosted:
    """Trees with all that makes them a model."""

    trees: Trees
    scaler: Scaler
    calibration: Calibration
    block: Threshold
    approve: Threshold
    booster: lightgbm.Booster
    losses: dict[str, float]  #  log loss of each calibration on the judging rows
    gain: dict[str, float]  #    each feature's share of what the splits gained

    def margins(self, values: Float32) -> Float64:
        """Gives the margins [n] of raw rows [n, k]."""
        return self.trees.margins(Inputs(values, None))[:, 0]

    def probability(self, values: Float32) -> Float64:
        """Gives the calibrated probabilities [n] of raw rows."""
        return probability(self.margins(values)[:, None], "binary", self.calibration)[:, 0]


def boost(values: Float32, names: Sequence[str], positive: Labels, split: Split, recipe: BoostRecipe) -> Boosted:
    """Takes rows [n, k] in order of time; gives trees fitted on the training part.

    The first half of the validation part calibrates, the second half chooses the calibration and the cuts: each step on rows that come
    after those of the step before. Without a miss rate approve goes by cost: below the cut, what is missed costs less than a look.
    """
    booster = _fitted(values[split.train], positive[split.train], recipe)
    trees = trees_of(booster, len(names))
    scaler = Scaler(tuple(names), (0.0,) * len(names), (1.0,) * len(names))
    half = len(split.validation) // 2
    early, judge = split.validation[:half], split.validation[half:]
    if min(positive[early].sum(), positive[judge].sum()) < 2:
        raise ConfigError("a half of the validation part has fewer than two positives", "bring more labelled events")
    margins = trees.margins(Inputs(values[judge], None))[:, 0]
    calibration, losses = choose_calibration(trees.margins(Inputs(values[early], None))[:, 0], positive[early], margins, positive[judge])
    believed = probability(margins[:, None], "binary", calibration)[:, 0]
    truth, least = positive[judge], recipe.positives_min
    block = block_threshold(believed, truth, recipe.precision, least, recipe.precision_low, recipe.recall)
    ceiling = 1.0 if block.value is None else block.value
    if recipe.miss_rate is None:
        approve = approve_by_cost(believed, truth, recipe, ceiling)
    else:
        approve = approve_threshold(believed, truth, recipe.miss_rate, least, ceiling)
    gained = booster.feature_importance("gain")
    share = gained / max(1e-300, gained.sum())
    gain = {names[i]: round(float(share[i]), 4) for i in np.argsort(-share) if share[i] >= 0.00005}
    return Boosted(trees, scaler, calibration, block, approve, booster, losses, gain)


def approve_by_cost(believed: Float64, positive: Labels, recipe: BoostRecipe, ceiling: float) -> Threshold:
    """Gives the probability, at most `ceiling`, below which the expected loss is smaller than the price of a look.

    `observed` is the share of positives below it.
    """
    cut, total = min(recipe.cost_review / recipe.cost_miss, ceiling), int(positive.sum())
    missed = int((positive & (believed < cut)).sum())
    low, high = wilson(missed, total)
    promise = f"expected loss {recipe.cost_miss:g} x p below the {recipe.cost_review:g} of a review"
    return Threshold(cut, promise, missed / total if total else None, low, high, total)


def _fitted(values: Float32, positive: Labels, recipe: BoostRecipe) -> lightgbm.Booster:
    """One thread and `deterministic`: equal data, recipe and LightGBM give equal trees on any machine. No value is missing."""
    parameters: dict[str, Any] = {
        "objective": "binary", "learning_rate": recipe.rate, "max_depth": recipe.depth, "num_leaves": recipe.leaves,
        "min_data_in_leaf": recipe.rows_per_leaf, "seed": recipe.seed, "deterministic": True, "force_col_wise": True, "num_threads": 1,
        "use_missing": False, "verbosity": -1,
    }  # fmt: skip
    return lightgbm.train(parameters, lightgbm.Dataset(values, positive.astype(np.float32)), recipe.trees)


def trees_of(booster: lightgbm.Booster, features: int) -> Trees:
    """Gives a booster's trees as tables; its bias is in the leaves of the first tree. Raises ConfigError for splits that are not <=."""
    rows: list[tuple[int, float, int, int, float, int]] = []

    def put(node: dict[str, Any]) -> int:
        here = len(rows)
        if "leaf_value" in node:
            rows.append((LEAF, 0.0, LEAF, LEAF, float(node["leaf_value"]), int(node.get("leaf_count", 1))))
            return here
        if node["decision_type"] != "<=" or node["missing_type"] != "None":
            raise ConfigError(
                f"a tree splits by {node['decision_type']} with missing values as {node['missing_type']}", "train on numbers only"
            )
        rows.append((0, 0.0, 0, 0, 0.0, 0))
        left = put(node["left_child"])
        right = put(node["right_child"])
        rows[here] = (int(node["split_feature"]), float(node["threshold"]), left, right, 0.0, int(node["internal_count"]))
        return here

    roots = [put(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
    feature, threshold, left, right, value, cover = zip(*rows, strict=True)
    as_int = [np.array(column, np.int64) for column in (roots, feature, left, right, cover)]
    return Trees(as_int[0], as_int[1], below(np.array(threshold)), as_int[2], as_int[3], np.array(value), features, as_int[4])
