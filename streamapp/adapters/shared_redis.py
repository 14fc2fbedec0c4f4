"""Shared windows over Redis: an append-only list of packed entries per entity, of which every worker reads what it does not know yet.

One round trip per micro-batch to read, one to write, each a script and each within a deadline; no retries. What fails opens a circuit
breaker: while it is open nothing waits, and a task of its own asks whether Redis is back. Values of a key: 8 bytes logical offset of its
first entry (so that cutting dead entries off moves no reader), then rows of core.shared.pack. docs/adr/0012-shared-entities.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from streamapp.core.cascade import Degraded
from streamapp.core.shared import FIXED, Asks, SharedEntries, SharedPlan, SharedRead, pack, unpack
from streamapp.core.velocity import StoreSpec

log = logging.getLogger(__name__)

COMPONENT = "redis"
#: Read at once at most; a worker that has just started gets the rest with its next micro-batches and says `loading` until then.
READ_BYTES_MAX = 4 << 20
#: Sent at once beside the newest, and kept at most, of what could not be written; beyond it the oldest are dropped.
RESEND_ROWS, UNSENT_ROWS_MAX = 2048, 500_000
PROBE_S, PROBE_MAX_S = 0.05, 1.0
DAY_MS = 86_400_000

READ = """
local epoch = redis.call('GET', KEYS[1])
if not epoch then epoch = ARGV[1]; redis.call('SET', KEYS[1], epoch) end
local budget, wrong, more = tonumber(ARGV[2]), 0, 0
local reply = {epoch, 0, 0}
for s = 3, #ARGV, 3 do
  local prefix, names, known = ARGV[s], ARGV[s + 1], ARGV[s + 2]
  local about, parts = {}, {}
  for r = 0, #names / 16 - 1 do
    local key = prefix .. string.sub(names, 16 * r + 1, 16 * r + 16)
    local head = redis.pcall('GETRANGE', key, 0, 7)
    if type(head) == 'table' then wrong = 1
    elseif head ~= '' then
      if #head < 8 then wrong = 1 break end
      local base = struct.unpack('<d', head)
      local from = struct.unpack('<d', known, 8 * r + 1) - base
      if from < 0 then from = 0 end
      local data = redis.call('GETRANGE', key, from + 8, -1)
      if #data > 0 then
        if budget < 0 then more = 1 break end
        budget = budget - #data
        about[#about + 1] = struct.pack('<ddd', r, base + from + #data, #data)
        parts[#parts + 1] = data
      end
    end
  end
  reply[#reply + 1] = table.concat(about)
  reply[#reply + 1] = table.concat(parts)
end
reply[2], reply[3] = wrong, more
return reply
"""

# A list is cut when its number of entries passes a power of two: dead entries at its begin go, then all but the newest `most`.
WRITE = """
local now = redis.call('TIME')
local stamp = struct.pack('<d', tonumber(now[1]) * 1e6 + tonumber(now[2]))
for s = 2, #ARGV, 7 do
  local prefix, width, most, limit = ARGV[s], tonumber(ARGV[s + 1]), tonumber(ARGV[s + 2]), tonumber(ARGV[s + 3])
  local names, lengths, rows = ARGV[s + 4], ARGV[s + 5], ARGV[s + 6]
  local at = 1
  for r = 0, #names / 16 - 1 do
    local key = prefix .. string.sub(names, 16 * r + 1, 16 * r + 16)
    local length = struct.unpack('<d', lengths, 8 * r + 1)
    local chunk = string.sub(rows, at, at + length - 1)
    at = at + length
    local size = redis.pcall('APPEND', key, chunk)
    if type(size) == 'table' then
      if not string.find(size.err, 'WRONGTYPE', 1, true) then return size end
    elseif size == length then
      redis.call('SET', key, stamp .. chunk, 'PX', ARGV[1])
    else
      redis.call('PEXPIRE', key, ARGV[1])
      local count, before, power = (size - 8) / width, (size - 8 - length) / width, 64
      while power * 2 <= count do power = power * 2 end
      if count >= power and before < power then
        local all = redis.call('GET', key)
        local cut = 0
        while cut < count and struct.unpack('<i8', all, 9 + cut * width) <= limit do cut = cut + 1 end
        if count - cut > most then cut = count - most end
        if cut > 0 then
          local base = struct.unpack('<d', all)
          redis.call('SET', key, struct.pack('<d', base + cut * width) .. string.sub(all, 9 + cut * width), 'PX', ARGV[1])
        end
      end
    end
  end
end
return 1
"""


class _Cursors:
    """How far each entity's list has been read; entities that nobody asked for while `keep_ms` of event time passed are forgotten."""

    def __init__(self, keep_ms: int) -> None:
        self._keep_ms, self._since = keep_ms, 0
        self._new: dict[bytes, float] = {}
        self._old: dict[bytes, float] = {}

    def of(self, names: list[bytes], mark: int) -> bytes:
        """Gives the offsets as the script takes them; keeps them for another round."""
        if mark > self._since + self._keep_ms:
            self._old, self._new, self._since = self._new, {}, mark
        new, old = self._new, self._old
        offsets = [new.get(name) or old.get(name, 0.0) for name in names]
        new.update(zip(names, offsets, strict=True))
        return np.array(offsets, "<f8").tobytes()

    def move(self, names: list[bytes], offsets: list[float]) -> None:
        self._new.update(zip(names, offsets, strict=True))


class _Line:
    """One connection with one script loaded; what fails in any way loses the connection, so that no answer is taken for another's."""

    def __init__(self, pool: ConnectionPool, script: str) -> None:
        self._connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]
        self._script, self._sha = script, b""
        self._ready = False

    async def run(self, deadline_s: float, *arguments: Any) -> Any:
        """Runs the script. Raises TimeoutError, OSError, RedisError."""
        sure = False
        try:
            async with asyncio.timeout(deadline_s):
                if not self._ready:
                    await self._connection.connect()
                    self._sha = await self._ask("SCRIPT", "LOAD", self._script)
                    self._ready = True
                reply = await self._ask("EVALSHA", self._sha, *arguments)
            sure = True
            return reply
        finally:
            if not sure:
                await self.close()

    async def _ask(self, *arguments: Any) -> Any:
        await self._connection.send_packed_command(self._connection.pack_command(*arguments), check_health=False)
        return await self._connection.read_response()

    async def close(self) -> None:
        self._ready = False
        await self._connection.disconnect(nowait=True)


class RedisShared:
    """The copy of one worker, kept up to date over Redis. `close` when done."""

    def __init__(self, plan: SharedPlan, url: str, namespace: str, deadline_ms: int = 50) -> None:
        """Connects with the first read. `namespace` is the first part of every key; a Redis may be shared, a namespace may not."""
        self._plan, self._deadline_s = plan, deadline_ms / 1000
        pool = ConnectionPool.from_url(
            url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=self._deadline_s, socket_connect_timeout=self._deadline_s
        )
        self._reading, self._writing, self._probing = _Line(pool, READ), _Line(pool, WRITE), _Line(pool, "return 1")
        self._state = plan.new()
        self._writer = int.from_bytes(os.urandom(8), "little", signed=True)
        self._epoch_key = f"{namespace}:shared:epoch"
        self._prefix = {store.name: f"{namespace}:shared:{store.name}:{plan.layout(store.name)}:".encode() for store in plan.stores}
        self._cursors = self._no_cursors()
        self._epoch, self._warm_at, self._mark = b"", 0, 0
        self._unsent: deque[tuple[int, Mapping[str, SharedEntries]]] = deque()
        self._unsent_rows = 0
        self._not_written = False
        self._probe: asyncio.Task[None] | None = None
        self._probe_s = PROBE_S

    async def read(self, asks: Asks) -> SharedRead:
        """Takes what a plan asks; gives the worker's copy, brought up to date within the deadline, or without it: missing, and why."""
        self._mark = max(self._mark, asks.mark)
        if self._probe is not None:
            return self._missing(asks, "open")
        names = {store.name: _names(asks, store) for store in self._plan.stores}
        arguments: list[Any] = [1, self._epoch_key, f"{uuid.uuid4().hex}:{self._mark}", READ_BYTES_MAX]
        for name, asked in names.items():
            arguments += [self._prefix[name], b"".join(asked), self._cursors[name].of(asked, self._mark)]
        try:
            epoch, wrong, more, *parts = await self._reading.run(self._deadline_s, *arguments)
            if epoch != self._epoch:
                return await self._begin(epoch, asks)
            for place, store in enumerate(self._plan.stores):
                self._take(store, names[store.name], *parts[2 * place : 2 * place + 2])
        except (TimeoutError, OSError, RedisError) as failure:
            return self._missing(asks, self._failed(failure))
        except ValueError:
            return self._missing(asks, "wrong_type")
        self._probe_s = PROBE_S
        if wrong or more:
            return self._missing(asks, "wrong_type" if wrong else "loading")
        causes = [cause for cause, so in (("redis_warming", self._mark < self._warm_at), ("not_written", self._not_written)) if so]
        return SharedRead(asks, self._state, degraded=tuple(Degraded(COMPONENT, cause) for cause in causes))

    async def write(self, written: Mapping[str, SharedEntries]) -> None:
        """Takes what acknowledged rows wrote; tells the others within the deadline, else keeps it for the next time. Raises nothing."""
        rows = sum(map(len, written.values()))
        if rows:
            self._unsent.append((rows, written))
            self._unsent_rows += rows
        while self._unsent_rows > UNSENT_ROWS_MAX:
            self._unsent_rows -= self._unsent.popleft()[0]
            self._not_written = True
        if self._probe is not None or not self._unsent:
            return
        sending, sent_rows = 0, 0
        while sending < len(self._unsent) and (not sending or sent_rows + self._unsent[sending][0] <= max(RESEND_ROWS, rows)):
            sent_rows += self._unsent[sending][0]
            sending += 1
        try:
            await self._writing.run(self._deadline_s, *self._packed([self._unsent[place][1] for place in range(sending)]))
        except ResponseError as refused:
            self._not_written = True
            log.warning("Redis takes no shared windows: %s", refused)
        except (TimeoutError, OSError, RedisError) as failure:
            self._failed(failure)
        else:
            for _ in range(sending):
                self._unsent.popleft()
            self._unsent_rows -= sent_rows
            self._not_written = False

    async def close(self) -> None:
        """Ends the connections."""
        if self._probe is not None:
            self._probe.cancel()
        for line in (self._reading, self._writing, self._probing):
            await line.close()

    def _packed(self, written: list[Mapping[str, SharedEntries]]) -> list[Any]:
        arguments: list[Any] = [0, 2 * self._plan.keep_ms + DAY_MS]
        for store in self._plan.stores:
            given = [one[store.name] for one in written if store.name in one]
            if not given:
                continue
            columns = (np.concatenate([getattr(one, name) for one in given]) for name in ("name", "id", "time", "value", "key"))
            names, lengths, rows = pack(SharedEntries(*columns), self._writer)
            width, limit = 8 * (FIXED + len(store.values) + len(store.keys)), self._mark - store.plan.keep_ms
            arguments += [self._prefix[store.name], width, store.plan.cap + 1, limit, names, lengths.astype("<f8").tobytes(), rows]
        return arguments

    def _take(self, store: StoreSpec, names: list[bytes], about: bytes, rows: bytes) -> None:
        if not about:
            return
        table = np.frombuffer(about, "<f8").reshape(-1, 3)
        found = [names[row] for row in table[:, 0].astype(np.int64).tolist()]
        given = unpack(found, table[:, 2].astype(np.int64).tolist(), rows, len(store.values), len(store.keys), self._writer)
        alive = given.time > self._mark - store.plan.keep_ms
        if alive.any():
            self._state.merge(
                store.name, SharedEntries(given.name[alive], given.id[alive], given.time[alive], given.value[alive], given.key[alive])
            )
        self._cursors[store.name].move(found, table[:, 1].tolist())

    async def _begin(self, epoch: bytes, asks: Asks) -> SharedRead:
        """Meets a Redis for the first time, or one that came back empty: all of it is to be read again, and its windows fill for W."""
        if self._epoch:
            log.warning("Redis came back empty: shared windows are `redis_warming` until they are full again")
        self._epoch, self._cursors = epoch, self._no_cursors()
        self._warm_at = int(epoch.rpartition(b":")[2]) + self._plan.keep_ms
        return await self.read(asks)

    def _no_cursors(self) -> dict[str, _Cursors]:
        return {store.name: _Cursors(store.plan.keep_ms + DAY_MS) for store in self._plan.stores}

    def _missing(self, asks: Asks, cause: str) -> SharedRead:
        return SharedRead(asks, self._state, missing=True, degraded=(Degraded(COMPONENT, cause),))

    def _failed(self, failure: Exception) -> str:
        """Opens the breaker; gives the cause."""
        cause = "timeout" if isinstance(failure, TimeoutError) else "error" if isinstance(failure, ResponseError) else "refused"
        if self._probe is None:
            log.warning("Redis does not answer, shared windows are missing: %s", str(failure) or cause)
            self._probe = asyncio.create_task(self._come_back())
        return cause

    async def _come_back(self) -> None:
        while True:
            await asyncio.sleep(self._probe_s)
            self._probe_s = min(2 * self._probe_s, PROBE_MAX_S)
            try:
                await self._probing.run(self._deadline_s, 0)
            except (TimeoutError, OSError, RedisError):
                continue
            for line in (self._reading, self._writing):  # what was connected to the one that went is not to fail once more
                await line.close()
            log.info("Redis answers again")
            self._probe = None
            return


def _names(asks: Asks, store: StoreSpec) -> list[bytes]:
    """Gives the entities asked for, once each, nobody left out."""
    name = asks.entries[store.name].name
    given = dict.fromkeys(np.ascontiguousarray(name, "<i8").view("V16").ravel().tolist())
    given.pop(bytes(16), None)
    return list(given)
