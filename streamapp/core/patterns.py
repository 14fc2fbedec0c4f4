"""Patterns of declared fields: the part of regular expressions that JSON Schema and Python read alike and that cannot run away."""

from __future__ import annotations

import re
from collections.abc import Callable

#: Longest pattern, and the longest value for a pattern with two unbounded repeats (time grows with its square).
PATTERN_LENGTH_MAX = 200
REPEATED_LENGTH_MAX = 1000

#: Most ways in which the bounded repeats and choices of one pattern may be combined.
WAYS_MAX = 10_000


def compile_pattern(pattern: str, max_length: int | None) -> Callable[[str], bool] | str:
    """Takes a pattern and the field's max_length; gives the test of a value, or the sentence that says why it is refused.

    As in JSON Schema the pattern is searched for anywhere, `$` matches at the very end only, and classes are ASCII.
    Refused because their time can explode on a hostile value: repeats of groups that repeat or choose inside, back references,
    look-around, more than two unbounded repeats, too many ways to combine bounded ones.
    """
    if len(pattern) > PATTERN_LENGTH_MAX:
        return f"is longer than {PATTERN_LENGTH_MAX} characters"
    try:
        search = re.compile(_translate(pattern, max_length), re.ASCII).search
    except _Refused as refused:
        return str(refused)
    except (re.error, OverflowError, RecursionError) as failure:
        return f"is no regular expression: {failure}"
    return lambda value: search(value) is not None


class _Refused(Exception):
    pass


class _Scan:
    """One pass over a pattern that counts how its repeats and choices can combine."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.groups: list[bool] = []  # per open group: does it hold a repeat or a choice?
        self.closed_risky = False  #    the thing before this place is a group that holds one
        self.unbounded, self.ways = 0, 1

    def translated(self) -> str:
        """Gives the pattern with `$` as the very end of the value, raises _Refused."""
        out: list[str] = []
        place = 0
        while place < len(self.pattern):
            piece = self._piece(place)
            out.append(r"\Z" if piece == "$" else piece)
            place += len(piece)
        return "".join(out)

    def _piece(self, place: int) -> str:
        pattern, char = self.pattern, self.pattern[place]
        risky, self.closed_risky = self.closed_risky, False
        if char == "\\":
            return self._escape(pattern[place : place + 2])
        if char == "[":
            return pattern[place : _class_end(pattern, place)]
        if char == "(":
            if pattern.startswith("(?", place) and not pattern.startswith("(?:", place):
                raise _Refused("uses look-around or a named group; only (...) and (?:...) are read")
            self.groups.append(False)
            return "(?:" if pattern.startswith("(?:", place) else "("
        if char == ")":
            self.closed_risky = self.groups.pop() if self.groups else False
            self._mark_group(self.closed_risky)
        elif char == "|":
            self._mark_group(risky=True)
            self.ways *= 2
        elif char in "*+?{":
            return self._repeat(place, risky)
        return char

    def _escape(self, escape: str) -> str:
        if escape[1:].isdigit():
            raise _Refused("uses a back reference, which can run away; write it without")
        if escape[1:] not in tuple("dDwWsSbBnrtfv^$.*+?()[]{}|/-\\"):
            raise _Refused(f"escape `{escape}` is not known; escape punctuation only")
        return escape

    def _repeat(self, place: int, risky: bool) -> str:
        found = re.match(r"\{\d{1,4}\}|\{\d{0,4},\d{0,4}\}|[*+?]", self.pattern[place:])
        if found is None:
            raise _Refused("has a `{` that is no repeat; write `\\{`")
        repeat = found[0]
        if risky and repeat != "?":
            raise _Refused("repeats a group that repeats or chooses inside, which can run away; write it flat")
        if repeat in "*+" or repeat.endswith(",}"):
            self.unbounded += 1
        else:
            self.ways *= _width(repeat)
        self._mark_group(repeat != "?")
        return repeat

    def _mark_group(self, risky: bool) -> None:
        if self.groups and risky:
            self.groups[-1] = True


def _translate(pattern: str, max_length: int | None) -> str:
    scan = _Scan(pattern)
    translated = scan.translated()
    if scan.unbounded > 2 or (scan.unbounded == 2 and (max_length is None or max_length > REPEATED_LENGTH_MAX)):
        raise _Refused(
            f"has {scan.unbounded} unbounded repeats, which can run away; at most one, or two with max_length <= {REPEATED_LENGTH_MAX}"
        )
    if scan.ways > WAYS_MAX:
        raise _Refused(f"can be combined in {scan.ways} ways, which can run away; at most {WAYS_MAX}: fewer choices, narrower repeats")
    return translated


def _width(repeat: str) -> int:
    if repeat == "?":
        return 2
    low, comma, high = repeat.strip("{}").partition(",")
    return int(high) - int(low or 0) + 1 if comma else 1


def _class_end(pattern: str, start: int) -> int:
    place = start + (2 if pattern.startswith("[^", start) else 1)
    if pattern.startswith("]", place):
        place += 1
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1
