"""Compares what lies on the output topics with what must lie there, place by place; counts every way in which they differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from chaos.expect import Expected

#: Partition and source offset of an event.
Place = tuple[int, int]
TOLERANCE = 1e-6


class Output(NamedTuple):
    """One record that answers an event: which topic ("approve", "review", "block", "decisions", "dead-letters"), and what it says."""

    role: str
    key: bytes | None
    value: bytes | None
    at_ms: int


class Asked(NamedTuple):
    """One record of the input with the right answer to it."""

    key: bytes | None
    value: bytes | None
    expected: Expected


@dataclass(slots=True)
class Tally:
    """What was counted. All but events, verdicts, late and duplicated have to be 0, and duplicated too where nobody woke up late."""

    events: int = 0
    verdicts: int = 0
    letters: int = 0
    lost: int = 0  #            no verdict, no dead letter, or no decision record
    duplicated: int = 0  #      records beyond the first of their kind at one place
    contradictory: int = 0  #   one event, two answers: decision_id, route or score differ
    wrong: int = 0  #           windows, score, route, flags, key or topic are not those that the input alone gives
    late: int = 0
    invented: int = 0  #        answers to nothing
    examples: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds up, and keeps the first examples."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        del self.examples[5:]

    def broken(self, *, repeats: bool) -> list[str]:
        """Gives what must not be; `repeats`: a verdict may come twice here as long as both say the same."""
        bad = ("lost", "contradictory", "wrong", "invented") + (() if repeats else ("duplicated",))
        return [f"{getattr(self, name)} {name}" for name in bad if getattr(self, name)]

    def note(self, what: str) -> None:
        """Keeps an example of what is wrong."""
        if len(self.examples) < 5:
            self.examples.append(what)


def judge(asked: Mapping[Place, Asked], answers: Mapping[Place, Sequence[Output]]) -> Tally:
    """Takes a part of the input with the right answers, and the outputs of that part at least. Cost is linear in the part."""
    tally = Tally(events=len(asked))
    for place, one in asked.items():
        _judge_place(tally, place, one, answers.get(place, ()))
    _same_event_same_answer(tally, asked, answers)
    return tally


def invented(asked: Mapping[Place, Asked], answers: Mapping[Place, Sequence[Output]]) -> Tally:
    """Takes the whole input and all outputs; counts answers to nothing."""
    tally = Tally()
    for place in answers.keys() - asked.keys():
        tally.invented += len(answers[place])
        tally.note(f"{place}: {len(answers[place])} answers to no event")
    return tally


def _judge_place(tally: Tally, place: Place, one: Asked, given: Sequence[Output]) -> None:
    decisions = [output for output in given if output.role == "decisions"]
    letters = [output for output in given if output.role == "dead-letters"]
    verdicts = [output for output in given if output.role not in ("decisions", "dead-letters")]
    tally.verdicts += len(verdicts)
    tally.letters += len(letters)
    tally.late += one.expected.late
    wanted = (0, 0, 1) if one.expected.dead else (1, 1, 0)
    found = len(verdicts), len(decisions), len(letters)
    if any(there < wished for there, wished in zip(found, wanted, strict=True)):
        tally.lost += 1
        tally.note(f"{place}: verdicts, decisions, letters {found} instead of {wanted}")
    if (letters and not one.expected.dead) or (one.expected.dead and (verdicts or decisions)):
        tally.wrong += 1
        tally.note(f"{place}: a dead letter and a verdict changed places: {found} instead of {wanted}")
    repeated = sum(max(0, there - 1) for there in found)
    if repeated:
        tally.duplicated += repeated
        first = min(output.at_ms for output in given)
        times = ", ".join(f"{output.role} {output.at_ms - first:+} ms" for output in given)
        tally.note(f"{place}: verdicts, decisions, letters {found} instead of {wanted} ({times})")
    if one.expected.dead:
        if any((letter.key, letter.value) != (one.key, one.value) for letter in letters):
            tally.wrong += 1
            tally.note(f"{place}: the dead letter is not the record as it came")
        return
    faults = [fault for output in (*verdicts, *decisions) for fault in _faults(output, one)]
    if faults:
        tally.wrong += 1
        tally.note(f"{place}: {faults[0]}")
    said = {_answer(output) for output in (*verdicts, *decisions)}
    if len(said) > 1:
        tally.contradictory += 1
        tally.note(f"{place}: {sorted(map(str, said))}")


def _answer(output: Output) -> tuple[Any, ...]:
    said = json.loads(output.value or b"{}")
    return said.get("decision_id"), said.get("verdict"), said.get("score")


def _faults(output: Output, one: Asked) -> Iterable[str]:
    """Gives what one verdict or decision record says that is not so."""
    said, expected = json.loads(output.value or b"{}"), one.expected
    flags = said.get("flags", [])
    if output.key != one.key or said.get("event_id") != expected.event_id:
        yield f"key {output.key!r}, event {said.get('event_id')} instead of {one.key!r}, {expected.event_id}"
    if output.role not in ("decisions", said.get("verdict")):
        yield f"verdict {said.get('verdict')} on topic {output.role}"
    if ("duplicate" in flags) != (expected.copy_of is not None):
        yield f"flags {flags}, but it is {'' if expected.copy_of is not None else 'not '}a copy"
    if ("late" in flags) != expected.late:
        yield f"flags {flags}, but it is {'' if expected.late else 'not '}late"
    if expected.route and said.get("verdict") != expected.route:
        yield f"route {said.get('verdict')} instead of {expected.route}"
    if expected.score is not None and abs((said.get("score") or 0.0) - expected.score) > TOLERANCE:
        yield f"score {said.get('score')} instead of {expected.score}"
    if output.role == "decisions" and expected.copy_of is None:
        features = said.get("features", {})
        for name, value in expected.windows.items():
            if name not in features or abs(features[name] - value) > TOLERANCE:
                yield f"{name} = {features.get(name)} instead of {value}"


def _same_event_same_answer(tally: Tally, asked: Mapping[Place, Asked], answers: Mapping[Place, Sequence[Output]]) -> None:
    """Copies of an event repeat the first decision: id, route and score."""
    for (partition, offset), one in asked.items():
        if one.expected.copy_of is None or one.expected.dead:
            continue
        both = [
            output for at in (offset, one.expected.copy_of) for output in answers.get((partition, at), ()) if output.role != "dead-letters"
        ]
        if len({_answer(output) for output in both}) > 1:
            tally.contradictory += 1
            tally.note(f"{(partition, offset)}: a copy of offset {one.expected.copy_of} is answered otherwise")


def judge_textbook(asked: Mapping[str, Sequence[bytes]], answers: Mapping[str, Sequence[Output]], users: Mapping[str, int]) -> Tally:
    """The same of the app without source offsets: by event id, with `users` giving how often each event's user had been seen then."""
    tally = Tally(events=len(asked))
    for event_id in asked:
        said = [json.loads(output.value or b"{}") for output in answers.get(event_id, ())]
        tally.verdicts += len(said)
        tally.lost += not said
        tally.duplicated += max(0, len(said) - 1)
        tally.contradictory += len({(one["verdict"], one["probability"]) for one in said}) > 1
        tally.wrong += any(one["seen"] != users[event_id] for one in said)
    return tally
