"""Small breaks in what exactly once rests on: each has to be noticed where outputs and state are written in transactions."""

from __future__ import annotations

from streamapp.bus.journal import KafkaJournal
from streamapp.bus.recovery import Recovery
from streamapp.bus.transactions import ExactlyOnce, Lane, Round
from streamapp.worker import Line
from tests.simulation.mutants import Mutant

#: No faults: those of the seed.
MUTANTS_IN_ROUNDS = (
    Mutant("a worker's transactions have a name of its own", 0, ("pause", "members"), ExactlyOnce, "_initialised", (
        ('f"{self._prefix}-{partition}"', 'f"{id(self)}-{partition}"'),
    )),
    Mutant("nobody waits for an initialisation that was given up", 85, ("members", "slow", "refused"), ExactlyOnce, "own", (
        ("asyncio.shield(connecting)", "connecting"), ("self._abandon(partition, connecting)", "asyncio.sleep(0)"),
    )),
    Mutant("the state is read before the former owner is fenced", 105, ("members", "slow"), Recovery, "_load", (
        ("await self.journal.own(number)", "pass"),
        ("await self._returned(reader, number, generation)",
         "await self._returned(reader, number, generation); kept is None or await self.journal.own(number)"),
        ("replay, tell)", "replay, tell); await self.journal.own(number)"),
    )),
    Mutant("events are acked before their transaction is committed", 0, ("slow",), Line, "_carry_away", (
        ("if counted is None:", "if True:"),
    )),
    Mutant("a round does not wait for its micro-batches", 0, ("slow",), Round, "commit", (
        ("await self._emptied.wait()", "pass"),
    )),
    Mutant("a round commits one partition only", 0, ("slow",), Round, "commit", (
        ("list(self.lanes.values())", "list(self.lanes.values())[:1]"),
    )),
    Mutant("the next round is sent while one commits", 0, ("slow",), Round, "enqueue", (
        ("if self._started:", "if True:"),
    )),
    Mutant("the state goes past the transaction", 0, ("kill",), KafkaJournal, "append", (
        ("self._guarantee.transactional", "False"),
    )),
    Mutant("a partition is owned again while its last round commits", 21, ("members",), ExactlyOnce, "own", (
        ("if partition in self._retiring:", "if False:"),
    )),
    Mutant("a partition that was given up is kept", 21, ("members",), ExactlyOnce, "give_up", (
        ("if lane is not None", "if False"),
    )),
    Mutant("a refusal is no failure", 0, ("refused",), Lane, "_settle", (
        ("elif self.withdrawn:", "elif True:"),
    )),
    Mutant("a lane that is closed goes on sending", 1250, (), Lane, "_answered", (
        ("if waiting and not self._closed:", "if waiting:"),
    )),
)  # fmt: skip
