"""Record batches filled a column at a time: written whole by a kernel, or by aiokafka's builder without its per-message Python."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
from aiokafka.codec import zstd_encode
from aiokafka.producer.message_accumulator import BatchBuilder

from streamapp.core.events import Headers, Segment
from streamapp.core.record_batch import HEAD_BYTES, mark_transactional, seal, with_zstd, write_batch
from streamapp.core.texts import Texts

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

    def __init__(self, packed: npt.NDArray[np.uint8], count: int, *, transactional: bool = False) -> None:
        """Takes what core.record_batch wrote; aiokafka's own builder is never made."""
        if transactional:
            mark_transactional(packed)
        self._packed, self._relative_offset = packed, count
        self._closed = True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        seal(self._packed, producer_id, producer_epoch, base_sequence)

    def _build(self) -> memoryview:
        return self._packed.data

    def size(self) -> int:
        """Gives the bytes of the batch."""
        return len(self._packed)


class Carrier:
    """What all outputs of one segment share: its good rows' keys, source offsets and trace headers; prepared once per micro-batch."""

    def __init__(self, segment: Segment, index: npt.NDArray[np.int32], *, transactional: bool = False) -> None:
        """`index` are the segment's good rows; `transactional` as for `fill`."""
        self._transactional = transactional
        places = index.tolist()
        keys = segment.keys
        self._keys = list(keys) if len(places) == len(keys) else [keys[at] for at in places]
        self._offsets = segment.offsets[index]
        self._segment, self._places = segment, places
        self._traced = any(segment.headers)

    def batches(
        self, values: Texts, chosen: Sequence[npt.NDArray[np.bool_]], size_max: int, timestamp_ms: int, *, compressed: bool = False
    ) -> list[list[BatchBuilder]]:
        """Takes a value per row and, for each target, which rows go there; gives each target's batches, rows in order.

        `compressed`: what has more than COMPRESSED_FROM_BYTES is written in zstd, which every reader of the batch undoes by itself.
        """
        if self._traced:
            messages: list[Message] = list(zip(self._keys, values, self._headers, strict=True))
            marked = self._transactional
            return [list(fill(_only(messages, rows), size_max, timestamp_ms, transactional=marked)) for rows in chosen]
        keys, keyless = self._packed_keys
        found: list[list[BatchBuilder]] = []
        for target in chosen:
            rows, place = target.nonzero()[0], 0
            packed: list[BatchBuilder] = []
            while place < len(rows):
                first = place
                place, batch = write_batch(rows, first, keys, keyless, values, _NAME, self._offsets, size_max, timestamp_ms)
                if compressed and len(batch) >= COMPRESSED_FROM_BYTES:
                    batch = with_zstd(batch, zstd_encode(batch[HEAD_BYTES:].data, COMPRESSION_LEVEL))
                packed.append(PackedBatch(batch, place - first, transactional=self._transactional))
            found.append(packed)
        return found

    @cached_property
    def _headers(self) -> list[Headers]:
        return _headers(self._segment, self._places, self._offsets.tolist())

    @cached_property
    def _packed_keys(self) -> tuple[Texts, npt.NDArray[np.bool_]]:
        if None not in self._keys:
            return Texts.of(cast(list[bytes], self._keys)), np.zeros(len(self._places), np.bool_)
        return Texts.of([key or b"" for key in self._keys]), np.array([key is None for key in self._keys])


_NAME = np.frombuffer(SOURCE_OFFSET.encode(), np.uint8)


def _only(messages: Sequence[Message], chosen: npt.NDArray[np.bool_]) -> Sequence[Message]:
    rows = np.flatnonzero(chosen).tolist()
    return messages if len(rows) == len(messages) else [messages[row] for row in rows]


def _headers(segment: Segment, index: Sequence[int], offsets: Sequence[int]) -> list[Headers]:
    headers: list[Headers] = [[(SOURCE_OFFSET, b"%d" % offset)] for offset in offsets]
    for row, at in enumerate(index):
        given = segment.headers[at]
        if given:
            headers[row] = [*headers[row], *((name, value) for name, value in given if name in TRACE_HEADERS)]
    return headers
