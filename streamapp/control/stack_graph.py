"""The ONNX graph of a stack: a linear model and boosted trees in one file, so that a tier is one run and one hash."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamapp.control.graph import linear_graph
from streamapp.control.tree_graph import TREES_OPSET, tree_nodes
from streamapp.core.stack import Stack


def stack_graph(stack: Stack, name: str) -> bytes:
    """Gives the model file of `stack`: the inputs and outputs of a linear model with n-grams; contributions are those of its linear part.

    Trees see the numeric inputs and a few n-gram buckets as columns: a table says which column a bucket is, and the weights are scattered
    there. What is no column, padding too, goes to a last one that no tree looks at; buckets are unique within a row, so adding is writing.
    """
    model = onnx.load_from_string(linear_graph(stack.linear, name))
    graph, bucket = model.graph, stack.columns.bucket
    buckets, rest = len(stack.linear.bucket_weight), len(bucket)
    column = np.full((1, buckets), rest, np.uint16)
    column[0, bucket] = np.arange(rest)
    (last,) = (node for node in graph.node if "logit" in node.output)
    last.output[0] = "linear_margin"
    graph.initializer.extend(
        [
            numpy_helper.from_array(column, "column_of_bucket"),
            numpy_helper.from_array(np.array([rest + 1], np.int64), "columns"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array([1], np.int64), "second"),
        ]
    )
    nothing = numpy_helper.from_array(np.zeros(1, np.float32), "nothing")
    graph.node.extend(
        [
            helper.make_node("Cast", ["column_of_bucket"], ["column_of_bucket_wide"], to=TensorProto.INT32),
            helper.make_node("GatherElements", ["column_of_bucket_wide", "flat_index"], ["flat_column"], axis=1),
            helper.make_node("Reshape", ["flat_column", "shape"], ["column_of_token"]),
            helper.make_node("Slice", ["shape", "first", "second"], ["rows"]),
            helper.make_node("Concat", ["rows", "columns"], ["dense_shape"], axis=0),
            helper.make_node("ConstantOfShape", ["dense_shape"], ["blank"], value=nothing),
            helper.make_node("ScatterElements", ["blank", "column_of_token", "token_weight"], ["dense"], axis=1, reduction="add"),
            helper.make_node("Concat", ["numeric", "dense"], ["seen_by_trees"], axis=1),
            *tree_nodes(stack.trees, "seen_by_trees", "tree_margin"),
            helper.make_node("Add", ["linear_margin", "tree_margin"], ["logit"]),
        ]
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", TREES_OPSET))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
