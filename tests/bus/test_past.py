"""Partitions merged by time: one order whatever pieces they come in, and micro-batches made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.bus.follow import Record
from streamapp.bus.past import Merge, segments, slices


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
        self._pieces = iter(pieces)

    async def poll(self, wait_ms: int) -> list[Record]:
        place, count = next(self._pieces, (0, 1000))
        if not self.left[place % len(self.left)]:
            place = next(at for at, one in enumerate(self.left) if one)
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
