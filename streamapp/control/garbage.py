"""Broken events, each broken in one way that has one right answer: the reject code the line must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from streamapp.core.errors import RejectCode

Broken = tuple[bytes | None, bytes | None, str]
Event = dict[str, Any]
Way = tuple[str, Callable[[Event], bytes | None]]


@dataclass(frozen=True, slots=True)
class Ways:
    """How events of one pipeline are broken: the field its records are keyed by, and (code, how) with how often among all of them."""

    key: str
    ways: tuple[tuple[Way, int], ...]


class Breaker:
    """Takes good events and gives broken ones; which way comes from `pick`."""

    def __init__(self, pick: Callable[[], int], ways: Ways) -> None:
        """`pick` gives whole numbers >= 0."""
        self._pick, self._key = pick, ways.key
        self._ways = tuple(way for way, times in ways.ways for _ in range(times))

    def broken(self, event: Event) -> Broken:
        """Gives the record's key, its broken value and the reject code it must get."""
        code, way = self._ways[self._pick() % len(self._ways)]
        key = b"somebody else" if code == RejectCode.KEY_MISMATCH else str(event[self._key]).encode()
        return key, way(event), code


def _cut(field: str) -> Callable[[Event], bytes]:
    """Cuts before the value of a field: letters that a cut breaks in two are another reason."""
    return lambda event: orjson.dumps(event)[: orjson.dumps(event).index(f'"{field}"'.encode()) + len(field) + 3]


def _with_bad_bytes(event: Event) -> bytes:
    return orjson.dumps(event)[:-2] + b'\xff\xfe\x80"}'


def _without(field: str) -> Callable[[Event], bytes]:
    return lambda event: orjson.dumps({name: value for name, value in event.items() if name != field})


def _changed(field: str, *, to: Any) -> Callable[[Event], bytes]:
    return lambda event: orjson.dumps({**event, field: to})


#: (code, how), and how often among 50; too large ones are rare because the embedded broker keeps few bytes.
_MESSAGE_WAYS: tuple[tuple[Way, int], ...] = (
    ((RejectCode.INVALID_JSON.value, _cut("text")), 10),
    ((RejectCode.INVALID_UTF8.value, _with_bad_bytes), 5),
    ((RejectCode.NOT_AN_OBJECT.value, lambda event: orjson.dumps([event["text"]])), 5),
    ((RejectCode.NULL_VALUE.value, lambda event: None), 5),
    ((RejectCode.MISSING_FIELD.value, _without("user_id")), 5),
    ((RejectCode.MISSING_FIELD.value, _without("text")), 5),
    ((RejectCode.WRONG_TYPE.value, _changed("text", to=42)), 4),
    ((RejectCode.WRONG_TYPE.value, _changed("user_id", to=True)), 2),
    ((RejectCode.BLANK_TEXT.value, _changed("text", to=" \t\u200b ")), 4),
    ((RejectCode.INVALID_TIME.value, _changed("event_time", to="yesterday, about noon")), 2),
    ((RejectCode.PATTERN_MISMATCH.value, _changed("language", to="english")), 2),
    ((RejectCode.TOO_LARGE.value, _changed("text", to="x" * 70_000)), 1),
)
MESSAGES = Ways("user_id", _MESSAGE_WAYS)
PAYMENTS = Ways(
    "customer_id",
    (
        ((RejectCode.INVALID_JSON.value, _cut("terminal_id")), 6),
        ((RejectCode.INVALID_UTF8.value, _with_bad_bytes), 3),
        ((RejectCode.NOT_AN_OBJECT.value, lambda event: orjson.dumps([event["amount"]])), 3),
        ((RejectCode.NULL_VALUE.value, lambda event: None), 3),
        ((RejectCode.MISSING_FIELD.value, _without("terminal_id")), 3),
        ((RejectCode.MISSING_FIELD.value, _without("amount")), 3),
        ((RejectCode.WRONG_TYPE.value, _changed("amount", to="forty")), 3),
        ((RejectCode.OUT_OF_RANGE.value, _changed("amount", to=-5.0)), 3),
        ((RejectCode.PATTERN_MISMATCH.value, _changed("currency", to="dollars")), 2),
        ((RejectCode.INVALID_TIME.value, _changed("event_time", to="yesterday, about noon")), 2),
        ((RejectCode.KEY_MISMATCH.value, orjson.dumps), 3),
    ),
)
