"""Many byte strings end to end in one array: what kernels read and write without a Python object per string."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


class Texts(Sequence[bytes]):
    """A sequence of byte strings: text i is data[start[i] : start[i + 1]]; a slice shares the data."""

    __slots__ = ("data", "start")

    def __init__(self, data: Bytes, start: Int64) -> None:
        """`start` has one place more than there are texts and does not fall."""
        self.data, self.start = data, start

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Texts:
        """Gives `values` as Texts (itself, when it is one)."""
        if isinstance(values, cls):
            return values
        start = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=start[1:])
        return cls(np.frombuffer(b"".join(values), np.uint8), start)

    @classmethod
    def nothing(cls, count: int) -> Texts:
        """Gives `count` empty texts."""
        return cls(np.zeros(0, np.uint8), np.zeros(count + 1, np.int64))

    def __len__(self) -> int:
        return len(self.start) - 1

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> Texts: ...
    def __getitem__(self, place: int | slice) -> bytes | Texts:
        if isinstance(place, slice):
            low, high, step = place.indices(len(self))
            if step != 1:
                raise ValueError("texts are sliced without a step")
            return Texts(self.data, self.start[low : max(low, high) + 1])
        row = range(len(self))[place]
        return self.data[self.start[row] : self.start[row + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        whole, places = self.data.tobytes(), self.start.tolist()
        return (whole[low:high] for low, high in pairwise(places))

    def lengths(self) -> Int64:
        """Gives the bytes of each text."""
        found: Int64 = np.diff(self.start)
        return found

    def bytes(self) -> int:
        """Gives the bytes of all texts."""
        return int(self.start[-1] - self.start[0])
