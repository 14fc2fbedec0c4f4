"""What flows: records of one poll as columns (`Segment`), and what `plan` makes of them (`Plan`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Reject
from streamapp.core.json_columns import Part, woven
from streamapp.core.text import TextColumn, text_column
from streamapp.core.texts import Strings, Texts
from streamapp.core.windows_index import DEFAULT_KEY, FAST_ROUNDS, hash_bytes, hash_names, joined

if TYPE_CHECKING:
    from streamapp.core.plain_rows import PlainRows

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Headers = Sequence[tuple[str, bytes | None]]


@dataclass(slots=True, frozen=True)
class Segment:
    """Consecutive records of one partition from one poll, as columns of equal length in offset order."""

    topic: str
    partition: int
    generation: int  #                 of the group when it was fetched
    offsets: Int64  #                  strictly increasing; gaps are legal (compaction, transaction markers)
    timestamps: Int64  #               broker or producer time, epoch ms
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

    def __len__(self) -> int:
        return len(self.values)


class Flag:
    """Bits of the `flags` column; `FLAG_NAMES` are their names in the verdict."""

    TRUNCATED = 1
    LATE = 2
    CLOCK_SKEW = 4
    COLD_ENTITY = 8
    DUPLICATE = 16
    OVERFLOW = 32


FLAG_NAMES: Mapping[int, str] = {
    Flag.TRUNCATED: "truncated",
    Flag.LATE: "late",
    Flag.CLOCK_SKEW: "clock_skew",
    Flag.COLD_ENTITY: "cold_entity",
    Flag.DUPLICATE: "duplicate",
    Flag.OVERFLOW: "overflow",
}


@dataclass(slots=True)
class Plan:
    """A micro-batch decoded and validated: n good events as columns in (segment, offset) order, and the rejects."""

    segments: tuple[Segment, ...]
    events: Sequence[Any]  #           n msgspec Structs of the pipeline's event type
    segment: Int32  #                  n: index into segments
    index: Int32  #                    n: index inside the segment
    event_id: Sequence[str]  #         n: given, else topic-partition-offset
    tenant: list[str]  #               n: "" where the event names none
    event_time: Int64  #               n: epoch ms, else the record's timestamp
    received_at: Int64  #              n: the record's timestamp, epoch ms
    flags: Int32  #                    n: bits of Flag
    rejects: list[Reject]
    columns: dict[str, list[Any]] = field(default_factory=dict)  # declared fields that were asked for, by name
    schema_id: Int32 | None = None  #  n: of Confluent's frame, -1 without; None where no record has a frame
    texts: dict[str, TextColumn] = field(default_factory=dict)  # text fields as they are measured, by name
    hashed: dict[Hashable, Int64] = field(default_factory=dict)  #  columns as window stores keep them: hashes by field, units by column
    said: tuple[Any, Any] | None = None  # a feature plan, and what it read of the texts
    plain: PlainRows | None = None  #  the fields, where all rows are plain JSON
    _identities: Texts | None = None

    def __len__(self) -> int:
        return len(self.segment)

    def column(self, name: str) -> list[Any]:
        """Gives the declared field `name` of all n events, in row order; read once, kept."""
        if self.plain is not None and name in self.plain.fields:
            return self.plain.column(name)
        values = self.columns.get(name)
        if values is None:
            values = self.columns[name] = list(map(attrgetter(name), self.events))
        return values

    def numbers(self, name: str) -> Float64:
        """Gives a number field of all n events, NaN where it is absent."""
        found = None if self.plain is None else self.plain.numbers(name)
        return np.array(self.column(name), np.float64) if found is None else found  # None becomes NaN

    def hashes(self, name: str, key: tuple[int, int] = DEFAULT_KEY, rounds: tuple[int, int] = FAST_ROUNDS) -> Int64:
        """Gives int64[n, 2] hashes of an id, string or text field under a key, (0, 0) where it is absent or empty."""
        texts = None if self.plain is None else self.plain.texts(name)
        if texts is not None:
            return hash_bytes(texts.data, texts.start, key, rounds)
        values = self.column(name)
        return hash_names([text or "" for text in values] if None in values else values, key, rounds)

    def encoded(self, name: str) -> Sequence[bytes]:
        """Gives a text field that every event has as UTF-8."""
        texts = None if self.plain is None else self.plain.texts(name)
        return [text.encode("utf-8", "surrogatepass") for text in self.column(name)] if texts is None else texts

    def identities(self) -> Texts:
        """Gives what an event is known by, per row: tenant, a zero byte, event id; joined once, kept."""
        if self._identities is None and isinstance(self.event_id, Strings):
            ids: list[Part] = [b"\0", self.event_id.texts]
            self._identities = woven(len(self), [Texts.of([*map(str.encode, self.tenant)]), *ids] if any(self.tenant) else ids)
        elif self._identities is None:
            self._identities = Texts(*joined(list(map("\0".join, zip(self.tenant, self.event_id, strict=True)))))
        return self._identities

    def offsets(self) -> Int64:
        """Gives each event's offset in its partition."""
        if not len(self):
            return np.empty(0, np.int64)
        found: Int64 = np.concatenate([segment.offsets for segment in self.segments])
        if len(found) > len(self):  # some are rejects
            starts = np.cumsum([0, *map(len, self.segments)])
            found = found[starts[self.segment] + self.index]
        return found

    def text(self, name: str) -> TextColumn:
        """Gives the text field `name` of all n events, cleaned and folded once; an absent text is empty."""
        found = self.texts.get(name)
        if found is None:
            encoded = None if self.plain is None else self.plain.texts(name)
            if encoded is None:
                values = self.column(name)
                found = text_column([text or "" for text in values] if None in values else values)
            else:
                found = text_column(encoded)
            self.texts[name] = found
        return found
