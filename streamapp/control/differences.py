"""What was decided beside what would be decided now, member by member."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Scores of one event agree so far, however a stream was cut; larger numbers agree to as many digits as float32 inputs leave.
TOLERANCE, RELATIVE = 1e-6, 1e-9
EXAMPLES_MAX = 10


@dataclass(slots=True)
class Differences:
    """Counts over pairs of records; `apart` names members that are never equal: times, and the versions, which are told once."""

    apart: Collection[str]
    route: str  #  the member that holds the route
    compared: int = 0
    equal: int = 0
    members: Counter[str] = field(default_factory=Counter)  #               that differ, a member of features as features.NAME
    routes: Counter[tuple[str, str]] = field(default_factory=Counter)  #  (then, now) where they differ; a dead letter is a route here
    _moved: list[dict[str, Any]] = field(default_factory=list)
    _others: list[dict[str, Any]] = field(default_factory=list)

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Some that differ, those of another route first."""
        return (self._moved + self._others)[:EXAMPLES_MAX]

    def take(self, place: tuple[int, int], then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Takes a record as it was answered and as it is answered now: a verdict, a decision record, or {"dead_letter", "path"}."""
        self.compared += 1
        found = list(differing(then, now, self.apart))
        if not found:
            self.equal += 1
            return
        self.members.update(found)
        routes = self._route(then), self._route(now)
        kept = self._others
        if routes[0] != routes[1]:
            self.routes[routes] += 1
            kept = self._moved
        if len(kept) < EXAMPLES_MAX:
            shown = {member: [_at(then, member), _at(now, member)] for member in found}
            kept.append({"partition": place[0], "offset": place[1], "differs": shown})

    def _route(self, record: Mapping[str, Any]) -> str:
        return "dead_letter" if "dead_letter" in record else str(record.get(self.route, "?"))


def differing(then: Any, now: Any, apart: Collection[str] = (), inside: str = "") -> Iterator[str]:
    """Gives the members in which two JSON objects differ: those of an object in an object by path, anything else whole."""
    for name in dict.fromkeys([*then, *now]):
        if name in apart:
            continue
        if name not in then or name not in now:
            yield inside + name
        elif isinstance(then[name], dict) and isinstance(now[name], dict):
            yield from differing(then[name], now[name], (), f"{inside}{name}.")
        elif not agree(then[name], now[name]):
            yield inside + name


def agree(then: Any, now: Any) -> bool:
    """Says whether two JSON values are equal, numbers within TOLERANCE or RELATIVE."""
    if isinstance(then, bool) or isinstance(now, bool):
        return then is now
    if isinstance(then, int | float) and isinstance(now, int | float):
        return math.isclose(then, now, rel_tol=RELATIVE, abs_tol=TOLERANCE)
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() == now.keys() and all(agree(then[name], now[name]) for name in then)
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(agree, then, now))
    return bool(then == now)


def _at(record: Mapping[str, Any], path: str) -> Any:
    """Gives a member by its path, None where it is missing."""
    found: Any = record
    for name in path.split(".", 1):
        found = found.get(name) if isinstance(found, dict) else None
    return found
