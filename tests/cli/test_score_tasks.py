"""Models that tell several classes or labels apart, through the same tiers, from a file of events to verdicts that name them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamapp.config import load_pipeline
from streamapp.control.release import assemble
from streamapp.core.card import Calibration, Card, Scaler, Smoke, Threshold

onnx = pytest.importorskip("onnx", reason="the onnx package (extra `train`) builds the graphs of these tests")

LABELS = ("insult", "advertising", "fine")
NAMES = ("exclamation_count", "url_count")
WEIGHTS = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.float32)
BIAS = np.array([-2.0, -2.0, 2.0], np.float32)
FILE = """
[pipeline]
name = "comments"
version = "1"
key = "user_id"

[event.fields.user_id]
type = "id"
required = true

[event.fields.text]
type = "text"
required = true

[features.text]
field = "text"

[vector]
numeric = ["exclamation_count", "url_count"]

[[tiers]]
name = "sieve"
expression = "if_nothing"
approve = 0.2
block = "never"

[[tiers]]
name = "heavy"
model = "comments"
"""
EVENTS = {
    "calm": "see you there",
    "loud": "go away!!!!",
    "ad": "http://a.example http://b.example",
    "both": "now!!! http://a.example http://b.example",
}


def graph() -> bytes:
    """logit = numeric @ WEIGHTS + BIAS, for three classes."""
    make, value = onnx.helper, onnx.helper.make_tensor_value_info
    tensors = [onnx.numpy_helper.from_array(WEIGHTS, "w"), onnx.numpy_helper.from_array(BIAS, "b")]
    nodes = [make.make_node("MatMul", ["numeric", "w"], ["x"]), make.make_node("Add", ["x", "b"], ["logit"])]
    ends = [value("numeric", 1, ["n", 2])], [value("logit", 1, ["n", 3])]
    built = make.make_graph(nodes, "comments", *ends, initializer=tensors)
    return bytes(make.make_model(built, opset_imports=[make.make_opsetid("", 17)], ir_version=8).SerializeToString())


def write(directory: Path, feature_spec: str, **changes: Any) -> None:
    version = directory / "comments" / "1"
    version.mkdir(parents=True)
    model, calibration = graph(), msgspec.json.encode(Calibration("temperature", t=1.0))
    promise = {name: Threshold(cut, "test", None, None, None, 0) for name, cut in (("approve", 0.2), ("block", 0.8))}
    card = Card(**({
        "name": "comments", "version": "1", "task": "multi_class", "labels": LABELS, "benign": ("fine",), "framework": "test",
        "created_at": "", "created_by": "", "feature_spec": feature_spec, "scaler": Scaler(NAMES, (0.0, 0.0), (1.0, 1.0)),
        "onnx_sha256": hashlib.sha256(model).hexdigest(), "calibration_sha256": hashlib.sha256(calibration).hexdigest(),
        "smoke": (Smoke({"user_id": "u", "text": "hello"}, tuple(BIAS.tolist())),),
    } | promise | changes))  # fmt: skip
    for name, content in (("model.onnx", model), ("calibration.json", calibration), ("card.json", msgspec.json.encode(card))):
        (version / name).write_bytes(content)


@pytest.fixture
def scored(tmp_path: Path, call: Any, events_file: Any) -> Any:
    """Scores EVENTS by a pipeline file whose sieve is `expression`, under a model whose card is changed; gives the verdicts by id."""

    def run(expression: str = "min(1, word_count)", tier: str = "", **changes: Any) -> dict[str, dict[str, Any]]:
        file = tmp_path / "comments.toml"
        file.write_text(FILE.replace("if_nothing", expression) + tier)
        write(tmp_path / "models", assemble(load_pipeline(str(file)), {}, b"test-key-of-16-b").features.hash, **changes)
        events = events_file(*({"event_id": name, "user_id": "u", "text": text} for name, text in EVENTS.items()))
        answer = call("score", "--pipeline", str(file), "--models", str(tmp_path / "models"), str(events))
        assert answer.exit_code == 0, answer.output
        return {one["event_id"]: one for one in map(json.loads, answer.stdout.splitlines())}

    return run


def test_classes_are_named_and_routed_by_all_that_are_harmful(scored: Any) -> None:
    found = scored()
    assert {name: one["labels"] for name, one in found.items()} == {
        "calm": ["fine"], "loud": ["insult"], "ad": ["advertising"], "both": ["insult"],
    }  # fmt: skip
    assert {name: one["verdict"] for name, one in found.items()} == {"calm": "approve", "loud": "block", "ad": "review", "both": "block"}
    weights = np.exp([-2.0, 2.0, 2.0])
    assert found["ad"]["probability"] == pytest.approx((weights[0] + weights[1]) / weights.sum(), abs=1e-6)
    assert {one["decided_by"] for one in found.values()} == {"heavy"}


def test_labels_hold_together_each_from_its_own_cut_on(scored: Any) -> None:
    found = scored(task="multi_label", label_cuts=(0.5, 0.99, 0.95), tier="labels = { advertising = 0.8 }\n")
    assert {name: one["labels"] for name, one in found.items()} == {
        "calm": [], "loud": ["insult"], "ad": ["advertising"], "both": ["insult", "advertising"],
    }  # fmt: skip
    assert {name: one["verdict"] for name, one in found.items()} == {"calm": "approve", "loud": "block", "ad": "block", "both": "block"}


def test_what_a_sieve_lets_pass_reaches_no_model(scored: Any) -> None:
    found = scored("min(exclamation_count + url_count, 1)")
    assert {name: one["decided_by"] for name, one in found.items()} == {"calm": "sieve", "loud": "heavy", "ad": "heavy", "both": "heavy"}
    assert found["calm"]["labels"] == [] and found["ad"]["labels"] == ["advertising"]


def test_a_model_whose_labels_cannot_route_is_refused(tmp_path: Path, call: Any, events_file: Any) -> None:
    file = tmp_path / "comments.toml"
    file.write_text(FILE.replace("if_nothing", "min(1, word_count)"))
    write(tmp_path / "models", assemble(load_pipeline(str(file)), {}, b"test-key-of-16-b").features.hash, benign=())
    answer = call("score", "--pipeline", str(file), "--models", str(tmp_path / "models"), str(events_file({"user_id": "u", "text": "x"})))
    assert answer.exit_code != 0 and "none of its classes is benign" in answer.output
