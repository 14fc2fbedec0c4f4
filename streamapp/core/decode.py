"""Record bytes to events: one msgspec pass over a micro-batch proves the good ones, a second look names what is wrong with the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, repeat
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.column_checks import Column, column_check
from streamapp.core.envelope import Attributes, read_headers, strip_frame
from streamapp.core.errors import Reject, RejectCode
from streamapp.core.events import Int32, Int64, Plan, Segment
from streamapp.core.fields import EVENT_ID, TENANT, Refused
from streamapp.core.plain import PlainReader
from streamapp.core.plain_rows import PlainRows
from streamapp.core.scrutiny import NOT_DECODED, Scrutiny, event_type
from streamapp.core.spec import PipelineSpec
from streamapp.core.texts import Strings, Texts
from streamapp.core.times import UNREADABLE, epoch_ms

#: Rows from which on a kernel is worth its calls: some 150 µs, however few there are.
PLAIN_ROWS_MIN = 48
#: Where more of the rows are odd, reading all of them closely is cheaper than putting both kinds together.
ODD_SHARE_MAX = 0.25


class Decoder:
    """Built once per pipeline file; `plan` keeps nothing between calls.

    Laws: total (any bytes give an event or a Reject, nothing raises); a record's fate depends on its own bytes, key and headers only,
    so neither neighbours nor batch cuts change it. Where a JSON object names a member twice, the last one counts.
    """

    def __init__(self, spec: PipelineSpec) -> None:
        """Takes the pipeline's spec."""
        self.event_type = event_type(spec)
        self._decode: Callable[[Any], Any] = msgspec.json.Decoder(self.event_type).decode
        self._scrutiny = Scrutiny(spec, self.event_type)
        self._max_bytes = spec.event.max_bytes
        self._key = spec.pipeline.key if spec.event.key_required else None
        self._key_of = attrgetter(spec.pipeline.key)
        fields = {"event_id": EVENT_ID, "tenant": TENANT} | spec.event.fields
        self._plain = PlainReader(spec) if PlainReader.reads(spec) else None
        self._checks = {name: check for name, one in fields.items() if (check := column_check(name, one)) is not None}

    def plan(self, segments: Sequence[Segment]) -> Plan:
        """Takes what one poll brought; gives its good events as columns and the others as rejects, both in (segment, offset) order."""
        if self._plain is not None and (plain := self._plainly(self._plain, segments)) is not None:
            return plain
        return self._closely(segments)

    def _closely(self, segments: Sequence[Segment]) -> Plan:
        values: list[bytes | None] = list(chain.from_iterable(segment.values for segment in segments))
        if not values:
            none, times = np.empty(0, np.int32), np.empty(0, np.int64)
            return Plan(tuple(segments), [], none, none, [], [], times, times, none, [])
        around = _headers(segments)
        schema_ids = _strip_frames(segments, values)
        refused: dict[int, Refused] = {}
        flags: dict[int, int] = {}
        events = self._events(values, around, schema_ids, refused, flags)
        received = np.concatenate([segment.timestamps for segment in segments])
        rows = _compress(events, np.arange(len(values)), refused)
        columns, times, suspects = self._columns(events, received[rows])
        for place in sorted(suspects):
            row = int(rows[place])
            try:
                events[place], flags[row] = self._scrutiny.checked(values[row], around.get(row) or Attributes())
            except Refused as why:
                events[place], refused[row] = None, why
        if self._key is not None:
            self._compare_keys(events, rows, segments, refused)
        if suspects or len(refused) + len(events) > len(values):
            rows = _compress(events, rows, refused)
            columns, times, _ = self._columns(events, received[rows])  # what had a second look is final
        return _assemble(segments, events, rows, received, columns, times, schema_ids, refused, flags)

    def _plainly(self, reader: PlainReader, segments: Sequence[Segment]) -> Plan | None:
        """Gives the plan by way of the kernel, odd records looked at closely; None where records are few, or too many of them are odd."""
        count = sum(map(len, segments))
        if count < PLAIN_ROWS_MIN or any(any(segment.headers) for segment in segments):
            return None
        values = Texts.end_to_end([segment.values for segment in segments])
        keys = None if self._key is None else Texts.end_to_end([segment.keys for segment in segments])
        if values is None or (self._key is not None and keys is None):
            return None
        rows, odd = reader.read(values)
        if keys is not None:
            rows.differing(self._key or "", keys, odd)
        received = np.concatenate([segment.timestamps for segment in segments])
        times = reader.times(rows, received, odd)
        segment, index = _places(segments)
        bits, rejects, stay = np.zeros(count, np.int32), list[Reject](), np.arange(count)
        left = np.flatnonzero(odd)
        if len(left) > ODD_SHARE_MAX * count:
            return None
        if len(left):
            closely = self._closely(_some(segments, odd))
            if closely.schema_id is not None:  # a frame says more than the fields of an event
                return None
            first = np.searchsorted(segment[left], np.arange(len(segments)))  # of each segment's odd records
            good = left[first[closely.segment] + closely.index]
            rejects = [replace(one, index=int(index[left[first[one.segment] + one.index]])) for one in closely.rejects]
            times[good], bits[good], odd[good] = closely.event_time, closely.flags, False
            stay = np.flatnonzero(~odd)
            rows = rows.kept(stay, dict(zip(np.searchsorted(stay, good).tolist(), closely.events, strict=True)))
        segment, index = segment[stay], index[stay]
        event_id: Sequence[str] = Strings(rows.bytes_of("event_id"))
        if rows.missing("event_id").any():
            offsets = np.concatenate([one.offsets for one in segments])[stay]
            event_id = _with_places(rows.column("event_id"), segments, segment, offsets)
        tenants = [tenant or "" for tenant in rows.column("tenant")] if not rows.missing("tenant").all() else [""] * len(rows)
        events = _Later(self, rows, values, stay)
        return Plan(
            tuple(segments), events, segment, index, event_id, tenants, times[stay], received[stay], bits[stay], rejects, plain=rows
        )

    def structs(self, rows: PlainRows, values: Sequence[bytes]) -> list[Any]:
        """Takes the records of plain rows; gives their events as the other way gives them."""
        events = [rows.other(row) or self._decode(value) for row, value in enumerate(values)]
        for name in self._checks:
            deque(map(setattr, events, repeat(name), rows.column(name)), maxlen=0)
        return events

    def _events(
        self,
        values: list[bytes | None],
        around: dict[int, Attributes],
        schema_ids: dict[int, int],
        refused: dict[int, Refused],
        flags: dict[int, int],
    ) -> list[Any]:
        """Gives one event per value, None where it is refused."""
        held = self._held(values, around)
        upcoming = iter(values if not held else [None if row in held else value for row, value in enumerate(values)])
        events: list[Any] = []
        while len(events) < len(values):
            try:
                # CPython keeps what was appended before an exception, and the iterator goes on behind the value that raised.
                events.extend(map(self._decode, upcoming))
            except NOT_DECODED:
                row = len(events)
                event, value = None, values[row]
                try:
                    event, bits = self._scrutiny.opened(value, around.get(row) or Attributes())
                    if bits:
                        flags[row] = bits
                except Refused as why:
                    refused[row] = why
                if value is not None and value[:1] == b"\0":
                    schema_ids[row] = strip_frame(value)[1]
                events.append(event)
        for row, attributes in around.items():
            if events[row] is not None:
                try:
                    self._scrutiny.filled(events[row], attributes)
                except Refused as why:
                    events[row], refused[row] = None, why
        return events

    def _held(self, values: list[bytes | None], around: dict[int, Attributes]) -> set[int]:
        """Gives the rows that go straight to the second look: too large, wrapped, not UTF-8 (msgspec skips strings nobody asked for)."""
        held = {row for row, attributes in around.items() if attributes.structured or attributes.refused is not None}
        present: list[bytes] = [value or b"" for value in values] if None in values else values  # type: ignore[assignment]
        if max(map(len, present)) > self._max_bytes:
            held.update(row for row, value in enumerate(present) if len(value) > self._max_bytes)
        if not all(map(bytes.isascii, present)):
            for row, value in enumerate(present):
                if not value.isascii():
                    try:
                        value.decode()
                    except UnicodeDecodeError:
                        held.add(row)
        return held

    def _columns(self, events: list[Any], received: Int64) -> tuple[dict[str, Column], Int64, set[int]]:
        suspects: set[int] = set()
        if not events:
            return {name: [] for name in self._checks}, received, suspects
        columns = {name: check(events, suspects) for name, check in self._checks.items()}
        return columns, _times(events, received, suspects), suspects

    def _compare_keys(self, events: list[Any], rows: Int64, segments: Sequence[Segment], refused: dict[int, Refused]) -> None:
        keys = list(chain.from_iterable(segment.keys for segment in segments))
        if len(events) == len(keys) and None not in events:
            try:
                if list(map(str.encode, map(self._key_of, events))) == keys:
                    return
            except UnicodeEncodeError:
                pass  # half a surrogate pair: looked at row by row
        for place, row in enumerate(rows.tolist()):
            if events[place] is not None and keys[row] != getattr(events[place], self._key or "").encode():
                why = "is null" if keys[row] is None else f"differs from $.{self._key}"
                events[place] = None
                refused[row] = Refused(RejectCode.KEY_MISMATCH, "key", f"{why}; key records by {self._key} as UTF-8 text")


def _headers(segments: Sequence[Segment]) -> dict[int, Attributes]:
    """Gives what headers say, by row; most records have none."""
    around: dict[int, Attributes] = {}
    row = 0
    for segment in segments:
        if any(segment.headers):
            for place, headers in enumerate(segment.headers, row):
                attributes = read_headers(headers) if headers else None
                if attributes is not None:
                    around[place] = attributes
        row += len(segment)
    return around


def _strip_frames(segments: Sequence[Segment], values: list[bytes | None]) -> dict[int, int]:
    """Takes Confluent's frames off, in place, where a segment starts with one; gives the schema ids by row."""
    schema_ids: dict[int, int] = {}
    row = 0
    for segment in segments:
        end = row + len(segment)
        if row < end and (values[row] or b"")[:1] == b"\0":
            for place in range(row, end):
                value = values[place]
                if value is not None:
                    values[place], schema_id = strip_frame(value)
                    if schema_id >= 0:
                        schema_ids[place] = schema_id
        row = end
    return schema_ids


def _compress(events: list[Any], rows: Int64, refused: dict[int, Refused]) -> Int64:
    """Takes refused events out of the list, in place; gives the rows that stay."""
    if not refused:
        return rows
    keep = [place for place, event in enumerate(events) if event is not None]
    events[:] = [events[place] for place in keep]
    kept: Int64 = rows[keep]
    return kept


_time_of = attrgetter("event_time")


def _times(events: list[Any], received: Int64, suspects: set[int]) -> Int64:
    """Gives event times, epoch ms: the event's own, else the record's."""
    column = list(map(_time_of, events))
    kinds = set(map(type, column))
    if kinds == {int}:
        return np.array(column, np.int64)
    if kinds == {float}:
        return _milliseconds(column)
    if kinds == {type(None)}:
        return received.copy()
    times = received.copy()
    for kind in kinds - {type(None)}:
        places = [place for place, value in enumerate(column) if type(value) is kind]
        given = [column[place] for place in places]
        times[places] = epoch_ms(given) if kind is str else _milliseconds(given) if kind is float else np.array(given, np.int64)
    suspects.update(np.flatnonzero(times == UNREADABLE).tolist())
    return times


def _milliseconds(seconds: list[float]) -> Int64:
    return np.rint(np.array(seconds, np.float64) * 1000).astype(np.int64)


def _assemble(
    segments: Sequence[Segment],
    events: list[Any],
    rows: Int64,
    received: Int64,
    columns: dict[str, Column],
    times: Int64,
    schema_ids: dict[int, int],
    refused: dict[int, Refused],
    flags: dict[int, int],
) -> Plan:
    segment, index = _places(segments)
    rejects = [
        Reject(int(segment[row]), int(index[row]), why.code, why.path, f"{why.path} {why.message}") for row, why in sorted(refused.items())
    ]
    bits = np.zeros(len(segment), np.int32)
    for row, bit in flags.items():
        bits[row] = bit
    declared: Int32 | None = None
    if schema_ids:
        declared = np.full(len(segment), -1, np.int32)
        declared[list(schema_ids)] = np.array(list(schema_ids.values()), np.int64).astype(np.int32)
        declared = declared[rows]
    event_ids, tenants = columns.pop("event_id"), columns.pop("tenant")
    if None in event_ids:
        event_ids = _with_places(event_ids, segments, segment[rows], np.concatenate([one.offsets for one in segments])[rows])
    if None in tenants:
        tenants = [tenant or "" for tenant in tenants]
    return Plan(
        tuple(segments), events, segment[rows], index[rows], event_ids, tenants, times, received[rows], bits[rows], rejects,
        columns, declared,
    )  # fmt: skip


def _places(segments: Sequence[Segment]) -> tuple[Int32, Int32]:
    """Gives each record's segment, and where it is in there."""
    sizes = [len(segment) for segment in segments]
    start = np.concatenate([[0], np.cumsum(sizes)])
    segment = np.repeat(np.arange(len(segments), dtype=np.int32), sizes)
    return segment, (np.arange(len(segment)) - start[segment]).astype(np.int32)


def _some(segments: Sequence[Segment], wanted: npt.NDArray[np.bool_]) -> list[Segment]:
    """Gives the records without headers that are wanted [n], in segments as they were, some of them empty."""
    some, row = [], 0
    for one in segments:
        places = np.flatnonzero(wanted[row : row + len(one)])
        row += len(one)
        at = places.tolist()
        keys, values = [one.keys[place] for place in at], [one.values[place] for place in at]
        some.append(
            replace(one, offsets=one.offsets[places], timestamps=one.timestamps[places], keys=keys, values=values, headers=[()] * len(at))
        )
    return some


def _with_places(ids: Column, segments: Sequence[Segment], segment: Int32, offsets: Int64) -> list[str]:
    """Gives event ids, topic-partition-offset where one is None."""
    prefixes = [f"{one.topic}-{one.partition}-" for one in segments]
    return [
        f"{prefixes[at]}{offset}" if given is None else given
        for given, at, offset in zip(ids, segment.tolist(), offsets.tolist(), strict=True)
    ]


class _Later(Sequence[Any]):
    """Plain events as Structs, which nobody needs unless he asks for one."""

    def __init__(self, decoder: Decoder, rows: PlainRows, values: Texts, stay: Int64) -> None:
        """`stay` are the places in `values` of the rows."""
        self._decoder, self._rows, self._values, self._stay = decoder, rows, values, stay

    @cached_property
    def _structs(self) -> list[Any]:
        return self._decoder.structs(self._rows, [self._values[place] for place in self._stay.tolist()])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self._structs[place]
