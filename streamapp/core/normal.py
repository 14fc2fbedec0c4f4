"""What is normal for the entity itself: numbers that a pipeline declares for the features its reasons speak of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from streamapp.core.conditions import Columns, Operand
from streamapp.core.document import Mistakes, nearest
from streamapp.core.expressions import WrongExpression, compile_number


class Normals:
    """`[reasons] normal` compiled: feature or field -> an expression over features and number fields."""

    def __init__(self, expressions: Mapping[str, str], types: Mapping[str, str]) -> None:
        """Takes the expressions and the types of the names they may use; raises ConfigError that lists every mistake."""
        mistakes = Mistakes("pipeline file")
        self._operands: dict[str, Operand] = {}
        for name, text in expressions.items():
            at = f"reasons.normal.{name}"
            if types.get(name) != "number":
                numbers = [one for one, kind in types.items() if kind == "number"]
                mistakes.add(at, f"`{name}` is no feature and no number field{nearest(name, numbers)}")
            try:
                self._operands[name] = compile_number(text, types)
            except WrongExpression as wrong:
                mistakes.add(at, str(wrong))
        mistakes.raise_if_any()

    def __bool__(self) -> bool:
        return bool(self._operands)

    def of(self, columns: Columns, rows: npt.NDArray[np.intp]) -> dict[str, list[float]]:
        """Takes the columns of a micro-batch and m of its rows; gives each declared normal [m], NaN where it cannot be computed."""
        asked = Columns(lambda name: columns.numbers(name)[rows], len(rows))
        with np.errstate(all="ignore"):
            found = {name: np.asarray(operand.run(asked), np.float64).round(4) for name, operand in self._operands.items()}
        return {name: np.where(np.isfinite(values), values, np.nan).tolist() for name, values in found.items()}
