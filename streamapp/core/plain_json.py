"""Plain JSON objects to columns by a kernel: no Python object per event and field.

Plain is an object in ASCII (but for what a text field says) without escapes, of strings, short numbers, truth values and null, each
declared member at most once, and all of it good. Whatever else a row may be (an escape, an exponent, anything wrong), it is odd, and
read by msgspec.
Law: a row that is plain has the same values here as there. Cost: one pass over the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamapp.core.copying import trailing_zeros, word_at
from streamapp.core.windows_index import compiled

#: What a member may be. A time is a number in its unit, or a string that is read elsewhere; WITHOUT is null, or is not there.
#: A text is a string that Python would not strip and that begins or ends with a letter or digit of ASCII; json is kept as it is written.
ID, STRING, NUMBER, INTEGER, BOOLEAN, TIME_MS, TIME_S, WITHOUT, TEXT, JSON = range(10)

_QUOTE, _COLON, _COMMA, _OPEN, _CLOSE, _MINUS, _POINT, _ZERO, _NINE, _N, _T, _F = (ord(sign) for sign in '":,{}-.09ntf')
_LIST, _LIST_END = ord("["), ord("]")
_ASCII, _ANY = 128, 256
_DEPTH_MAX = 62  # of values in values: a bit each in a word
_DIGITS_MAX = 18  # of a mantissa, which then is below 2^63
_EXACT = 1 << 53  # whole numbers below it, and powers of ten to 22, are doubles: their quotient is the double next to what was written
TENS = 10.0 ** np.arange(_DIGITS_MAX + 1)

_ONES, _HIGH = 0x0101010101010101, 0x8080808080808080
_SLASH = ord("\\")
_QUOTES, _SLASHES, _BLANKS = _ONES * _QUOTE, _ONES * _SLASH, _ONES * 32
_IN_ORDER = bool(np.array([1], np.uint16).view(np.uint8)[0])  # the first byte of a word is its lowest


@compiled
def _blank(data: Any, at: int, end: int) -> int:
    """Gives where the white space ends."""
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@compiled
def _string(data: Any, at: int, end: int, limit: int) -> int:
    """Takes where a string begins, behind its quote; gives where its closing quote is, -1 where it is not plain.

    Its bytes are below `limit`: ASCII, or anything (that it is UTF-8 is looked at elsewhere).
    """
    ones, high = np.uint64(_ONES), np.uint64(_HIGH)
    while at < end:
        while _IN_ORDER and at + 8 <= end:
            word = word_at(data, at)
            quote, slash = word ^ np.uint64(_QUOTES), word ^ np.uint64(_SLASHES)
            # Quotes, backslashes, what is below a blank or beyond ASCII: the lowest highest bit that is set stands for the first of them.
            odd = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((word - np.uint64(_BLANKS)) & ~word) | word) & high
            if odd != 0:
                at += trailing_zeros(odd) >> 3
                break
            at += 8
        byte = data[at] if at < end else _SLASH
        if byte == _QUOTE:
            return at
        if byte < 32 or byte == _SLASH or byte >= limit:
            return -1
        at += 1
    return -1


@compiled
def _number(data: Any, at: int, end: int, tens: Any) -> Any:
    """Takes where a number begins; gives (where it ends, the number, digits behind its point): -1 where it is not plain."""
    negative = data[at] == _MINUS
    if negative:
        at += 1
    first: Any = at
    mantissa, behind = np.int64(0), np.int64(0)
    while at < end and _ZERO <= data[at] <= _NINE:
        mantissa = mantissa * 10 + (np.int64(data[at]) - _ZERO)
        at += 1
    count = at - first
    if count == 0 or count > _DIGITS_MAX or (count > 1 and data[first] == _ZERO):
        return -1, 0.0, behind
    if at < end and data[at] == _POINT:
        at += 1
        while at < end and _ZERO <= data[at] <= _NINE and count + behind <= _DIGITS_MAX:
            mantissa = mantissa * 10 + (np.int64(data[at]) - _ZERO)
            behind += 1
            at += 1
        if behind == 0:
            return -1, 0.0, behind
    # A minus zero has its sign or not, by how it was written.
    if count + behind > _DIGITS_MAX or mantissa >= _EXACT or (negative and mantissa == 0):
        return -1, 0.0, behind
    value = float(mantissa) / tens[behind] if behind else float(mantissa)
    return at, -value if negative else value, behind


@compiled
def _which(data: Any, at: int, length: int, likely: int, names: Any, name_start: Any) -> int:
    """Gives the place of a member's name among those declared, -1 where it is none of them; `likely` is asked first."""
    for turn in range(-1, len(name_start) - 1):
        place = likely if turn < 0 else turn
        if place < 0 or name_start[place + 1] - name_start[place] != length:
            continue
        begin, same = name_start[place], True
        for j in range(length):
            if names[begin + j] != data[at + j]:
                same = False
                break
        if same:
            return place
    return -1


@compiled
def _word(data: Any, at: int, end: int) -> int:
    """Gives the length of the null, true or false that begins at `at`; 0 where it is none of them."""
    if at + 4 <= end:
        if data[at] == _N and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108:
            return 4
        if data[at] == _T and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
            return 4
        if at + 5 <= end and data[at] == _F and data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115 and data[at + 4] == 101:
            return 5
    return 0


@compiled
def _single(data: Any, at: int, end: int, tens: Any) -> int:
    """Takes where a string, number, truth value or null begins; gives where it ends, -1 where it is not plain."""
    if data[at] == _QUOTE:
        at = _string(data, at + 1, end, _ASCII)
        return -1 if at < 0 else at + 1
    if data[at] == _MINUS or _ZERO <= data[at] <= _NINE:
        at, _, _ = _number(data, at, end, tens)
        return at
    length = _word(data, at, end)
    return -1 if length == 0 else at + length


@compiled
def _named(data: Any, at: int, end: int) -> int:
    """Takes where a member begins; gives where its value does, -1 where it is not plain."""
    if at >= end or data[at] != _QUOTE:
        return -1
    at = _string(data, at + 1, end, _ASCII)
    if at < 0:
        return -1
    at = _blank(data, at + 1, end)
    return _blank(data, at + 1, end) if at < end and data[at] == _COLON else -1


@compiled
def _value(data: Any, at: int, end: int, tens: Any) -> int:
    """Takes where a value of any kind begins; gives where it ends, -1 where it is not plain."""
    objects, depth = 0, 0  # a bit per depth: whether that is an object
    while 0 <= at < end:
        opens = data[at] == _OPEN or data[at] == _LIST
        if opens:
            if depth == _DEPTH_MAX:
                return -1
            objects, depth = objects << 1 | (data[at] == _OPEN), depth + 1
            at = _blank(data, at + 1, end)
        else:
            at = _single(data, at, end, tens)
            if depth == 0 or at < 0:
                return at
            at = _blank(data, at, end)
        while at < end and data[at] == (_CLOSE if objects & 1 else _LIST_END):
            objects, depth, at, opens = objects >> 1, depth - 1, at + 1, False
            if depth == 0:
                return at
            at = _blank(data, at, end)
        if not opens:
            if at >= end or data[at] != _COMMA:
                return -1
            at = _blank(data, at + 1, end)
        if objects & 1:
            at = _named(data, at, end)
    return -1


@compiled
def _is_alnum(byte: Any) -> Any:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122


@compiled
def _may_be_blank(data: Any, at: int) -> Any:
    """Whether a character, by its first two bytes, may be white space (Unicode's, as `str.strip` knows it)."""
    first, second = data[at], data[at + 1]
    if first < 128:
        return first <= 32
    if first == 0xC2:
        return second == 0x85 or second == 0xA0
    return (first == 0xE1 and second == 0x9A) or (first == 0xE2 and 0x80 <= second <= 0x81) or (first == 0xE3 and second == 0x80)


@compiled
def _is_good_text(data: Any, begin: int, end: int, low: float, high: float) -> Any:
    """Whether a text of UTF-8 has as many characters as it may, nothing to be stripped and a letter or digit at either end."""
    if begin == end or not (_is_alnum(data[begin]) or _is_alnum(data[end - 1])):
        return False
    last, characters = end - 1, end - begin
    while last > begin and data[last] & 0xC0 == 0x80:
        last -= 1
    for at in range(begin, end):
        characters -= data[at] & 0xC0 == 0x80
    return low <= characters <= high and not _may_be_blank(data, begin) and not _may_be_blank(data, last)


@compiled
def _read_row(  # noqa: C901 -- the way through one object, member by member
    data: Any, at: int, stop: int, row: int, names: Any, name_start: Any, kind: Any, low: Any, high: Any, required: int, tens: Any,
    after: Any, begin: Any, end: Any, number: Any,
) -> Any:  # fmt: skip
    for place in range(len(kind)):
        begin[place, row], end[place, row], number[place, row] = -1, -1, np.nan
    seen, last = 0, 0
    at = _blank(data, at, stop)
    if at >= stop or data[at] != _OPEN:
        return False
    at = _blank(data, at + 1, stop)
    more = not (at < stop and data[at] == _CLOSE)
    while more:
        if at >= stop or data[at] != _QUOTE:
            return False
        first = at + 1
        at = _string(data, first, stop, _ASCII)
        if at < 0:
            return False
        place = _which(data, first, at - first, after[last], names, name_start)
        if place >= 0:
            if seen & (1 << place):
                return False
            seen |= 1 << place
            after[last], last = place, place + 1
        at = _blank(data, at + 1, stop)
        if at >= stop or data[at] != _COLON:
            return False
        at = _blank(data, at + 1, stop)
        if at >= stop:
            return False
        first = at
        if place < 0 or kind[place] == JSON:
            at = _value(data, first, stop, tens)
            if at < 0:
                return False
            if place >= 0:
                if at - first > high[place] or data[first] == _N:
                    return False
                begin[place, row], end[place, row] = first, at
        elif data[at] == _QUOTE:
            first += 1
            at = _string(data, first, stop, _ANY if kind[place] == TEXT else _ASCII)
            if at < 0:
                return False
            if kind[place] in (ID, STRING):
                if not low[place] <= at - first <= high[place]:
                    return False
            elif kind[place] == TEXT:
                if not _is_good_text(data, first, at, low[place], high[place]):
                    return False
            elif kind[place] not in (TIME_MS, TIME_S):
                return False
            begin[place, row], end[place, row] = first, at
            at += 1
        elif data[at] == _MINUS or _ZERO <= data[at] <= _NINE:
            at, value, behind = _number(data, first, stop, tens)
            if at < 0:
                return False
            if kind[place] == ID:
                if behind > 0 or value <= 0 or not low[place] <= at - first <= high[place]:
                    return False
                begin[place, row], end[place, row] = first, at
            elif kind[place] in (NUMBER, TIME_S, INTEGER, TIME_MS):
                if (behind > 0 and kind[place] in (INTEGER, TIME_MS)) or not low[place] <= value <= high[place]:
                    return False
                number[place, row] = value
            else:
                return False
        else:
            length = _word(data, at, stop)
            if length == 0:
                return False
            if data[at] == _N:
                if required & (1 << place):
                    return False
            elif kind[place] != BOOLEAN:
                return False
            else:
                number[place, row] = 1.0 if data[at] == _T else 0.0
            at += length
        at = _blank(data, at, stop)
        if at >= stop:
            return False
        more = data[at] == _COMMA
        if more:
            at = _blank(data, at + 1, stop)
    if at >= stop or data[at] != _CLOSE or seen & required != required:
        return False
    return _blank(data, at + 1, stop) == stop


@compiled
def read_rows(
    data: Any, start: Any, names: Any, name_start: Any, kind: Any, low: Any, high: Any, required: int, tens: Any, after: Any,
    begin: Any, end: Any, number: Any, odd: Any,
) -> None:  # fmt: skip
    """Takes n rows of bytes and f declared members; `odd` bool[n] becomes which rows are not plain: what else is said of them is void.

    `low` and `high` bound a string's length or a number; `required` has a bit per member that must be there. begin and end int64[f, n]
    become where a string, an id, a text or json stands (-1: nowhere), number float64[f, n] what a number or truth value is (NaN: none).
    `after` int64[f + 1] is which member came behind which (0: behind none declared): it is learned here, and only saves time.
    """
    for row in range(len(start) - 1):
        odd[row] = not _read_row(
            data, start[row], start[row + 1], row, names, name_start, kind, low, high, required, tens, after, begin, end, number
        )


@compiled
def differing(data: Any, begin: Any, end: Any, other: Any, other_start: Any, odd: Any) -> None:
    """Notes in `odd` the rows whose text is not there or not the other of its row."""
    for row in range(len(begin)):
        length, first, at = end[row] - begin[row], begin[row], other_start[row]
        if begin[row] < 0 or other_start[row + 1] - at != length:
            odd[row] = True
            continue
        for j in range(length):
            if data[first + j] != other[at + j]:
                odd[row] = True
                break
