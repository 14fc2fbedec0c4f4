"""Pieces of one array of bytes, end to end in another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.copying import copy_bytes
from streamapp.core.texts import Texts
from streamapp.core.windows_index import compiled

Int64 = npt.NDArray[np.int64]


def gathered(data: npt.NDArray[np.uint8], begin: Int64, end: Int64, between: int = 0) -> Texts:
    """Gives data[begin[i] : end[i]] as texts, nothing where begin is negative, each with `between` line feeds behind it."""
    start = np.zeros(len(begin) + 1, np.int64)
    out = np.empty(int((end - begin).sum()) + between * len(begin), np.uint8)
    _gather(data, begin, end, between, out, start)
    return Texts(out, start)


@compiled
def _gather(data: Any, begin: Any, end: Any, between: int, out: Any, start: Any) -> None:
    """Writes what stands at begin[i] : end[i] (nothing where that is negative) end to end, with `between` line feeds behind each."""
    o = 0
    for row in range(len(begin)):
        if begin[row] >= 0:
            copy_bytes(out, o, data, begin[row], end[row] - begin[row])
            o += end[row] - begin[row]
        if between > 0:
            out[o] = 10
            o += 1
        start[row + 1] = o
