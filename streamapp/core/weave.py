"""A matrix of numbers as JSON objects with named members: a kernel writes names and whole numbers, orjson what is left of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core import json_numbers
from streamapp.core.copying import copy_bytes
from streamapp.core.texts import Texts
from streamapp.core.windows_index import compiled

_CLOSE, _COMMA, _BRACE_OPEN, _BRACE, _MINUS, _POINT, _ZERO = ord("]"), ord(","), ord("{"), ord("}"), ord("-"), ord("."), ord("0")
#: Whole numbers below it are written here, as orjson would: most features are counts. With sign, point and zero they take so many bytes.
_WHOLE_BELOW, _WHOLE_BYTES = 1e6, 9


class NamedRows:
    """Built once per list of names; a row costs a third of encoding one struct."""

    def __init__(self, names: Sequence[str]) -> None:
        """Takes the k names in column order."""
        parts = [b'{"%b":' % msgspec.json.encode(name)[1:-1] for name in names[:1]]
        parts += [b',"%b":' % msgspec.json.encode(name)[1:-1] for name in names[1:]]
        self._names = np.frombuffer(b"".join(parts), np.uint8)
        self._start = np.cumsum([0, *map(len, parts)])

    def encode(self, values: npt.NDArray[np.float64]) -> Texts:
        """Takes float64 [n, k]; gives one JSON object per row; what is not finite is null. Equal to encoding each row as a struct."""
        nothing = Texts.nothing(len(values))
        return self.within(nothing, 0, b"", values, b"", nothing, b"")

    def within(
        self, first: Texts, cut: int, left: bytes, values: npt.NDArray[np.float64], right: bytes, second: Texts, end: bytes
    ) -> Texts:
        """Gives for each row the text of `first` without its last `cut` bytes, `left`, its JSON object, `right`, `second`'s text, `end`."""
        n, k = values.shape
        values = np.ascontiguousarray(values)
        broken = np.empty(n * k)
        broken = broken[: _broken(values.ravel(), broken)]
        numbers = json_numbers.array(broken)
        around = np.frombuffer(left + right + end, np.uint8)
        bounds = np.array([cut, len(left), len(left) + len(right), len(around)])
        size = first.bytes() + second.bytes() + n * (len(around) + self._names.size + 2 + _WHOLE_BYTES * k) + numbers.size
        woven, start = np.empty(size, np.uint8), np.empty(n + 1, np.int64)
        _weave(first.data, first.start, second.data, second.start, around, bounds, values, numbers, self._names, self._start, woven, start)
        return Texts(woven, start)


@compiled
def _is_whole(value: Any) -> Any:
    """Whether a number is written here; minus zero is not, it keeps its sign."""
    return -_WHOLE_BELOW < value < _WHOLE_BELOW and value == np.floor(value) and (value != 0.0 or not np.signbit(value))


@compiled
def _broken(values: Any, found: Any) -> Any:
    """Puts the numbers that are not written here into `found`; gives how many."""
    count = 0
    for value in values:
        if not _is_whole(value):
            found[count] = value
            count += 1
    return count


@compiled
def _put_whole(out: Any, o: int, value: Any) -> Any:
    """Writes -12.0 for -12; gives where it ends."""
    left = np.int64(value)
    if left < 0:
        out[o] = _MINUS
        o += 1
        left = -left
    digits, power = 1, 10
    while power <= left:
        digits += 1
        power *= 10
    for place in range(digits - 1, -1, -1):
        out[o + place] = _ZERO + left % 10
        left //= 10
    out[o + digits], out[o + digits + 1] = _POINT, _ZERO
    return o + digits + 2


@compiled
def _weave(
    first: Any, first_start: Any, second: Any, second_start: Any, around: Any, bounds: Any, values: Any, numbers: Any, names: Any,
    name_start: Any, out: Any, start: Any,
) -> Any:  # fmt: skip
    """Writes the rows to `out` and where each begins (and the last ends) to `start`; `numbers` is "[1.5,null]", the broken ones."""
    at, o = 1, 0
    for row in range(len(start) - 1):
        start[row] = o
        length = first_start[row + 1] - first_start[row] - bounds[0]
        copy_bytes(out, o, first, first_start[row], length)
        o += length
        copy_bytes(out, o, around, 0, bounds[1])
        o += bounds[1]
        for column in range(name_start.size - 1):
            length = name_start[column + 1] - name_start[column]
            copy_bytes(out, o, names, name_start[column], length)
            o += length
            if _is_whole(values[row, column]):
                o = _put_whole(out, o, values[row, column])
                continue
            while numbers[at] != _COMMA and numbers[at] != _CLOSE:
                out[o] = numbers[at]
                o += 1
                at += 1
            at += 1
        if name_start.size == 1:
            out[o] = _BRACE_OPEN
            o += 1
        out[o] = _BRACE
        o += 1
        copy_bytes(out, o, around, bounds[1], bounds[2] - bounds[1])
        o += bounds[2] - bounds[1]
        length = second_start[row + 1] - second_start[row]
        copy_bytes(out, o, second, second_start[row], length)
        o += length
        copy_bytes(out, o, around, bounds[2], bounds[3] - bounds[2])
        o += bounds[3] - bounds[2]
    start[len(start) - 1] = o
