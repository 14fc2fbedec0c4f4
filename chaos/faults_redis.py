"""What is done to Redis under the `payments` pipeline: verdicts go on, and say what they are decided without."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

from chaos.arena import SETTLE_S, Arena
from chaos.bus import Stuck, await_true
from chaos.faults import BURST, RATE, Round, now_ms
from chaos.processes import Redis
from chaos.proxy import SlowRelay
from chaos.verify import Output

#: How many times a worker's deadline (50 ms) a slow Redis takes.
SLOW_S = 0.3
OUTAGE_S = 1.5
#: A Redis that answers and was empty: its windows fill, which is no outage.
WARMING = "redis_warming"


def redis_killed(redis: Redis, _: SlowRelay) -> Round:
    """kill -9; an empty one comes back on the same port."""

    def begin() -> None:
        redis.process.kill()

    return _outage(begin, redis.start)


def redis_hung(redis: Redis, _: SlowRelay) -> Round:
    """SIGSTOP, SIGCONT: connections stay open and nothing answers."""

    def begin() -> None:
        redis.process.signal(signal.SIGSTOP)

    def end() -> None:
        redis.process.signal(signal.SIGCONT)

    return _outage(begin, end)


def redis_slow(_: Redis, relay: SlowRelay) -> Round:
    """Every answer takes several deadlines."""

    def begin() -> None:
        relay.delay_s = SLOW_S

    def end() -> None:
        relay.delay_s = 0.0

    return _outage(begin, end)


def _outage(begin: Callable[[], None], end: Callable[[], None]) -> Round:
    def one(arena: Arena) -> float:
        arena.keep(arena.rng.choice([1, 2]))
        with arena.feed.load(RATE, BURST):
            arena.steady()
            begun_ms = now_ms()
            try:
                begin()
                # Served all the same: this is what the promise says, with `degraded` naming who is missing.
                arena.recovered(begun_ms)
                await_true(lambda: _said(arena, begun_ms) >= {"redis"}, "a verdict names Redis as missing", SETTLE_S, arena.check)
                time.sleep(arena.rng.uniform(0.2, OUTAGE_S))
                if arena.rng.random() < 0.3:
                    victim = arena.rng.choice(arena.workers)
                    arena.forget(victim)
                    victim.kill()
                    arena.keep(1)
            finally:
                end()
            since_ms = now_ms()
            await_true(lambda: _whole_since(arena, since_ms), "verdicts are whole again", SETTLE_S, arena.check)
            took_s = arena.recovered(since_ms)
        arena.settle()
        if not _said(arena, begun_ms):
            raise Stuck("Redis was away and no verdict said so")
        return took_s

    return one


def _recent(arena: Arena, since_ms: int) -> list[Output]:
    """Gives the verdicts written after `since_ms`."""
    return [
        one
        for given in list(arena.watch.answers.values())
        for one in list(given)
        if one.at_ms > since_ms and one.role in ("approve", "review", "block")
    ]


def _degraded(output: Output) -> set[str]:
    return {one["component"] for one in json.loads(output.value or b"{}").get("degraded", []) if one["cause"] != WARMING}


def _said(arena: Arena, since_ms: int) -> set[str]:
    return {name for output in _recent(arena, since_ms) for name in _degraded(output)}


def _whole_since(arena: Arena, since_ms: int) -> bool:
    recent = _recent(arena, since_ms)
    return len({output.key for output in recent if not _degraded(output)}) > 10
