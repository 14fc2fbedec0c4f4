"""The second look at one record: opens its envelope, checks its fields one by one, and names the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from streamapp.core.envelope import Attributes, strip_bom, strip_frame, unwrap_cloudevent
from streamapp.core.errors import RejectCode
from streamapp.core.events import Flag
from streamapp.core.fields import EVENT_ID, TENANT, Refused, check_field, check_time, default_of, fast_type, id_bounds
from streamapp.core.spec import FieldSpec, PipelineSpec
from streamapp.core.times import TIME_MAX_MS, TIME_MIN_MS, UNREADABLE, epoch_ms

#: Everything msgspec raises on bytes; TypeError is a record without a value.
NOT_DECODED = (msgspec.MsgspecError, ValueError, RecursionError, TypeError)

_decode_any = msgspec.json.Decoder(Raw).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_TIME: Any = Annotated[int, Meta(ge=TIME_MIN_MS, le=TIME_MAX_MS)] | str | None
_TIME_S: Any = Annotated[float, Meta(ge=TIME_MIN_MS / 1000, le=TIME_MAX_MS / 1000)] | str | None


def event_type(spec: PipelineSpec) -> type[msgspec.Struct]:
    """Gives the Struct of the pipeline's events: the implicit and the declared fields, under types that only good values pass.

    A float in `event_time` is seconds, an int milliseconds (the second look always leaves those).
    """
    fields: list[Any] = [
        ("event_id", fast_type(EVENT_ID), None),
        ("event_time", _TIME if spec.event.time_unit == "ms" else _TIME_S, None),
        ("tenant", fast_type(TENANT), None),
        ("specversion", None, None),  # a string here says CloudEvent: msgspec refuses it, and the envelope is opened
    ]
    for name, one in spec.event.fields.items():
        fields.append((name, fast_type(one)) if one.required else (name, fast_type(one), default_of(one)))
    renamed = {"event_time": spec.event.time_field} if spec.event.time_field != "event_time" else None
    return msgspec.defstruct("Event", fields, gc=False, kw_only=True, rename=renamed)


class Scrutiny:
    """What a good event is, field by field; the fast path only ever accepts what this accepts, with the same values."""

    def __init__(self, spec: PipelineSpec, event: type[msgspec.Struct]) -> None:
        """Takes the pipeline's spec and the Struct made from it."""
        self._fields: Mapping[str, FieldSpec] = {"event_id": EVENT_ID, "tenant": TENANT} | spec.event.fields
        self._max_bytes = spec.event.max_bytes
        self._time, self._unit = spec.event.time_field, spec.event.time_unit
        self._event = event
        self._decode = msgspec.json.Decoder(event).decode

    def opened(self, value: bytes | None, attributes: Attributes) -> tuple[Any, int]:
        """Takes a record the fast path did not accept; gives its event and flags, raises Refused.

        An event found inside an envelope is tried on the fast path first; its columns are then checked like those of the others.
        """
        return self._look(value, attributes, inside_is_fast=True)

    def checked(self, value: bytes | None, attributes: Attributes) -> tuple[Any, int]:
        """Takes a record; gives its event, final, and flags; raises Refused with the first thing that is wrong."""
        return self._look(value, attributes, inside_is_fast=False)

    def _look(self, value: bytes | None, attributes: Attributes, *, inside_is_fast: bool) -> tuple[Any, int]:
        payload = self._payload(value)
        if attributes.refused is not None:
            raise attributes.refused
        path = "$"
        if not attributes.structured:
            event = self._try(payload) if inside_is_fast and payload is not value else None
            if event is not None:
                return self.filled(event, attributes), 0
        members = _members(payload, path)
        if attributes.structured or bytes(members.get("specversion", b"null")) != b"null":
            payload = unwrap_cloudevent(members, attributes)
            event = self._try(payload) if inside_is_fast else None
            if event is not None:
                return self.filled(event, attributes), 0
            path = "$.data"
            members = _members(payload, path)
        event, flags = self._build(members, path)
        self.filled(event, attributes)
        if isinstance(event.event_time, str):  # the envelope's; the event's own is a number by now
            time = int(epoch_ms([event.event_time])[0])
            if time == UNREADABLE:
                raise Refused(RejectCode.INVALID_TIME, attributes.time_path, "is no RFC 3339 time (2026-01-31T12:00:00Z)")
            event.event_time = time
        return event, flags

    def filled(self, event: Any, attributes: Attributes) -> Any:
        """Gives the event with what it lacks taken from around it."""
        for name, spec in (("event_id", EVENT_ID), ("tenant", TENANT)):
            given = getattr(attributes, name)
            if given is not None and not getattr(event, name):
                if len(given) > id_bounds(spec)[1]:
                    raise Refused(RejectCode.TOO_LONG, f"headers.{name}", f"has {len(given)} characters; at most {id_bounds(spec)[1]}")
                setattr(event, name, given)
        if event.event_time is None and attributes.event_time is not None:
            event.event_time = attributes.event_time
        return event

    def _payload(self, value: bytes | None) -> bytes:
        if value is None:
            raise Refused(RejectCode.NULL_VALUE, "$", "the record has no value; send a JSON object")
        payload, _ = strip_frame(value)
        if len(payload) > self._max_bytes:
            raise Refused(RejectCode.TOO_LARGE, "$", f"has {len(payload)} bytes; at most {self._max_bytes} are allowed")
        payload = strip_bom(payload)
        _check_utf8(payload, "$")
        return payload

    def _try(self, payload: bytes) -> Any:
        if not payload.isascii():
            _check_utf8(payload, "$.data")
        try:
            return self._decode(payload)
        except NOT_DECODED:
            return None

    def _build(self, members: dict[str, Raw], path: str) -> tuple[Any, int]:
        values: dict[str, Any] = {}
        flags = 0
        try:
            for name, spec in self._fields.items():
                raw = members.get(name)
                if raw is not None:
                    values[name], cut = check_field(spec, bytes(raw), f"{path}.{name}")
                    flags |= Flag.TRUNCATED if cut else 0
                elif spec.required:
                    raise Refused(RejectCode.MISSING_FIELD, f"{path}.{name}", f"is missing; a value of type {spec.type} is required")
            if self._time in members:
                values["event_time"] = check_time(bytes(members[self._time]), f"{path}.{self._time}", self._unit)
        except NOT_DECODED as failure:  # a string that is skipped over without complaint, but cannot be read
            raise _not_json(failure, path) from None
        return self._event(**values), flags


def _check_utf8(payload: bytes, path: str) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as failure:
        raise Refused(RejectCode.INVALID_UTF8, path, f"is not UTF-8 at byte {failure.start}") from None


def _members(payload: bytes, path: str) -> dict[str, Raw]:
    _check_utf8(payload, path)
    try:
        return _decode_members(payload)
    except msgspec.ValidationError:
        try:
            _decode_any(payload)  # the first byte is enough to see that it is no object; is it JSON at all?
        except NOT_DECODED as failure:
            raise _not_json(failure, path) from None
        raise Refused(RejectCode.NOT_AN_OBJECT, path, "is JSON, but no object; send a JSON object") from None
    except NOT_DECODED as failure:
        raise _not_json(failure, path) from None


def _not_json(failure: Exception, path: str) -> Refused:
    if isinstance(failure, RecursionError):
        return Refused(RejectCode.INVALID_JSON, path, "is nested too deeply to be read")
    # msgspec's sentences name byte places, never content; its "truncated" is also what it says of half a surrogate pair.
    detail = str(failure).removeprefix("JSON is malformed: ").replace(
        "Input data was truncated", "it ends too early, or an escape is half a surrogate pair"
    )  # fmt: skip
    return Refused(RejectCode.INVALID_JSON, path, f"is not JSON: {detail}")
