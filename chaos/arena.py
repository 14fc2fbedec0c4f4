"""One kind's ground: its topics, its workers, a feed and a watch that outlive the rounds, and the judgement of each round."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from chaos.bus import PARTITIONS, Administration, Feed, Stuck, await_true, topics_of
from chaos.expect import COUNTS, PAYMENTS, Recount
from chaos.processes import ROOT, Process
from chaos.stream import Stream
from chaos.verify import Asked, Output, Place, Tally, invented, judge, judge_textbook
from chaos.watch import Watch

SETTLE_S = 120.0
PIPELINES = {"counts": str(ROOT / "chaos/counts.toml"), "payments": str(ROOT / "pipelines/payments.toml")}


@dataclass(frozen=True, slots=True)
class Setup:
    """What the rounds of a kind have in common."""

    bootstrap: str
    namespace: str
    folder: Path  #                 logs
    seed: int
    session_ms: int
    pipeline: str = "counts"
    real: bool = True  #            Apache Kafka, not the embedded broker
    textbook: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


class Arena:
    """The ordinary program under fault; `workers` are those that are meant to run."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.rng = setup, random.Random(setup.seed)
        self.events = f"{setup.namespace}.events.v1"
        self.outputs = topics_of(setup.namespace)
        self.group = f"{setup.namespace}-textbook" if setup.textbook else f"{setup.namespace}.{setup.pipeline}"
        self.workers: list[Process] = []
        self.notes: Counter[str] = Counter()
        self.woken: set[int] = set()  # rounds in which a worker woke up late, though nobody stopped it
        self._all: list[Process] = []
        self._recount = Recount(COUNTS if setup.pipeline == "counts" else PAYMENTS)
        self._asked: dict[Place, Asked] = {}
        self._rounds: list[list[Place]] = []
        if setup.real:
            self.admin = Administration(setup.bootstrap)
        self._create()
        self.feed = Feed(setup.bootstrap, self.events, self._stream())
        self.watch = self._watch()

    def __enter__(self) -> Self:
        self.watch.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._all:
            one.close()
        self.watch.__exit__()

    # -- processes

    def start(self, **environment: str) -> Process:
        """Starts one more worker; its micro-batches and snapshots are small, so that many steps lie between two faults."""
        session_ms = self.setup.session_ms
        settings = {
            "STREAMAPP_KAFKA_SESSION_TIMEOUT_MS": str(session_ms), "STREAMAPP_KAFKA_HEARTBEAT_INTERVAL_MS": str(session_ms // 6),
            "STREAMAPP_BATCH_MAX": self.rng.choice(["16", "60", "500"]),
            "STREAMAPP_STATE_SNAPSHOT_ROWS": self.rng.choice(["50", "700", "9999999"]),
        }  # fmt: skip
        log = self.setup.folder / f"worker-{len(self._all)}.log"
        worker = Process(self._command(), log, settings | dict(self.setup.environment) | environment)
        self._all.append(worker)
        self.workers.append(worker)
        return worker

    def keep(self, count: int) -> None:
        """Starts and stops (SIGTERM) workers until `count` of them run; raises Stuck when one has ended that should not have."""
        self.check()
        while len(self.workers) < count:
            self.start()
        while len(self.workers) > count:
            self.dismiss(self.workers[-1])

    def dismiss(self, worker: Process) -> None:
        """Ends a worker in order; raises Stuck when its exit code is not 0."""
        self.workers.remove(worker)
        if (code := worker.terminate()) != 0:
            raise Stuck(f"SIGTERM ended {worker.log.name} with {code}: {worker.last_words()}")

    def forget(self, worker: Process) -> None:
        """Takes a worker that was killed out of those that are meant to run."""
        self.workers.remove(worker)

    def said(self, words: str) -> int:
        """Gives how many lines of all the workers' logs hold these words."""
        return sum(words in line for one in self._all for line in one.log.read_text(errors="replace").splitlines())

    def woke_late(self, why: str) -> None:
        """Notes that in this round a worker may have gone on after its session: what it repeats, equal, is let be."""
        self.notes[why] += 1
        self.woken.add(len(self._rounds))

    def check(self) -> None:
        """Raises Stuck when a worker that is meant to run has ended."""
        for one in self.workers:
            if not one.running:
                raise Stuck(f"{one.log.name} ended with {one.process.returncode}: {one.last_words()}")

    # -- what can be waited for

    def recovered(self, since_ms: int, timeout_s: float = SETTLE_S) -> float:
        """Waits until every partition has a verdict that was written after `since_ms`; gives the seconds until the last one had."""
        served: dict[int, int] = {}

        def all_served() -> bool:
            served.update(self.watch.served_since(since_ms))
            return len(served) == PARTITIONS

        await_true(all_served, "every partition is served again", timeout_s, self.check)
        return (max(served.values()) - since_ms) / 1000

    def steady(self) -> None:
        """Waits until the workers share the partitions and every partition is being served."""
        if self.setup.real:
            self.shared_by(len(self.workers))
        self.recovered(time.time_ns() // 1_000_000)

    def shared_by(self, count: int, timeout_s: float = SETTLE_S) -> None:
        """Waits until the group is stable and has `count` members."""

        def shared() -> bool:
            return self.admin.members(self.group) == count

        await_true(shared, f"{count} workers share the partitions", timeout_s, self.check, every_s=0.1)

    def settle(self, quiet_s: float = 0.5) -> None:
        """Waits until every record sent is answered and nothing came for a while."""
        self.feed.flush()

        def answered() -> bool:
            return len(self.watch.inputs) >= self.feed.sent and not self.watch.unanswered()

        try:
            await_true(answered, "everything is answered", SETTLE_S, self.check)
        except Stuck as why:
            self.notes["records that only a second look found"] += self.watch.look_again()
            if not answered():
                seen, places = len(self.watch.inputs), self.watch.unanswered_places()
                raise Stuck(
                    f"{why}, and all topics were read again to their ends: input {seen} of {self.feed.sent}, open {len(places)}, such as "
                    f"{places[:5]}"
                ) from None
        await_true(lambda: time.monotonic() - self.watch.last_answer_s > quiet_s, "nothing more comes", SETTLE_S)

    def state(self) -> dict[int, int]:
        """Gives from where the journal goes on, by partition, as `streamapp state verify` tells it. Raises Stuck when it refuses."""
        options = ["--pipeline", PIPELINES[self.setup.pipeline], "--bootstrap", self.setup.bootstrap, "--namespace", self.setup.namespace]
        told = streamapp("state", "verify", *options, "--json")
        return {int(number): one["position"] for number, one in json.loads(told)["partitions"].items()}

    # -- judgement

    def close_round(self) -> Tally:
        """Judges what was sent since the last round."""
        fresh = sorted(place for place in self.watch.inputs if place not in self._asked)
        for place in fresh:
            key, value = self.watch.inputs[place]
            self._asked[place] = Asked(key, value, self._recount.take(*place, key, value))
        self._rounds.append(fresh)
        return self._judged(fresh)

    def close(self) -> list[Tally]:
        """Judges every round once more, with what came after its end, and gives the tallies; last, what answers nothing."""
        return [*(self._judged(places) for places in self._rounds), invented(self._asked, self.watch.answers)]

    def _judged(self, places: list[Place]) -> Tally:
        return judge({place: self._asked[place] for place in places}, self.watch.answers)

    # -- what another engine does otherwise

    def _create(self) -> None:
        if self.setup.real:
            options = ["--bootstrap", self.setup.bootstrap, "--namespace", self.setup.namespace, "--partitions", str(PARTITIONS)]
            streamapp("topics", "create", "--pipeline", PIPELINES[self.setup.pipeline], *options)

    def _stream(self) -> Stream:
        return Stream(self.setup.seed, self.setup.pipeline, **self.setup.shares)

    def _watch(self) -> Watch:
        return Watch(self.setup.bootstrap, self.events, self.outputs)

    def _command(self) -> list[str]:
        options = ["--pipeline", PIPELINES[self.setup.pipeline], "--bootstrap", self.setup.bootstrap, "--namespace", self.setup.namespace]
        return [sys.executable, "-m", "streamapp", "worker", *options, "--metrics-port", "0", "--until-stdin-closes"]


class TextbookArena(Arena):
    """bench/textbook_faust.py under the same faults; it answers with an event id, a route and how often the user was seen."""

    def _create(self) -> None:
        self.admin.create(self.events, *(self.outputs[role] for role in ("approve", "review", "block")))

    def _stream(self) -> Stream:
        return Stream(self.setup.seed, poison=0.0, copies=0.0)

    def _watch(self) -> Watch:
        verdicts = {role: self.outputs[role] for role in ("approve", "review", "block")}
        return Watch(self.setup.bootstrap, self.events, verdicts, by_place=False)

    def _command(self) -> list[str]:
        return [sys.executable, "bench/textbook_faust.py", self.setup.bootstrap, self.setup.namespace, "models"]

    def dismiss(self, worker: Process) -> None:
        """Ends a worker by SIGTERM, whatever its exit code."""
        self.workers.remove(worker)
        worker.terminate(30)

    def settle(self, quiet_s: float = 4.0) -> None:
        """Waits until nothing comes any more: what is lost never comes."""
        self.feed.flush()
        await_true(lambda: len(self.watch.inputs) >= self.feed.sent, "the input is read back", SETTLE_S)
        await_true(lambda: time.monotonic() - self.watch.last_answer_s > quiet_s, "nothing more comes", 2 * SETTLE_S, self.check)

    def close_round(self) -> Tally:
        """Judges what was sent since the last round."""
        order = sorted(self.watch.inputs)
        fresh = [place for place in order if place not in self._asked]
        for place in fresh:
            self._asked[place] = Asked(*self.watch.inputs[place], self._recount.take(*place, *self.watch.inputs[place]))
        self._rounds.append(fresh)
        return self._judged(fresh)

    def _judged(self, places: list[Place]) -> Tally:
        seen: dict[bytes | None, int] = defaultdict(int)
        users: dict[str, int] = {}
        for place in sorted(self._asked):
            key, value = self.watch.inputs[place]
            seen[key] += 1
            users[json.loads(value or b"")["event_id"]] = seen[key]
        mine: dict[str, list[bytes]] = {self._asked[place].expected.event_id: [] for place in places}
        answers: dict[str, list[Output]] = defaultdict(list)
        for output in self.watch.plain:
            answers[json.loads(output.value or b"")["event_id"]].append(output)
        return judge_textbook(mine, answers, users)


def streamapp(*arguments: str) -> str:
    """Runs a command of the program; gives what it wrote. Raises Stuck with its words when it fails."""
    command = [sys.executable, "-m", "streamapp", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SETTLE_S)
    except subprocess.TimeoutExpired:
        raise Stuck(f"streamapp {' '.join(arguments[:2])} still runs after {SETTLE_S:g} s") from None
    if done.returncode:
        raise Stuck(f"streamapp {' '.join(arguments[:2])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@contextmanager
def opened(setup: Setup) -> Iterator[Arena]:
    """Gives the arena of a setup; all its processes end with it."""
    with (TextbookArena if setup.textbook else Arena)(setup) as arena:
        yield arena
