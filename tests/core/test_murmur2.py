"""Kafka's key hash: public vectors, and a twin in plain Python over any bytes."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.murmur2 import SEED, misplaced, murmur2, partition_of

MASK = 0xFFFFFFFF


def twin(key: bytes) -> int:
    """MurmurHash2 in plain whole numbers."""
    m, h = 0x5BD1E995, SEED ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & MASK
        h = (h * m & MASK) ^ ((k ^ k >> 24) * m & MASK)
    if len(key) > whole:
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & MASK
    h = (h ^ h >> 13) * m & MASK
    return h ^ h >> 15


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_kernel_equals_its_twin(keys: list[bytes]) -> None:
    assert murmur2(keys).tolist() == [twin(key) for key in keys]


def test_known_hashes() -> None:
    # Java's Utils.murmur2 of these keys, as unsigned numbers.
    assert murmur2([b"kafka", b"4", b""]).tolist() == [3496464228, 1514888353, 275646681]


def test_public_vectors(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "refvectors" / "murmur2.json").read_text())
    rows = vectors["uint32"]
    assert murmur2([row["key"].encode() for row in rows]).tolist() == [row["murmur2"] for row in rows]
    rows = vectors["partition_of_1000"]
    assert partition_of([bytes.fromhex(row["key_hex"]) for row in rows], 1000).tolist() == [row["partition"] for row in rows]


def test_misplaced_counts_keys_only() -> None:
    keys = [f"user-{i}".encode() for i in range(100)]
    home = partition_of(keys, 4)
    mine = [key for key, partition in zip(keys, home, strict=True) if partition == 2]
    assert misplaced([*mine, None], [2] * (len(mine) + 1), 4) == 0
    assert misplaced([*keys, None], [2] * 101, 4) == 100 - len(mine)
    assert misplaced(keys, partition_of(keys, 4).tolist(), 4) == 0
