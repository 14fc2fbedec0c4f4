"""Laws of decoding: total, the fast path agrees with the thorough one, neighbours and batch cuts do not matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from streamapp.core.envelope import Attributes, read_headers
from streamapp.core.events import Headers
from streamapp.core.fields import Refused
from streamapp.core.scrutiny import Scrutiny
from streamapp.core.times import UNREADABLE, epoch_ms
from tests.core.decode_cases import DECODER, GOOD, SPEC, rows, segment

ODD_SCALARS: list[Any] = [
    None, True, 0, 1, -1, 7.0, 1.5, 1e300, float("nan"), float("inf"), 2**63, 10**30, "", " ", "u1", "en", "EN", "\0", "é" * 130,
    "x" * 20_000,    1_700_000_000_000, "2018-04-05T03:56:24Z", "2018-02-30T00:00:00Z", [], {}, [[]], {"a": "m" * 1000}, "m" * 999,
]  # fmt: skip
NAMES = [
    "event_id",
    "event_time",
    "tenant",
    "user_id",
    "text",
    "language",
    "metadata",
    "channel",
    "ip",
    "specversion",
    "data",
    "id",
    "time",
    "?",
]

members = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.sampled_from(ODD_SCALARS), st.text(max_size=20)), max_size=8)
likely = members.map(lambda odd: {"user_id": "u", "text": "hello"} | odd)
objects = st.one_of(
    members, likely, likely.map(lambda data: {"specversion": "1.0", "id": "ce", "time": "2018-04-05T03:56:24Z", "data": data})
)


@st.composite
def record_values(draw: st.DrawFn) -> bytes | None:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.one_of(st.none(), st.binary(max_size=60)))
    text = json.dumps(draw(objects), ensure_ascii=draw(st.booleans()))
    value = text.encode("utf-8", "surrogatepass")
    if kind == 1:  # a byte is overwritten
        place = draw(st.integers(0, len(value) - 1))
        value = value[:place] + draw(st.binary(min_size=1, max_size=2)) + value[place + 1 :]
    elif kind == 2:
        value = value[: draw(st.integers(0, len(value)))]
    elif kind == 3:
        value = draw(st.sampled_from([b"\0\0\0\0\x05", b"\xef\xbb\xbf", b"\0", b" "])) + value
    return value


header_lists: st.SearchStrategy[Headers] = st.lists(
    st.sampled_from(
        [
            ("content-type", b"application/json"), ("content-type", b"application/cloudevents+json"), ("content-type", b"text/plain"),
            ("ce_specversion", b"1.0"), ("ce_id", b"ce-9"), ("ce_time", b"2020-01-01T00:00:00Z"), ("ce_time", b"noon"), ("ce_id", b"\xff"),
            ("tenant", b"acme"), ("traceparent", b"00"), ("tenant", None),
        ]
    ),
    max_size=3,
)  # fmt: skip
records = st.lists(st.tuples(record_values(), st.one_of(st.just(()), header_lists)), min_size=1, max_size=12)


def fates(given_records: Sequence[tuple[bytes | None, Headers]]) -> list[tuple[Any, ...]]:
    return rows(DECODER.plan([segment([value for value, _ in given_records], [headers for _, headers in given_records])]))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_bytes_have_a_fate(values: list[bytes]) -> None:
    assert len(rows(DECODER.plan([segment(values)]))) == len(values)


@given(records)
@settings(max_examples=150, deadline=None)
def test_the_fast_path_and_the_thorough_one_agree(some: list[tuple[bytes | None, Headers]]) -> None:
    thorough = Scrutiny(SPEC, DECODER.event_type)
    for (value, headers), fate in zip(some, fates(some), strict=True):
        event, flags = None, 0
        expected: tuple[Any, ...] = ("event",)
        try:
            event, flags = thorough.checked(value, read_headers(headers) or Attributes())
        except Refused as refused:
            expected = ("reject", refused.code.value, refused.path)
        assert fate[: len(expected)] == expected
        if event is not None:
            fields = tuple(bytes(getattr(event, name)) if name == "metadata" else getattr(event, name) for name in SPEC.event.fields)
            assert fate[4:] == (flags, fields)
            assert event.event_time in (None, fate[3])
            assert event.event_id in (None, fate[1])


@given(records, st.data())
@settings(max_examples=100, deadline=None)
def test_batch_cuts_change_nothing(some: list[tuple[bytes | None, Headers]], data: st.DataObject) -> None:
    whole = fates(some)
    cut = data.draw(st.integers(0, len(some)))
    parts = [segment([value for value, _ in part], [headers for _, headers in part], first_offset=first)
             for first, part in ((0, some[:cut]), (cut, some[cut:]))]  # fmt: skip
    assert rows(DECODER.plan(parts)) == whole
    assert [fate for part in parts for fate in rows(DECODER.plan([part]))] == whole


@given(records)
@settings(max_examples=100, deadline=None)
def test_garbage_in_between_changes_nothing_for_good_events(some: list[tuple[bytes | None, Headers]]) -> None:
    good: tuple[bytes, Headers] = (GOOD, ())
    mixed = [good]
    for one in some:
        mixed += [one, good]  # type: ignore[list-item]
    found = fates(mixed)
    assert set(found[::2]) == {fates([good])[0]}
    assert [fate if fate[0] == "reject" else fate[2:] for fate in found[1::2]] == [
        fate if fate[0] == "reject" else fate[2:] for fate in fates(some)
    ]  # but for ids made of places


def slow_epoch_ms(text: str) -> int:
    """Reads RFC 3339 with Python's calendar, digit by digit; the twin of the kernel."""
    if not text.isascii() or not 20 <= len(text) <= 64 or text[10] not in "Tt":
        return int(UNREADABLE)
    date, rest = text[:10], text[11:]
    clock, rest = rest[:8], rest[8:]
    digits = ""
    if rest.startswith("."):
        digits = rest[1:].rstrip("Zz").split("+")[0].split("-")[0]
        if not digits.isdigit():
            return int(UNREADABLE)
        rest = rest[1 + len(digits) :]
    leap = clock.endswith(":60")
    try:
        if rest in ("Z", "z"):
            zone = UTC
        else:
            if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":" or not (rest[1:3] + rest[4:]).isdigit() or rest[4:] > "59":
                return int(UNREADABLE)
            minutes = int(rest[1:3]) * 60 + int(rest[4:])
            zone = timezone(timedelta(minutes=-minutes if rest[0] == "-" else minutes))
        parts = [date[:4], date[5:7], date[8:], clock[:2], clock[3:5], "59" if leap else clock[6:]]
        if date[4] + date[7] + clock[2] + clock[5] != "--::" or not all(part.isdigit() for part in parts):
            return int(UNREADABLE)
        moment = datetime(*map(int, parts), tzinfo=zone)  # type: ignore[arg-type, misc]
    except (ValueError, OverflowError):
        return int(UNREADABLE)
    seconds = (moment.replace(tzinfo=None) - datetime(1970, 1, 1)) // timedelta(seconds=1) - int(zone.utcoffset(None).total_seconds())  # type: ignore[union-attr]  # noqa: DTZ001
    if leap and seconds % 86_400 != 86_399:
        return int(UNREADABLE)
    return (seconds + leap) * 1000 + int((digits + "000")[:3])


def padded(low: int, high: int, width: int = 2) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(lambda number: f"{number:0{width}d}")


sixty = st.sampled_from(["00", "59", "60"])
times = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.one_of(padded(0, 9999, 4), st.just("2024")),
    padded(0, 13),
    padded(0, 32),
    st.sampled_from(["T", "t", " ", "T"]),
    padded(0, 24),
    sixty,
    st.one_of(padded(0, 99), sixty),
    st.sampled_from(["", ".", ".5", ".123", ".123456789"]),
    st.sampled_from(["Z", "z", "+00:00", "-23:59", "+24:00", "+01:60", "+0100", "", "Zx"]),
)


@given(st.lists(st.one_of(times, times, st.text(max_size=30)), max_size=10))
@settings(max_examples=300, deadline=None)
def test_times_are_read_as_the_calendar_reads_them(texts: list[str]) -> None:
    assert epoch_ms(texts).tolist() == [slow_epoch_ms(text) for text in texts]
    assert epoch_ms(texts).dtype == np.int64
