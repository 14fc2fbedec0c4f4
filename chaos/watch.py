"""An eye on everything that any topic holds: the input and its answers, kept by their place in the input."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Self

from confluent_kafka import Consumer

from chaos.bus import PARTITIONS, PROBE, Stuck, await_true
from chaos.follow import STALL_S, Follow, Settings, Spot, ends
from chaos.stream import Record
from chaos.verify import Output

LOOK_S = 60.0


class Watch:
    """Follows the events topic and every output in a thread; keeps what it saw by (partition, source offset)."""

    def __init__(
        self,
        bootstrap: str,
        events: str,
        outputs: Mapping[str, str],
        *,
        by_place: bool = True,
        client: Callable[[Settings], Any] = Consumer,
        stall_s: float = STALL_S,
    ) -> None:
        """`by_place` False: answers carry no source offset, so events and answers are kept in the order in which they came."""
        self.inputs: dict[tuple[int, int], Record] = {}
        self.answers: dict[tuple[int, int], list[Output]] = defaultdict(list)
        self.plain: list[Output] = []
        self.read_again = 0  #  records that the broker gave twice: a client that is told to begin anew reads what it has read
        self._read: set[tuple[str, int, int, int]] = set()
        self.last_answer_s = time.monotonic()
        self._bootstrap, self._group = bootstrap, f"{events}.watch"
        self._events, self._roles, self._by_place = events, {name: role for role, name in outputs.items()}, by_place
        self._open: dict[tuple[int, int], int] = {}  # what is still missing of an input's answer: 1 verdict, 2 decision
        self._served: list[tuple[int, int]] = []  #     (partition, epoch ms) of verdicts
        self._spots: list[Spot] = [(topic, number) for topic in (events, *outputs.values()) for number in range(PARTITIONS)]
        self._follow = Follow(bootstrap, self._group, self._spots, client, stall_s)
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._follow.close()

    def unanswered(self) -> int:
        """Gives how many of the inputs seen have no verdict or dead letter, or no decision record. Raises what stopped the watch."""
        if self._failure is not None:
            raise self._failure
        with self._lock:
            return len(self._open)

    def unanswered_places(self) -> list[tuple[int, int]]:
        """Gives which they are."""
        with self._lock:
            return sorted(self._open)

    def served_since(self, at_ms: int) -> dict[int, int]:
        """Gives, per partition, when the first verdict after `at_ms` was written, in epoch ms."""
        first: dict[int, int] = {}
        with self._lock:
            for partition, when in reversed(self._served):
                if when <= at_ms:
                    if len(first) == PARTITIONS or when < at_ms - 60_000:
                        break
                    continue
                first[partition] = min(when, first.get(partition, when))
        return first

    @property
    def replaced(self) -> int:
        """How many of its clients stood still and were replaced."""
        return self._follow.replaced

    def begin_again(self, topic: str) -> None:
        """Reads a topic that was made anew from its first record on."""
        self._follow.begin_again(topic)

    def read_to(self, wanted: Mapping[Spot, int], timeout_s: float = LOOK_S) -> None:
        """Waits until all records below these offsets were seen; raises Stuck that names where the watch is."""
        try:
            await_true(lambda: not self._follow.behind(wanted), "", timeout_s)
        except Stuck:
            raise Stuck(f"the watch does not get on: {_told(self._follow.behind(wanted))}; not within {timeout_s:g} s") from None

    def look_again(self) -> int:
        """Reads all topics anew to their ends by another client; gives how many records there are that the watch had not been given.

        What the topics hold is what counts. Raises Stuck that names the partitions that could not be read.
        """
        before, read_again, other = self.kept, self.read_again, Follow(self._bootstrap, f"{self._group}.again", self._spots)
        wanted = ends(self._bootstrap, self._spots)
        if unknown := set(self._spots) - wanted.keys():
            raise Stuck(f"a second look: the broker does not say where {sorted(unknown)} end")
        try:
            give_up = time.monotonic() + LOOK_S
            while left := other.behind(wanted):
                for message in other.read():
                    self._keep(message)
                if time.monotonic() > give_up:
                    raise Stuck(f"a second look does not get on: {_told(left)}; not within {LOOK_S:g} s")
        finally:
            other.close()
        self.read_again = read_again
        return self.kept - before

    @property
    def kept(self) -> int:
        """Records of all topics that were seen."""
        with self._lock:
            return len(self._read)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for message in self._follow.read():
                    self._keep(message)
        except Exception as failure:  # noqa: BLE001 - told to whoever waits for an answer
            self._failure = failure

    def _keep(self, message: Any) -> None:
        if message.headers() == PROBE:
            return
        topic, partition, key, value = message.topic(), message.partition(), message.key(), message.value()
        one = topic, partition, message.offset(), message.timestamp()[1]  # with its time: a topic made anew counts from 0 again
        with self._lock:
            if one in self._read:
                self.read_again += 1
                return
            self._read.add(one)
            if topic == self._events:
                place = partition, message.offset()
                self.inputs[place] = key, value
                self._settle(place)
                return
            self.last_answer_s = time.monotonic()
            output = Output(self._roles[topic], key, value, message.timestamp()[1])
            if output.role != "decisions":
                self._served.append((partition, output.at_ms))
            if not self._by_place:
                self.plain.append(output)
                return
            source = next((told for name, told in message.headers() or () if name == "source-offset"), b"-1")
            place = partition, int(source)
            self.answers[place].append(output)
            self._settle(place)

    def _settle(self, place: tuple[int, int]) -> None:
        if place not in self.inputs or not self._by_place:
            return
        roles = {output.role for output in self.answers.get(place, ())}
        if "dead-letters" in roles or ("decisions" in roles and len(roles) > 1):
            self._open.pop(place, None)
        else:
            self._open[place] = len(roles)


def _told(left: Mapping[Spot, tuple[int, int]]) -> str:
    return ", ".join(f"{topic}-{number} at {at} of {end}" for (topic, number), (at, end) in left.items())
