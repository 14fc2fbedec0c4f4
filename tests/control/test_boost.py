"""Boosted trees: LightGBM, its flat tables and the ONNX file give one margin; cuts keep what they promise."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import onnxruntime
import pytest

from streamapp.control.boost import BoostRecipe, approve_by_cost, boost, trees_of
from streamapp.control.split import time_split
from streamapp.control.tree_graph import tree_graph
from streamapp.core.attribution import paths_of
from streamapp.core.errors import ConfigError
from streamapp.core.trees import LEAF, Trees
from streamapp.core.vectorise import Inputs

RECIPE = BoostRecipe(trees=40)


def table(n: int = 8000, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Amounts and counts with ties, large and tiny numbers, and a label that needs an interaction."""
    rng = np.random.default_rng(seed)
    values = np.stack(
        [rng.lognormal(3, 2, n), rng.integers(0, 6, n), rng.normal(0, 1e-3, n), rng.lognormal(3, 1, n), np.full(n, 7.0)], axis=1
    ).astype(np.float32)
    odds = np.log(values[:, 0] / values[:, 3]) + values[:, 1] - 5 + rng.normal(0, 0.5, n)
    return values, odds > 0


def onnx_margins(trees: Trees, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(tree_graph(trees, "t"), providers=["CPUExecutionProvider"])
    margins: np.ndarray = session.run(["logit"], {"numeric": values})[0]
    assert margins.dtype == np.float64 and margins.shape == (len(values), 1)
    return margins[:, 0]


def test_the_tables_and_the_file_give_lightgbms_margins_also_on_its_thresholds() -> None:
    values, positive = table()
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "use_missing": False, "max_depth": 5}
    booster = lightgbm.train(parameters, lightgbm.Dataset(values, positive.astype(np.float32)), 40)
    trees = trees_of(booster, values.shape[1])
    # Rows that stand on a threshold, and one step of float32 to either side of it, where an inexact comparison would show.
    edges = values[: len(trees.threshold)].copy()
    for row, (feature, threshold) in enumerate(zip(trees.feature[: len(edges)], trees.threshold[: len(edges)], strict=True)):
        if feature != LEAF:
            edges[row, feature] = np.nextafter(threshold, np.float32((-np.inf, np.inf)[row % 2])) if row % 3 else threshold
    rows = np.concatenate((values, edges))
    wanted = booster.predict(rows, raw_score=True)
    assert np.abs(trees.margins(Inputs(rows, None))[:, 0] - wanted).max() <= 1e-12
    assert np.abs(onnx_margins(trees, rows) - wanted).max() <= 1e-12
    exact = booster.predict(rows, pred_contrib=True)
    assert paths_of(trees).bias == pytest.approx(exact[0, -1], abs=1e-9), "the base value of SHAP"


def test_a_tree_of_one_leaf_can_be_written() -> None:
    trees = Trees(
        np.array([0, 1]), np.array([LEAF, 0, LEAF, LEAF]), np.array([0, 2, 0, 0], np.float32), np.array([LEAF, 2, LEAF, LEAF]),
        np.array([LEAF, 3, LEAF, LEAF]), np.array([0.5, 0, 1.0, -1.0]), 1,
    )  # fmt: skip
    rows = np.array([[1], [2], [3]], np.float32)
    assert onnx_margins(trees, rows).tolist() == trees.margins(Inputs(rows, None))[:, 0].tolist() == [1.5, 1.5, -0.5]


def test_splits_by_category_are_refused() -> None:
    rng = np.random.default_rng(2)
    values = np.stack([rng.integers(0, 5, 2000), rng.normal(0, 1, 2000)], axis=1).astype(np.float32)
    data = lightgbm.Dataset(values, (values[:, 0] % 2 == 0).astype(np.float32), categorical_feature=[0])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_per_group": 1}, data, 3)
    with pytest.raises(ConfigError, match="train on numbers only"):
        trees_of(booster, 2)


def test_equal_data_gives_equal_trees_and_cuts_that_keep_the_promise() -> None:
    values, positive = table()
    split = time_split(np.arange(len(values), dtype=np.int64), (0.6, 0.2))
    names = ("a", "b", "c", "d", "e")
    one, other = (boost(values, names, positive, split, RECIPE) for _ in range(2))
    assert tree_graph(one.trees, "t") == tree_graph(other.trees, "t") and one.calibration == other.calibration
    believed = one.probability(values[split.test])
    assert one.block.value is not None and one.approve.value is not None and one.approve.value <= one.block.value
    assert positive[split.test][believed >= one.block.value].mean() > 0.9
    assert set(one.gain) <= {"a", "b", "d", "c"}, "a constant gains nothing"
    assert sum(one.gain.values()) == pytest.approx(1.0, abs=0.01)


def test_a_recall_and_a_miss_rate_are_promised_instead_of_precision_alone_and_costs() -> None:
    values, positive = table()
    split = time_split(np.arange(len(values)), (0.6, 0.2))
    names = ("a", "b", "c", "d", "e")
    plain = boost(values, names, positive, split, RECIPE)
    aimed = boost(values, names, positive, split, replace(RECIPE, recall=0.5, miss_rate=0.01))
    assert plain.block.value is not None and aimed.block.value is not None and aimed.block.value >= plain.block.value
    assert aimed.block.promise == "recall >= 0.5 with precision >= 0.95" and (aimed.block.observed or 0.0) >= 0.5
    assert aimed.approve.promise == "miss rate <= 0.01" and aimed.approve.observed is not None and aimed.approve.observed <= 0.01
    caught = aimed.probability(values[split.test][positive[split.test]])
    assert (caught >= aimed.block.value).mean() > 0.4 and (caught >= (aimed.approve.value or 0.0)).mean() > 0.95
    assert boost(values, names, positive, split, replace(RECIPE, recall=0.9999, precision=0.9999)).block.value is None


def test_what_is_approved_by_cost_tells_what_it_misses() -> None:
    believed, positive = np.array([0.001, 0.019, 0.02, 0.9]), np.array([False, True, True, True])
    cut = approve_by_cost(believed, positive, BoostRecipe(cost_miss=150, cost_review=3), ceiling=1.0)
    assert cut.value == pytest.approx(0.02) and cut.observed == pytest.approx(1 / 3) and cut.positives == 3
    assert approve_by_cost(believed, positive, BoostRecipe(), ceiling=0.01).value == 0.01
