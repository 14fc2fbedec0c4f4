"""Arrays that grow where they lie: a large one has address space in reserve, and takes pages of it as they are touched.

Doubling by copy takes the time of the copy and of fresh pages, tens of ms for 16 MB, while every event waits; this takes none of both
(`growth` of bench/windows.py). Reserved space is no memory: it shows as VIRT only. Where a system refuses it, or counts it as memory
(`reserve_nothing`), arrays are copied.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

#: Bytes from which an array gets space of its own. Below that copying is as fast, and a worker holds hundreds of small ones.
RESERVED_FROM = 1 << 20
#: Bytes of address space for one array, out of the 128 TB of a process; what outgrows it is copied into twice its own size.
RESERVED = 1 << 30
# Pages stay small: one of 2 MB, as numpy asks for, stopped everything for 7 ms when it was touched first, and made nothing faster here.

Array = npt.NDArray[Any]

_sparing = False


def reserve_nothing() -> None:
    """From now on arrays are copied when they grow: for systems that count address space as if it were memory (`cli/address_space.py`)."""
    global _sparing  # noqa: PLW0603 - a machine has one answer
    _sparing = True


def fresh(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Gives an array that is not initialised, so that untouched pages cost nothing; a large one can grow without being copied."""
    found = _reserved(shape, np.dtype(dtype))
    return np.empty(shape, dtype) if found is None else found


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Gives an array of zeros; a large one is zero because its pages are new, and none of them is touched before its use."""
    found = _reserved(shape, np.dtype(dtype))
    return np.zeros(shape, dtype) if found is None else found


def grown(array: Array, rows: int) -> Array:
    """Takes an array and a number of rows, at least its own; gives it with so many, the new ones zero.

    The array given is not to be used any more: the two may be the same memory.
    """
    shape, kind = (rows, *array.shape[1:]), array.dtype
    size, space = math.prod(shape) * kind.itemsize, _space_of(array)
    if space is not None and size <= len(space):
        return _within(space, shape, kind)
    out = zeros(shape, kind)
    out[: len(array)] = array
    return out


def _reserved(shape: tuple[int, ...], kind: np.dtype[Any]) -> Array | None:
    size = math.prod(shape) * kind.itemsize
    if size >= RESERVED_FROM and not _sparing and hasattr(mmap, "MAP_PRIVATE"):
        with contextlib.suppress(OSError):  # no such space: limited address space, or a system that counts it as memory
            space = mmap.mmap(-1, max(RESERVED, 2 * size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            return _within(space, shape, kind)
    return None


def _space_of(array: Array) -> mmap.mmap | None:
    """Gives the space that an array is the beginning of; None for one with other memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    space = base.obj if isinstance(base, memoryview) else None
    if not isinstance(space, mmap.mmap) or not array.flags.c_contiguous:
        return None
    return space if array.ctypes.data == np.frombuffer(space, np.uint8).ctypes.data else None


def _within(space: mmap.mmap, shape: tuple[int, ...], kind: np.dtype[Any]) -> Array:
    return np.frombuffer(space, kind, math.prod(shape)).reshape(shape)
