"""Partitions merged by time: one order whatever pieces they come in, and micro-batches made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.bus import past
from streamapp.bus.follow import Record
from streamapp.bus.past import Merge, segments, slices
from streamapp.core.errors import BusError


def records_of(times: Sequence[Sequence[int]]) -> list[list[Record]]:
    return [
        [Record("t", partition, 2 * at, ms, b"k", b"%d" % at, {"h": b"1"}) for at, ms in enumerate(of)]
        for partition, of in enumerate(times)
    ]


def in_order(partitions: Sequence[Sequence[Record]]) -> list[Record]:
    """The order by words of its own: each record at the latest time of its partition so far."""
    keyed = [
        (max(one.timestamp_ms for one in records[: at + 1]), record.partition, record.offset)
        for records in partitions
        for at, record in enumerate(records)
    ]
    by_place = {(record.partition, record.offset): record for records in partitions for record in records}
    return [by_place[partition, offset] for _, partition, offset in sorted(keyed)]


class Told:
    """A follower that gives its records in pieces, as somebody else decides."""

    def __init__(self, partitions: Sequence[Sequence[Record]], pieces: Sequence[tuple[int, int]]) -> None:
        self.left = [list(records) for records in partitions]
        self.held: set[int] = set()
        self._pieces = iter(pieces)

    def hold(self, partitions: set[int]) -> None:
        self.held = partitions

    async def poll(self, wait_ms: int) -> list[Record]:
        place, count = next(self._pieces, (0, 1000))
        open_ = [at for at, one in enumerate(self.left) if one and at not in self.held]
        if place % len(self.left) not in open_:
            place = open_[0]
        waiting = self.left[place % len(self.left)]
        found, waiting[:count] = waiting[:count], []
        return found

    async def behind(self, ends: Any) -> dict[Any, int]:
        return {place: len(self.left[place.partition]) for place in ends}


class Place:
    def __init__(self, partition: int) -> None:
        self.partition = partition


times = st.lists(st.lists(st.integers(0, 30), max_size=25), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(times, st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=40), st.integers(1, 12))
async def test_slices_are_one_order_cut_alike_whatever_pieces_come(
    found: list[list[int]], pieces: list[tuple[int, int]], size: int
) -> None:
    partitions = records_of(found)
    ends = {Place(at): 1 << 40 for at in range(len(partitions))}
    given_ = [piece async for piece in slices(Told(partitions, pieces), ends, size)]  # type: ignore[arg-type]
    wanted = in_order(partitions)
    assert [record for piece in given_ for record in piece] == wanted
    assert [len(piece) for piece in given_] == [min(size, len(wanted) - at) for at in range(0, len(wanted), size)]


@settings(max_examples=100, deadline=None)
@given(times, st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=40), st.integers(1, 12))
async def test_no_partition_runs_far_ahead_and_those_that_others_wait_for_are_never_held(
    found: list[list[int]], pieces: list[tuple[int, int]], most: int
) -> None:
    partitions = records_of(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "AHEAD", most)
        ends = {Place(at): 1 << 40 for at in range(len(partitions))}
        given_ = [piece async for piece in slices(Told(partitions, pieces), ends, 5)]  # type: ignore[arg-type]
    assert [record for piece in given_ for record in piece] == in_order(partitions)


def test_a_partition_that_runs_ahead_is_named_and_one_that_others_wait_for_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "AHEAD", 3)
    slow, fast, same = records_of([[5], [6, 7, 8, 9], [5, 5, 5, 5]])
    merged = Merge(range(3))
    merged.take([*slow, *fast, *same])
    assert merged.ahead() == {1} and merged.due() == []


class Silent(Told):
    """One that says there is more, and gives nothing."""

    async def poll(self, wait_ms: int) -> list[Record]:
        return []


async def test_a_topic_that_stands_still_is_told_and_the_time_its_reader_takes_is_not_held_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    def passing() -> float:
        now[0] += 10
        return now[0]

    monkeypatch.setattr(past.time, "monotonic", passing)
    partitions = records_of([[1, 2, 3], [1, 2, 3]])
    with pytest.raises(BusError, match="gives nothing, 6 records before its end"):
        _ = [piece async for piece in slices(Silent(partitions, []), {Place(0): 9, Place(1): 9}, 2)]  # type: ignore[arg-type]
    found = []
    async for piece in slices(Told(partitions, [(0, 1)] * 6), {Place(0): 9, Place(1): 9}, 2):  # type: ignore[arg-type]
        found += piece
        now[0] += 1_000  # a reader that is busy elsewhere
    assert len(found) == 6


@settings(max_examples=100, deadline=None)
@given(times)
def test_nothing_is_due_that_something_to_come_could_go_before(found: list[list[int]]) -> None:
    partitions = records_of(found)
    merged = Merge(range(len(partitions)))
    first = partitions[0]
    merged.take(first)
    times_of_first = [one.timestamp_ms for one in first]
    before_the_latest = first[: times_of_first.index(max(times_of_first))] if first else []
    assert merged.due() == (before_the_latest if len(partitions) == 1 else [])


async def test_records_at_or_behind_the_end_are_left_out() -> None:
    partitions = records_of([[1, 2, 3], [1, 2, 3]])
    places = Place(0), Place(1)
    given_ = [piece async for piece in slices(Told(partitions, []), {places[0]: 2, places[1]: 5}, 100)]  # type: ignore[arg-type]
    assert [(one.partition, one.offset) for one in given_[0]] == [(0, 0), (1, 0), (1, 2), (1, 4)]


def test_a_slice_becomes_a_segment_for_each_partition_in_offset_order() -> None:
    mixed = in_order(records_of([[5, 1, 9], [2, 7], []]))
    first, second = segments(mixed)
    assert (first.partition, first.offsets.tolist(), first.timestamps.tolist()) == (0, [0, 2, 4], [5, 1, 9])
    assert (second.partition, second.offsets.tolist(), list(second.values)) == (1, [0, 2], [b"0", b"1"])
    assert second.headers == [(("h", b"1"),)] * 2 and segments([]) == ()
