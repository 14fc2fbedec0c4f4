"""What does one micro-batch cost in the linear ONNX model? Rows like text messages: 40 to 460 n-grams each, 250 on average."""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from streamapp.adapters.models import load_model
from streamapp.control.graph import linear_graph
from streamapp.core.card import Calibration, Card, Scaler, Threshold
from streamapp.core.linear import Linear
from streamapp.core.vectorise import Inputs, Ngrams, slices

BUCKETS, FEATURES, REPEATS = 32_768, 9, 60


def rows_like_messages(n: int, rng: np.random.Generator) -> Ngrams:
    lengths = np.clip(rng.gamma(4.0, 62.5, n).astype(np.int64), 40, 460)
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    bucket = rng.integers(0, BUCKETS, start[-1]).astype(np.int32)
    return Ngrams(start, bucket, rng.random(len(bucket)).astype(np.float32), np.zeros(len(bucket), np.int8))


def write_version(directory: Path, rng: np.random.Generator) -> None:
    graph = linear_graph(Linear(rng.normal(size=BUCKETS).astype(np.float32), rng.normal(size=FEATURES).astype(np.float32), 0.0), "bench")
    calibration = msgspec.json.encode(Calibration("none"))
    cut = Threshold(None, "none", None, None, None, 0)
    names = tuple(f"f{i}" for i in range(FEATURES))
    card = Card(
        name="bench", version="1", task="binary", labels=("spam",), framework="numpy", created_at="", created_by="bench", feature_spec="",
        scaler=Scaler(names, (0.0,) * FEATURES, (1.0,) * FEATURES), ngram_buckets=BUCKETS, linear=True, block=cut, approve=cut,
        onnx_sha256=hashlib.sha256(graph).hexdigest(), calibration_sha256=hashlib.sha256(calibration).hexdigest(),
    )  # fmt: skip
    for name, content in (("model.onnx", graph), ("calibration.json", calibration), ("card.json", msgspec.json.encode(card))):
        (directory / name).write_bytes(content)


def main() -> None:
    rng = np.random.default_rng(0)
    figures = []
    with tempfile.TemporaryDirectory() as directory:
        write_version(Path(directory), rng)
        model = load_model(Path(directory))
    for n in (1, 8, 128, 1024):
        ngrams = rows_like_messages(n, rng)
        inputs = Inputs(rng.normal(size=(n, FEATURES)).astype(np.float32), ngrams)
        for name, run in (("logits", model.logits), ("contributions", model.contributions)):
            took = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                run(inputs)
                took.append((time.perf_counter() - started) * 1e6)
            middle = statistics.median(took)
            figures.append({
                "call": name, "rows": n, "us_per_call": round(middle, 1), "us_per_row": round(middle / n, 3),
                "us_per_call_p90": round(statistics.quantiles(took, n=10)[8], 1), "slices": len(slices(ngrams)),
            })  # fmt: skip
    if "--json" in sys.argv:
        print(json.dumps(figures))
        return
    for row in figures:
        print(f"{row['call']:14} {row['rows']:5} rows  {row['us_per_call']:8.1f} us/call  {row['us_per_row']:7.3f} us/row  "
              f"p90 {row['us_per_call_p90']:8.1f}  {row['slices']} slices")  # fmt: skip


if __name__ == "__main__":
    main()
