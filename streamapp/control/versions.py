"""A model version on disk: numbered, written whole or not at all, proved equal to Python before it counts, never changed afterwards."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp import pipeline
from streamapp.control.fit import Progress
from streamapp.control.release import LoadModel, inputs_of
from streamapp.control.smoke import smoke_examples
from streamapp.core.card import Calibration, Card
from streamapp.core.errors import ConfigError, ModelRejected
from streamapp.core.spec import PipelineSpec
from streamapp.core.tier_spec import VERSION
from streamapp.core.trees import Trees
from streamapp.core.vectorise import Inputs

PARITY_MAX = 1e-6
"""How far the margin of the file may be from Python's on any row; float64 sums in another order differ by 1e-13."""
Margins = Callable[[Inputs], npt.NDArray[np.float64]]


@dataclass(slots=True, frozen=True)
class Files:
    """What stands beside the card of a version."""

    graph: bytes
    calibration: Calibration
    trees: Trees | None = None  # tables that contributions are told from
    bucket: npt.NDArray[np.int32] | None = None  # of a stack: the n-gram buckets that are columns to its trees

    def contents(self) -> dict[str, bytes]:
        """Gives each file by name; equal models give equal bytes."""
        calibration = msgspec.json.format(msgspec.json.encode(self.calibration), indent=1)
        found = {"model.onnx": self.graph, "calibration.json": calibration}
        return found if self.trees is None else found | {"trees.npz": _tables(self.trees, self.bucket)}


def publish(
    directory: Path, card: Card, files: Files, serving: pipeline.Serving, load_model: LoadModel, margins: Margins, rows: Inputs,
    progress: Progress,
) -> Card:  # fmt: skip
    """Takes a card without hashes and smoke examples, its files, how Python computes margins, and rows to compare the two on.

    Gives the card as it was written. Raises ModelRejected where the file's margins are further than PARITY_MAX from Python's, where it
    cannot be loaded, or where the version exists; nothing half-written is left.
    """
    contents = files.contents()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    card = msgspec.structs.replace(
        card, onnx_sha256=digests["model.onnx"], calibration_sha256=digests["calibration.json"], trees_sha256=digests.get("trees.npz")
    )
    card = msgspec.structs.replace(card, smoke=smoke_examples(lambda events: margins(inputs_of(serving, card, events)), serving.spec))
    progress("write", 0.0)

    def check(version_directory: Path) -> Card:
        model = load_model(version_directory, feature_spec=serving.features.hash, vectorise=None)
        apart = float(np.abs(model.logits(rows) - margins(rows)).max())
        if apart > PARITY_MAX:
            raise ModelRejected(f"the file's margins differ from Python's by {apart:.3g}; at most {PARITY_MAX:g} is allowed")
        return msgspec.structs.replace(card, parity_max_abs=apart)

    card = write_version(directory, card, contents, check)
    load_model(directory, feature_spec=serving.features.hash, vectorise=lambda card, events: inputs_of(serving, card, events))
    progress("write", 1.0)
    return card


def write_version(directory: Path, card: Card, contents: dict[str, bytes], check: Callable[[Path], Card]) -> Card:
    """Writes a version beside its place, lets `check` read it there and complete its card, then moves it in at once.

    Raises ModelRejected when the version exists; whatever fails, nothing half-written is left.
    """
    partial = directory.parent / f".{directory.name}.{secrets.token_hex(4)}"
    partial.mkdir(parents=True)
    try:
        for name, content in contents.items():
            _write(partial / name, content)
        _write(partial / "card.json", _card_file(card))
        card = check(partial)
        _write(partial / "card.json", _card_file(card))
        if directory.exists():
            raise ModelRejected(f"{directory} exists, and versions are immutable", "choose another --version")
        partial.rename(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return card


def version_directory(spec: PipelineSpec, models: Path, version: str | None, tier: str | None = None) -> tuple[str, Path]:
    """Gives the name of the model that `tier` asks for, without one the first tier's that has a model, and where its version will stand.

    The pipeline's name where no tier has a model, the next free number where no version is named. Raises ConfigError for a tier that is
    not there or has no model and for a name that no version can have, ModelRejected where the version exists.
    """
    if version is not None and not re.match(VERSION, version):
        raise ConfigError(
            f"{version!r} is no name of a version", "take letters, digits, `.`, `_` and `-`, a letter or digit first, 63 at most"
        )
    named = [(one.name, one.model) for one in spec.tiers if one.model is not None and tier in (None, one.name)]
    if tier is not None and not named:
        known = ", ".join(one.name for one in spec.tiers if one.model is not None)
        raise ConfigError(f"the pipeline has no tier {tier!r} with a model", f"tiers with a model are {known or 'none'}")
    name = named[0][1] if named else spec.pipeline.name
    taken = [int(path.name) for path in (models / name).glob("[0-9]*") if path.name.isdigit()]
    directory = models / name / (version or str(max(taken, default=0) + 1))
    if directory.exists():
        raise ModelRejected(f"{directory} exists, and versions are immutable", "choose another --version")
    return name, directory


def code_commit() -> str | None:
    """Gives the commit this program runs from, with "+" for local changes; None outside a work tree or without git."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],  # noqa: S607 - the user's own git
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _tables(trees: Trees, bucket: npt.NDArray[np.int32] | None) -> bytes:
    """The members of an archive carry no time: equal trees give equal bytes."""
    file = io.BytesIO()
    small = {name: getattr(trees, name).astype(np.int32) for name in ("root", "feature", "left", "right", "cover")}
    if bucket is not None:
        small["bucket"] = bucket
    np.savez_compressed(file, allow_pickle=False, threshold=trees.threshold, value=trees.value, **small)
    return file.getvalue()


def _card_file(card: Card) -> bytes:
    return msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
