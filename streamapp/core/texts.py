"""Many byte strings end to end in one array: what kernels read and write without a Python object per string."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, overload

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
        np.fromiter(map(len, values), np.int64, len(values)).cumsum(out=start[1:])
        return cls(np.frombuffer(b"".join(values), np.uint8), start)

    @classmethod
    def end_to_end(cls, parts: Sequence[Sequence[bytes | None]]) -> Texts | None:
        """Gives the strings of all parts as one; None where one of them is missing."""
        if len(parts) == 1 and isinstance(parts[0], cls):
            return parts[0]
        if parts and all(isinstance(part, cls) for part in parts):
            known: Any = parts
            ends = np.cumsum([part.bytes() for part in known])
            starts = [part.start[1:] + (end - part.start[-1]) for part, end in zip(known, ends.tolist(), strict=True)]
            data = np.concatenate([part.data[part.start[0] : part.start[-1]] for part in known])
            return cls(data, np.concatenate([np.zeros(1, np.int64), *starts]))
        try:
            return cls.of(list(chain.from_iterable(parts)))  # type: ignore[arg-type]
        except TypeError:  # None has no length
            return None

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
        found: Int64 = self.start[1:] - self.start[:-1]
        return found

    def bytes(self) -> int:
        """Gives the bytes of all texts."""
        return int(self.start[-1] - self.start[0])


class Strings(Sequence[str]):
    """A sequence of strings over their UTF-8; they become Python objects when one is looked at."""

    __slots__ = ("_list", "texts")

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self._list: list[str] | None = None

    def _listed(self) -> list[str]:
        if self._list is None:
            self._list = list(map(bytes.decode, self.texts))
        return self._list

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self._listed()[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | Strings) and self._listed() == [*other]

    __hash__ = None  # type: ignore[assignment]
