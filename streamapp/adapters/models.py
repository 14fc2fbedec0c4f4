"""ONNX Runtime: a model version is read, checked, warmed up and smoke-tested beside the one in use, then it is one more value."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime

from streamapp.core.attribution import Paths, paths_of
from streamapp.core.calibrate import check_calibration
from streamapp.core.card import Calibration, Card
from streamapp.core.errors import InvariantBroken, ModelFailed, ModelRejected
from streamapp.core.linear import Linear
from streamapp.core.stack import Columns
from streamapp.core.trees import Trees
from streamapp.core.vectorise import Contributions, Inputs, Ngrams, pad, slices, unpad

T = TypeVar("T")
Float64 = npt.NDArray[np.float64]
Vectorise = Callable[[Card, list[dict[str, Any]]], Inputs]

MODEL_FILE, CARD_FILE, CALIBRATION_FILE = "model.onnx", "card.json", "calibration.json"
TREES_FILE = "trees.npz"
SMOKE_TOLERANCE = 1e-6
"""In margin. Same code, same weights: what differs is the order of float64 sums, 1e-12; 1e-6 is the promise of parity."""
THIN_ROWS = 64
"""Up to so many rows a linear graph's margins are added up from the weights it told, where they are the graph's own within HEARD_TOLERANCE:
a run of the graph, with its padding, costs some 60 µs before the first row and holds the line's caches (ADR 25)."""
HEARD_TOLERANCE = 1e-9
INDEX_TYPES = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
FLOAT_TYPES = ("tensor(float)", "tensor(double)")
EXTERNAL_DATA = re.compile(rb"(?:\x08|\x88\x80*\x00)location")
"""The key under which a tensor names another file, with its protobuf length, also when that is written the long way."""


class OnnxModel:
    """A checked session of one thread; `logits` and `contributions` are pure and may run beside the event loop."""

    def __init__(
        self,
        card: Card,
        calibration: Calibration,
        session: onnxruntime.InferenceSession,
        trees: Trees | None = None,
        columns: Columns | None = None,
    ) -> None:
        """Takes a session that passed `_check_session` and, of boosted trees, their tables; of a stack, what its trees see of n-grams."""
        self.card, self.trees, self._columns = card, trees, columns
        self._paths: Paths | None = None if trees is None else paths_of(trees)
        self.calibration = calibration
        self._session = session
        self.linear: Linear | None = None  # the graph's linear part, once `hear` has found it
        self.whole: Linear | None = None  #  that part, where it is all of the graph
        types = {node.name: node.type for node in session.get_inputs()}
        self._index_type = INDEX_TYPES.get(types.get("token_index", ""))
        self._fetches_only = onnxruntime.RunOptions()
        self._fetches_only.only_execute_path_to_fetches = True

    def logits(self, inputs: Inputs) -> Float64:
        """Gives raw margins [n, classes] float64. Raises ModelFailed when the inputs do not fit or a margin is not finite."""
        n = len(inputs.numeric)
        self._check_inputs(inputs)
        margins = self.whole.added_up(inputs) if self.whole is not None and n <= THIN_ROWS else self._margins_of_graph(inputs)
        if not np.isfinite(margins).all():
            raise ModelFailed(f"model {self.card.name} {self.card.version} gave a margin that is not finite")
        return margins

    def _margins_of_graph(self, inputs: Inputs) -> Float64:
        n, ngrams = len(inputs.numeric), inputs.ngrams
        if self._index_type is None or ngrams is None:
            return self._run(["logit"], {"numeric": inputs.numeric})[0].astype(np.float64, copy=False)
        margins = np.empty((n, len(self.card.labels)), np.float64)
        for rows in slices(ngrams) if n else ():
            margins[rows] = self._run(["logit"], self._feed(inputs, ngrams, rows))[0]
        return margins

    def contributions(self, inputs: Inputs) -> Contributions:
        """Gives each input's signed share of the margin: exact of a linear graph, along the paths of trees that stand beside theirs.

        Of a stack: both together.

        Raises ModelFailed for a model that has neither.
        """
        if not self.card.linear and self._paths is None:
            raise ModelFailed(f"model {self.card.name} {self.card.version} tells no contributions")
        self._check_inputs(inputs)
        if self._paths is not None and self._columns is not None:
            return self._columns.add(self._linear_part(inputs), inputs, self._paths)
        if self._paths is not None:
            return Contributions(self._paths.contributions(inputs.numeric), np.empty(0, np.float64))
        return self._linear_part(inputs)

    def hear(self) -> None:
        """Asks a linear graph for its weights, a one in every place, so that contributions are products and no second run of the graph.

        They are used only where they give its own contributions to the last bit, and for margins where they give those too.
        """
        features, buckets = len(self.card.scaler.names), self.card.ngram_buckets if self._index_type is not None else 0
        ones, every = np.ones((1, features), np.float32), np.arange(buckets, dtype=np.int32)
        whole = Ngrams(np.array([0, buckets]), every, np.ones(buckets, np.float32), np.zeros(buckets, np.int8)) if buckets else None
        shares = self._of_graph(Inputs(ones, whole))
        none = None if whole is None else Ngrams(np.zeros(2, np.int64), every[:0], whole.weight[:0], whole.family[:0])
        intercept = float(self._margins_of_graph(Inputs(np.zeros_like(ones), none))[0, 0])
        heard = Linear(shares.ngram.astype(np.float32), shares.numeric[0].astype(np.float32), intercept)
        pick = np.random.default_rng(len(every))
        odd = Inputs(
            pick.standard_normal((2, features)).astype(np.float32),
            None if whole is None else Ngrams(np.array([0, 0, buckets]), every, pick.random(buckets, np.float32), whole.family),
        )
        ours, theirs = heard.contributions(odd), self._of_graph(odd)
        if np.array_equal(ours.numeric, theirs.numeric) and np.array_equal(ours.ngram, theirs.ngram):
            self.linear = heard
            if self.trees is None and np.abs(heard.added_up(odd) - self._margins_of_graph(odd)).max() <= HEARD_TOLERANCE:
                self.whole = heard

    def _linear_part(self, inputs: Inputs) -> Contributions:
        return self._of_graph(inputs) if self.linear is None else self.linear.contributions(inputs)

    def _of_graph(self, inputs: Inputs) -> Contributions:
        ngrams = inputs.ngrams
        if self._index_type is None or ngrams is None:
            numeric = self._run(["numeric_contribution"], {"numeric": inputs.numeric})[0]
            return Contributions(numeric.astype(np.float64, copy=False), np.empty(0, np.float64))
        numeric = np.empty(inputs.numeric.shape, np.float64)
        each = np.empty(len(ngrams.bucket), np.float64)
        for rows in slices(ngrams) if len(numeric) else ():
            shares = self._run(["numeric_contribution", "token_contribution"], self._feed(inputs, ngrams, rows))
            numeric[rows] = shares[0]
            unpad(ngrams, rows, shares[1].astype(np.float64, copy=False), each)
        return Contributions(numeric, each)

    def _feed(self, inputs: Inputs, ngrams: Ngrams, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        index, weight = pad(ngrams, rows)
        return {"numeric": inputs.numeric[rows], "token_index": index.astype(self._index_type, copy=False), "token_weight": weight}

    def _run(self, outputs: list[str], feed: dict[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        result: Sequence[npt.NDArray[Any]] = self._session.run(outputs, feed, self._fetches_only)
        return result

    def _check_inputs(self, inputs: Inputs) -> None:
        if inputs.numeric.ndim != 2 or inputs.numeric.shape[1] != len(self.card.scaler.names):
            raise ModelFailed(f"the model takes {len(self.card.scaler.names)} numeric inputs, not shape {inputs.numeric.shape}")
        if self._index_type is not None and (inputs.ngrams is None or len(inputs.ngrams.start) != len(inputs.numeric) + 1):
            raise ModelFailed("the model takes n-grams, one ragged row per numeric row")


def load_model(directory: Path, *, feature_spec: str | None = None, vectorise: Vectorise | None = None) -> OnnxModel:
    """Gives the model version in `directory`, ready to serve; the caller swaps it in between two micro-batches.

    In this order: card, hashes, calibration, feature spec, external data, tables, graph, names and shapes, warm-up, smoke test, weights.
    `feature_spec` is the hash of the features this program computes; `vectorise` turns the card's smoke events into inputs, scaled
    as the card says (without it no smoke test).
    Raises ModelRejected with the reason; nothing of a refused file is parsed before its hash is right.
    """
    card = _read_card(directory)
    graph = _read_checked(directory / MODEL_FILE, card.onnx_sha256)
    calibration = _decode(_read_checked(directory / CALIBRATION_FILE, card.calibration_sha256), Calibration, CALIBRATION_FILE)
    check_calibration(calibration, card.task)
    if feature_spec is not None and feature_spec != card.feature_spec:
        raise ModelRejected(
            f"{directory} was trained on features {card.feature_spec[:12]}, this program computes {feature_spec[:12]}",
            "train a version for these features, or serve it with the pipeline file it was trained with",
        )
    if EXTERNAL_DATA.search(graph):
        raise ModelRejected(f"{directory / MODEL_FILE} keeps weights in another file", "save the model as one file")
    trees, columns = (None, None) if card.trees_sha256 is None else _read_trees(directory / TREES_FILE, card)
    model = OnnxModel(card, calibration, _session(graph, directory), trees, columns)
    _check_session(model)
    _warm_up(model)
    if vectorise is not None:
        _smoke_test(model, vectorise)
    if card.linear:
        model.hear()
    return model


def latest_version(models: Path, name: str) -> str:
    """Gives the newest version of `name` below the directory `models`: 10 is newer than 9, 1.10 than 1.9; raises ModelRejected for none."""
    versions = [path.parent.name for path in (models / name).glob(f"[!.]*/{CARD_FILE}")]
    if not versions:
        raise ModelRejected(f"there is no version of model {name!r} in {models}", f"train one: streamapp train {name} --data FILE")
    return max(versions, key=lambda version: [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in version.split(".")])


def _read_card(directory: Path) -> Card:
    path = directory / CARD_FILE
    try:
        card = _decode(path.read_bytes(), Card, CARD_FILE)
    except OSError as failure:
        raise ModelRejected(f"{path} cannot be read: {failure.strerror}", "a model version is a directory with a card") from None
    scaler = card.scaler
    parts = (scaler.mean, scaler.scale, scaler.low or scaler.mean, scaler.high or scaler.mean)
    if any(len(part) != len(scaler.names) for part in parts) or not all(np.isfinite(np.array(parts)).ravel()):
        raise ModelRejected(f"{path}: the scaler needs one finite mean, scale and bound per name")
    if any(value <= 0.0 for value in scaler.scale):
        raise ModelRejected(f"{path}: a scale is not above 0")
    if not card.labels or (card.task == "binary" and len(card.labels) != 1):
        raise ModelRejected(f"{path}: {len(card.labels)} labels do not fit task {card.task}", "binary names the positive class only")
    return card


def _read_checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise ModelRejected(f"{path} cannot be read: {failure.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelRejected(f"{path} is not the file the card speaks of: sha256 {found[:12]}, not {sha256[:12]}", "fetch the version again")
    return content


def _read_trees(path: Path, card: Card) -> tuple[Trees, Columns | None]:
    """Arrays of numbers only: pickled objects are refused, as everywhere. A stack's trees also look at the n-grams named by `bucket`."""
    content = _read_checked(path, card.trees_sha256 or "")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            tables = dict(arrays)
            bucket = tables.pop("bucket", None)
            columns = None if bucket is None else Columns(bucket, card.ngram_buckets)
            trees = Trees(features=len(card.scaler.names) + (0 if bucket is None else len(bucket)), **tables)
            paths_of(trees)
    except (InvariantBroken, IndexError, TypeError, ValueError, zipfile.BadZipFile) as failure:
        raise ModelRejected(f"{path} holds no trees that fit the card: {failure}") from None
    return trees, columns


def _decode(content: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as failure:
        raise ModelRejected(f"{name} is not valid: {failure}") from None


def _session(graph: bytes, directory: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes change with every slice
    options.log_severity_level = 4  # a refused file is an exception here, not a line on stderr
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as failure:  # noqa: BLE001 - its exception types have no base of their own; every one means refused
        raise ModelRejected(f"{directory / MODEL_FILE} is not a graph ONNX Runtime can load: {failure}") from None


def _check_session(model: OnnxModel) -> None:
    """Names, element types and fixed dimensions must be those of the card."""
    card, session = model.card, model._session
    features, classes = len(card.scaler.names), len(card.labels)
    inputs: dict[str, tuple[tuple[str, ...], int | None]] = {"numeric": (("tensor(float)",), features)}
    outputs: dict[str, tuple[tuple[str, ...], int | None]] = {"logit": (FLOAT_TYPES, classes)}
    if card.linear:
        outputs["numeric_contribution"] = (FLOAT_TYPES, features)
    if card.ngram_buckets:
        inputs |= {"token_index": (tuple(INDEX_TYPES), None), "token_weight": (("tensor(float)",), None)}
        if card.linear:
            outputs["token_contribution"] = (FLOAT_TYPES, None)
    for side, wanted, nodes in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        found = {node.name: node for node in nodes}
        if set(found) != set(wanted):
            raise ModelRejected(f"the graph's {side}s are {sorted(found)}, not {sorted(wanted)}", "export it as the card says")
        for name, (types, columns) in wanted.items():
            node = found[name]
            if node.type not in types:
                raise ModelRejected(f"{side} {name} is {node.type}, not {' or '.join(types)}")
            if len(node.shape) != 2 or (isinstance(node.shape[1], int) and columns is not None and node.shape[1] != columns):
                raise ModelRejected(f"{side} {name} has shape {node.shape}, not [n, {columns or 'L'}]")


def _warm_up(model: OnnxModel) -> None:
    """One lonely row and one larger batch, so that the first event does not pay for allocations; shapes and numbers are checked too."""
    features, buckets = len(model.card.scaler.names), model.card.ngram_buckets
    for n in (1, 64):
        ngrams = None
        if buckets:
            start = np.arange(n + 1, dtype=np.int64) * 100
            bucket = (np.arange(start[-1]) % buckets).astype(np.int32)
            ngrams = Ngrams(start, bucket, np.full(len(bucket), 0.1, np.float32), np.zeros(len(bucket), np.int8))
        inputs = Inputs(np.zeros((n, features), np.float32), ngrams)
        try:
            margins = model.logits(inputs)
            if model.card.linear or model.trees is not None:
                model.contributions(inputs)
        except Exception as failure:  # noqa: BLE001 - whatever it throws here it would throw in service
            raise ModelRejected(f"the graph does not run: {failure}") from None
        if not _told_as_given(model, inputs, margins):
            raise ModelRejected("the tables of trees give other margins than the graph", "fetch the version again")
        if margins.shape != (n, len(model.card.labels)):
            raise ModelRejected(f"the graph gives margins {margins.shape} for {n} rows and {len(model.card.labels)} labels")


def _told_as_given(model: OnnxModel, inputs: Inputs, margins: Float64) -> bool:
    """Whether the tables of trees, where there are any, say what the graph says: their margins, or those less the graph's linear part."""
    if model.trees is None:
        return True
    if model._columns is None:
        return bool(np.abs(model.trees.margins(inputs) - margins).max() <= SMOKE_TOLERANCE)
    linear, seen = model._of_graph(inputs), model._columns.of(inputs)
    spoken = linear.numeric.sum(axis=1) + model.trees.margins(Inputs(seen, None))[:, 0]
    if inputs.ngrams is not None:
        spoken += np.add.reduceat(linear.ngram, inputs.ngrams.start[:-1])
    return bool(np.ptp(margins[:, 0] - spoken) <= SMOKE_TOLERANCE)  # what is left is the intercept


def _smoke_test(model: OnnxModel, vectorise: Vectorise) -> None:
    examples = model.card.smoke
    if not examples:
        raise ModelRejected("the card has no smoke examples", "a model that cannot be tested does not serve")
    expected = np.array([example.logits for example in examples])
    try:
        found = model.logits(vectorise(model.card, [example.event for example in examples]))
    except ModelFailed as failure:
        raise ModelRejected(f"the smoke test failed: {failure}") from None
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0.0, atol=SMOKE_TOLERANCE):
        worst = "another shape" if found.shape != expected.shape else f"off by {np.abs(found - expected).max():.3g}"
        raise ModelRejected(f"the smoke test gives other margins than the card: {worst}", "features or runtime differ from training's")
