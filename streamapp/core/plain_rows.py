"""Plain events as columns over the bytes they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streamapp.core import plain_json as kernel
from streamapp.core.gather import gathered
from streamapp.core.texts import Texts

if TYPE_CHECKING:
    from streamapp.core.spec import FieldSpec

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


class PlainRows:
    """n plain events as columns over the bytes they were read from; a column becomes Python objects when it is asked for as a list."""

    __slots__ = ("_begin", "_data", "_end", "_lists", "_number", "_place", "_texts", "fields")

    def __init__(self, data: Bytes, place: Mapping[str, int], fields: Mapping[str, FieldSpec], found: tuple[Int64, Int64, Float64]) -> None:
        """`found` is begin, end and number as `plain_json.read_rows` leaves them; `place` is that of each member."""
        self._data, self._place, self.fields = data, place, fields
        self._begin, self._end, self._number = found
        self._texts: dict[str, Texts] = {}
        self._lists: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._number.T)

    def missing(self, name: str) -> npt.NDArray[np.bool_]:
        """Gives where a string or id field is absent."""
        absent: npt.NDArray[np.bool_] = self._begin[self._place[name]] < 0
        return absent

    def texts(self, name: str) -> Texts | None:
        """Gives an id or string field as bytes, empty where it is absent; None where it has a default or is no text."""
        spec = self.fields.get(name)
        return None if spec is None or spec.type not in ("id", "string") or spec.default is not None else self.bytes_of(name)

    def bytes_of(self, name: str) -> Texts:
        """Gives an id or string field as bytes, empty where it is absent; gathered once, kept."""
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = self._gathered(name, 0)
        return found

    def numbers(self, name: str) -> Float64 | None:
        """Gives a number or integer field, NaN where it is absent; None where it has a default or is no number."""
        spec = self.fields.get(name)
        if spec is None or spec.type not in ("number", "integer") or spec.default is not None:
            return None
        found: Float64 = self._number[self._place[name]]
        return found

    def column(self, name: str) -> list[Any]:
        """Gives a declared field as the list that the decoder's other way gives, None where it is absent and has no default."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = self._listed(name)
        return found

    def time(self, name: str) -> tuple[Float64, Int64]:
        """Gives the times that are numbers (NaN: none), and the rows whose time is a string."""
        place = self._place[name]
        return self._number[place], np.flatnonzero(self._begin[place] >= 0)

    def strings_at(self, name: str, rows: Int64) -> list[str]:
        """Gives the strings of some rows."""
        place = self._place[name]
        spans = zip(self._begin[place, rows].tolist(), self._end[place, rows].tolist(), strict=True)
        return [self._data[begin:end].tobytes().decode() for begin, end in spans]

    def same(self, name: str, others: Texts) -> bool:
        """Gives whether a field is there and equal to the other text in every row."""
        place = self._place[name]
        return bool(kernel.same_texts(self._data, self._begin[place], self._end[place], others.data, others.start))

    def _gathered(self, name: str, between: int) -> Texts:
        place = self._place[name]
        return gathered(self._data, self._begin[place], self._end[place], between)

    def _listed(self, name: str) -> list[Any]:
        spec = self.fields[name]
        if spec.type in ("id", "string"):
            # No plain string has a line feed in it.
            values: list[Any] = self._gathered(name, 1).data.tobytes().decode().split("\n")[:-1]
            absent = np.flatnonzero(self.missing(name)).tolist()
        else:
            number = self._number[self._place[name]]
            unknown = np.isnan(number)
            absent = np.flatnonzero(unknown).tolist()
            known = np.where(unknown, 0.0, number)
            values = (known if spec.type == "number" else known.astype(bool if spec.type == "boolean" else np.int64)).tolist()
        for row in absent:
            values[row] = spec.default
        return values
