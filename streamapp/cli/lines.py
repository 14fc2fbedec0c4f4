"""JSON lines from files and standard input, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from streamapp.core.events import Segment

_PEEK = msgspec.json.Decoder()


def chunks(source: IO[bytes], size: int) -> Iterator[list[bytes | None]]:
    """Gives the lines without their ends, `size` at a time; an empty line is a record without a value."""
    lines = (line.rstrip(b"\r\n") or None for line in source)
    while chunk := list(islice(lines, size)):
        yield chunk


def field_of(value: bytes | None, name: str) -> Any:
    """Gives one top-level field of a JSON object; None for anything else, so that broken events travel as they are."""
    if value is None:
        return None
    try:
        event = _PEEK.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event.get(name) if isinstance(event, dict) else None


def key_of(value: bytes | None, name: str) -> bytes | None:
    """Gives the record key of an event: its key field as text; None where there is none."""
    found = field_of(value, name)
    if isinstance(found, str):
        return found.encode("utf-8", "surrogatepass")
    return str(found).encode() if isinstance(found, int) and not isinstance(found, bool) else None


def records(values: Sequence[bytes | None], keys: Sequence[bytes | None], first: int, now_ms: int) -> Segment:
    """Gives lines as the records of one partition from offset `first` that all came now."""
    import numpy as np

    from streamapp.core.events import Segment

    count = len(values)
    return Segment("-", 0, 0, np.arange(first, first + count), np.full(count, now_ms, np.int64), keys, values, [()] * count)
