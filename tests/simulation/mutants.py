"""Small breaks in the program's own source, each in something that keeps a promise: what the simulation has to notice."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from streamapp.bus import emit, recovery
from streamapp.bus.acks import Acks
from streamapp.bus.batch import Batch
from streamapp.bus.journal import KafkaJournal
from streamapp.bus.recovery import Recovery
from streamapp.bus.transport import Consumer
from streamapp.core.replay import Replay
from streamapp.core.windows_partition import PartitionState
from streamapp.worker import Line


class Mutant(NamedTuple):
    """In the source of `owner`'s function `name`, the first of each pair becomes the second; what `faults` bring it to light."""

    what: str
    faults: tuple[str, ...]
    owner: Any
    name: str
    edits: tuple[tuple[str, str], ...]


def _of(what: str, faults: str, owner: Any, name: str, *edits: str) -> Mutant:
    return Mutant(what, tuple(faults.split()), owner, name, tuple(zip(edits[::2], edits[1::2], strict=True)))


MUTANTS = (
    _of("a batch is acked before its journal record", "slow", Line, "_carry_away",
        "counted = await", "[one.batch.ack() for one in several]; counted = await"),
    _of("the journal does not wait for the outputs", "slow kill", Line, "_carry_away",
        "await self._in_flight[0].answers", "", "one.answers.complete()", "True", "await one.answers", "{}"),
    _of("shared entities are told to nobody", "members", Line, "_carry_away", "if one.outcome.shared:", "if False:"),
    _of("nobody asks whose the partition is", "pause", Batch, "only_owned", "kept = [", "return self; kept = ["),
    _of("a session never ends", "pause", Consumer, "in_session", "return ", "return True or "),
    _of("a session begins when its process looks", "doze members", Consumer, "on_partitions_assigned",
        "self.client.last_sync", "time.monotonic()"),
    _of("what is fetched may be committed", "slow", Acks, "committable", "claim.position", "claim.next"),
    _of("a refused output counts as acknowledged", "refused", emit.Answers, "__await__", "if refused:", "if False:",
        "for ack in self._acks:", "for ack in [ack for ack in self._acks if ack.answer.exception() is None]:"),
    _of("a refused journal record is passed over", "refused kill", KafkaJournal, "append", "raise _refused(failure)",
        "continue", " from failure", ""),
    _of("a state may move while it is copied", "slow", KafkaJournal, "save", "self._open.clear()", "pass"),
    _of("a snapshot does not wait for its deltas", "slow", KafkaJournal, "save",
        "await covered", "kept.state.applied + 1, 0, tuple(kept.outputs)"),
    _of("outputs beyond the journal are not read back", "kill", recovery, "answered", "into.add(int(source))", "pass"),
    _of("what was answered already is sent again", "kill", emit.Delivery, "answered_already", "if len(verdicts)", "if False"),
    _of("recovery begins where the group has committed", "kill", Recovery, "_load",
        "source, kept.position, committed)", "source, committed or 0, committed)"),
    _of("a partition is released before its state is there", "members", Recovery, "_load", "self.journal.adopt(kept)", "pass"),
    _of("the journal is read before the committed offset", "doze members", Recovery, "_load", "await self._check_position(",
        "committed = await self.group.committed(source); await self._check_position("),
    _of("a state is kept through generations of others", "pause", Recovery, "on_assigned", "or not followed", ""),
    _of("decisions are not replayed", "kill", PartitionState, "apply", "rows.decision is not None", "False"),
    _of("a delta is applied twice", "pause", Replay, "_delta", ".after(self._applied())", ""),
    _of("the position of a former owner counts", "pause kill", Replay, "_delta", "if head.next <= self.position:", "if False:"),
    _of("a snapshot may be torn", "kill", Replay, "_snapshot", "if not gathering.take(head, body):", "if False:"),
)  # fmt: skip


@contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """Breaks the program for a while. Raises LookupError where the source has changed, so that somebody looks at the break again."""
    whole = getattr(mutant.owner, mutant.name)
    setattr(mutant.owner, mutant.name, _mutated(whole, mutant))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.name, whole)


def _mutated(function: Callable[..., Any], mutant: Mutant) -> Any:
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in mutant.edits:
        if old not in source:
            raise LookupError(f"{mutant.name} no longer has {old!r}: find another way to break it so that {mutant.what}")
        source = source.replace(old, new)
    # Inside a function with a name `__class__`, so that super() without arguments finds it.
    nested = "def make(__class__):\n" + textwrap.indent(source, "    ") + f"    return {mutant.name}\n"
    made: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + nested, f"<{mutant.what}>", "exec"), function.__globals__, made)  # noqa: S102
    return made["make"](mutant.owner)
