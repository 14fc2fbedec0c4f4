"""The ONNX graph of boosted trees: one operator whose tables are ours, in float64, so that no converter stands in between."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamapp.core.trees import LEAF, Trees

OPSET, TREES_OPSET = 17, 5
IR_VERSION = 8
LESS_OR_EQUAL, SUM = 0, 1
"""Codes of the operator's `nodes_modes` and `aggregate_function`."""


def tree_graph(trees: Trees, name: str) -> bytes:
    """Gives the model file of `trees`: numeric float32 [n, k] in, logit float64 [n, 1] out."""
    graph = helper.make_graph(
        tree_nodes(trees, "numeric", "logit"),
        name,
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", trees.features])],
        [helper.make_tensor_value_info("logit", TensorProto.DOUBLE, ["n", 1])],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)],
        ir_version=IR_VERSION,
        producer_name="streamapp",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tree_nodes(trees: Trees, given: str, margin: str) -> list[onnx.NodeProto]:
    """Gives the steps from the float32 input `given` [n, trees.features] to the trees' margin, float64 [n, 1].

    Inputs are widened and the operator runs in float64: leaves are added up as Python adds them, but for the order (1e-15). In float32,
    which takes as long, a hundred leaves were off by 5e-6.
    """
    inner, leaf = np.flatnonzero(trees.feature != LEAF), np.flatnonzero(trees.feature == LEAF)
    place = np.empty(len(trees.feature), np.int64)  # inner nodes and leaves are counted apart
    place[inner], place[leaf] = np.arange(len(inner)), np.arange(len(leaf))
    is_leaf = trees.feature == LEAF
    left, right = trees.left[inner], trees.right[inner]
    single = is_leaf[trees.root]  # a tree of one leaf cannot be said but as a split with the same leaf on both sides
    extra = np.flatnonzero(single)
    roots = place[trees.root]
    roots[extra] = len(inner) + np.arange(len(extra))
    only = place[trees.root[extra]]

    def joined(one: npt.ArrayLike, other: npt.ArrayLike) -> list[int]:
        both: list[int] = np.concatenate((np.asarray(one), np.asarray(other))).astype(np.int64).tolist()
        return both

    nothing = np.zeros(len(extra))
    node = helper.make_node(
        "TreeEnsemble", [f"{given}_wide"], [margin], domain="ai.onnx.ml",
        aggregate_function=SUM, post_transform=0, n_targets=1,
        tree_roots=roots.tolist(),
        nodes_featureids=joined(trees.feature[inner], nothing),
        nodes_splits=numpy_helper.from_array(np.concatenate((trees.threshold[inner].astype(np.float64), nothing)), "splits"),
        nodes_modes=numpy_helper.from_array(np.full(len(inner) + len(extra), LESS_OR_EQUAL, np.uint8), "modes"),
        nodes_truenodeids=joined(place[left], only),
        nodes_trueleafs=joined(is_leaf[left], nothing + 1),
        nodes_falsenodeids=joined(place[right], only),
        nodes_falseleafs=joined(is_leaf[right], nothing + 1),
        leaf_targetids=[0] * len(leaf),
        leaf_weights=numpy_helper.from_array(trees.value[leaf], "leaves"),
    )  # fmt: skip
    return [helper.make_node("Cast", [given], [f"{given}_wide"], to=TensorProto.DOUBLE), node]
