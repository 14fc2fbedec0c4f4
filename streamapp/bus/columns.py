"""Record batches filled a column at a time: written whole by a kernel, or by aiokafka's builder without its per-message Python."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from aiokafka.codec import zstd_encode
from aiokafka.producer.message_accumulator import BatchBuilder

from streamapp.core.events import Headers, Segment
from streamapp.core.record_batch import HEAD_BYTES, is_compressed, merged, seal, with_zstd, write_batches
from streamapp.core.texts import Texts

T = TypeVar("T")
Int32 = npt.NDArray[np.int32]
Message = tuple[bytes | None, bytes | None, Headers]


class ColumnBatch(BatchBuilder):
    """A batch for aiokafka's producer that takes many messages in one call."""

    def __init__(self, size_max: int, *, transactional: bool = False) -> None:
        """`size_max` in bytes; the first message is taken whatever its size (that is aiokafka's rule, see `fill`)."""
        super().__init__(size_max, 0, is_transactional=transactional)
        self._relative_offset: int = 0  # aiokafka's own count of what was appended

    def extend(self, messages: Sequence[Message], start: int, timestamp_ms: int) -> int:
        """Appends messages[start:] in order while they fit; gives how many did, at least one."""
        append = self._builder.append
        place = self._relative_offset
        for at in range(start, len(messages)):
            key, value, headers = messages[at]
            if append(place, timestamp_ms, key, value, headers) is None:
                break
            place += 1
        took = place - self._relative_offset
        self._relative_offset = place
        self.close()
        return took


def fill(messages: Sequence[Message], size_max: int, timestamp_ms: int, *, transactional: bool = False) -> list[ColumnBatch]:
    """Gives the batches of at most `size_max` bytes that carry all messages in order; a message larger than that stands alone.

    `transactional` ones are for a producer inside of a transaction: without the mark they would count at once.
    """
    batches: list[ColumnBatch] = []
    place = 0
    while place < len(messages):
        batch = ColumnBatch(size_max, transactional=transactional)
        place += batch.extend(messages, place, timestamp_ms)
        batches.append(batch)
    return batches


#: A smaller batch is sent as it is: to compress it costs more than its bytes on the way, and nothing waits behind it.
COMPRESSED_FROM_BYTES = 16_384
#: Of zstd. On decision records of 2.3 KB: 10.7 times smaller at 2.9 µs a record; level 3 takes 4.5 µs for as much.
COMPRESSION_LEVEL = 1

SOURCE_OFFSET = "source-offset"
#: Headers that are passed from the event to its verdict (W3C trace context).
TRACE_HEADERS = ("traceparent", "tracestate")


class PackedBatch(BatchBuilder):
    """A batch for aiokafka's producer that is written already; only its producer and checksum are missing."""

    def __init__(self, packed: npt.NDArray[np.uint8], count: int) -> None:
        """Takes what core.record_batch wrote; aiokafka's own builder is never made."""
        self.packed, self._relative_offset = packed, count
        self._closed = True

    @property
    def compressed(self) -> bool:
        """Whether the records are."""
        return is_compressed(self.packed)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        seal(self.packed, producer_id, producer_epoch, base_sequence)

    def _build(self) -> memoryview:
        return self.packed.data

    def size(self) -> int:
        """Gives the bytes of the batch."""
        return len(self.packed)


def as_one(batches: Sequence[BatchBuilder], size_max: int) -> tuple[int, BatchBuilder]:
    """Takes batches of one partition, none of them sent yet; gives how many of them from the first on are in the batch beside.

    At least one. Those that fit into `size_max` bytes go as one, so that the broker answers once; a compressed one stays alone.
    """
    count = 0
    for batch in batches:
        size_max -= batch.size()
        if size_max < 0 or (isinstance(batch, PackedBatch) and batch.compressed):
            break
        count += 1
    if count < 2:
        return 1, batches[0]
    parts = [one.packed if isinstance(one, PackedBatch) else np.frombuffer(one._build(), np.uint8) for one in batches[:count]]
    return count, PackedBatch(merged(parts), sum(batch.record_count() for batch in batches[:count]))


class Carrier:
    """What all outputs of a micro-batch share: its good rows' keys, source offsets and trace headers; prepared once."""

    def __init__(self, segments: Sequence[Segment], segment: Int32, index: Int32, *, transactional: bool = False) -> None:
        """Row i is segments[segment[i]]'s record index[i], in this order; `transactional` as for `fill`."""
        self._segments, self._segment, self._index, self._transactional = segments, segment, index, transactional
        every = len(index) == sum(map(len, segments))
        self._places = None if every else list(zip(segment.tolist(), index.tolist(), strict=True))
        offsets = np.concatenate([one.offsets for one in segments]) if segments else np.zeros(0, np.int64)
        if not every:
            first = np.cumsum([0, *map(len, segments)])
            offsets = offsets[first[segment] + index]
        self._offsets = offsets
        self._traced = any(any(one.headers) for one in segments)

    def batches(
        self, values: Texts, target: npt.NDArray[np.int8], targets: int, size_max: int, timestamp_ms: int, *, compressed: bool = False
    ) -> list[tuple[int, int, BatchBuilder]]:
        """Takes for each row a value and its target, 0 to targets - 1 (below 0: none).

        Gives (segment, target, batch) by segment and target, rows in order. `compressed`: what has more than COMPRESSED_FROM_BYTES is
        written in zstd, which every reader of the batch undoes by itself.
        """
        group = np.where(target < 0, -1, self._segment * targets + target)
        groups = targets * len(self._segments)
        marked = self._transactional
        if self._traced:
            messages: list[Message] = list(zip(self._of_rows([one.keys for one in self._segments]), values, self._headers, strict=True))
            chosen = ((one, np.flatnonzero(group == one).tolist()) for one in range(groups))
            return [
                (one // targets, one % targets, batch)
                for one, rows in chosen
                for batch in fill([messages[row] for row in rows], size_max, timestamp_ms, transactional=marked)
            ]
        keys, keyless = self._packed_keys
        written = write_batches(group, groups, keys, keyless, values, _NAME, self._offsets, size_max, timestamp_ms, transactional=marked)
        found: list[tuple[int, int, BatchBuilder]] = []
        for one, batch, records in written:
            large = compressed and len(batch) >= COMPRESSED_FROM_BYTES
            packed = with_zstd(batch, zstd_encode(batch[HEAD_BYTES:].data, COMPRESSION_LEVEL)) if large else batch
            found.append((one // targets, one % targets, PackedBatch(packed, records)))
        return found

    def _of_rows(self, columns: Sequence[Sequence[T]]) -> list[T]:
        if self._places is None:
            return list(chain.from_iterable(columns))
        return [columns[segment][index] for segment, index in self._places]

    @cached_property
    def _headers(self) -> list[Headers]:
        return _headers(self._of_rows([one.headers for one in self._segments]), self._offsets.tolist())

    @cached_property
    def _packed_keys(self) -> tuple[Texts, npt.NDArray[np.bool_]]:
        columns = [one.keys for one in self._segments]
        if self._places is None and (keys := Texts.end_to_end(columns)) is not None:
            return keys, np.zeros(len(keys), np.bool_)
        given = self._of_rows(columns)
        return Texts.of([key or b"" for key in given]), np.array([key is None for key in given], np.bool_)


_NAME = np.frombuffer(SOURCE_OFFSET.encode(), np.uint8)


def _headers(given: Sequence[Headers], offsets: Sequence[int]) -> list[Headers]:
    return [
        [(SOURCE_OFFSET, b"%d" % offset), *((name, value) for name, value in headers if name in TRACE_HEADERS)]
        for headers, offset in zip(given, offsets, strict=True)
    ]
