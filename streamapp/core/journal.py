"""The records of the state log: what one micro-batch did to one partition, and the whole of a partition cut into chunks; bytes and back.

A record is a head (who wrote it, from where to where, where to read on) and packed columns. Its first byte is the format's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.dedupe import DECISION
from streamapp.core.errors import ConfigError
from streamapp.core.packing import pack, unpack
from streamapp.core.windows_partition import Entries, PartitionState, Rows

FORMAT = 1
#: Rows of one delta record: below the broker's limit of a record whatever the pipeline keeps.
DELTA_ROWS_MAX = 4096
CHUNK_BYTES_MAX = 900_000
_BLOCK_BYTES = 1 << 18  # of unpacked columns: what a chunk is filled with
_DECISION_COLUMNS = 6

Kind = Literal["delta", "snapshot", "reset"]


class Release(msgspec.Struct, frozen=True, array_like=True):
    """What a remembered decision's numbers stand for: the release behind its code, and the names behind `decided_by`."""

    code: int
    name: str
    deciders: tuple[str, ...]


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What every record says before its columns; offsets are the source's unless said otherwise.

    delta: covers [since, next); `since` -1: nothing came before. snapshot: holds everything below `next`. reset: what lies before it in
    the log is void, and the position is `next`.
    """

    kind: Kind
    since: int
    next: int
    generation: int
    partitions: int  #                      of the events topic when it was written
    base: int  #                            log offset where a recovery that ends here has to begin; -1: at the log's start
    high: int  #                            event-time high mark, ms
    outputs: tuple[int, ...]  #             next offset of each output topic's partition after it; -1: nothing sent yet
    rows: int = 0
    ids: int = 2  #                         delta: columns of an event id, 0 where none are remembered
    stores: tuple[tuple[str, int, int, bool], ...] = ()  # delta: name, value columns, key columns, whether modes are given
    decided: bool = False
    releases: tuple[Release, ...] = ()  #   delta: only when one is new to this writer; snapshot: all that are known
    sequence: int = 0  #                    snapshot: which chunk of how many
    total: int = 0
    arrays: tuple[tuple[str, tuple[int, ...], bool], ...] = ()  # snapshot: name, shape, whether of DECISION
    blocks: tuple[tuple[int, int, int], ...] = ()  #              snapshot: (array, first row, rows) of this chunk


_head = msgspec.msgpack.Encoder()
_heads = msgspec.msgpack.Decoder(Head)


def encode(head: Head, body: bytes) -> bytes:
    """Gives a record's bytes: version, length of the head, head, columns."""
    first = _head.encode(head)
    return b"%c%b%b%b" % (FORMAT, len(first).to_bytes(3, "little"), first, body)


def decode(record: bytes) -> tuple[Head, memoryview]:
    """Takes a record; gives its head and its packed columns. Raises ConfigError for another format or a damaged head."""
    if not record or record[0] != FORMAT:
        found = record[0] if record else "none"
        raise ConfigError(
            f"the state log has records of format {found}; this program reads format {FORMAT}",
            "run the version that wrote them, or rebuild the state: `streamapp state reset`",
        )
    length = int.from_bytes(record[1:4], "little")
    try:
        return _heads.decode(record[4 : 4 + length]), memoryview(record)[4 + length :]
    except (msgspec.DecodeError, msgspec.ValidationError) as damaged:
        raise ConfigError(f"a record of the state log cannot be read: {damaged}", "rebuild the state: `streamapp state reset`") from damaged


# -- deltas


def shape_of(rows: Rows) -> dict[str, Any]:
    """Gives what a head says about rows: `rows`, `ids`, `stores`, `decided`."""
    stores = tuple((name, one.value.shape[1], one.key.shape[1], one.mode is not None) for name, one in rows.entries.items())
    return {"rows": len(rows.offset), "ids": rows.event_id.shape[1], "stores": stores, "decided": rows.decision is not None}


def pack_rows(rows: Rows) -> bytes:
    """Takes rows, their decisions where there are any; gives their bytes. About 0.1 µs per row and 10 columns."""
    columns: list[npt.NDArray[Any]] = [rows.offset, rows.event_time, rows.broker_time, *rows.event_id.T]
    for one in rows.entries.values():
        columns += [*one.name.T, *one.value.T, *one.key.T]
        if one.mode is not None:
            columns.append(one.mode)
    if rows.decision is not None:
        columns += _split(rows.decision)
    matrix = np.empty((len(columns), len(rows.offset)), np.int64)
    for place, column in enumerate(columns):
        matrix[place] = column
    return pack(matrix)


def unpack_rows(head: Head, body: bytes | memoryview) -> Rows:
    """Takes a delta's head and columns; gives its rows. Raises ConfigError when they are damaged."""
    widths = [2 + values + keys + moded for _, values, keys, moded in head.stores]
    at = 3 + head.ids
    count = at + sum(widths) + _DECISION_COLUMNS * head.decided
    columns, _ = unpack(body, count, head.rows)
    identity = np.ascontiguousarray(columns[3:at].T)
    entries: dict[str, Entries] = {}
    for (name, values, keys, moded), width in zip(head.stores, widths, strict=True):
        mine = columns[at : at + width]
        mode = mine[-1].astype(np.int8) if moded else None
        given = [np.ascontiguousarray(part.T) for part in (mine[:2], mine[2 : 2 + values], mine[2 + values : 2 + values + keys])]
        entries[name] = Entries(given[0], given[1], given[2], mode)
        at += width
    decision = _join(columns[at:]) if head.decided else None
    return Rows(columns[0], columns[1], columns[2], identity, entries, decision)


def concatenated(parts: Sequence[Rows]) -> Rows:
    """Takes at least one run of rows, in offset order; gives them as one, so that they are applied in bulk."""
    if len(parts) == 1:
        return parts[0]
    entries: dict[str, Entries] = {}
    for name, first in parts[0].entries.items():
        mine = [part.entries[name] for part in parts]
        modes = None if first.mode is None else np.concatenate([one.mode for one in mine if one.mode is not None])
        entries[name] = Entries(
            np.concatenate([one.name for one in mine]),
            np.concatenate([one.value for one in mine]),
            np.concatenate([one.key for one in mine]),
            modes,
        )
    decided = [part.decision for part in parts if part.decision is not None]
    return Rows(
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.event_time for part in parts]),
        np.concatenate([part.broker_time for part in parts]),
        np.concatenate([part.event_id for part in parts]),
        entries,
        np.concatenate(decided) if decided else None,
    )


def pieces(rows: Rows, limit: int = DELTA_ROWS_MAX) -> Iterator[Rows]:
    """Gives the rows in runs of at most `limit`, shorter where many columns are kept, so that each fits into one record."""
    columns = 16 + sum(3 + one.value.shape[1] + one.key.shape[1] for one in rows.entries.values())
    limit = max(1, min(limit, CHUNK_BYTES_MAX // (9 * columns)))
    if len(rows.offset) <= limit:
        yield rows
        return
    for low in range(0, len(rows.offset), limit):
        part = slice(low, low + limit)
        entries = {
            name: Entries(one.name[part], one.value[part], one.key[part], None if one.mode is None else one.mode[part])
            for name, one in rows.entries.items()
        }
        decision = None if rows.decision is None else rows.decision[part]
        yield Rows(rows.offset[part], rows.event_time[part], rows.broker_time[part], rows.event_id[part], entries, decision)


def _split(decision: npt.NDArray[np.void]) -> list[npt.NDArray[Any]]:
    score = np.ascontiguousarray(decision["score"]).view(np.int64)
    return [decision["offset"], score, decision["release"], decision["route"], decision["decided_by"], decision["settled"]]


def _join(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    decision = np.empty(columns.shape[1], DECISION)
    decision["offset"], decision["score"] = columns[0], np.ascontiguousarray(columns[1]).view(np.float64)
    decision["release"], decision["route"], decision["decided_by"], decision["settled"] = columns[2:6]
    return decision


# -- snapshots


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a snapshot before its head is known: which rows of which arrays, and their columns packed."""

    blocks: tuple[tuple[int, int, int], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A partition's state at one moment, packed: `applied` is the last source offset it holds."""

    applied: int
    high: int
    arrays: tuple[tuple[str, tuple[int, ...], bool], ...]
    chunks: tuple[Chunk, ...]

    def records(self, head: Head) -> Iterator[bytes]:
        """Takes what the heads have in common (position, generation, base, outputs, releases); gives the snapshot's records in order."""
        for sequence, chunk in enumerate(self.chunks):
            yield encode(
                msgspec.structs.replace(
                    head,
                    kind="snapshot",
                    high=self.high,
                    sequence=sequence,
                    total=len(self.chunks),
                    arrays=self.arrays,
                    blocks=chunk.blocks,
                ),
                chunk.body,
            )


def cut(snapshot: Mapping[str, npt.NDArray[Any]]) -> Cut:
    """Takes PartitionState.snapshot(); gives it packed. Releases the interpreter most of the time: meant for a thread."""
    arrays = tuple((name, tuple(array.shape), array.dtype == DECISION) for name, array in snapshot.items())
    chunks: list[Chunk] = []
    blocks: list[tuple[int, int, int]] = []
    parts: list[bytes] = []
    size = 0
    for place, array in enumerate(snapshot.values()):
        decided = array.dtype == DECISION
        width = _DECISION_COLUMNS if decided else _columns(array.shape)
        rows = max(1, _BLOCK_BYTES // (8 * max(1, width)))
        for low in range(0, len(array), rows):
            part = array[low : low + rows]
            columns = np.array(_split(part), np.int64) if decided else np.ascontiguousarray(part.reshape(len(part), -1).T, np.int64)
            packed = pack(columns)
            if size + len(packed) > CHUNK_BYTES_MAX and parts:
                chunks.append(Chunk(tuple(blocks), b"".join(parts)))
                blocks, parts, size = [], [], 0
            blocks.append((place, low, len(part)))
            parts.append(packed)
            size += len(packed)
    chunks.append(Chunk(tuple(blocks), b"".join(parts)))
    return Cut(int(snapshot["applied"][0]), int(snapshot["high"][0]), arrays, tuple(chunks))


def _columns(shape: Sequence[int]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64))


@dataclass(slots=True)
class Gathering:
    """A snapshot while its chunks come in; a torn one never becomes `complete`."""

    head: Head
    arrays: list[npt.NDArray[Any]] = field(init=False)
    seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.arrays = [np.empty(shape, DECISION if decided else np.int64) for _, shape, decided in self.head.arrays]

    def take(self, head: Head, body: memoryview) -> bool:
        """Takes one chunk; gives whether the snapshot is complete with it."""
        if head.sequence not in self.seen:
            self.seen.add(head.sequence)
            at = 0
            for place, low, rows in head.blocks:
                array, decided = self.arrays[place], head.arrays[place][2]
                columns, used = unpack(body[at:], _DECISION_COLUMNS if decided else _columns(array.shape), rows)
                array[low : low + rows] = _join(columns) if decided else columns.T.reshape(rows, *array.shape[1:])
                at += used
        return self.complete

    @property
    def complete(self) -> bool:
        """True once all chunks are there."""
        return len(self.seen) == self.head.total

    def into(self, state: PartitionState) -> None:
        """Puts the complete snapshot into a new state. Raises ConfigError when its stores are not the pipeline's."""
        arrays = {name: array for (name, _, _), array in zip(self.head.arrays, self.arrays, strict=True)}
        missing = [name for name in state.stores if f"{name}/name" not in arrays]
        if missing:
            raise ConfigError(
                f"the saved state knows no windows of {', '.join(missing)}: the pipeline file has changed",
                "rebuild the state from the events: `streamapp state reset`",
            )
        state.restore(arrays)


def snapshot_id(head: Head) -> tuple[int, int, int]:
    """Gives what the chunks of one snapshot have in common."""
    return head.next, head.generation, head.base
