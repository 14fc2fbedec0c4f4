"""Profiles over Redis: one binary value per entity, one MGET per micro-batch for what the process does not know yet.

Keys are NAMESPACE:PART:ENTITY; NAMESPACE:profile:about says when the last load came to its end and is read with every question, so that a
Redis that came back empty is told from users without a profile. docs/adr/0019-profiles.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamapp.adapters.redis_line import COMPONENT, FAILURES, Breaker, RedisLine, packed, pool_of
from streamapp.core.cascade import Degraded
from streamapp.core.profiles import KNOWN, WRONG, Float64, Int8, Int64, KeptProfiles, Part, ProfilePlan, ProfileRead

log = logging.getLogger(__name__)

#: Share by which a time to live differs from key to key, so that what was read together is not asked for again together.
JITTER = 0.1
#: How long an unknown entity is believed to be unknown while the store looks empty.
EMPTY_S = 1.0
#: Least that must fit into the process, so that one micro-batch never pushes its own entities out.
KEPT_MIN = 1 << 17
#: Time to write a thousand values, or to find one: the batch job waits longer than the line.
WRITE_S = 10.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long what was read is kept in the process, in seconds, and of how many entities."""

    ttl_s: float = 3600.0
    unknown_ttl_s: float = 60.0  #  of an entity the store does not know
    stale_s: float = 86_400.0  #    beyond its time, while Redis does not answer
    most: int = KEPT_MIN


@dataclass(slots=True)
class Question:
    """The entities of n rows, when they were asked for, and where they are kept."""

    keys: Sequence[str]
    now_s: float
    slots: Int64
    unknown: list[str]  #              each once
    flight: asyncio.Task[str] | None = None


class RedisProfiles:
    """What one worker knows of its entities. `close` when done."""

    def __init__(self, plan: ProfilePlan, url: str, namespace: str, deadline_ms: int = 50, keeping: Keeping | None = None) -> None:
        """Connects with the first question. `namespace` is the first part of every key."""
        self._plan, self._deadline_s, self._keeping = plan, deadline_ms / 1000, keeping or Keeping()
        pool = pool_of(url, WRITE_S)
        self._line = RedisLine(pool)
        self._breaker = Breaker(pool, self._deadline_s, (self._line,), "profiles")
        self._prefixes = [_prefix(namespace, part) for part in plan.parts]
        self._about = _about(namespace)
        self._kept = KeptProfiles(len(plan.columns), max(self._keeping.most, KEPT_MIN))
        self._flight: asyncio.Task[str] | None = None
        self._spread = np.random.default_rng()
        self._empty = False
        self.loaded_ms = 0  #  epoch ms at which the last load of the store ended; 0 where that is not known
        self._rows = self._asked = 0

    async def ask(self, keys: Sequence[str]) -> Question:
        """Sends the question for what is not known; gives it before the answer is there."""
        now_s = asyncio.get_running_loop().time()
        slots, fresh = self._kept.look(keys, now_s)
        unknown = [] if fresh.all() else list(dict.fromkeys([keys[row] for row in np.flatnonzero(~fresh).tolist()]))
        self._rows += len(keys)
        self._asked += len(unknown)
        question = Question(keys, now_s, slots, unknown)
        if unknown and self._flight is None and not self._breaker.open:
            question.flight = self._launch(unknown)
            await asyncio.sleep(0)  # the flight takes off: from here on Redis works while we do
        return question

    async def answer(self, question: Question) -> ProfileRead:
        """Waits for the answer, at most for the deadline; gives what is known then."""
        if not question.unknown:
            return self._read(question, "")
        cause = await self._brought(question, asyncio.get_running_loop().time() + self._deadline_s)
        question.slots, _ = self._kept.look(question.keys, question.now_s)
        return self._read(question, cause)

    def counted(self) -> dict[str, int]:
        """Gives how many rows were answered since it was last called: from the process, and by asking the store."""
        rows, asked, self._rows, self._asked = self._rows, self._asked, 0, 0
        return {"process": rows - asked, "store": asked}

    async def close(self) -> None:
        """Ends the connection."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})
        await self._breaker.close()

    async def _brought(self, question: Question, give_up: float) -> str:
        """Waits until what the question lacks is in the process; gives why it is not, or nothing. Follows a flight that is in the air."""
        while question.flight is None:
            if self._flight is not None and (cause := await self._landed(self._flight, give_up)):
                return cause
            _, fresh = self._kept.look(question.unknown, question.now_s)
            lacking = [key for key, is_fresh in zip(question.unknown, fresh.tolist(), strict=True) if not is_fresh]
            if not lacking:
                return ""
            if self._breaker.open:
                return "open"
            if self._flight is None:
                question.flight = self._launch(lacking)
        return await self._landed(question.flight, give_up)

    def _read(self, question: Question, cause: str) -> ProfileRead:
        causes = [cause] if cause else []
        if self._kept.wrong(question.slots):
            causes.append("wrong_type")
        if self._empty and not cause:
            causes.append("empty")
        values = self._kept.rows(question.slots, question.now_s)
        return ProfileRead(values, tuple(Degraded(COMPONENT, f"profiles:{one}") for one in causes))

    def _launch(self, unknown: list[str]) -> asyncio.Task[str]:
        self._flight = asyncio.create_task(self._fly(unknown))
        return self._flight

    async def _landed(self, flight: asyncio.Task[str], give_up: float) -> str:
        """Waits for a flight until `give_up`; gives why it brought nothing, or nothing.

        The deadline is what is waited for: texts may have taken longer than it, and what has arrived meanwhile is taken.
        """
        if not flight.done():
            await asyncio.wait({flight}, timeout=max(0.0, give_up - asyncio.get_running_loop().time()))
        if not flight.done():
            flight.cancel()
            await asyncio.wait({flight})
            return self._breaker.failed(TimeoutError(f"no answer within {self._deadline_s * 1000:g} ms"))
        return "timeout" if flight.cancelled() else flight.result()

    async def _fly(self, unknown: list[str]) -> str:
        """Reads entities into the process; gives why that failed, or nothing."""
        names = [key.encode("utf-8", "surrogatepass") for key in unknown]
        wanted = [prefix + name for prefix in self._prefixes for name in names]
        try:
            (reply,) = await self._line.send(None, [packed(b"MGET", self._about, *wanted)])
        except FAILURES as failure:
            return self._breaker.failed(failure)
        finally:
            self._flight = None
        self._breaker.worked()
        self.loaded_ms = int(reply[0]) if reply[0] is not None and reply[0].isdigit() else 0
        self._empty = not self.loaded_ms and any(part.name == "profile" for part in self._plan.parts)
        self._take(unknown, reply[1:])
        return ""

    def _take(self, keys: list[str], found: Sequence[bytes | None]) -> None:
        n = len(keys)
        columns: list[Float64] = []
        state: Int8 = np.zeros(n, np.int8)
        for place, part in enumerate(self._plan.parts):
            values, _, one = part.unpack(found[place * n : (place + 1) * n])
            columns.append(values)
            np.maximum(state, one, out=state)
        rows = np.hstack(columns)
        keeping = self._keeping
        if self._empty:
            # A store that lost everything says nothing about users: what was read before stays until it is too old.
            still = ~self._kept.known(keys)
            keys = [key for key, new in zip(keys, still.tolist(), strict=True) if new]
            rows, state = rows[still], state[still]
        unknown_ttl_s = EMPTY_S if self._empty else keeping.unknown_ttl_s
        ttl = np.where(state == KNOWN, keeping.ttl_s, np.where(state == WRONG, EMPTY_S, unknown_ttl_s))
        now_s = asyncio.get_running_loop().time()
        fresh_until = now_s + ttl * (1 + JITTER * self._spread.uniform(-1, 1, len(ttl)))
        self._kept.keep(keys, rows, state, fresh_until, fresh_until + keeping.stale_s)


class RedisProfileStore:
    """The side that writes: thousands of values at once, each with a time to live."""

    def __init__(self, url: str, namespace: str) -> None:
        self._namespace = namespace
        self._line = RedisLine(pool_of(url, WRITE_S))
        self._spread = np.random.default_rng()

    async def write(self, part: Part, keys: Sequence[str], values: Float64, updated_ms: Int64, ttl_s: float) -> None:
        """Puts n values in one round trip. Raises one of FAILURES."""
        ttl_ms = (1000 * ttl_s * (1 + JITTER * self._spread.uniform(-1, 1, len(keys)))).astype(np.int64).tolist()
        prefix = _prefix(self._namespace, part)
        await self._line.send(
            WRITE_S,
            [
                packed(b"SET", prefix + key.encode("utf-8", "surrogatepass"), value, b"PX", b"%d" % lives_ms)
                for key, value, lives_ms in zip(keys, part.pack(values, updated_ms), ttl_ms, strict=True)
            ],
        )

    async def loaded(self, now_ms: int, ttl_s: float) -> None:
        """Notes the end of a whole load. Raises one of FAILURES."""
        await self._line.send(WRITE_S, [packed(b"SET", _about(self._namespace), b"%d" % now_ms, b"PX", b"%d" % (2000 * ttl_s))])

    async def find(self, part: Part, key: str) -> bytes | None:
        """Gives one value as it is stored. Raises one of FAILURES."""
        (found,) = await self._line.send(WRITE_S, [packed(b"GET", _prefix(self._namespace, part) + key.encode("utf-8", "surrogatepass"))])
        return found if isinstance(found, bytes) else None

    async def close(self) -> None:
        """Ends the connection."""
        await self._line.close()


def _prefix(namespace: str, part: Part) -> bytes:
    return f"{namespace}:{part.name}:".encode()


def _about(namespace: str) -> bytes:
    return f"{namespace}:profiles:about".encode()
