"""One connection to Redis that keeps to a deadline, and the breaker that leaves a Redis alone while it does not answer.

No retries: what fails in any way loses the connection, so that no answer is taken for another's, and opens the breaker. While it is open
nothing waits; a task of its own asks whether Redis is back. (redis-py's defaults wait a minute for a server that hangs.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger(__name__)

COMPONENT = "redis"
PROBE_S, PROBE_MAX_S = 0.05, 1.0
#: Everything that asking Redis may raise.
FAILURES = (TimeoutError, OSError, RedisError)
#: Redis answered, and would not.
RefusedByRedis = ResponseError


def pool_of(url: str, timeout_s: float) -> ConnectionPool:
    """Gives how to connect to `url`; connecting and each read give up after `timeout_s`."""
    return ConnectionPool.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=timeout_s, socket_connect_timeout=timeout_s)


def packed(*arguments: bytes) -> bytes:
    """Gives a command as it goes over the wire. A third of redis-py's own cost, which is felt with a thousand keys in one command."""
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(one), one) for one in arguments])


class RedisLine:
    """One connection, with one script loaded where there is one. One question at a time."""

    def __init__(self, pool: ConnectionPool, script: str = "") -> None:
        self._connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]
        self._script, self._sha = script, b""
        self._ready = False

    async def run(self, deadline_s: float, *arguments: Any) -> Any:
        """Runs the script. Raises one of FAILURES."""
        async with self._surely(deadline_s):
            await self._connect()
            return await self._ask(self._connection.pack_command("EVALSHA", self._sha, *arguments))

    async def send(self, deadline_s: float | None, commands: Sequence[bytes]) -> list[Any]:
        """Sends packed commands at once and gives their answers, undecoded. Raises one of FAILURES."""
        async with self._surely(deadline_s):
            await self._connect()
            await self._connection.send_packed_command(commands, check_health=False)
            return [await self._connection.read_response(disable_decoding=True) for _ in commands]

    @asynccontextmanager
    async def _surely(self, deadline_s: float | None) -> AsyncIterator[None]:
        """Keeps to the deadline, and ends the connection when what is inside did not end well."""
        sure = False
        try:
            async with asyncio.timeout(deadline_s):
                yield
            sure = True
        finally:
            if not sure:
                await self.close()

    async def _connect(self) -> None:
        if self._ready:
            return
        await self._connection.connect()
        if self._script:
            self._sha = await self._ask(self._connection.pack_command("SCRIPT", "LOAD", self._script))
        self._ready = True

    async def _ask(self, command: list[bytes]) -> Any:
        await self._connection.send_packed_command(command, check_health=False)
        return await self._connection.read_response()

    async def close(self) -> None:
        """Ends the connection; the next question connects again."""
        self._ready = False
        await self._connection.disconnect(nowait=True)


class Breaker:
    """Open while Redis does not answer; `what` is missing meanwhile, in words for the log."""

    def __init__(self, pool: ConnectionPool, deadline_s: float, lines: Sequence[RedisLine], what: str) -> None:
        """`lines` are closed when Redis is back: what was connected to the one that went is not to fail once more."""
        self._probing, self._deadline_s, self._lines, self._what = RedisLine(pool), deadline_s, lines, what
        self._probe: asyncio.Task[None] | None = None
        self._probe_s = PROBE_S

    @property
    def open(self) -> bool:
        """Tells whether asking would be in vain."""
        return self._probe is not None

    def worked(self) -> None:
        """Notes an answer."""
        self._probe_s = PROBE_S

    def failed(self, failure: BaseException) -> str:
        """Opens the breaker; gives the cause as it is named in verdicts."""
        cause = "timeout" if isinstance(failure, TimeoutError) else "error" if isinstance(failure, ResponseError) else "refused"
        if self._probe is None:
            log.warning("Redis does not answer, %s are missing: %s", self._what, str(failure) or cause)
            self._probe = asyncio.create_task(self._come_back())
        return cause

    async def close(self) -> None:
        """Asks no more, and ends all connections."""
        if self._probe is not None:
            self._probe.cancel()
        for line in (*self._lines, self._probing):
            await line.close()

    async def _come_back(self) -> None:
        while True:
            await asyncio.sleep(self._probe_s)
            self._probe_s = min(2 * self._probe_s, PROBE_MAX_S)
            try:
                await self._probing.send(self._deadline_s, [packed(b"PING")])
            except FAILURES:
                continue
            for line in self._lines:
                await line.close()
            log.info("Redis answers again")
            self._probe = None
            return
