"""Plain JSON read without a Python object per event: what a pipeline file makes of its fields for the kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamapp.core import plain_json as kernel
from streamapp.core.fields import EVENT_ID, TENANT, id_bounds, integer_bounds, pattern_of
from streamapp.core.plain_rows import PlainRows
from streamapp.core.spec import FieldSpec, PipelineSpec
from streamapp.core.texts import Texts
from streamapp.core.times import TIME_MAX_MS, TIME_MIN_MS, UNREADABLE, epoch_ms

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_KINDS = {
    "id": kernel.ID, "string": kernel.STRING, "number": kernel.NUMBER, "integer": kernel.INTEGER, "boolean": kernel.BOOLEAN,
    "text": kernel.TEXT, "json": kernel.JSON,
}  # fmt: skip
_PLACES_MAX = 62  # one bit each in a word


class PlainReader:
    """Built once per pipeline file. Law: what it says of a row is what the decoder says, or that the row is odd."""

    def __init__(self, spec: PipelineSpec) -> None:
        """Takes the spec of a pipeline that `reads` says yes to."""
        self._fields = {"event_id": EVENT_ID, "tenant": TENANT} | spec.event.fields
        self._time_field, self._max_bytes = spec.event.time_field, spec.event.max_bytes
        self._milliseconds = spec.event.time_unit == "ms"
        unit = 1 if self._milliseconds else 1000
        time = kernel.TIME_MS if self._milliseconds else kernel.TIME_S
        members: list[tuple[str, int, float, float, bool]] = [
            (self._time_field, time, TIME_MIN_MS / unit, TIME_MAX_MS / unit, False),
            ("specversion", kernel.WITHOUT, 0, 0, False),
            *((name, _KINDS[one.type], *_bounds(one), one.required) for name, one in self._fields.items()),
        ]
        self._place = {name: place for place, (name, *_) in enumerate(members)}
        self._names = Texts.of([name.encode() for name, *_ in members])
        self._kind = np.array([kind for _, kind, *_ in members], np.int64)
        self._low, self._high = (np.array([one[at] for one in members], np.float64) for at in (2, 3))
        self._required = sum(1 << place for place, one in enumerate(members) if one[4])
        self._after = np.zeros(len(members) + 1, np.int64)
        self._patterns = {name: matches for name, one in self._fields.items() if (matches := pattern_of(one)) is not None}

    @staticmethod
    def reads(spec: PipelineSpec) -> bool:
        """Gives whether a pipeline's fields are neither called like what every event has nor too many."""
        fields, names = spec.event.fields, {"event_id", "tenant", "specversion", spec.event.time_field}
        return names.isdisjoint(fields) and len(fields) + len(names) <= _PLACES_MAX

    def read(self, values: Texts) -> tuple[PlainRows, Bools]:
        """Takes n records; gives them as columns, and which rows [n] are odd, as far as columns say: times are looked at by `times`."""
        n, f = len(values), len(self._kind)
        begin, end, number = np.empty((f, n), np.int64), np.empty((f, n), np.int64), np.empty((f, n), np.float64)
        odd = np.empty(n, np.bool_)
        kernel.read_rows(
            values.data, values.start, self._names.data, self._names.start, self._kind, self._low, self._high, self._required, kernel.TENS,
            self._after, begin, end, number, odd,
        )  # fmt: skip
        odd |= values.lengths() > self._max_bytes
        _note_broken(values, odd)
        begin[:, odd], end[:, odd], number[:, odd] = -1, -1, np.nan
        rows = PlainRows(values.data, self._place, self._fields, (begin, end, number))
        for name, matches in self._patterns.items():
            column = rows.column(name)
            wrong = {value for value in set(column) if value is not None and not matches(value)}
            if wrong:
                odd |= np.fromiter((value in wrong for value in column), np.bool_, n)
        return rows, odd

    def times(self, rows: PlainRows, received: Int64, odd: Bools) -> Int64:
        """Gives event times, epoch ms: the event's own, else the record's; notes in `odd` those that cannot be read."""
        number, written = rows.time(self._time_field)
        exact = number if self._milliseconds else np.rint(number * 1000)
        unknown = np.isnan(exact)
        if not unknown.any():
            return exact.astype(np.int64)
        times = np.where(unknown, received, np.where(unknown, 0.0, exact).astype(np.int64))
        if len(written):
            times[written] = epoch_ms(rows.strings_at(self._time_field, written))
            odd |= times == UNREADABLE
        return times


def _note_broken(values: Texts, odd: Bools) -> None:
    """Notes the rows that are not UTF-8."""
    try:
        # Plain rows begin and end with a brace, so that no character goes from one into the next.
        values.data[values.start[0] : values.start[-1]].tobytes().decode()
    except UnicodeDecodeError:
        for row, value in enumerate(values):
            try:
                value.decode()
            except UnicodeDecodeError:
                odd[row] = True


def _bounds(spec: FieldSpec) -> tuple[float, float]:
    """Gives the least and the most of a number, or of a string's length."""
    if spec.type == "id":
        return id_bounds(spec)
    if spec.type == "string":
        return spec.min_length or 0, np.inf if spec.max_length is None else spec.max_length
    if spec.type == "text":
        return max(spec.min_length or 1, 1), np.inf if spec.max_length is None else spec.max_length
    if spec.type == "json":
        return 0, np.inf if spec.max_length is None else spec.max_length
    if spec.type == "integer":
        return integer_bounds(spec)
    return -np.inf if spec.minimum is None else spec.minimum, np.inf if spec.maximum is None else spec.maximum
