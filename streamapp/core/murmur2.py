"""Kafka's own key hash: tells whether a record lies where the default partitioner of the Java client would have put it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from streamapp.core.texts import Texts

SEED = 0x9747B28C


@njit(cache=True, nogil=True)
def _murmur2(keys: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], out: npt.NDArray[np.uint32]) -> None:
    m = np.uint32(0x5BD1E995)
    for row in range(out.shape[0]):
        at, end = start[row], start[row + 1]
        h = np.uint32(np.uint32(0x9747B28C) ^ np.uint32(end - at))
        while end - at >= 4:
            k = np.uint32(keys[at]) | np.uint32(keys[at + 1]) << 8 | np.uint32(keys[at + 2]) << 16 | np.uint32(keys[at + 3]) << 24
            k = np.uint32(np.uint32(k) * m)
            k = np.uint32(np.uint32(k ^ (k >> np.uint32(24))) * m)
            h = np.uint32(np.uint32(np.uint32(h * m)) ^ k)
            at += 4
        left = end - at
        if left >= 3:
            h = np.uint32(h ^ np.uint32(np.uint32(keys[at + 2]) << 16))
        if left >= 2:
            h = np.uint32(h ^ np.uint32(np.uint32(keys[at + 1]) << 8))
        if left >= 1:
            h = np.uint32(np.uint32(h ^ np.uint32(keys[at])) * m)
        h = np.uint32(np.uint32(h ^ (h >> np.uint32(13))) * m)
        out[row] = np.uint32(h ^ (h >> np.uint32(15)))


def murmur2(keys: Sequence[bytes]) -> npt.NDArray[np.uint32]:
    """Takes n keys; gives their hashes [n] (A. Appleby's MurmurHash2, 32 bit, with the seed of Kafka's Java client)."""
    texts, out = Texts.of(keys), np.empty(len(keys), np.uint32)
    _murmur2(texts.data, texts.start, out)
    return out


def partition_of(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.int64]:
    """Takes n keys; gives the partition [n] the Java client's default partitioner chooses: (hash & 0x7fffffff) mod partitions."""
    return (murmur2(keys) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def misplaced(keys: Sequence[bytes | None], partition: Sequence[int] | npt.NDArray[np.int64], partitions: int) -> int:
    """Takes keys and the partition of each; counts those that another partitioner placed. Records without a key may lie anywhere."""
    if not isinstance(keys, Texts) and None in keys:
        known: Any = [(key, at) for key, at in zip(keys, partition, strict=True) if key is not None]
        keys, partition = [key for key, _ in known], [at for _, at in known]
    there: Any = keys
    return int(np.count_nonzero(partition_of(there, partitions) != np.asarray(partition, np.int64)))


def warm_up() -> None:
    """Compiles the kernel (or loads it from the cache) for keys as a kernel gives them."""
    given = Texts.of([b"x"])
    murmur2(Texts(given.data.copy(), given.start))
