"""The ONNX graph of a linear model: only numbers go in, each input's share comes out beside the margin for nothing."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamapp.core.linear import Linear

OPSET = 17
"""Pinned: every onnxruntime since 1.12 runs it, so a model file does not ask for a newer engine than the lock file's."""
IR_VERSION = 8


def linear_graph(linear: Linear, name: str) -> bytes:
    """Gives the model file of `linear`.

    Inputs: numeric float32 [n, k]; with n-grams also token_index int32 [n, L] and token_weight float32 [n, L].
    Outputs, float64: logit [n, 1], numeric_contribution [n, k] and token_contribution [n, L]. The contributions are steps on the
    way to the logit, so a run that does not ask for them pays nothing and one that does gets exactly what was added up.
    Weights are stored as float32 and widened when the session starts.
    GatherElements over one flat row takes a sixth of the time of Gather, which copies element by element.
    """
    with_ngrams = linear.bucket_weight.size > 0
    weights = [
        numpy_helper.from_array(linear.numeric_weight, "numeric_weight"),
        numpy_helper.from_array(np.array([[linear.intercept]], np.float64), "intercept"),
        numpy_helper.from_array(np.array([1], np.int64), "across"),
    ]
    nodes = [
        helper.make_node("Cast", ["numeric_weight"], ["numeric_weight_wide"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["numeric"], ["numeric_wide"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["numeric_wide", "numeric_weight_wide"], ["numeric_contribution"]),
        helper.make_node("ReduceSum", ["numeric_contribution", "across"], ["numeric_margin"], keepdims=1),
    ]
    inputs = [_value("numeric", TensorProto.FLOAT, "n", len(linear.numeric_weight))]
    outputs = [
        _value("logit", TensorProto.DOUBLE, "n", 1),
        _value("numeric_contribution", TensorProto.DOUBLE, "n", len(linear.numeric_weight)),
    ]
    if with_ngrams:
        weights += [
            numpy_helper.from_array(linear.bucket_weight[None, :], "bucket_weight"),
            numpy_helper.from_array(np.array([1, -1], np.int64), "one_row"),
        ]
        nodes += [
            helper.make_node("Cast", ["bucket_weight"], ["bucket_weight_wide"], to=TensorProto.DOUBLE),
            helper.make_node("Cast", ["token_weight"], ["token_weight_wide"], to=TensorProto.DOUBLE),
            helper.make_node("Shape", ["token_index"], ["shape"]),
            helper.make_node("Reshape", ["token_index", "one_row"], ["flat_index"]),
            helper.make_node("GatherElements", ["bucket_weight_wide", "flat_index"], ["flat_weight"], axis=1),
            helper.make_node("Reshape", ["flat_weight", "shape"], ["weight_of_token"]),
            helper.make_node("Mul", ["weight_of_token", "token_weight_wide"], ["token_contribution"]),
            helper.make_node("ReduceSum", ["token_contribution", "across"], ["token_margin"], keepdims=1),
            helper.make_node("Add", ["numeric_margin", "token_margin"], ["margin"]),
        ]
        inputs += [_value("token_index", TensorProto.INT32, "n", "L"), _value("token_weight", TensorProto.FLOAT, "n", "L")]
        outputs.append(_value("token_contribution", TensorProto.DOUBLE, "n", "L"))
    nodes.append(helper.make_node("Add", ["margin" if with_ngrams else "numeric_margin", "intercept"], ["logit"]))
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="streamapp")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _value(name: str, element: int, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, list(shape))
