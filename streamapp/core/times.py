"""RFC 3339 to epoch milliseconds, a column at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

#: What an unreadable time becomes; no time of the years 0001 to 9999 has this value.
UNREADABLE = np.iinfo(np.int64).min

#: Bounds of event times, epoch ms: 0001-01-01 and 9999-12-31T23:59:59.999.
TIME_MIN_MS, TIME_MAX_MS = -62_135_596_800_000, 253_402_300_799_999


def epoch_ms(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Takes n RFC 3339 date-times; gives epoch ms [n], floored, UNREADABLE where a text is none.

    Letters T and Z may be small; a space for T is refused, as is any offset without a colon. A leap second is read where UTC has
    one by definition (23:59:60) and counts as the first of the next minute. Source of the day count: days from the civil calendar,
    era by era of 400 years.
    """
    joined = "".join(texts)
    if joined.isascii():
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        data = joined.encode()
    else:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        data = b"".join(encoded)
    start = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=start[1:])
    times = np.empty(len(texts), np.int64)
    _parse(np.frombuffer(data, np.uint8), start, times)
    return times


@numba.njit(cache=True, nogil=True)
def _parse(data: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> None:
    for row in range(times.shape[0]):
        times[row] = _time(data, start[row], start[row + 1])


# Inside the kernels every number is numba's int64, which has no static type: Any.
@numba.njit(cache=True, nogil=True)
def _number(data: npt.NDArray[np.uint8], first: Any, count: int) -> Any:
    """Gives the decimal number of `count` digits at `first`, -1 where one is no digit."""
    value = np.int64(0)
    for place in range(first, first + count):
        digit = np.int64(data[place]) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@numba.njit(cache=True, nogil=True)
def _days(year: Any, month: Any, day: Any) -> Any:
    """Gives days since 1970-01-01; years are counted from March, so that the leap day is the last of its year."""
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@numba.njit(cache=True, nogil=True)
def _days_in_month(year: Any, month: Any) -> Any:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@numba.njit(cache=True, nogil=True)
def _time(data: npt.NDArray[np.uint8], first: Any, end: Any) -> Any:
    bad = np.int64(np.iinfo(np.int64).min)
    if end - first < 20 or end - first > 64:
        return bad
    year, month, day = _number(data, first, 4), _number(data, first + 5, 2), _number(data, first + 8, 2)
    hour, minute, second = _number(data, first + 11, 2), _number(data, first + 14, 2), _number(data, first + 17, 2)
    if data[first + 4] != 45 or data[first + 7] != 45 or data[first + 13] != 58 or data[first + 16] != 58:
        return bad
    if data[first + 10] != 84 and data[first + 10] != 116:
        return bad
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _days_in_month(year, month):
        return bad
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 60:
        return bad
    place = first + 19
    fraction_ms: Any = 0
    if data[place] == 46:
        place += 1
        digits = 0
        while place < end and 48 <= data[place] <= 57:
            if digits < 3:
                fraction_ms = fraction_ms * 10 + np.int64(data[place]) - 48
            digits += 1
            place += 1
        if digits == 0:
            return bad
        while digits < 3:
            fraction_ms *= 10
            digits += 1
    offset_min = _offset(data, place, end)
    if offset_min == 9999:
        return bad
    minutes = (_days(year, month, day) * 24 + hour) * 60 + minute - offset_min
    if second == 60 and minutes % 1440 != 1439:
        return bad
    return (minutes * 60 + second) * 1000 + fraction_ms


@numba.njit(cache=True, nogil=True)
def _offset(data: npt.NDArray[np.uint8], place: Any, end: Any) -> Any:
    """Gives the offset from UTC in minutes of what stands between `place` and `end`, 9999 where it is none."""
    if place >= end:
        return 9999
    if data[place] == 90 or data[place] == 122:
        return 0 if place + 1 == end else 9999
    if (data[place] != 43 and data[place] != 45) or end - place != 6 or data[place + 3] != 58:
        return 9999
    hour, minute = _number(data, place + 1, 2), _number(data, place + 4, 2)
    if hour < 0 or hour > 23 or minute < 0 or minute > 59:
        return 9999
    return -(hour * 60 + minute) if data[place] == 45 else hour * 60 + minute
