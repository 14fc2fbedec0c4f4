"""Plays the rounds of one kind and judges them; what a failed round left is kept."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.arena import Arena, Setup, opened
from chaos.bus import Stuck
from chaos.faults import Round
from chaos.kinds import KINDS, Kind
from chaos.processes import Node, Redis, embedded_broker
from chaos.proxy import SlowRelay
from chaos.verify import Tally

#: How workers deliver; the first is what they do by themselves.
DELIVERIES = ("at_least_once", "exactly_once")
#: The embedded broker ends no session sooner.
EMBEDDED_SESSION_MS = 6000


@dataclass(slots=True)
class Played:
    """What the rounds of one kind came to."""

    kind: str
    seed: int
    delivery: str
    rounds: int = 0
    tally: Tally = field(default_factory=Tally)
    recovery_s: list[float] = field(default_factory=list)
    session_ms: int = 0
    failures: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    kept: str = ""  #     where the logs of a failed round are

    def as_json(self) -> dict[str, Any]:
        """Gives all of it as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where rounds are played: the broker's address, its process where it is ours, and how long sessions are."""

    bootstrap: str
    node: Node | None
    session_ms: int
    folder: Path
    delivery: str = DELIVERIES[0]


def play(name: str, rounds: int, seed: int, ground: Ground, told: Callable[[], None]) -> Played:
    """Plays `rounds` of a kind; `told` is called after each. A round that breaks a promise ends the kind: its ground is spoilt."""
    kind, played = KINDS[name], Played(name, seed, ground.delivery)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-{seed}-", dir=ground.folder))
    with ExitStack() as stack:
        setup, one = _setup(stack, name, kind, seed, ground, folder)
        played.session_ms = setup.session_ms
        arena = stack.enter_context(opened(setup))
        for number in range(rounds):
            try:
                took_s = one(arena)
                if took_s is not None:
                    played.recovery_s.append(round(took_s, 2))
            except Stuck as why:
                played.failures.append(f"round {number + 1}: {why}")
                with suppress(Stuck):  # what is lost shows only when somebody has gone on
                    arena.workers = [worker for worker in arena.workers if worker.running]
                    arena.keep(max(1, len(arena.workers)))
                    arena.settle()
            played.rounds += 1
            broken = arena.close_round().broken(repeats=_repeats(played, kind, arena, number))
            told()
            if (played.failures or broken) and not kind.textbook:
                break
        _judge(played, arena, kind)
        played.notes = dict(arena.notes)
        if arena.watch.read_again:
            played.notes["records read again by the watch"] = arena.watch.read_again
        if arena.watch.replaced:
            played.notes["clients of the watch that stood still"] = arena.watch.replaced
    if played.failures:
        played.kept = str(folder)
    else:
        shutil.rmtree(folder)
    return played


def _repeats(played: Played, kind: Kind, arena: Arena, number: int) -> bool:
    return (kind.repeats or number in arena.woken) and played.delivery == DELIVERIES[0]


def _judge(played: Played, arena: Arena, kind: Kind) -> None:
    for number, tally in enumerate(arena.close()):
        played.tally.add(tally)
        broken = tally.broken(repeats=_repeats(played, kind, arena, number))
        if broken and not kind.textbook:
            played.failures.append(f"round {min(number + 1, played.rounds)}: {', '.join(broken)}; {'; '.join(tally.examples[:3])}")


def _setup(stack: ExitStack, name: str, kind: Kind, seed: int, ground: Ground, folder: Path) -> tuple[Setup, Round]:
    bootstrap, session_ms, environment, one = ground.bootstrap, ground.session_ms, dict(kind.environment), kind.round
    if kind.embedded:
        bootstrap, session_ms = stack.enter_context(embedded_broker(folder)), EMBEDDED_SESSION_MS
    if kind.textbook:
        session_ms = EMBEDDED_SESSION_MS
    if kind.on_node is not None:
        if ground.node is None:
            raise Stuck(f"{name} stops the broker, and this one is not ours")
        one = kind.on_node(ground.node)
    if kind.on_redis is not None:
        redis = stack.enter_context(closing(Redis(folder)))
        relay = stack.enter_context(closing(SlowRelay(redis.port)))
        one = kind.on_redis(redis, relay)
        environment |= {"STREAMAPP_REDIS": f"redis://127.0.0.1:{relay.port}/0"}
    if ground.delivery != DELIVERIES[0]:
        environment["STREAMAPP_DELIVERY"] = ground.delivery
    if one is None:
        raise ValueError(f"{name} has no round")
    setup = Setup(
        bootstrap, f"chaos-{name}-{uuid.uuid4().hex[:8]}", folder, seed, session_ms, "payments" if kind.on_redis else "counts",
        real=not kind.embedded, textbook=kind.textbook, shares=kind.shares, environment=environment,
    )  # fmt: skip
    return setup, one
