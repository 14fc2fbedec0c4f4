"""Plain events as columns over the bytes they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Raw

from streamapp.core import plain_json as kernel
from streamapp.core.fields import default_of
from streamapp.core.gather import gathered
from streamapp.core.spec import FieldSpec
from streamapp.core.texts import Texts

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

#: Fields that are strings, and those that stand in the bytes.
_STRINGS = "id", "string", "text"
_BYTES = (*_STRINGS, "json")


class PlainRows:
    """n plain events as columns over the bytes they were read from; a column becomes Python objects when it is asked for as a list.

    Some rows may be events that were read elsewhere: these are Structs of the pipeline's event type.
    """

    __slots__ = ("_begin", "_data", "_end", "_lists", "_number", "_others", "_place", "_texts", "fields")

    def __init__(
        self, data: Bytes, place: Mapping[str, int], fields: Mapping[str, FieldSpec], found: tuple[Int64, Int64, Float64],
        others: Mapping[int, Any] | None = None,
    ) -> None:  # fmt: skip
        """`found` is begin, end and number as `plain_json.read_rows` leaves them; `place` is that of each member; `others` by row."""
        self._data, self._place, self.fields = data, place, fields
        self._begin, self._end, self._number = found
        self._others = others or {}
        self._texts: dict[str, Texts] = {}
        self._lists: dict[str, list[Any]] = {}

    def kept(self, rows: Int64, others: Mapping[int, Any]) -> PlainRows:
        """Gives `rows` (ascending) alone; `others` are the events, by place among them, that were read elsewhere."""
        begin, end, number = self._begin[:, rows], self._end[:, rows], self._number[:, rows]
        pieces, size = [self._data], len(self._data)
        for name, spec in self.fields.items():
            place = self._place[name]
            for row, event in others.items():
                value = getattr(event, name)
                if spec.type in _BYTES:
                    if value is not None:
                        piece = np.frombuffer(bytes(value) if spec.type == "json" else value.encode(), np.uint8)
                        begin[place, row], end[place, row] = size, size + len(piece)
                        pieces.append(piece)
                        size += len(piece)
                elif value is not None:
                    number[place, row] = value
        return PlainRows(np.concatenate(pieces), self._place, self.fields, (begin, end, number), others)

    def other(self, row: int) -> Any:
        """Gives the event of a row that was read elsewhere, None for the others."""
        return self._others.get(row)

    def __len__(self) -> int:
        return len(self._number.T)

    def missing(self, name: str) -> npt.NDArray[np.bool_]:
        """Gives where a string or id field is absent."""
        absent: npt.NDArray[np.bool_] = self._begin[self._place[name]] < 0
        return absent

    def texts(self, name: str) -> Texts | None:
        """Gives an id, string or text field as UTF-8, empty where it is absent; None where it has a default or is something else."""
        spec = self.fields.get(name)
        return None if spec is None or spec.type not in _STRINGS or spec.default is not None else self.bytes_of(name)

    def bytes_of(self, name: str) -> Texts:
        """Gives an id, string or text field as UTF-8, empty where it is absent; gathered once, kept."""
        found = self._texts.get(name)
        if found is None:
            place = self._place[name]
            found = self._texts[name] = gathered(self._data, self._begin[place], self._end[place])
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

    def differing(self, name: str, others: Texts, odd: npt.NDArray[np.bool_]) -> None:
        """Notes in `odd` the rows where a field is not there or not equal to the other text."""
        place = self._place[name]
        kernel.differing(self._data, self._begin[place], self._end[place], others.data, others.start, odd)

    def _listed(self, name: str) -> list[Any]:
        spec, place = self.fields[name], self._place[name]
        if spec.type in _BYTES:
            begin, end = self._begin[place], self._end[place]
            if self._others:
                begin, end = begin.copy(), end.copy()
                begin[[*self._others]], end[[*self._others]] = -1, -1  # what they say may have line feeds in it, no plain string has
            if spec.type == "json":
                values: list[Any] = list(map(Raw, gathered(self._data, begin, end)))
            else:
                values = gathered(self._data, begin, end, 1).data.tobytes().decode().split("\n")[:-1]
            absent = np.flatnonzero(begin < 0).tolist()
        else:
            number = self._number[place]
            unknown = np.isnan(number)
            absent = np.flatnonzero(unknown).tolist()
            known = np.where(unknown, 0.0, number)
            values = (known if spec.type == "number" else known.astype(bool if spec.type == "boolean" else np.int64)).tolist()
        nothing = default_of(spec)
        for row in absent:
            values[row] = nothing
        for row, event in self._others.items():
            values[row] = getattr(event, name)
        return values
