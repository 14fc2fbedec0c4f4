"""The ordinary `streamapp worker`, but for its models: they fail the way the file named by the first argument says, call by call.

python bench/failing_model.py FILE worker --pipeline messages …
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from streamapp.adapters import models
from streamapp.cli import serve
from streamapp.cli.main import program
from streamapp.core.errors import ModelFailed

FAULTS = ("throwing", "nan", "slow", "empty", "wrong_type", "hung")
#: A model that is slow, and one that hangs as long as no watchdog but a deadline would end it.
SLOW_S, HUNG_S = 0.03, 0.5


class FailingModel:
    """A model that does what the file says; where it says nothing, what the model does."""

    def __init__(self, model: models.OnnxModel, switch: Path) -> None:
        self._model, self._switch = model, switch
        self.card, self.calibration = model.card, model.calibration

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def logits(self, inputs: Any) -> Any:
        fault = self._switch.read_text()
        if fault == "throwing":
            raise ModelFailed("it is broken")
        if fault in ("slow", "hung"):
            time.sleep(SLOW_S if fault == "slow" else HUNG_S)
        margins = self._model.logits(inputs)
        wrong = {"nan": np.full_like(margins, np.nan), "empty": margins[:0], "wrong_type": [["a margin"]] * len(margins)}
        return wrong.get(fault, margins)


def main() -> None:
    """Runs the program with failing models."""
    switch = Path(sys.argv.pop(1))
    load = models.load_model
    serve.load_model = lambda *arguments, **more: FailingModel(load(*arguments, **more), switch)  # type: ignore[assignment]
    program(prog_name="streamapp")


if __name__ == "__main__":
    main()
