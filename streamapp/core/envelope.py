"""What an event may be wrapped in: Confluent's frame and CloudEvents, in headers (binary mode) or around it (structured mode)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from streamapp.core.errors import RejectCode
from streamapp.core.events import Headers
from streamapp.core.fields import Refused, json_kind

#: Magic byte and big-endian schema id before the JSON text.
FRAME_BYTES = 5
BOM = b"\xef\xbb\xbf"

_HEADERS = frozenset(("content-type", "Content-Type", "ce_specversion", "ce_id", "ce_time", "tenant"))
_USUAL = frozenset((("content-type", b"application/json"), ("Content-Type", b"application/json")))
_JSON_TYPE = re.compile(r"(?:application|text)/(?:[\w.+-]+\+)?json\s*(?:;(.*))?", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w-]+)", re.IGNORECASE)
_CHARSETS = frozenset(("utf-8", "utf8", "us-ascii", "ascii"))


@dataclass(slots=True)
class Attributes:
    """What stands around the data of one record; the data's own fields win over these."""

    event_id: str | None = None
    event_time: str | None = None  #   RFC 3339, unchecked
    time_path: str = ""
    tenant: str | None = None
    structured: bool = False  #        the content type says that the value is a CloudEvent
    refused: Refused | None = None


def read_headers(headers: Headers) -> Attributes | None:
    """Takes a record's headers; gives what they say about the event, None (the common case) where they say nothing."""
    found = {one[0]: one[1] for one in headers if one[0] in _HEADERS and one[1] is not None and tuple(one) not in _USUAL}
    if not found:
        return None
    attributes = Attributes()
    try:
        text = {name.lower(): value.decode() for name, value in found.items()}
    except UnicodeDecodeError:
        attributes.refused = Refused(RejectCode.INVALID_UTF8, "headers", f"a header of {sorted(found)} is not UTF-8")
        return attributes
    content_type = text.get("content-type")
    if content_type is not None:
        attributes.structured = is_cloudevent_type(content_type)
        if not attributes.structured:
            attributes.refused = refused_content_type(content_type, "headers.content-type")
    version = text.get("ce_specversion")
    if version is not None and not attributes.structured:
        if version != "1.0":
            attributes.refused = _refused_version("headers.ce_specversion")
        attributes.event_id = text.get("ce_id") or None
        attributes.event_time = text.get("ce_time")
        attributes.time_path = "headers.ce_time"
    attributes.tenant = text.get("tenant") or None
    return attributes


def is_cloudevent_type(content_type: str) -> bool:
    """Says whether a content type announces one CloudEvent in JSON (not a batch of them, not another encoding)."""
    return content_type.partition(";")[0].strip().lower() == "application/cloudevents+json"


def refused_content_type(content_type: str, path: str) -> Refused | None:
    """Gives why data of this type cannot be read, None for JSON in UTF-8."""
    is_json = _JSON_TYPE.fullmatch(content_type.strip())
    if is_json is None or content_type.lower().lstrip().startswith("application/cloudevents"):
        return Refused(RejectCode.UNSUPPORTED_ENCODING, path, "is a content type we do not read; send application/json")
    charset = _CHARSET.search(is_json[1] or "")
    if charset is not None and charset[1].lower() not in _CHARSETS:
        return Refused(RejectCode.UNSUPPORTED_ENCODING, path, "names a charset we do not read; JSON is UTF-8")
    return None


def strip_frame(value: bytes) -> tuple[bytes, int]:
    """Gives the value without Confluent's frame and the schema id of the frame, -1 where there is none."""
    if value[:1] == b"\0" and len(value) > FRAME_BYTES and value[FRAME_BYTES : FRAME_BYTES + 1] in b"{[ \t\r\n":
        return value[FRAME_BYTES:], int.from_bytes(value[1:FRAME_BYTES], "big")
    return value, -1


def strip_bom(value: bytes) -> bytes:
    """Gives the value without a UTF-8 byte order mark, which RFC 8259 allows a reader to ignore."""
    return value.removeprefix(BOM)


def unwrap_cloudevent(fields: dict[str, Raw], attributes: Attributes) -> bytes:
    """Takes the members of a structured CloudEvent; notes its attributes and gives the bytes of its data; raises Refused."""
    version = fields.get("specversion")
    if version is None or bytes(version) != b'"1.0"':
        raise _refused_version("$.specversion")
    attributes.event_id = _attribute(fields, "id") or attributes.event_id
    attributes.event_time, attributes.time_path = _attribute(fields, "time") or None, "$.time"
    content_type = _attribute(fields, "datacontenttype")
    if content_type is not None:
        refused = refused_content_type(content_type, "$.datacontenttype")
        if refused is not None:
            raise refused
    if "data" in fields:
        return bytes(fields["data"])
    encoded = _attribute(fields, "data_base64")
    if encoded is None:
        raise Refused(RejectCode.MISSING_FIELD, "$.data", "is missing; a CloudEvent needs data or data_base64")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(RejectCode.UNSUPPORTED_ENCODING, "$.data_base64", "is not base64") from None


def _attribute(fields: dict[str, Raw], name: str) -> str | None:
    raw = bytes(fields.get(name, b"null"))
    kind = json_kind(raw)
    if kind == "null":
        return None
    if kind != "string":
        raise Refused(RejectCode.WRONG_TYPE, f"$.{name}", f"is of JSON type {kind}; a CloudEvent has a string there")
    text: str = msgspec.json.decode(raw, type=str)
    return text


def _refused_version(path: str) -> Refused:
    return Refused(RejectCode.UNSUPPORTED_ENCODING, path, 'is a CloudEvents version we do not read; send "1.0"')
