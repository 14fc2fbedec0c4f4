"""What a first version decides per message: plain Python features, one model call, one verdict.

It does less than the `messages` pipeline (no cleaning, no folded view, no n-grams, no calibration, no reasons, no decisions log, no
rejects), so that a comparison with it flatters the textbook.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

URL = re.compile(r"https?://\S+|\bwww\.\S+", re.IGNORECASE)
EMAIL = re.compile(r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}")
RUN = re.compile(r"(\S)\1\1+")
APPROVE_BELOW, BLOCK_FROM = 0.2, 0.9
PROFILE = (30.0, 0.0, 0.0)  # account age, followers, messages sent: a newcomer's


def features(text: str) -> dict[str, float]:
    """The ten text features, event by event."""
    words = text.split()
    letters = [character for character in text if character.isalpha()]
    repeated = sum(len(match.group()) for match in RUN.finditer(text))
    return {
        "char_count": len(text),
        "word_count": len(words),
        "average_word_length": sum(map(len, words)) / len(words) if words else 0.0,
        "url_count": len(URL.findall(text)),
        "email_count": len(EMAIL.findall(text)),
        "exclamation_count": text.count("!"),
        "question_count": text.count("?"),
        "capital_ratio": sum(map(str.isupper, letters)) / len(letters) if letters else 0.0,
        "unique_word_ratio": len({word.lower() for word in words}) / len(words) if words else 0.0,
        "repeat_ratio": repeated / len(text) if text else 0.0,
    }


class Scorer:
    """The shipped model with its numeric inputs; the n-gram inputs are given one empty token."""

    def __init__(self, models: Path) -> None:
        newest = max((models / "messages").iterdir(), key=lambda folder: int(folder.name))
        card = json.loads((newest / "card.json").read_text())["scaler"]
        self._names = card["names"][3:]
        self._mean, self._scale = np.array(card["mean"]), np.array(card["scale"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession((newest / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])
        self._index = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}[
            next(node.type for node in self._session.get_inputs() if node.name == "token_index")
        ]

    def probabilities(self, rows: Sequence[dict[str, float]]) -> list[float]:
        """Gives one probability per row of features, in one model call."""
        numeric = np.array([[*PROFILE, *(row[name] for name in self._names)] for row in rows])
        scaled = ((numeric - self._mean) / self._scale).astype(np.float32)
        no_token = {"token_index": np.zeros((len(rows), 1), self._index), "token_weight": np.zeros((len(rows), 1), np.float32)}
        logits = self._session.run(["logit"], {"numeric": scaled, **no_token})[0]
        return [1 / (1 + math.exp(-float(logit))) for logit in logits[:, 0]]


def verdict(event: dict[str, Any], probability: float, seen: int) -> tuple[str, bytes]:
    """Gives the route and the verdict's JSON."""
    route = "approve" if probability < APPROVE_BELOW else "block" if probability >= BLOCK_FROM else "review"
    return route, json.dumps({"event_id": event["event_id"], "verdict": route, "probability": probability, "seen": seen}).encode()
