"""What an owner before us emitted and did not log: it is not sent a second time, and what is still missing of it says the same.

A row that is decided again sees the same event and the same local state, but not the same shared windows, labels, profiles or lists:
its decision may differ. The one that somebody may have read stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.route import ROUTE_NAMES, UNDECIDED
from streamapp.core.texts import Texts

Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]

#: What a decision record has behind its verdict, in this order; in a JSON string the quotes would be escaped.
_BEHIND = (b',"features":{', b',"shadow_rules":[')
_AGAIN = b',"decided_again":true'


@dataclass(frozen=True, slots=True)
class Answered:
    """Source offsets of one partition that have outputs beyond the journal, sorted int64, and the records of those that lack one."""

    verdicts: Int64  #                                         or dead letters
    decisions: Int64
    told: Mapping[int, bytes] = field(default_factory=dict)  #     verdict by offset, where there is no decision record
    logged: Mapping[int, bytes] = field(default_factory=dict)  #   decision record by offset, where there is no verdict
    said: Mapping[int, bytes] = field(default_factory=dict)  #     a verdict or decision record of every event that has one

    def __bool__(self) -> bool:
        return bool(len(self.verdicts) or len(self.decisions))

    def before(self, offset: int) -> bool:
        """Gives whether all of it lies before an offset."""
        return all(not len(one) or offset > int(one[-1]) for one in (self.verdicts, self.decisions))

    def remember(self, offsets: Int64, decision: npt.NDArray[np.void], members: Mapping[str, str], deciders: Sequence[str]) -> bool:
        """Takes rows decided again and dedupe.DECISION[n] of them; puts into it what was said, so that a copy repeats that.

        `members` names the verdict's members for verdict, score and decided_by, where it has them. Gives whether anything was changed.
        """
        rows = [(row, self.said[offset]) for row, offset in enumerate(offsets.tolist()) if offset in self.said]
        for row, record in rows:
            given = msgspec.json.decode(record, type=dict)
            route, score, decider = (given.get(members.get(name, "")) for name in ("verdict", "score", "decided_by"))
            if route in ROUTE_NAMES:
                decision["route"][row] = ROUTE_NAMES.index(route)
                if "score" in members:
                    decision["score"][row] = np.nan if score is None else score
                if decider in deciders:
                    decision["decided_by"][row] = deciders.index(decider)
        return bool(rows)

    def missing(self, offsets: Int64, route: Int8) -> tuple[Int8, Bool]:
        """Takes rows and their routes; gives the routes with UNDECIDED where the verdict is out, and where a decision record is not."""
        verdict_out = np.isin(offsets, self.verdicts)
        return np.where(verdict_out, np.int8(UNDECIDED), route), (route != UNDECIDED) & ~np.isin(offsets, self.decisions)

    def as_told(self, offsets: Int64, verdicts: Texts, decisions: Texts | None) -> Texts | None:
        """Takes rows decided again; gives their decision records with the verdicts that are out, and a mark: features are of now."""
        rows = [(row, self.told[offset]) for row, offset in enumerate(offsets.tolist()) if offset in self.told]
        if decisions is None or not rows:
            return decisions
        records, lengths = list(decisions), verdicts.lengths()
        for row, verdict in rows:
            records[row] = verdict[:-1] + _AGAIN + records[row][lengths[row] - 1 :]
        return Texts.of(records)

    def as_logged(self, offsets: Int64, route: Int8, verdicts: Texts, route_field: str) -> tuple[Int8, Texts]:
        """Takes rows decided again; gives their routes and verdicts, where a decision record is out already those that it names."""
        rows = [(row, self.logged[offset]) for row, offset in enumerate(offsets.tolist()) if offset in self.logged]
        if not rows:
            return route, verdicts
        route, told = route.copy(), list(verdicts)
        for row, record in rows:
            name = msgspec.json.decode(record, type=dict).get(route_field)
            if name in ROUTE_NAMES:
                route[row], told[row] = ROUTE_NAMES.index(name), _verdict_of(record)
        return route, Texts.of(told)


def _verdict_of(record: bytes) -> bytes:
    end = len(record)
    for mark in _BEHIND:
        found = record.rfind(mark, 0, end)
        end = found if found >= 0 else end
    return record[:end] + b"}"


def unlogged(found: Sequence[tuple[str, int, bytes]], decisions_topic: str, letters_topic: str) -> Answered:
    """Takes (topic, source offset, value) of all outputs of a partition that lie beyond its journal; gives what they answer."""
    logged = {offset: value for topic, offset, value in found if topic == decisions_topic}
    told = {offset: value for topic, offset, value in found if topic != decisions_topic}
    letters = {offset for topic, offset, _ in found if topic == letters_topic}
    return Answered(
        np.array(sorted(told), np.int64),
        np.array(sorted(logged), np.int64),
        {offset: value for offset, value in told.items() if offset not in logged and offset not in letters},
        {offset: value for offset, value in logged.items() if offset not in told},
        logged | {offset: value for offset, value in told.items() if offset not in letters},
    )
