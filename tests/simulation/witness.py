"""What must always hold, checked while it happens and at the end. Every breach is a sentence."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamapp.bus.topics import Topics
from streamapp.core import journal as codec
from streamapp.core.events import Segment
from tests.simulation.broker import Broker, Place, Record
from tests.simulation.events import Event
from tests.simulation.group import Coordinator
from tests.simulation.loop import Mind
from tests.simulation.twin import Expected, expect


class Answer(NamedTuple):
    """One output of an event: by whom, on which topic, what it says; `late` when its sender had lost the partition when it came."""

    who: str
    topic: str
    record: Record
    late: bool


class Witness:
    """Sees every append, decision and commit; knows the input, and nothing of how it is decided."""

    def __init__(self, broker: Broker, coordinator: Coordinator, topics: Topics, partitions: int, *, exactly_once: bool) -> None:
        """`exactly_once` holds it against a reader of committed records, who is shown nothing twice, by whomever."""
        self._exactly_once = exactly_once
        self._broker, self._coordinator, self._topics, self._partitions = broker, coordinator, topics, partitions
        self.breaches: list[str] = []
        self.events: dict[int, dict[int, Event]] = defaultdict(dict)  #      by partition and offset
        self.answers: dict[int, dict[int, list[Answer]]] = defaultdict(lambda: defaultdict(list))
        self.decisions: dict[int, dict[int, list[Answer]]] = defaultdict(lambda: defaultdict(list))
        self.journal: dict[int, int] = dict.fromkeys(range(partitions), 0)  # positions
        self._initialised: dict[int, str] = {}  # who has last, by partition
        self.zombies: set[int] = set()  #  partitions to which somebody wrote after losing them
        self.model_failed = self.redis_failed = False
        self.shared_exactly = False  #  nothing of shared entities was lost on the way, so what is asked last has to be the whole
        self.repeated = 0
        self._by_topic = {topics.approve: "approve", topics.review: "review", topics.block: "block"}

    def say(self, breach: str) -> None:
        """Notes a breach."""
        self.breaches.append(f"{self._broker.network.loop.now_s:.3f} s: {breach}")

    # -- while it happens

    def appended(self, mind: Mind, sent_s: float, place: Place, records: Sequence[Record]) -> None:
        """Sees what the broker has just taken, or what of it is committed, before anybody can read it."""
        topic, partition = place
        if records and self._exactly_once and self._initialised.get(partition) != mind.name:
            self.say(f"{mind.name} shows records on {topic}-{partition}, which {self._initialised.get(partition)} has initialised")
        owner, _ = self._coordinator.owner.get(partition, ("", 0))
        late = owner != mind.name or sent_s < self._coordinator.owned_since_s
        if late:
            self.zombies.add(partition)
        if topic == self._topics.state:
            for record in records:
                self._logged(mind, partition, record)
            return
        kept = self.decisions if topic == self._topics.decisions else self.answers
        for record in records:
            source = int(dict(record.headers)["source-offset"] or b"-1")
            self._answered(kept[partition][source], Answer(mind.name, topic, record, late), partition, source)

    def _answered(self, known: list[Answer], answer: Answer, partition: int, source: int) -> None:
        event = self.events[partition].get(source)
        if event is None:
            self.say(f"{answer.who} answered {partition}@{source}, which is no event")
            return
        if known:
            self.repeated += 1
            if self._exactly_once or partition not in self.zombies:
                self.say(
                    f"{answer.who} answered {partition}@{source} again on {answer.topic}; zombies excuse nothing here, or there was none"
                )
        known.append(answer)
        if answer.record.key != event.key:
            self.say(f"the answer to {partition}@{source} has another key")

    def _logged(self, mind: Mind, partition: int, record: Record) -> None:
        head, _ = codec.decode(record.value or b"")
        for source in [known for known in self.events[partition] if self.journal[partition] <= known < head.next]:
            if not self.complete(partition, source):
                self.say(f"{mind.name} logged {partition}@{head.next} before {partition}@{source} was answered")
        self.journal[partition] = max(self.journal[partition], head.next)

    def complete(self, partition: int, source: int) -> bool:
        """Gives whether an event has all its outputs."""
        answers = self.answers[partition].get(source)
        if not answers:
            return False
        return answers[0].topic == self._topics.dead_letters or source in self.decisions[partition]

    def initialised(self, mind: Mind, transactional_id: str) -> None:
        """Sees who is from now on the only one whose records of a partition count; its number ends the id."""
        self._initialised[int(transactional_id.rpartition("-")[2])] = mind.name

    def decides(self, name: str, segments: Sequence[Segment]) -> None:
        """Sees which segments a worker is about to decide."""
        for segment in segments:
            owner = self._coordinator.owner.get(segment.partition)
            if owner != (name, segment.generation):
                self.say(f"{name} decides partition {segment.partition} of generation {segment.generation}, which is {owner}'s")

    def commits(self, name: str, offsets: Mapping[int, int]) -> None:
        """Sees what a member commits."""
        for partition, offset in offsets.items():
            if offset > self.journal[partition]:
                self.say(f"{name} committed {partition}@{offset}; the journal is at {self.journal[partition]}")
            if offset < self._coordinator.committed.get(partition, 0):
                self.say(f"{name} committed {partition}@{offset} after {self._coordinator.committed[partition]}")

    def drained(self, name: str, left: int) -> None:
        """Sees what a SIGTERM has left behind."""
        if left:
            self.say(f"{name} left {left} records behind after SIGTERM")

    # -- at the end

    def check(self) -> None:
        """Compares all that was said with what is true."""
        terminals: dict[str, int] = defaultdict(int)
        everything = {}
        for partition in range(self._partitions):
            log = self._broker.log(self._topics.events, partition)
            everything[partition] = expected = expect(partition, log.records, self.events[partition])
            for source, one in expected.items():
                terminals[one.terminal] += one.first == source
        for partition, expected in everything.items():
            for source, event in self.events[partition].items():
                self._check_event(partition, source, event, expected, terminals)
            self._check_order(partition)
            self._check_seen(partition)
        self._check_last(everything[0], terminals)
        for partition in range(self._partitions):
            end = self._broker.log(self._topics.events, partition).end
            if self._coordinator.committed.get(partition, 0) != end:
                self.say(f"partition {partition} is committed to {self._coordinator.committed.get(partition)}, not to its end {end}")

    def _check_event(
        self, partition: int, source: int, event: Event, expected: Mapping[int, Expected], terminals: Mapping[str, int]
    ) -> None:
        at = f"{partition}@{source}"
        answers, decisions = self.answers[partition].get(source, []), self.decisions[partition].get(source, [])
        if not answers:
            self.say(f"{at} was lost")
        for answer in answers:
            if (answer.topic == self._topics.dead_letters) != bool(event.reason):
                self.say(f"{at} ({event.reason or 'good'}) was answered on {answer.topic}")
            elif event.reason:
                self._check_letter(at, event, answer.record)
        if event.reason:
            if decisions:
                self.say(f"{at} is a dead letter and has a decision record")
            return
        if not decisions and answers:
            self.say(f"{at} has no decision record")
        verdicts = [json.loads(answer.record.value or b"") for answer in answers]
        for answer, verdict in zip(answers, verdicts, strict=True):
            if self._by_topic.get(answer.topic) != verdict["verdict"]:
                self.say(f"{at} is on {answer.topic} and says {verdict['verdict']}")
        records = [json.loads(answer.record.value or b"") for answer in decisions]
        self._check_agreement(at, [*verdicts, *records])
        first = expected[source].first
        for verdict in [*verdicts, *records]:
            self._check_decision(at, verdict, expected[source], first != source)
        for record in records:
            if first == source:
                self._check_features(at, record, expected[source], terminals)

    def _check_letter(self, at: str, event: Event, record: Record) -> None:
        reason = (dict(record.headers).get("dlq.reason") or b"").decode()
        if (reason, record.key, record.value) != (event.reason, event.key, event.value):
            self.say(f"{at} had to be the dead letter {event.reason} with its own bytes, and is {reason}")

    def _check_agreement(self, at: str, verdicts: Sequence[Mapping[str, Any]]) -> None:
        if len({verdict["decision_id"] for verdict in verdicts}) > 1:
            self.say(f"{at} has several decision ids")
        told = [verdict for verdict in verdicts if verdict["score"] is not None or not self.model_failed]
        said = {(verdict["verdict"], verdict["score"] and round(verdict["score"], 6)) for verdict in told}
        if len(said) > 1:
            self.say(f"{at} was decided in contradiction: {sorted(map(str, said))}")

    def _check_decision(self, at: str, verdict: Mapping[str, Any], expected: Expected, copy: bool) -> None:
        if ("duplicate" in verdict["flags"]) != copy:
            self.say(f"{at} {'is' if copy else 'is not'} a copy and its flags are {verdict['flags']}")
        if verdict["score"] is None:
            if not self.model_failed or verdict["verdict"] != "review":
                self.say(f"{at} has no score and is {verdict['verdict']}")
        elif abs(verdict["score"] - expected.score) > 1e-5 or expected.route not in ("", verdict["verdict"]):
            self.say(f"{at} scored {verdict['score']} ({verdict['verdict']}) instead of {expected.score} ({expected.route})")

    def _check_features(self, at: str, record: Mapping[str, Any], expected: Expected, terminals: Mapping[str, int]) -> None:
        given = record["features"]
        for name, value in expected.features.items():
            if abs(given[name] - value) > 1e-9:
                self.say(f"{at} was decided by {name} = {given[name]} instead of {value}")
        missing = any(one["component"] == "redis" for one in record["degraded"])
        if missing != bool(given["terminal_id_windows_missing"]) and "decided_again" not in record:
            self.say(f"{at}: shared windows missing is {given['terminal_id_windows_missing']}, degraded {record['degraded']}")
        if given["terminal_1h_count"] > terminals[expected.terminal]:
            self.say(f"{at} saw {given['terminal_1h_count']} events of {expected.terminal}, of {terminals[expected.terminal]} in all")

    def _check_last(self, expected: Mapping[int, Expected], terminals: Mapping[str, int]) -> None:
        left = dict(terminals)
        for source in sorted(expected, reverse=True)[: len(terminals)] if self.shared_exactly else ():
            terminal = expected[source].terminal
            for answer in self.decisions[0][source]:
                given = json.loads(answer.record.value or b"")["features"]["terminal_1h_count"]
                if given != left[terminal]:
                    self.say(f"0@{source} saw {given} events of {terminal}, of {left[terminal]} that all workers had acknowledged")

    def _check_order(self, partition: int) -> None:
        # An event that is decided again may take another route then; exactly once, nobody has seen the first one.
        if not self._exactly_once and (partition in self.zombies or self.model_failed):
            return
        for topic in self._by_topic:
            sources = self._seen(topic, partition)
            if sources != sorted(sources):
                self.say(f"{topic}-{partition} is out of order: {sources}")

    def _check_seen(self, partition: int) -> None:
        """Reads as a consumer of committed records does."""
        if not self._exactly_once:
            return
        answered = [source for topic in (*self._by_topic, self._topics.dead_letters) for source in self._seen(topic, partition)]
        decided = self._seen(self._topics.decisions, partition)
        events = self.events[partition]
        for what, seen, wanted in (
            ("answers", answered, list(events)),
            ("decisions", decided, [source for source, event in events.items() if not event.reason]),
        ):
            if sorted(seen) != sorted(wanted):
                self.say(f"a reader of committed records finds {what} to {sorted(seen)} of partition {partition}, not to {sorted(wanted)}")
        for topic in (*self._topics.outputs(), self._topics.state):
            log = self._broker.log(topic, partition)
            if log.committed_end() != log.end:
                self.say(f"a transaction was left open on {topic}-{partition}: readers wait at {log.committed_end()} of {log.end}")

    def _seen(self, topic: str, partition: int) -> list[int]:
        log = self._broker.log(topic, partition)
        return [int(dict(record.headers)["source-offset"] or b"0") for record in log.committed(log.records)]
