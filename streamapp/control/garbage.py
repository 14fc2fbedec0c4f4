"""Broken events, each broken in one way that has one right answer: the reject code the line must give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from streamapp.core.errors import RejectCode

Broken = tuple[bytes | None, bytes | None, str]
Event = dict[str, Any]


class Breaker:
    """Takes good events and gives broken ones; which way comes from `pick`."""

    def __init__(self, pick: Callable[[], int]) -> None:
        """`pick` gives whole numbers >= 0."""
        self._pick = pick
        self._ways = tuple(way for way, times in _WAYS for _ in range(times))

    def broken(self, event: Event) -> Broken:
        """Gives the record's key, its broken value and the reject code it must get."""
        code, way = self._ways[self._pick() % len(self._ways)]
        return str(event["user_id"]).encode(), way(event), code


def _cut(event: Event) -> bytes:
    whole = orjson.dumps(event)
    return whole[: whole.index(b'"text"') + 7]  # before the text, whose letters a cut could break in two: that is another reason


def _without(field: str) -> Callable[[Event], bytes]:
    return lambda event: orjson.dumps({name: value for name, value in event.items() if name != field})


def _changed(field: str, *, to: Any) -> Callable[[Event], bytes]:
    return lambda event: orjson.dumps({**event, field: to})


#: (code, how), and how often among 50; too large ones are rare because the embedded broker keeps few bytes.
_WAYS: tuple[tuple[tuple[str, Callable[[Event], bytes | None]], int], ...] = (
    ((RejectCode.INVALID_JSON.value, _cut), 10),
    ((RejectCode.INVALID_UTF8.value, lambda event: orjson.dumps(event)[:-2] + b'\xff\xfe\x80"}'), 5),
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
