"""Every way things go wrong, once: their fault is a `Reject` (a value), our fault is an exception below `StreamappError`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class RejectCode(enum.StrEnum):
    """Closed list of `dlq.reason`: why an event cannot be decided. Each value is part of the public contract."""

    NULL_VALUE = "null_value"  #                       the record has no value (a tombstone)
    TOO_LARGE = "too_large"  #                         more bytes than `[event] max_bytes`
    INVALID_UTF8 = "invalid_utf8"  #                   not UTF-8
    INVALID_JSON = "invalid_json"  #                   not JSON
    NOT_AN_OBJECT = "not_an_object"  #                 JSON, but not an object
    UNSUPPORTED_ENCODING = "unsupported_encoding"  #   a content type or specversion we do not read
    MISSING_FIELD = "missing_field"  #                 a required field is absent
    WRONG_TYPE = "wrong_type"  #                       a field has another JSON type
    OUT_OF_RANGE = "out_of_range"  #                   a number below or above its bounds
    TOO_LONG = "too_long"  #                           a string or document over its bound
    TOO_SHORT = "too_short"  #                         a string below its bound
    PATTERN_MISMATCH = "pattern_mismatch"  #           a string that breaks its pattern
    BLANK_TEXT = "blank_text"  #                       nothing is left of the text after cleaning
    INVALID_TIME = "invalid_time"  #                   event_time is neither RFC 3339 nor epoch milliseconds
    KEY_MISMATCH = "key_mismatch"  #                   the record key is null or differs from the key field
    OVER_QUOTA = "over_quota"  #                       the tenant sent more than its quota
    VERDICT_TOO_LARGE = "verdict_too_large"  #         the broker refuses the verdict's size


@dataclass(slots=True)
class Reject:
    """One event that cannot be decided; becomes a dead letter with its key, value and headers untouched."""

    segment: int  #        index into Plan.segments
    index: int  #          index inside that segment
    code: RejectCode
    path: str  #           JSONPath-like: "$.user_id"; "$" is the whole value
    message: str  #        one sentence: what is wrong and what would be right
    stage: str = "decode"


class StreamappError(Exception):
    """Base of our own failures; `fix` says what to do about it."""

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(f"{problem}. {fix}" if fix else problem)
        self.problem, self.fix = problem, fix


class ConfigError(StreamappError):
    """A pipeline file or setting is wrong; the message names the key and the fix."""


class ModelRejected(StreamappError):
    """A model file was refused (hash, names, shapes, smoke test); the model in use stays."""


class ModelFailed(StreamappError):
    """A model in use gave no usable numbers for a micro-batch; a cheaper path decides and the verdicts name it."""


class BusError(StreamappError):
    """The broker refused or did not answer in time; the worker stops without acknowledging."""


class InvariantBroken(StreamappError):
    """Something that must be true of our own code is not; the worker stops without acknowledging."""
