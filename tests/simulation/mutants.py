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
    """In the source of `owner`'s function `name`, the first of each pair becomes the second; which `faults` bring it to light.

    `seed` is one that did, so that most of the search is spared; in another story it is as good as any.
    """

    what: str
    seed: int
    faults: tuple[str, ...]
    owner: Any
    name: str
    edits: tuple[tuple[str, str], ...]


def _of(what: str, seed: int, faults: str, owner: Any, name: str, *edits: str) -> Mutant:
    return Mutant(what, seed, tuple(faults.split()), owner, name, tuple(zip(edits[::2], edits[1::2], strict=True)))


MUTANTS = (
    _of("a batch is acked before its journal record", 4, "slow", Line, "_carry_away",
        "counted = await", "[one.batch.ack() for one in several]; counted = await"),
    _of("the journal does not wait for the outputs", 0, "slow kill", Line, "_carry_away",
        "await oldest.answers", "pass", "one.answers.complete()", "True", "await one.answers", "{}"),
    _of("shared entities are told to nobody", 7, "members", Line, "_carry_away", "if one.outcome.shared:", "if False:"),
    _of("nobody asks whose the partition is", 0, "pause", Batch, "only_owned", "kept = [", "return self; kept = ["),
    _of("a session never ends", 0, "pause", Consumer, "in_session", "return ", "return True or "),
    _of("a session begins when its process looks", 0, "doze members", Consumer, "on_partitions_assigned",
        "self.client.last_sync", "time.monotonic()"),
    _of("what is fetched may be committed", 1, "slow", Acks, "committable", "claim.position", "claim.next"),
    _of("a refused output counts as acknowledged", 0, "refused", emit.Answers, "__await__", "if refused is not None:", "if False:",
        "self._answer.result()", "([-1] * len(self._parcels) if refused else self._answer.result())"),
    _of("a refused journal record is passed over", 9, "refused kill", KafkaJournal, "append",
        'raise not_taken("the state log", failure) from failure', "sent = []", "answer.result()", "([] if failure else answer.result())"),
    _of("a state may move while it is copied", 10, "slow", KafkaJournal, "save", "self._open.clear()", "pass"),
    _of("a snapshot does not wait for its deltas", 25, "slow", KafkaJournal, "save",
        "await covered", "kept.state.applied + 1, 0, tuple(kept.outputs)"),
    _of("outputs beyond the journal are not read back", 3, "kill", recovery, "answered",
        'outputs_found.append((topic, int(source), record.value or b""))', "pass"),
    _of("what was answered already is sent again", 18, "kill", emit.Delivery, "answered_already", "if found", "if False"),
    _of("recovery begins where the group has committed", 0, "kill", Recovery, "_load",
        "source, kept.position, committed)", "source, committed or 0, committed)"),
    _of("a partition is released before its state is there", 0, "members", Recovery, "_load", "self.journal.adopt(kept)", "pass"),
    _of("decisions are not replayed", 0, "kill", PartitionState, "apply", "rows.decision is not None", "False"),
    _of("a delta is applied twice", 3, "pause", Replay, "_delta", ".after(self._applied())", ""),
    _of("the position of a former owner counts", 29, "pause kill", Replay, "_delta", "if head.next <= self.position:", "if False:"),
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
