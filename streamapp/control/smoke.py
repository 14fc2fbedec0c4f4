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


AMOUNTS = (12.5, 40.0, 40.0, 180.0, 950.0, 12_000.0, 3.0, 60.0)
"""Of events of one entity 20 seconds apart, for a pipeline without text: usual ones, a repeated one, large ones, and usual ones again."""


def smoke_examples(margins: Callable[[list[dict[str, Any]]], npt.NDArray[np.float64]], spec: PipelineSpec) -> tuple[Smoke, ...]:
    """Gives the examples with the margins [n, classes] that `margins` finds for them; they are what every later load must repeat.

    They are one stream from an empty state, so that windows are tried as well.
    """
    text = spec.features.text.field if spec.features.text else None
    fills: dict[str, Any] = {"json": {}, "number": 1, "integer": 1, "boolean": False}
    least = {name: fills.get(field.type, f"smoke-{name}") for name, field in spec.event.fields.items() if field.required}
    if text is not None:
        events = [{**least, text: example} for example in TEXTS]
    else:
        events = [{**least, **_numbers(spec, amount), "event_time": 20_000 * place} for place, amount in enumerate(AMOUNTS)]
    return tuple(Smoke(event, tuple(row)) for event, row in zip(events, margins(events).tolist(), strict=True))


def _numbers(spec: PipelineSpec, amount: float) -> dict[str, float | int]:
    """Every number field of an event takes the amount, within its bounds."""
    numbers: dict[str, float | int] = {}
    for name, field in spec.event.fields.items():
        if field.type in ("number", "integer"):
            low = -np.inf if field.minimum is None else field.minimum
            high = np.inf if field.maximum is None else field.maximum
            bounded = float(min(max(amount, low), high))
            numbers[name] = int(bounded) if field.type == "integer" else bounded
    return numbers
