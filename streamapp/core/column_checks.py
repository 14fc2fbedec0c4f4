"""What msgspec leaves of a good field: ids that were numbers, blank and long texts, long json, patterns; a whole column at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np

from streamapp.core.fields import id_bounds, pattern_of
from streamapp.core.spec import FieldSpec

Column = list[Any]
#: Takes a column and notes the places that need a second look; gives the same list, or a new one where values were normalised.
Prepare = Callable[[Column, set[int]], Column]
#: Takes the events and notes suspects; gives the field's column and leaves its values in the events as well.
Check = Callable[[list[Any], set[int]], Column]


def column_check(name: str, spec: FieldSpec) -> Check | None:
    """Gives the check of what msgspec leaves to the columns, None where it leaves nothing."""
    prepare = {"id": _prepare_ids, "text": _prepare_texts, "json": _prepare_json}.get(spec.type, lambda _: None)(spec)
    matches, default, values_of = pattern_of(spec), spec.default, attrgetter(name)
    if prepare is None and matches is None and default is None:
        return None

    def check(events: list[Any], suspects: set[int]) -> Column:
        given = list(map(values_of, events))
        column = given if prepare is None else prepare(given, suspects)
        if default is not None and None in column:
            column = [default if value is None else value for value in column]
        if matches is not None:
            wrong = {value for value in set(column) if value is not None and not matches(value)}
            if wrong:
                suspects.update(place for place, value in enumerate(column) if value in wrong)
        if column is not given:
            deque(map(setattr, events, repeat(name), column), maxlen=0)
        return column

    return check


def _prepare_ids(spec: FieldSpec) -> Prepare:
    low, high = id_bounds(spec)

    def prepare(column: Column, suspects: set[int]) -> Column:
        kinds = set(map(type, column))
        if int not in kinds:
            return column
        texts = list(map(str, column)) if len(kinds) == 1 else [str(value) if type(value) is int else value for value in column]
        suspects.update(place for place, text in enumerate(texts) if text is not None and not low <= len(text) <= high)
        return texts

    return prepare


def _prepare_texts(spec: FieldSpec) -> Prepare:
    low, high = max(spec.min_length or 1, 1), spec.max_length or np.inf

    def prepare(column: Column, suspects: set[int]) -> Column:
        whole = spec.required or None not in column
        stripped = list(map(str.strip, column)) if whole else [value and value.strip() for value in column]
        lengths = list(map(len, stripped)) if whole else [low if value is None else len(value) for value in stripped]
        if min(lengths) < low or max(lengths) > high:
            suspects.update(place for place, length in enumerate(lengths) if not low <= length <= high)
        # Cleaning may leave nothing of a text (zero-width marks, `&#32;`): one with no letter at either end is looked at again.
        suspects.update(place for place, text in enumerate(stripped) if text and not (text[0].isalnum() or text[-1].isalnum()))
        return column if stripped == column else stripped

    return prepare


def _prepare_json(spec: FieldSpec) -> Prepare | None:
    high = spec.max_length

    def prepare(column: Column, suspects: set[int]) -> Column:
        if high is not None and max(map(len, column)) > high:  # bytes here; the second look counts characters
            suspects.update(place for place, raw in enumerate(column) if len(raw) > high)
        if spec.required:
            suspects.update(place for place, raw in enumerate(column) if len(raw) == 4 and bytes(raw) == b"null")
        return column

    return prepare if high is not None or spec.required else None
