"""A line for tests: the `messages` pipeline under a seeded linear model, fed from the generator; no broker, no files but the pipeline's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamapp import pipeline
from streamapp.adapters.models_memory import LinearModel
from streamapp.config import load_pipeline
from streamapp.control.release import assemble
from streamapp.core.card import Calibration, Card, Scaler, Threshold
from streamapp.core.events import Segment
from streamapp.core.linear import Linear
from streamapp.core.outcome import Outcome
from streamapp.core.windows_partition import PartitionState

SPEC = load_pipeline("messages")
ENTITY_KEY = b"test-key-of-16-b"


def cut(value: float | None) -> Threshold:
    return Threshold(value, "test", value, value, value, 100)


def linear_model(seed: int = 3) -> LinearModel:
    """Gives a model of random weights that spreads probabilities over all three routes."""
    assert SPEC.ngrams is not None
    rng = np.random.default_rng(seed)
    names = SPEC.vector.numeric
    k = len(names)
    card = Card(
        name="messages", version="test", task="binary", labels=("spam",), framework="none", created_at="", created_by="", feature_spec="",
        scaler=Scaler(names, (0.0,) * k, (10.0,) * k), ngram_buckets=SPEC.ngrams.buckets, onnx_sha256="", calibration_sha256="",
        linear=True, block=cut(0.7), approve=cut(0.3),
    )  # fmt: skip
    weights = Linear(rng.normal(0, 1, SPEC.ngrams.buckets).astype(np.float32), rng.normal(0, 0.1, k).astype(np.float32), 0.0)
    return LinearModel(card, Calibration("none"), weights)


def serving_of(model: Any = None) -> pipeline.Serving:
    """Gives a Serving with `model` in the fast tier, or with none."""
    return assemble(SPEC, {} if model is None else {"fast": model}, ENTITY_KEY)


def segment(values: Sequence[bytes | None], partition: int = 0, first: int = 0) -> Segment:
    """Gives records of one partition from offset `first`, keyed by nothing, all received at time 1,000."""
    n = len(values)
    offsets = np.arange(first, first + n, dtype=np.int64)
    return Segment("messages.events.v1", partition, 1, offsets, np.full(n, 1000, np.int64), [None] * n, values, [()] * n)


def run(serving: pipeline.Serving, segments: Sequence[Segment], states: Sequence[PartitionState] = ()) -> Outcome:
    """Plans and decides; the clock stands still."""
    return pipeline.decide(
        pipeline.plan(segments, serving), pipeline.Read(), states or [serving.state.new() for _ in segments], serving, 2000, lambda: 0.0
    )


def answers(serving: pipeline.Serving, segments: Sequence[Segment]) -> dict[tuple[int, int], dict[str, Any]]:
    """Gives every record's decision record, or its reject as {"dead_letter": code}, by (partition, offset)."""
    outcome = run(serving, segments)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for record in serving.encoder.decisions(outcome, serving.encoder.verdicts(outcome)):
        decision = json.loads(record)
        place = decision["source"]["partition"], decision["source"]["offset"]
        assert place not in found
        found[place] = decision
    for reject in outcome.plan.rejects:
        at = segments[reject.segment]
        place = at.partition, int(at.offsets[reject.index])
        assert place not in found
        found[place] = {"dead_letter": reject.code.value, "path": reject.path}
    return found
