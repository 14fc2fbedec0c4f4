"""Every event of a run and what became of it, by source partition and offset: nothing may be missing, nothing decided twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from streamapp.core.route import BLOCK, REVIEW, ROUTE_NAMES

_NOTHING, _REJECTED = 255, 254  # beside the route codes
_LABELS = 3  # codes: none, good, bad
_GOOD, _BAD = 1, 2


@dataclass(slots=True)
class _Partition:
    """One byte per offset for what was sent and one for what came back."""

    label: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Quality:
    """Verdicts against the labels that events carried: precision and recall of `block`, and of `block` or `review`; None without cases."""

    labelled: int
    bad: int
    precision_block: float | None
    recall_block: float | None
    precision_block_or_review: float | None
    recall_block_or_review: float | None
    good_in_review: float | None


class Ledger:
    """Counts up as records are sent and answers are read, in any order between the two."""

    def __init__(self, good: str = "ham", bad: str = "spam") -> None:
        """`good` and `bad` are the labels that events carry."""
        self._codes = {good: _GOOD, bad: _BAD}
        self.sent = 0
        self.routes: Counter[str] = Counter(dict.fromkeys(ROUTE_NAMES, 0))
        self.dead_letters: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.repeated = 0
        self._partitions: defaultdict[int, _Partition] = defaultdict(_Partition)

    def send(self, partition: int, offset: int, label: str | None, expected: str | None, *, drifted: bool = False) -> None:
        """Notes an event that the broker has taken, its label and, where it was broken on purpose, the reject code that is due.

        `drifted` keeps its label in the second of the two groups that `quality` can tell apart.
        """
        self.sent += 1
        place = self._at(partition, offset)
        place.label[offset] = self._codes.get(label or "", 0) + _LABELS * drifted
        if expected is not None:
            self.expected[expected] += 1

    def decide(self, partition: int, offset: int, route: int) -> bool:
        """Notes a verdict; gives whether it is the first answer to its event."""
        first = self._answer(partition, offset, route)
        if first:
            self.routes[ROUTE_NAMES[route]] += 1
        return first

    def reject(self, partition: int, offset: int, reason: str) -> bool:
        """Notes a dead letter; gives whether it is the first answer to its event."""
        first = self._answer(partition, offset, _REJECTED)
        if first:
            self.dead_letters[reason] += 1
        return first

    @property
    def verdicts(self) -> int:
        """Events that have a verdict."""
        return sum(self.routes.values())

    @property
    def answered(self) -> int:
        """Events that have a verdict or a dead letter."""
        return self.verdicts + sum(self.dead_letters.values())

    @property
    def waiting(self) -> int:
        """Events sent and not yet answered: the lag as a consumer sees it."""
        return self.sent - self.answered

    @property
    def accounted(self) -> bool:
        """Whether events = verdicts + dead letters, event by event."""
        return self.waiting == 0 and all(_NOTHING not in place.answer for place in self._partitions.values())

    def quality(self, *, drifted: bool | None = None) -> Quality | None:
        """Compares verdicts with labels, of all events or of one group; None when no decided event had one."""
        table: Counter[tuple[int, int]] = Counter()
        for place in self._partitions.values():
            table.update(zip(place.label, place.answer, strict=True))
        decided: Counter[tuple[int, int]] = Counter()
        for (code, answer), count in table.items():
            group, label = divmod(code, _LABELS)
            if label and answer < _REJECTED and drifted in (None, bool(group)):
                decided[label, answer] += count
        if not decided:
            return None

        def of(label: int, *routes: int) -> int:
            return sum(count for (found, route), count in decided.items() if found == label and (not routes or route in routes))

        return Quality(
            labelled=sum(decided.values()),
            bad=of(_BAD),
            precision_block=_share(of(_BAD, BLOCK), of(_BAD, BLOCK) + of(_GOOD, BLOCK)),
            recall_block=_share(of(_BAD, BLOCK), of(_BAD)),
            precision_block_or_review=_share(of(_BAD, BLOCK, REVIEW), of(_BAD, BLOCK, REVIEW) + of(_GOOD, BLOCK, REVIEW)),
            recall_block_or_review=_share(of(_BAD, BLOCK, REVIEW), of(_BAD)),
            good_in_review=_share(of(_GOOD, REVIEW), of(_GOOD)),
        )

    def figures(self) -> dict[str, Any]:
        """Gives the counts as one JSON-ready object."""
        return {
            "events": self.sent,
            "verdicts": self.verdicts,
            "dead_letters": sum(self.dead_letters.values()),
            "accounted": self.accounted,
            "repeated": self.repeated,
            "routes": dict(self.routes),
            "dead_letters_by_reason": dict(sorted(self.dead_letters.items())),
            "broken_on_purpose": dict(sorted(self.expected.items())),
        }

    def _answer(self, partition: int, offset: int, answer: int) -> bool:
        place = self._at(partition, offset)
        if place.answer[offset] != _NOTHING:
            self.repeated += 1
            return False
        place.answer[offset] = answer
        return True

    def _at(self, partition: int, offset: int) -> _Partition:
        place = self._partitions[partition]
        missing = offset + 1 - len(place.answer)
        if missing > 0:
            place.label.extend(bytes(missing))
            place.answer.extend(bytes([_NOTHING]) * missing)
        return place


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
