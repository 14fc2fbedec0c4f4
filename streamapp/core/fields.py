"""A declared field, seen twice: the msgspec type that proves a good value fast, and the check that says what is wrong with a bad one."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, DecimalException
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from streamapp.core.errors import RejectCode
from streamapp.core.patterns import compile_pattern
from streamapp.core.spec import FieldSpec
from streamapp.core.text import clean
from streamapp.core.times import TIME_MAX_MS, TIME_MIN_MS, UNREADABLE, epoch_ms

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

#: Bound of an id that declares none, in characters.
ID_LENGTH_MAX = 256

#: An absent json field; JSON has a word for it.
NO_JSON = Raw(b"null")

#: The fields every event has. An empty tenant is no tenant.
EVENT_ID = FieldSpec(type="id", max_length=ID_LENGTH_MAX, description="Identity of the event; else topic-partition-offset")
TENANT = FieldSpec(type="id", min_length=0, max_length=128, description="Who the event belongs to, where several share a pipeline")


class Refused(Exception):
    """Why one value cannot be an event; becomes a Reject. Messages never quote the value: it may be private."""

    def __init__(self, code: RejectCode, path: str, message: str) -> None:
        super().__init__(message)
        self.code, self.path, self.message = code, path, message


def id_bounds(spec: FieldSpec) -> tuple[int, int]:
    """Gives the least and the greatest length of an id, in characters."""
    return 1 if spec.min_length is None else spec.min_length, spec.max_length or ID_LENGTH_MAX


def integer_bounds(spec: FieldSpec) -> tuple[int, int]:
    """Gives the bounds of an integer field, never wider than 64 bits."""
    low = INT64_MIN if spec.minimum is None else max(math.ceil(spec.minimum), INT64_MIN)
    high = INT64_MAX if spec.maximum is None else min(math.floor(spec.maximum), INT64_MAX)
    return low, high


def fast_type(spec: FieldSpec) -> Any:
    """Gives the type under which msgspec accepts good values only; what it refuses is looked at by `check_field`.

    Left to the columns: patterns, blank and over-long texts, and the length of json.
    """
    kind: Any
    if spec.type == "id":
        low, high = id_bounds(spec)
        # Wider integers go the slow way, where they are read as text.
        kind = Annotated[str, Meta(min_length=low, max_length=high)] | Annotated[int, Meta(gt=0, le=INT64_MAX)]
    elif spec.type == "string":
        kind = Annotated[str, Meta(min_length=spec.min_length, max_length=spec.max_length)]
    elif spec.type == "integer":
        low, high = integer_bounds(spec)
        kind = Annotated[int, Meta(ge=low, le=high)]
    elif spec.type == "number":
        kind = Annotated[float, Meta(ge=spec.minimum, le=spec.maximum)]
    else:
        kind = {"text": str, "json": Raw, "boolean": bool}[spec.type]
    return kind if spec.required or spec.type == "json" else kind | None


def default_of(spec: FieldSpec) -> Any:
    """Gives what an absent optional field is."""
    return NO_JSON if spec.type == "json" else spec.default


def json_kind(raw: bytes) -> str:
    """Gives the JSON type of a value that parses, from its first byte."""
    return {123: "object", 91: "array", 34: "string", 116: "boolean", 102: "boolean", 110: "null"}.get(raw[0], "number")


def check_field(spec: FieldSpec, raw: bytes, path: str) -> tuple[Any, bool]:
    """Takes one field's JSON text; gives its value and whether it was cut; raises Refused."""
    kind = json_kind(raw)
    if kind == "null" and spec.type != "json":
        if spec.required:
            raise Refused(RejectCode.WRONG_TYPE, path, f"is null; a value of type {spec.type} is required")
        return spec.default, False
    if spec.type == "text":
        return _check_text(spec, raw, path, kind)
    return _CHECKS[spec.type](spec, raw, path, kind), False


def _string(raw: bytes) -> str:
    return msgspec.json.decode(raw, type=str)


def _wrong_type(path: str, wanted: str, kind: str) -> Refused:
    return Refused(RejectCode.WRONG_TYPE, path, f"is of JSON type {kind}; expected {wanted}")


def _check_text(spec: FieldSpec, raw: bytes, path: str, kind: str) -> tuple[str, bool]:
    if kind != "string":
        raise _wrong_type(path, "a string", kind)
    text = _string(raw).strip()
    if not text or not clean(text):
        raise Refused(RejectCode.BLANK_TEXT, path, "is blank; at least one visible character is required")
    if spec.overflow == "truncate" and spec.max_length is not None and len(text) > spec.max_length:
        return text[: spec.max_length], True
    _check_length(spec.min_length or 1, spec.max_length, text, path)
    return text, False


def _check_length(low: int, high: int | None, text: str, path: str) -> None:
    if len(text) < low:
        raise Refused(RejectCode.TOO_SHORT, path, f"has {len(text)} characters; at least {low} are required")
    if high is not None and len(text) > high:
        raise Refused(RejectCode.TOO_LONG, path, f"has {len(text)} characters; at most {high} are allowed")


def _check_pattern(spec: FieldSpec, text: str, path: str) -> None:
    matches = pattern_of(spec)
    if matches is not None and not matches(text):
        raise Refused(RejectCode.PATTERN_MISMATCH, path, f"does not match {spec.pattern}")


def pattern_of(spec: FieldSpec) -> Callable[[str], bool] | None:
    """Gives the test of the field's pattern, None where it has none."""
    if spec.pattern is None:
        return None
    matches = compile_pattern(spec.pattern, spec.max_length)
    return None if isinstance(matches, str) else matches


def _check_id(spec: FieldSpec, raw: bytes, path: str, kind: str) -> str:
    low, high = id_bounds(spec)
    if kind == "string":
        text = _string(raw)
    elif kind == "number":
        text = _digits(raw, path, high, "an id is a string or a whole number above 0")
        if text.startswith("-") or text == "0":
            raise Refused(RejectCode.OUT_OF_RANGE, path, "is a number below 1; an id is a string or a whole number above 0")
    else:
        raise _wrong_type(path, "a string or a whole number", kind)
    _check_length(low, high, text, path)
    _check_pattern(spec, text, path)
    return text


def _digits(raw: bytes, path: str, count_max: int, wanted: str) -> str:
    """Gives the decimal digits of a whole number, read as text: no digit is lost however long it is."""
    try:
        number = Decimal(raw.decode())
    except DecimalException:
        raise Refused(RejectCode.OUT_OF_RANGE, path, f"is a number beyond all bounds; {wanted}") from None
    if number.is_zero():
        return "0"
    if number.adjusted() >= count_max:
        raise Refused(RejectCode.TOO_LONG, path, f"has more than {count_max} digits")
    whole = number.to_integral_value() if number.adjusted() >= 0 else Decimal(0)
    if whole != number:
        raise Refused(RejectCode.WRONG_TYPE, path, f"is a fraction; {wanted}")
    return format(whole, "f")


def _check_string(spec: FieldSpec, raw: bytes, path: str, kind: str) -> str:
    if kind != "string":
        raise _wrong_type(path, "a string", kind)
    text = _string(raw)
    _check_length(spec.min_length or 0, spec.max_length, text, path)
    _check_pattern(spec, text, path)
    return text


def _check_json(spec: FieldSpec, raw: bytes, path: str, kind: str) -> Raw:
    if kind == "null" and spec.required:
        raise Refused(RejectCode.WRONG_TYPE, path, "is null; a value is required")
    size = len(raw.decode())
    if spec.max_length is not None and size > spec.max_length:
        raise Refused(RejectCode.TOO_LONG, path, f"has {size} characters of JSON; at most {spec.max_length} are allowed")
    return Raw(raw)


def _check_number(spec: FieldSpec, raw: bytes, path: str, kind: str) -> float:
    if kind != "number":
        raise _wrong_type(path, "a number", kind)
    number = float(raw)
    if not math.isfinite(number):
        raise Refused(RejectCode.OUT_OF_RANGE, path, "is a number beyond 64 bits")
    _check_range(number, spec.minimum, spec.maximum, path)
    return number


def _check_integer(spec: FieldSpec, raw: bytes, path: str, kind: str) -> int:
    if kind != "number":
        raise _wrong_type(path, "a whole number", kind)
    try:
        number = int(_digits(raw, path, 19, "a whole number is required"))
    except Refused as refused:
        if refused.code is RejectCode.TOO_LONG:
            refused.code = RejectCode.OUT_OF_RANGE
        raise
    low, high = integer_bounds(spec)
    _check_range(number, low, high, path)
    return number


def _check_range(number: float, low: float | None, high: float | None, path: str) -> None:
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"{'' if low is None else low} to {'' if high is None else high}"
        raise Refused(RejectCode.OUT_OF_RANGE, path, f"is outside {bounds}")


def _check_boolean(_: FieldSpec, raw: bytes, path: str, kind: str) -> bool:
    if kind != "boolean":
        raise _wrong_type(path, "true or false", kind)
    return raw == b"true"


def check_time(raw: bytes, path: str, unit: str = "ms") -> int | None:
    """Takes the JSON text of an event time, a number in `unit`; gives epoch ms, None for null; raises Refused.

    Fractions of a millisecond are floored; seconds go to the nearest millisecond, because their fraction is not exact in binary.
    """
    kind = json_kind(raw)
    number_of = {"ms": "milliseconds", "s": "seconds"}[unit]
    wanted = f"expected RFC 3339 (2026-01-31T12:00:00Z) or epoch {number_of} of the years 1 to 9999"
    if kind == "null":
        return None
    if kind == "string":
        time = int(epoch_ms([_string(raw)])[0])
        if time == UNREADABLE:
            raise Refused(RejectCode.INVALID_TIME, path, f"is no time; {wanted}")
        return time
    if kind != "number":
        raise Refused(RejectCode.INVALID_TIME, path, f"is of JSON type {kind}; {wanted}")
    number = float(raw) * (1000 if unit == "s" else 1)
    if not TIME_MIN_MS <= number <= TIME_MAX_MS:
        raise Refused(RejectCode.INVALID_TIME, path, f"is outside the calendar; {wanted}")
    return round(number) if unit == "s" else math.floor(number)


_CHECKS: dict[str, Callable[[FieldSpec, bytes, str, str], Any]] = {
    "id": _check_id, "string": _check_string, "json": _check_json,
    "number": _check_number, "integer": _check_integer, "boolean": _check_boolean,
}  # fmt: skip
