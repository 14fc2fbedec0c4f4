"""The tables of trees beside their graph: told from once they are checked, refused where they are not those of the card."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamapp.adapters.models import TREES_FILE, load_model
from streamapp.control.tree_graph import tree_graph
from streamapp.control.versions import Files
from streamapp.core.card import Calibration, Card, Scaler, Threshold
from streamapp.core.errors import ModelRejected
from streamapp.core.trees import LEAF, Trees
from streamapp.core.vectorise import Inputs

TREES = Trees(
    np.array([0, 3]), np.array([1, LEAF, LEAF, LEAF]), np.array([3, 0, 0, 0], np.float32), np.array([1, LEAF, LEAF, LEAF]),
    np.array([2, LEAF, LEAF, LEAF]), np.array([0.0, -1.0, 2.0, 0.25]), 2, np.array([40, 30, 10, 40]),
)  # fmt: skip
ROWS = Inputs(np.array([[0, 3], [0, 4]], np.float32), None)


def write(directory: Path, contents: dict[str, bytes], **changes: Any) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    digest = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    cut = Threshold(0.5, "test", None, None, None, 1)
    card = Card(
        name="t", version="1", task="binary", labels=("bad",), framework="test", created_at="", created_by="", feature_spec="f",
        scaler=Scaler(("a", "b"), (0.0, 0.0), (1.0, 1.0)), onnx_sha256=digest["model.onnx"],
        calibration_sha256=digest["calibration.json"], trees_sha256=digest.get("trees.npz"), block=cut, approve=cut,
    )  # fmt: skip
    (directory / "card.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(card, **changes)))
    return directory


def contents(trees: Trees | None = TREES) -> dict[str, bytes]:
    return Files(tree_graph(TREES, "t"), Calibration("none"), trees).contents()


def test_bias_and_contributions_are_the_graphs_margin(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "1", contents()))
    shares = model.contributions(ROWS)
    assert shares.numeric.tolist() == [[0.0, -0.75], [0.0, 2.25]] and shares.ngram.size == 0
    assert (shares.numeric.sum(axis=1) + 0.0 == model.logits(ROWS)[:, 0]).all()  # the base is -0.25 + 0.25


def test_equal_trees_are_equal_bytes_and_without_tables_nothing_is_written(tmp_path: Path) -> None:
    assert contents() == contents() and TREES_FILE not in contents(None)
    assert load_model(write(tmp_path / "1", contents(None))).trees is None


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def columns(**changes: Any) -> dict[str, Any]:
    names = ("root", "feature", "threshold", "left", "right", "value", "cover")
    return {name: getattr(TREES, name) for name in names} | changes


@pytest.mark.parametrize(
    "tables",
    [
        lambda: b"no archive",
        lambda: archive(**columns(root=np.array([9]))),
        lambda: archive(**columns(feature=np.array([7, -1, -1, -1]))),
        lambda: archive(**columns(left=np.array([1, -1]))),
        lambda: archive(**columns(cover=np.array([40, 30, 0, 40]))),
        lambda: archive(**columns(more=np.zeros(1))),
        lambda: archive(**columns(value=np.array([{}, 1, 2, 3], object))),
    ],
    ids=["garbage", "root", "feature", "length", "cover", "unknown", "pickle"],
)
def test_tables_that_do_not_fit_are_refused_at_load(tmp_path: Path, tables: Callable[[], bytes]) -> None:
    directory = write(tmp_path / "1", contents() | {TREES_FILE: tables()})
    with pytest.raises(ModelRejected, match="no trees that fit"):
        load_model(directory)


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    directory = write(tmp_path / "1", contents())
    (directory / TREES_FILE).write_bytes(archive(**columns()))
    with pytest.raises(ModelRejected, match="not the file the card speaks of"):
        load_model(directory)
    (directory / TREES_FILE).unlink()
    with pytest.raises(ModelRejected, match="cannot be read"):
        load_model(directory)


def test_tables_of_other_trees_than_the_graphs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="other margins than the graph"):
        load_model(write(tmp_path / "1", contents() | {TREES_FILE: archive(**columns(value=TREES.value + 1))}))
