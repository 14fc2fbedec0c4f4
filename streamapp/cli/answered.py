"""What workers answered, by the place of the event: the last answer to each, kept in a file until all are read."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import IO, Any

import orjson

from streamapp.bus.follow import Record
from streamapp.control.rerun import Place
from streamapp.core.deadletter import SOURCE_TOPIC


class Answered:
    """Takes verdicts or decision records, and dead letters, in any order of partitions."""

    def __init__(self, kept: IO[bytes], places: Container[Place], events: str) -> None:
        """`places` says which events are asked about; dead letters of other topics than `events` are passed over."""
        self._kept, self._places, self._events = kept, places, events.encode()
        self._at: dict[Place, tuple[int, int, int]] = {}  # when it came, where it is kept, its length

    def take(self, record: Record) -> None:
        """Takes an answer; what names no event that is asked about is passed over. Of several, the one that came last counts."""
        offset, refused = record.headers.get("source-offset") or b"", record.headers.get("dlq.reason")
        if not offset.isdigit() or (where := (record.partition, int(offset))) not in self._places:
            return
        if refused is not None and record.headers.get(SOURCE_TOPIC) != self._events:
            return
        before = self._at.get(where)
        if before is not None and before[0] > record.timestamp_ms:
            return
        line = record.value or b"{}"
        if refused is not None:
            path = record.headers.get("dlq.path") or b""
            line = orjson.dumps({"dead_letter": refused.decode(errors="replace"), "path": path.decode(errors="replace")})
        self._at[where] = record.timestamp_ms, self._kept.tell(), len(line)
        self._kept.write(line)

    def records(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Gives the last answer of each event that has one; one that is no JSON object is given empty."""
        for where, (_, at, length) in self._at.items():
            self._kept.seek(at)
            try:
                found = orjson.loads(self._kept.read(length))
            except orjson.JSONDecodeError:
                found = None
            yield where, found if isinstance(found, dict) else {}
