"""Record batches written by the kernel are, byte for byte, those of aiokafka's builder, and read back as what was put in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as some

from streamapp.bus.columns import COMPRESSED_FROM_BYTES, SOURCE_OFFSET, Carrier, as_one, fill
from streamapp.core import record_batch
from streamapp.core.events import Headers, Segment
from streamapp.core.texts import Texts

NOW = 1_763_700_000_123
KEYS = some.none() | some.binary(max_size=80)
VALUES = some.binary(max_size=300)
OFFSETS = some.sampled_from([0, 9, 10, 99, 100, 2**31, 2**53, 2**63 - 1000])


def segment(keys: Sequence[bytes | None], first: int, headers: Sequence[Headers] | None = None) -> Segment:
    n = len(keys)
    return Segment("t", 0, 1, np.arange(first, first + n), np.zeros(n, np.int64), keys, [b""] * n, headers or [()] * n)


def sealed(batch: Any) -> bytes:
    batch._set_producer_state(4711, 3, 77)
    return bytes(batch._build())


def carrier(of: Segment, index: Sequence[int] | None = None, *, transactional: bool = False) -> Carrier:
    rows = np.arange(len(of), dtype=np.int32) if index is None else np.array(index, np.int32)
    return Carrier((of,), np.zeros(len(rows), np.int32), rows, transactional=transactional)


def batches(of: Carrier, values: Sequence[bytes], size_max: int) -> list[BatchBuilder]:
    """Gives the batches of values that all have one target."""
    found = of.batches(Texts.of(values), np.zeros(len(values), np.int8), 1, size_max, NOW)
    assert all((segment, target) == (0, 0) for segment, target, _ in found)
    return [batch for *_, batch in found]


@settings(max_examples=60, deadline=None)
@given(
    some.lists(some.tuples(KEYS, VALUES, some.booleans()), min_size=1, max_size=40),
    OFFSETS,
    some.sampled_from([200, 700, 100_000]),
    some.booleans(),
)
def test_the_kernel_writes_what_the_builder_writes(
    rows: list[tuple[bytes | None, bytes, bool]], first: int, size_max: int, transactional: bool
) -> None:
    keys, values = [key for key, _, _ in rows], [value for _, value, _ in rows]
    chosen = np.array([there for _, _, there in rows])
    written = carrier(segment(keys, first), transactional=transactional).batches(
        Texts.of(values), np.where(chosen, np.int8(0), np.int8(1)), 2, size_max, NOW
    )
    ours, others = ([batch for _, target, batch in written if target == wanted] for wanted in (0, 1))
    for found, mask in ((ours, chosen), (others, ~chosen)):
        messages = [(keys[at], values[at], [(SOURCE_OFFSET, b"%d" % (first + at))]) for at in np.flatnonzero(mask).tolist()]
        assert sum(batch.record_count() for batch in found) == len(messages)
        at = 0
        for batch in found:
            took = batch.record_count()
            (alone,) = fill(messages[at : at + took], 10**6, NOW, transactional=transactional)
            data = sealed(batch)
            assert data == sealed(alone)
            assert DefaultRecordBatch(data).is_transactional == transactional
            assert batch.size() <= size_max or took == 1
            at += took


def test_batches_are_filled_to_the_brim_and_a_record_that_is_too_large_stands_alone() -> None:
    values = [b"x" * 100] * 20 + [b"y" * 5000] + [b"z"]
    found = batches(carrier(segment([b"k"] * 22, 0)), values, 1500)
    sizes = [(batch.record_count(), batch.size()) for batch in found]
    assert [count for count, _ in sizes] == [11, 9, 1, 1] and sizes[0][1] + 125 > 1500


def test_what_was_put_in_is_read_back_by_the_client() -> None:
    found = batches(carrier(segment([b"k1", None, b""], 41)), [b"v1", b"", b"v3"], 10_000)
    data = sealed(found[0])
    batch = DefaultRecordBatch(data)
    assert batch.validate_crc() and (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4711, 3, 77)
    records = [(one.key, one.value, one.headers) for one in batch if one.timestamp == NOW]
    assert records == [
        (b"k1", b"v1", [(SOURCE_OFFSET, b"41")]), (None, b"", [(SOURCE_OFFSET, b"42")]), (b"", b"v3", [(SOURCE_OFFSET, b"43")]),
    ]  # fmt: skip


@pytest.mark.parametrize("transactional", [False, True])
def test_a_large_batch_is_compressed_where_that_is_asked_for_and_read_back_alike(transactional: bool) -> None:
    n = 200
    values = [b'{"event_id":"e%d","features":{"amount":%d}}' % (row, 7 * row) for row in range(n)] + [b"x" * 3 * COMPRESSED_FROM_BYTES]
    of, small = segment([b"k%d" % row for row in range(n + 1)], 9), np.arange(n + 1) < 3
    asked = carrier(of, transactional=transactional)
    every = np.zeros(n + 1, np.int8)

    def written(target: np.ndarray, *, compressed: bool) -> BatchBuilder:
        ((*_, batch),) = asked.batches(Texts.of(values), target, 1, 10**6, NOW, compressed=compressed)
        return batch

    large = [written(every, compressed=said) for said in (False, True)]
    plain, packed = (DefaultRecordBatch(sealed(batch)) for batch in large)
    assert (plain.compression_type, packed.compression_type) == (0, DefaultRecordBatch.CODEC_ZSTD)
    assert packed.validate_crc() and packed.is_transactional == transactional and large[1].size() < large[0].size() / 5
    assert [(one.offset, one.key, one.value, one.headers) for one in packed] == [
        (one.offset, one.key, one.value, one.headers) for one in plain
    ]
    few = np.where(small, np.int8(0), np.int8(-1))
    assert sealed(written(few, compressed=False)) == sealed(written(few, compressed=True))  # a small one stays as it is


@settings(max_examples=60, deadline=None)
@given(
    some.lists(some.tuples(some.integers(1, 90), some.booleans(), some.integers(-5, 10**6)), min_size=1, max_size=5),
    some.booleans(),
    some.sampled_from([300, 10**6]),
)
def test_batches_that_go_together_say_what_they_said_alone(
    given_batches: list[tuple[int, bool, int]], transactional: bool, size_max: int
) -> None:
    made, told = [], []
    for number, (count, by_builder, later_ms) in enumerate(given_batches):
        keys, values = [b"k%d" % row if row % 3 else None for row in range(count)], [b"%d:%d" % (number, row) for row in range(count)]
        if by_builder:
            made += fill([(*one, []) for one in zip(keys, values, strict=True)], 10**6, NOW + later_ms, transactional=transactional)
        else:
            of = carrier(segment(keys, 5), transactional=transactional)
            made += [batch for *_, batch in of.batches(Texts.of(values), np.zeros(count, np.int8), 1, 10**6, NOW + later_ms)]
        told += [(key, value, NOW + later_ms) for key, value in zip(keys, values, strict=True)]
    sizes = [batch.size() for batch in made]
    found, place = [], 0
    while place < len(made):
        count, one = as_one(made[place:], size_max)
        assert count == 1 or sum(sizes[place : place + count]) <= size_max
        batch = DefaultRecordBatch(sealed(one))
        assert batch.validate_crc() and batch.is_transactional == transactional
        records = list(batch)
        assert [record.offset for record in records] == list(range(one.record_count()))
        found += [(record.key, record.value, record.timestamp) for record in records]
        place += count
    assert found == told


def test_a_compressed_batch_goes_alone() -> None:
    of = carrier(segment([b"k"], 0))
    values = Texts.of([b"x" * COMPRESSED_FROM_BYTES])
    ((_, _, large),) = of.batches(values, np.zeros(1, np.int8), 1, 10**6, NOW, compressed=True)
    (small,) = batches(of, [b"x"], 10**6)
    assert as_one([large, small, small], 10**6) == (1, large)
    assert as_one([small, small, large], 10**6)[0] == 2


def test_a_retry_under_another_epoch_is_sealed_again() -> None:
    found = batches(carrier(segment([b"k"], 0)), [b"v"], 10_000)
    first = sealed(found[0])
    found[0]._set_producer_state(4712, 0, 0)
    again = bytes(found[0]._build())
    assert first != again and DefaultRecordBatch(again).validate_crc()


def test_trace_headers_are_passed_on_and_rows_that_are_not_good_are_left_out() -> None:
    headers = [[("traceparent", b"00-ab"), ("other", b"x")], (), ()]
    of = segment([b"a", b"b", b"c"], 7, headers)
    for given_headers, traced in ((of, [("traceparent", b"00-ab")]), (segment([b"a", b"b", b"c"], 7), [])):
        found = batches(carrier(given_headers, [0, 2]), [b"1", b"3"], 10_000)
        read = [(one.key, one.value, one.headers) for one in DefaultRecordBatch(sealed(found[0]))]
        assert read == [(b"a", b"1", [(SOURCE_OFFSET, b"7"), *traced]), (b"c", b"3", [(SOURCE_OFFSET, b"9")])]


def test_nothing_chosen_is_no_batch() -> None:
    assert carrier(segment([b"k"], 0)).batches(Texts.of([b"v"]), np.array([-1], np.int8), 1, 1000, NOW) == []


@pytest.mark.parametrize("traced", [False, True])
def test_every_segment_and_target_has_its_own_batches_with_its_rows_in_order(traced: bool) -> None:
    headers = [[("traceparent", b"00")]] * 4 if traced else None
    segments = (segment([b"a", b"b", b"c", b"d"], 10, headers), segment([], 0), segment([b"e", b"f", b"g"], 70))
    which, index = np.array([0, 0, 0, 2, 2], np.int32), np.array([0, 2, 3, 1, 2], np.int32)
    target = np.array([2, 0, 2, -1, 1], np.int8)
    found = Carrier(segments, which, index).batches(Texts.of([b"%d" % row for row in range(5)]), target, 3, 10_000, NOW)
    read = [
        (place, to, [(one.key, one.value, dict(one.headers)[SOURCE_OFFSET]) for one in DefaultRecordBatch(sealed(batch))])
        for place, to, batch in found
    ]
    assert read == [
        (0, 0, [(b"c", b"1", b"12")]), (0, 2, [(b"a", b"0", b"10"), (b"d", b"2", b"13")]), (2, 1, [(b"g", b"4", b"72")]),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 10_001])
def test_both_checksums_are_the_client_s(size: int) -> None:
    data = np.random.default_rng(size).integers(256, size=size, dtype=np.uint8)
    wanted = calc_crc32c(data.tobytes())
    assert record_batch.checksum(data) == wanted
    assert int(record_batch._crc_by_table(data, 0, size, record_batch.TABLE)) == wanted
