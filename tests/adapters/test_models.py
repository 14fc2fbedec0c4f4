import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamapp.adapters.models import THIN_ROWS, OnnxModel, latest_version, load_model
from streamapp.adapters.models_memory import ConstantModel, LinearModel
from streamapp.core.card import Calibration, Card, Scaler, Smoke, Threshold
from streamapp.core.errors import ModelFailed, ModelRejected
from streamapp.core.linear import Linear
from streamapp.core.vectorise import Inputs, Ngrams, take

onnx = pytest.importorskip("onnx", reason="the onnx package (extra `train`) builds the graphs of these tests")
linear_graph = pytest.importorskip("streamapp.control.graph").linear_graph

BUCKETS, NAMES = 64, ("length", "links")
RNG = np.random.default_rng(5)
LINEAR = Linear(RNG.normal(size=BUCKETS).astype(np.float32), np.array([0.5, -1.25], np.float32), 0.125)
NO_CUT = Threshold(None, "precision >= 0.95", None, None, None, 0)


def inputs_of(lengths: list[int], seed: int = 0) -> Inputs:
    rng = np.random.default_rng(seed)
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    bucket = rng.integers(0, BUCKETS, start[-1]).astype(np.int32)
    ngrams = Ngrams(start, bucket, rng.random(len(bucket)).astype(np.float32), np.zeros(len(bucket), np.int8))
    return Inputs(rng.normal(size=(len(lengths), 2)).astype(np.float32), ngrams)


def vectorise(_: Card | None, events: list[dict[str, Any]]) -> Inputs:
    """A stand-in for the pipeline's features: as many n-grams as the text has letters."""
    return inputs_of([len(event["text"]) for event in events])


SMOKE = tuple(Smoke({"text": text}, (float(margin),)) for text, margin in zip(
    ("abc", "", "abcdefgh"), LINEAR.margins(vectorise(None, [{"text": "abc"}, {"text": ""}, {"text": "abcdefgh"}]))[:, 0], strict=True
))  # fmt: skip


def card_for(graph: bytes, calibration: bytes, **changes: Any) -> Card:
    return Card(**({
        "name": "messages", "version": "1", "task": "binary", "labels": ("spam",), "framework": "test", "created_at": "2026-01-01",
        "created_by": "test", "feature_spec": "f" * 64, "scaler": Scaler(NAMES, (0.0, 0.0), (1.0, 1.0)), "ngram_buckets": BUCKETS,
        "onnx_sha256": hashlib.sha256(graph).hexdigest(), "calibration_sha256": hashlib.sha256(calibration).hexdigest(),
        "linear": True, "block": NO_CUT, "approve": NO_CUT, "smoke": SMOKE,
    } | changes))  # fmt: skip


def write(directory: Path, graph: bytes, calibration: Calibration = Calibration("none"), **changes: Any) -> Path:  # noqa: B008 - frozen
    directory.mkdir(parents=True, exist_ok=True)
    calibration_file = msgspec.json.encode(calibration)
    (directory / "model.onnx").write_bytes(graph)
    (directory / "calibration.json").write_bytes(calibration_file)
    (directory / "card.json").write_bytes(msgspec.json.encode(card_for(graph, calibration_file, **changes)))
    return directory


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return write(tmp_path / "messages" / "1", linear_graph(LINEAR, "messages"))


def test_a_good_version_loads_and_agrees_with_its_numpy_twin(version: Path) -> None:
    model = load_model(version, feature_spec="f" * 64, vectorise=vectorise)
    twin = LinearModel(model.card, model.calibration, LINEAR)
    for inputs in (inputs_of([3]), inputs_of([0, 0]), inputs_of([*range(200), 9000, 20, 1])):
        assert np.abs(model.logits(inputs) - twin.logits(inputs)).max() < 1e-9
        ours, theirs = model.contributions(inputs), twin.contributions(inputs)
        assert np.abs(ours.numeric - theirs.numeric).max() < 1e-12
        assert np.abs(ours.ngram - theirs.ngram).max(initial=0) < 1e-12


def test_a_thin_micro_batch_has_the_margins_of_the_graph_and_a_whole_one_runs_it(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(version)
    runs, run = [0], model._run
    monkeypatch.setattr(model, "_run", lambda *given: (runs.__setitem__(0, runs[0] + 1), run(*given))[1])
    whole = inputs_of([7, 0, 300, *range(THIN_ROWS)])
    margins = model.logits(whole)
    assert runs[0] > 0
    runs[0] = 0
    thin = np.concatenate([model.logits(take(whole, rows)) for rows in np.array_split(np.arange(len(margins)), 3)])
    assert runs[0] == 0
    assert np.abs(margins - thin).max() < 1e-10


def test_no_rows_give_no_margins(version: Path) -> None:
    model = load_model(version)
    assert model.logits(inputs_of([])).shape == (0, 1)
    assert model.contributions(inputs_of([])).numeric.shape == (0, 2)


def test_a_row_has_the_same_margin_whatever_stands_beside_it(version: Path) -> None:
    model = load_model(version)
    whole = inputs_of([5, 900, 0, 37, 12_000, 1])
    alone = np.concatenate([model.logits(take(whole, np.array([row]))) for row in range(6)])
    assert np.abs(model.logits(whole) - alone).max() < 1e-10


def test_a_graph_without_ngrams_serves_too(tmp_path: Path) -> None:
    numbers = Linear(np.empty(0, np.float32), LINEAR.numeric_weight, 1.0)
    model = load_model(write(tmp_path / "1", linear_graph(numbers, "numbers"), ngram_buckets=0))
    inputs = Inputs(np.array([[1.0, 2.0]], np.float32), None)
    assert model.logits(inputs).tolist() == [[1.0 + 0.5 - 2.5]]
    assert model.contributions(inputs).numeric.tolist() == [[0.5, -2.5]]


def truncate(directory: Path) -> None:
    path = directory / "model.onnx"
    path.write_bytes(path.read_bytes()[:-40])


def flip_a_byte(directory: Path) -> None:
    path = directory / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def bend_the_calibration(directory: Path) -> None:
    (directory / "calibration.json").write_bytes(msgspec.json.encode(Calibration("temperature", t=9.0)))


def unknown_key(directory: Path) -> None:
    path = directory / "card.json"
    path.write_bytes(b'{"secret":1,' + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "not the file the card speaks of"),
        (flip_a_byte, "not the file the card speaks of"),
        (bend_the_calibration, "not the file the card speaks of"),
        (unknown_key, "unknown field `secret`"),
        (lambda directory: (directory / "model.onnx").unlink(), "cannot be read"),
        (lambda directory: (directory / "card.json").unlink(), "cannot be read"),
    ],
)
def test_a_damaged_version_is_refused_before_it_is_parsed(version: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(version)
    with pytest.raises(ModelRejected, match=reason):
        load_model(version)


def graph_of(*nodes: tuple[str, list[str], list[str]], outputs: dict[str, int] | None = None, k: int = 2, extra: str = "") -> bytes:
    """A numeric-only graph of one's own, to be wrong in one way."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    made = [helper.make_tensor_value_info(name, float32, ["n", columns]) for name, columns in (outputs or {"logit": 1}).items()]
    inputs = [helper.make_tensor_value_info(name, float32, ["n", k]) for name in ("numeric", extra) if name]
    across = onnx.numpy_helper.from_array(np.array([1], np.int64), "across")
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "g", inputs, made, initializer=[across])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


SUM = ("ReduceSum", ["numeric", "across"], ["logit"])
NUMERIC_ONLY = {"linear": False, "ngram_buckets": 0}


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (b"not a graph", "can load"),
        (graph_of(("ReduceSum", ["numeric", "across"], ["margin"]), outputs={"margin": 1}), r"outputs are \['margin'\]"),
        (graph_of(SUM, k=3), r"input numeric has shape \['n', 3\]"),
        (graph_of(("Identity", ["numeric"], ["logit"]), outputs={"logit": 2}), r"output logit has shape \['n', 2\]"),
        (graph_of(SUM, extra="text"), r"inputs are \['numeric', 'text'\]"),
        (graph_of(("Div", ["numeric", "numeric"], ["ratio"]), ("ReduceSum", ["ratio", "across"], ["logit"])), "not finite"),
        (graph_of(("Identity", ["numeric"], ["logit"])), "does not run|gives margins"),
    ],
)
def test_a_graph_that_is_not_what_the_card_says_is_refused(tmp_path: Path, graph: bytes, reason: str) -> None:
    with pytest.raises(ModelRejected, match=reason):
        load_model(write(tmp_path / "1", graph, **NUMERIC_ONLY))


def test_weights_in_another_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load_model_from_string(linear_graph(LINEAR, "messages"))
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=16)
    monkeypatch.chdir(tmp_path)  # ONNX Runtime would find the file there and load it, bytes or not
    with pytest.raises(ModelRejected, match="keeps weights in another file"):
        load_model(write(tmp_path / "1", (tmp_path / "m.onnx").read_bytes()))


def test_features_of_another_spec_are_refused(version: Path) -> None:
    with pytest.raises(ModelRejected, match="trained on features ffffffffffff, this program computes eeeeeeeeeeee"):
        load_model(version, feature_spec="e" * 64)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scaler": Scaler(NAMES, (0.0,), (1.0, 1.0))}, "one finite mean"),
        ({"scaler": Scaler(NAMES, (0.0, float("nan")), (1.0, 1.0))}, "not valid|one finite mean"),
        ({"scaler": Scaler(NAMES, (0.0, 0.0), (1.0, 0.0))}, "not above 0"),
        ({"scaler": Scaler(("length",), (0.0,), (1.0,))}, "input numeric has shape"),
        ({"labels": ("ham", "spam")}, "2 labels do not fit"),
        ({"task": "poetry"}, "not valid"),
    ],
)
def test_a_card_that_contradicts_itself_or_the_graph_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelRejected, match=reason):
        load_model(write(tmp_path / "1", linear_graph(LINEAR, "messages"), **changes))


@pytest.mark.parametrize(
    ("smoke", "reason"),
    [
        ((), "no smoke examples"),
        ((Smoke({"text": "abc"}, (9.0,)),), "off by"),
        ((Smoke({"text": "abc"}, (1.0, 2.0)),), "another shape"),
    ],
)
def test_a_model_that_fails_its_smoke_test_is_refused(tmp_path: Path, smoke: tuple[Smoke, ...], reason: str) -> None:
    directory = write(tmp_path / "1", linear_graph(LINEAR, "messages"), smoke=smoke)
    with pytest.raises(ModelRejected, match=reason):
        load_model(directory, vectorise=vectorise)


def loaded(tmp_path: Path, graph: bytes) -> OnnxModel:
    return load_model(write(tmp_path / "1", graph, **NUMERIC_ONLY))


def test_a_margin_that_is_not_finite_in_service_raises(tmp_path: Path) -> None:
    model = loaded(tmp_path, graph_of(SUM))
    with pytest.raises(ModelFailed, match="not finite"):
        model.logits(Inputs(np.array([[1.0, np.nan]], np.float32), None))


def test_inputs_that_do_not_fit_raise(tmp_path: Path, version: Path) -> None:
    with pytest.raises(ModelFailed, match="takes 2 numeric inputs"):
        loaded(tmp_path, graph_of(SUM)).logits(Inputs(np.zeros((1, 3), np.float32), None))
    with pytest.raises(ModelFailed, match="takes n-grams"):
        load_model(version).logits(Inputs(np.zeros((1, 2), np.float32), None))


def test_a_graph_that_is_not_linear_tells_no_contributions(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="tells no contributions"):
        loaded(tmp_path, graph_of(SUM)).contributions(Inputs(np.zeros((1, 2), np.float32), None))


def test_the_newest_version_goes_by_number_and_unfinished_ones_do_not_count(tmp_path: Path) -> None:
    for name in ("9", "10", "1.9", ".11.partial"):
        write(tmp_path / "messages" / name, b"")
    (tmp_path / "messages" / "12").mkdir()
    assert latest_version(tmp_path, "messages") == "10"
    with pytest.raises(ModelRejected, match="no version of model 'posts'"):
        latest_version(tmp_path, "posts")


def test_the_constant_twin_says_the_same_of_everything() -> None:
    model = ConstantModel(card_for(b"", b""), Calibration("none"), (0.5,))
    inputs = inputs_of([3, 1])
    assert model.logits(inputs).tolist() == [[0.5], [0.5]]
    assert not model.contributions(inputs).ngram.any()
