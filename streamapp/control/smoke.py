"""Example events every model version is tried on before it serves; written for this purpose, none comes from anybody's data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.card import Smoke
from streamapp.core.spec import PipelineSpec

TEXTS = (
    "Shall we meet at the station at seven? I will bring the tickets.",
    "CONGRATULATIONS!!! You won a FREE holiday, claim now: http://prize.example or call 09001234567",
    "ok",
    "Ｆ r\u200bе\u200bе  c4$h for уоu — rерlу ＹＥＳ",
    "Zażółć gęślą jaźń 🙂 " * 40,
)
"""Ordinary, plain spam, one token, hidden spam (full-width, zero-width, Cyrillic, leet), long and beyond ASCII."""


def smoke_examples(margins: Callable[[list[dict[str, Any]]], npt.NDArray[np.float64]], spec: PipelineSpec) -> tuple[Smoke, ...]:
    """Gives the examples with the margins [n, classes] that `margins` finds for them; they are what every later load must repeat."""
    text = spec.features.text.field if spec.features.text else ""
    fills: dict[str, Any] = {"json": {}, "number": 1, "integer": 1, "boolean": False}
    least = {name: fills.get(field.type, f"smoke-{name}") for name, field in spec.event.fields.items() if field.required}
    events = [{**least, **({text: example} if text else {})} for example in TEXTS]
    return tuple(Smoke(event, tuple(row)) for event, row in zip(events, margins(events).tolist(), strict=True))
