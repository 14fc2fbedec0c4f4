"""A reject as a dead letter: key, value and headers untouched, and beside them why, where and since when."""

from __future__ import annotations

from typing import Any

from streamapp.core.errors import Reject
from streamapp.core.events import Headers, Segment

#: KIP-1034 names, so that tools made for Kafka Streams' dead letters read ours.
_STREAMS = "__streams.errors."
_OURS = ("dlq.", "source-offset")
FIRST_FAILED_AT = "dlq.first-failed-at"
REPLAY_COUNT = "dlq.replay-count"
#: Where the record came from: events and labels share the topic of dead letters, and each has offsets of its own.
SOURCE_TOPIC = f"{_STREAMS}topic"


def dead_letter(reject: Reject, segment: Segment, now_ms: int) -> tuple[bytes | None, bytes | None, Headers]:
    """Gives (key, value, headers) of the dead letter. One that was replayed and failed again keeps its first time and its count."""
    given = list(segment.headers[reject.index])
    kept = [(name, value) for name, value in given if not name.startswith((_STREAMS, *_OURS))]
    earlier = dict(given)
    headers: list[tuple[str, bytes | None]] = [
        *kept,
        (f"{_STREAMS}exception", reject.code.encode()),
        (f"{_STREAMS}message", reject.message.encode("utf-8", "backslashreplace")),
        (SOURCE_TOPIC, segment.topic.encode()),
        (f"{_STREAMS}partition", b"%d" % segment.partition),
        (f"{_STREAMS}offset", b"%d" % segment.offsets[reject.index]),
        ("dlq.reason", reject.code.encode()),
        ("dlq.path", reject.path.encode("utf-8", "backslashreplace")),
        ("dlq.stage", reject.stage.encode()),
        (FIRST_FAILED_AT, earlier.get(FIRST_FAILED_AT) or b"%d" % now_ms),
        (REPLAY_COUNT, earlier.get(REPLAY_COUNT) or b"0"),
        ("source-offset", b"%d" % segment.offsets[reject.index]),
    ]
    return segment.keys[reject.index], segment.values[reject.index], headers


def describe(reject: Reject, segment: Segment) -> dict[str, Any]:
    """Gives the dead letter as one JSON object, for the commands that have no topic to write it to; bytes that are no text stay escaped."""
    value = segment.values[reject.index]
    return {
        "dead_letter": reject.code.value,
        "path": reject.path,
        "message": reject.message,
        "stage": reject.stage,
        "source": {"topic": segment.topic, "partition": segment.partition, "offset": int(segment.offsets[reject.index])},
        "value": None if value is None else value.decode("utf-8", "backslashreplace"),
    }
