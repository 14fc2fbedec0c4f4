"""Hashing of names and the open-addressing table, against the authors' vectors, a plain twin and a dict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core import windows_index as index
from streamapp.core.errors import InvariantBroken

MASK = (1 << 64) - 1


def siphash128(data: bytes, key: tuple[int, int], compress: int, finish: int) -> bytes:
    """SipHash-c-d-128 in whole Python numbers."""
    v = [key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D ^ 0xEE, key[0] ^ 0x6C7967656E657261, key[1] ^ 0x7465646279746573]

    def turn(x: int, by: int) -> int:
        return ((x << by) | (x >> (64 - by))) & MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0], v[2] = (v[0] + v[1]) & MASK, (v[2] + v[3]) & MASK
            v[1], v[3] = turn(v[1], 13) ^ v[0], turn(v[3], 16) ^ v[2]
            v[0] = turn(v[0], 32)
            v[2], v[0] = (v[2] + v[1]) & MASK, (v[0] + v[3]) & MASK
            v[1], v[3] = turn(v[1], 17) ^ v[2], turn(v[3], 21) ^ v[0]
            v[2] = turn(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(compress)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(finish)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(finish)
    return first.to_bytes(8, "little") + (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")


def compiled(data: bytes, key: tuple[int, int], compress: int, finish: int) -> bytes:
    out = np.empty((1, 2), np.int64)
    start = np.array([0, len(data)], np.int64)
    index._hash_rows(np.frombuffer(data, np.uint8), start, 0, np.uint64(key[0]), np.uint64(key[1]), compress, finish, out)
    return out.tobytes()


def test_published_vectors() -> None:
    """SipHash-2-4-128 of 00, and of 00 01 .. 0e, under the key 00 01 .. 0f."""
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    assert compiled(bytes(1), key, 2, 4).hex() == "da87c1d86b99af44347659119b22fc45"
    assert compiled(bytes(range(15)), key, 2, 4).hex() == "5493e99933b0a8117e08ec0f97cfc3d9"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=20), st.tuples(st.integers(0, MASK), st.integers(0, MASK)))
def test_names_hash_as_the_twin_says_alone_and_together(names: list[str], key: tuple[int, int]) -> None:
    hashes = index.hash_names(names, key)
    for name, row in zip(names, hashes, strict=True):
        expected = siphash128(name.encode(), key, *index.FAST_ROUNDS) if name else bytes(16)
        assert row.tobytes() == expected


@pytest.mark.parametrize("names", [["a\nb", "c"], ["a", "b\n", ""], ["\n"], ["", ""], ["", "\n\n", "x"], [""]])
def test_names_may_hold_lines(names: list[str]) -> None:
    alone = [index.hash_names([name])[0].tolist() for name in names]
    assert index.hash_names(names).tolist() == alone
    key = index.DEFAULT_KEY
    assert [siphash128(name.encode(), key, *index.FAST_ROUNDS) if name else bytes(16) for name in names] == [
        row.tobytes() for row in index.hash_names(names)
    ]


def test_lone_surrogates_and_nobody_have_their_places() -> None:
    hashes = index.hash_names(["\ud800", "", "é", "e"])
    assert hashes[1].tolist() == [0, 0]
    assert len({tuple(row) for row in hashes.tolist()}) == 4
    assert index.hash_names([]).shape == (0, 2)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 25)), max_size=150))
def test_table_finds_what_a_dict_finds(steps: list[tuple[bool, int]]) -> None:
    """Names that want few places of a small table, put in and taken out in any order, and found after it has grown."""
    table, mark = index.table_for(30), np.zeros((30, 2), np.int64)
    held: dict[tuple[int, int], int] = {}
    free = list(range(30))
    for put, number in steps:
        name = ((number % 5) | (number << 33), number)
        if put and name not in held:
            slot = free.pop()
            held[name] = slot
            mark[slot] = name
            index.insert(table, name[0], slot)
        elif not put and name in held:
            slot = held.pop(name)
            index.erase(table, name[0], slot)
            free.append(slot)
    larger = index.larger(table, 100)
    for place in (table, larger):
        for number in range(26):
            name = ((number % 5) | (number << 33), number)
            assert index.find(place, mark, *name) == held.get(name, -1)
        assert np.count_nonzero(place) == len(held)
    moved, mark = index.table_for(100), np.concatenate((mark, np.zeros((100, 2), np.int64)))
    index.rehash(table, moved, 3, 20, 100)
    mark[103:120] = mark[3:20]
    for number in range(26):
        name = ((number % 5) | (number << 33), number)
        slot = held.get(name, -1)
        assert index.find(moved, mark, *name) == (slot + 100 if 3 <= slot < 20 else slot)


def test_only_arrays_without_gaps_have_an_address() -> None:
    whole = np.zeros((4, 2), np.int64)
    assert index.address(whole[1:]) == index.address(whole) + 16
    with pytest.raises(InvariantBroken, match="not contiguous"):
        index.address(whole[:, 0])
