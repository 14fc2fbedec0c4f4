"""A tier that is an expression of the pipeline file: its value is score and probability at once, and there is no model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamapp.core.conditions import Columns, Operand
from streamapp.core.errors import ConfigError
from streamapp.core.expressions import WrongExpression, compile_number

Float64 = npt.NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Formula:
    """A compiled expression over features and number fields, with its text."""

    text: str
    operand: Operand

    def probability(self, columns: Columns) -> Float64:
        """Gives the value per row [n], NaN where it cannot be computed or a name in it is missing; outside of [0, 1] the nearer end.

        Law: a row's value depends on that row alone.
        """
        with np.errstate(all="ignore"):  # overflow is inf and goes on as such: 1 / (1 + exp(1000)) is 0
            value = np.asarray(self.operand.run(columns), np.float64)
        bounded: Float64 = np.clip(value, 0.0, 1.0)
        return bounded


def compile_formula(text: str, types: Mapping[str, str], where: str) -> Formula:
    """Takes an expression, the types of the names it may use and its place in the pipeline file; raises ConfigError."""
    try:
        return Formula(text, compile_number(text, types))
    except WrongExpression as wrong:
        raise ConfigError(f"{where}: {wrong}") from None
