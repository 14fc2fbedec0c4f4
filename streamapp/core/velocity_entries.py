"""From the fields of some rows to what a window store keeps of them: hashed names, values in units, hashed keys."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.velocity import StoreSpec, ValueColumn
from streamapp.core.windows import activity_units, units

Int64 = npt.NDArray[np.int64]


class Fields(Protocol):
    """The fields of n rows, as a Plan gives them."""

    def column(self, name: str) -> Sequence[Any]:
        """Gives n values, None where absent."""
        ...

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Gives a number field float64[n], NaN where absent."""
        ...

    def hashes(self, name: str) -> Int64:
        """Gives int64[n, 2] hashes, (0, 0) where absent."""
        ...


def entries(store: StoreSpec, fields: Fields, known: dict[Hashable, Int64]) -> tuple[Int64, Int64, Int64]:
    """Takes a store, the fields of n rows, and what is known of them (Plan.hashed; filled here).

    Gives name int64[n, 2], value int64[n, v], key int64[n, q] for WindowStore.advance. An absent
    entity takes no part; an absent number is 0, an absent text one value of its own.
    """

    def hash_of(field: str) -> Int64:
        column = known.get(field)
        if column is None:
            column = known[field] = fields.hashes(field)
        return column

    def units_of(column: ValueColumn) -> Int64:
        found = known.get(column)
        if found is None:
            if column.weights is not None:
                given = fields.column(column.field)
                texts = [text if text is not None else "" for text in given] if None in given else given
                found = activity_units(texts, dict(column.weights), column.other)
            else:
                found = units(fields.numbers(column.field), column.decimals)
            known[column] = found
        return found

    name = hash_of(store.entity)
    value, keys = np.empty((len(name), len(store.values)), np.int64), np.empty((len(name), len(store.keys)), np.int64)
    for c, column in enumerate(store.values):
        value[:, c] = units_of(column)
    for c, field in enumerate(store.keys):
        keys[:, c] = hash_of(field)[:, 0]
    return name, value, keys
