"""Shared windows over Redis: a list of packed entries per entity, read once by each worker, and a log of what others have written since.

One round trip per micro-batch to read, one to write, each a script and each within a deadline. Bytes are those of core.shared.pack; a frame
of the log is writer (8 bytes), numbers of entities and of bytes, names, lengths, rows. docs/adr/0012-shared-entities.md.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamapp.adapters.redis_line import COMPONENT, FAILURES, Breaker, RedisLine, RefusedByRedis, pool_of
from streamapp.core.cascade import Degraded
from streamapp.core.shared import FIXED, Asks, SharedEntries, SharedPlan, SharedRead, pack, unpack
from streamapp.core.velocity import StoreSpec

log = logging.getLogger(__name__)

#: Read at once at most; a worker that has just started gets the rest with its next micro-batches and says `loading` until then.
READ_BYTES_MAX = 4 << 20
#: Sent at once beside the newest, and kept at most, of what could not be written; beyond it the oldest are dropped.
RESEND_ROWS, UNSENT_ROWS_MAX = 2048, 500_000
DAY_MS = 86_400_000

LOG_BYTES_MAX = 16 << 20

# Per store: what was written since `place` and `from` in the log, and the lists of entities this worker has not met.
READ = """
local epoch = redis.call('GET', KEYS[1])
if not epoch then epoch = ARGV[1]; redis.call('SET', KEYS[1], epoch) end
local budget = tonumber(ARGV[2])
local reply = {epoch}
for s = 3, #ARGV, 5 do
  local prefix, round, names, place, from = ARGV[s], tonumber(ARGV[s + 1]), ARGV[s + 2], tonumber(ARGV[s + 3]), tonumber(ARGV[s + 4])
  local current = tonumber(redis.call('GET', prefix .. 'log') or '0')
  local log, news, behind = prefix .. 'log:' .. string.format('%d', current), '', 0
  if place == current then news = redis.call('GETRANGE', log, from, -1)
  elseif place >= 0 and place == current - 1 then
    news = redis.call('GETRANGE', prefix .. 'log:' .. string.format('%d', place), from, -1) .. (redis.call('GET', log) or '')
  elseif place >= 0 then behind = 1 end
  local about, parts, loaded = {}, {}, 0
  for r = 0, #names / 16 - 1 do
    if budget < 0 then break end
    local name, list, wrong = string.sub(names, 16 * r + 1, 16 * r + 16), '', false
    for one = round - 1, round + 1 do
      local data = redis.pcall('GET', prefix .. string.format('%d', one) .. ':' .. name)
      if type(data) == 'table' then wrong = true elseif data then list = list .. data end
    end
    if wrong then about[#about + 1] = struct.pack('<dd', r, -1)
    elseif #list > 0 then
      about[#about + 1] = struct.pack('<dd', r, #list)
      parts[#parts + 1] = list
    end
    budget = budget - #list
    loaded = r + 1
  end
  for _, one in ipairs({news, behind, current, redis.call('STRLEN', log), loaded, table.concat(about), table.concat(parts)}) do
    reply[#reply + 1] = one
  end
end
return reply
"""

# Per store: a frame for the log, and every entity's entries to the end of its list. A list is cut when its number of entries passes a
# power of two: dead entries at its begin go, then all but the newest `most`.
WRITE = """
for s = 3, #ARGV, 9 do
  local prefix, round, width, most, limit = ARGV[s], ARGV[s + 1], tonumber(ARGV[s + 2]), tonumber(ARGV[s + 3]), tonumber(ARGV[s + 4])
  local head, names, lengths, rows = ARGV[s + 5], ARGV[s + 6], ARGV[s + 7], ARGV[s + 8]
  local current = tonumber(redis.call('GET', prefix .. 'log') or '0')
  local size = redis.call('APPEND', prefix .. 'log:' .. string.format('%d', current), head .. names .. lengths .. rows)
  if size > tonumber(ARGV[2]) then
    redis.call('SET', prefix .. 'log', string.format('%d', current + 1))
    redis.call('DEL', prefix .. 'log:' .. string.format('%d', current - 1))
  end
  local at = 1
  for r = 0, #names / 16 - 1 do
    local key = prefix .. round .. ':' .. string.sub(names, 16 * r + 1, 16 * r + 16)
    local length = struct.unpack('<i8', lengths, 8 * r + 1)
    local size = redis.pcall('APPEND', key, string.sub(rows, at, at + length - 1))
    at = at + length
    if type(size) == 'table' then
      if not string.find(size.err, 'WRONGTYPE', 1, true) then return size end
    elseif size == length then redis.call('PEXPIRE', key, ARGV[1])
    elseif size >= 64 * width then
      local count, power = size / width, 64
      while power * 2 <= count do power = power * 2 end
      if (size - length) / width < power then
        local all, cut = redis.call('GET', key), 0
        while cut < count and struct.unpack('<i8', all, 1 + cut * width) <= limit do cut = cut + 1 end
        if count - cut > most then cut = count - most end
        if cut > 0 then redis.call('SET', key, string.sub(all, 1 + cut * width), 'PX', ARGV[1]) end
      end
    end
  end
end
return 1
"""


class _Followed:
    """What one worker knows of one store: how far it has read the log, and which entities' lists it has read.

    An entity is forgotten when nothing was asked or heard of it while `keep_ms` of event time passed: all of its entries are dead then.
    """

    def __init__(self, keep_ms: int, place: int = -1, at: int = 0) -> None:
        self._keep_ms, self._since = keep_ms, 0
        self._met: set[bytes] = set()
        self._met_before: set[bytes] = set()
        self.place, self.at = place, at  #  -1: begins at the log's end

    def strangers(self, asked: list[bytes], mark: int) -> list[bytes]:
        """Gives those of the entities asked for whose lists are to be read."""
        if mark > self._since + self._keep_ms:
            self._met_before, self._met, self._since = self._met, set(), mark
        return [name for name in asked if not self.knows(name)]

    def knows(self, name: bytes) -> bool:
        """Tells whether the entity was met, and keeps it met."""
        if name in self._met:
            return True
        if name in self._met_before:
            self._met.add(name)
            return True
        return False

    def meet(self, names: list[bytes]) -> None:
        self._met.update(names)


class RedisShared:
    """The copy of one worker, kept up to date over Redis. `close` when done."""

    def __init__(self, plan: SharedPlan, url: str, namespace: str, deadline_ms: int = 50) -> None:
        """Connects with the first read. `namespace` is the first part of every key; a Redis may be shared, a namespace may not."""
        self._plan, self._deadline_s = plan, deadline_ms / 1000
        pool = pool_of(url, self._deadline_s)
        self._reading, self._writing = RedisLine(pool, READ), RedisLine(pool, WRITE)
        self._breaker = Breaker(pool, self._deadline_s, (self._reading, self._writing), "shared windows")
        self._state = plan.new()
        self._writer = os.urandom(8)
        self._epoch_key = f"{namespace}:shared:epoch"
        self._prefix = {store.name: f"{namespace}:shared:{store.name}:{plan.layout(store.name)}:".encode() for store in plan.stores}
        self._followed = self._follow()
        self._epoch, self._warm_at, self._mark = b"", 0, 0
        self._unsent: deque[tuple[int, Mapping[str, SharedEntries]]] = deque()
        self._unsent_rows = 0
        self._not_written = False

    async def read(self, asks: Asks) -> SharedRead:
        """Takes what a plan asks; gives the worker's copy, brought up to date within the deadline, or without it: missing, and why."""
        self._mark = max(self._mark, asks.mark)
        if self._breaker.open:
            return self._missing(asks, "open")
        strangers: list[list[bytes]] = []
        arguments: list[Any] = [1, self._epoch_key, f"{uuid.uuid4().hex}:{self._mark}", READ_BYTES_MAX]
        for store in self._plan.stores:
            followed = self._followed[store.name]
            strangers.append(followed.strangers(_names(asks, store), self._mark))
            arguments += [self._prefix[store.name], self._round(store), b"".join(strangers[-1]), followed.place, followed.at]
        try:
            epoch, *parts = await self._reading.run(self._deadline_s, *arguments)
        except FAILURES as failure:
            return self._missing(asks, self._breaker.failed(failure))
        if epoch != self._epoch:
            return await self._begin(epoch, asks)
        by_store = [parts[first : first + 7] for first in range(0, len(parts), 7)]
        if any(behind for _, behind, *_ in by_store):
            return await self._begin_again(asks)
        loaded_all, sound = True, True
        for store, names, (news, _, place, end, loaded, about, rows) in zip(self._plan.stores, strangers, by_store, strict=True):
            self._hear(store, news)
            followed = self._followed[store.name]
            followed.place, followed.at = place, end
            sound &= self._load(store, names[:loaded], about, rows)
            loaded_all &= loaded == len(names)
        self._breaker.worked()
        if not (sound and loaded_all):
            return self._missing(asks, "loading" if sound else "wrong_type")
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
        if self._breaker.open or not self._unsent:
            return
        sending, sent_rows = 0, 0
        while sending < len(self._unsent) and (not sending or sent_rows + self._unsent[sending][0] <= max(RESEND_ROWS, rows)):
            sent_rows += self._unsent[sending][0]
            sending += 1
        try:
            await self._writing.run(self._deadline_s, *self._packed([self._unsent[place][1] for place in range(sending)]))
        except RefusedByRedis as refused:
            self._not_written = True
            log.warning("Redis takes no shared windows: %s", refused)
        except FAILURES as failure:
            self._breaker.failed(failure)
        else:
            for _ in range(sending):
                self._unsent.popleft()
            self._unsent_rows -= sent_rows
            self._not_written = False

    async def close(self) -> None:
        """Ends the connections."""
        await self._breaker.close()

    def _packed(self, written: list[Mapping[str, SharedEntries]]) -> list[Any]:
        arguments: list[Any] = [0, 3 * self._plan.keep_ms + DAY_MS, LOG_BYTES_MAX]
        for store in self._plan.stores:
            given = [one[store.name] for one in written if store.name in one]
            if not given:
                continue
            columns = (np.concatenate([getattr(one, name) for one in given]) for name in ("name", "id", "time", "value", "key"))
            names, lengths, rows = pack(SharedEntries(*columns))
            head = self._writer + np.array([len(lengths), len(rows)], "<i8").tobytes()
            arguments += [self._prefix[store.name], self._round(store), _width(store), store.plan.cap + 1, self._mark - store.plan.keep_ms]
            arguments += [head, names, lengths.astype("<i8").tobytes(), rows]
        return arguments

    def _round(self, store: StoreSpec) -> int:
        """Gives the round of event time, as long as an entry matters: an entity has a list in each, and each goes as a whole."""
        return self._mark // store.plan.keep_ms

    def _hear(self, store: StoreSpec, news: bytes) -> None:
        """Takes frames of the log; others' entries of entities met before go into the copy."""
        at, followed = 0, self._followed[store.name]
        while at < len(news):
            entities, size = np.frombuffer(news, "<i8", 2, at + 8).tolist()
            begin, rows = at + 24, at + 24 + 24 * entities
            mine, at = news[at : at + 8] == self._writer, rows + size
            if mine:
                continue
            names = news[begin : begin + 16 * entities]
            lengths = np.frombuffer(news, "<i8", entities, begin + 16 * entities)
            met = np.array([followed.knows(names[place : place + 16]) for place in range(0, len(names), 16)], np.bool_)
            if met.any():
                given = unpack(names, lengths, news[rows:at], len(store.values), len(store.keys))
                self._merge(store, given.where(np.repeat(met, lengths // _width(store))))

    def _load(self, store: StoreSpec, names: list[bytes], about: bytes, rows: bytes) -> bool:
        """Takes the lists of entities that were not met; False where something else was found in the place of one, which stays unmet."""
        table = np.frombuffer(about, "<f8").reshape(-1, 2).astype(np.int64)
        width, at, wrong = _width(store), 0, set()
        good: list[tuple[bytes, int, bytes]] = []
        for row, length in table.tolist():
            if length < 0 or length % width:
                wrong.add(names[row])
            else:
                good.append((names[row], length, rows[at : at + length]))
            at += max(length, 0)
        if good:
            who, lengths, lists = zip(*good, strict=True)
            self._merge(store, unpack(b"".join(who), np.array(lengths), b"".join(lists), len(store.values), len(store.keys)))
        self._followed[store.name].meet([name for name in names if name not in wrong])
        return not wrong

    def _merge(self, store: StoreSpec, given: SharedEntries) -> None:
        alive = given.time > self._mark - store.plan.keep_ms
        if alive.any():
            self._state.merge(store.name, given.where(alive))

    async def _begin(self, epoch: bytes, asks: Asks) -> SharedRead:
        """Meets a Redis for the first time, or one that came back empty: its windows fill for W; what this worker knew it still knows."""
        if self._epoch:
            log.warning("Redis came back empty: shared windows are `redis_warming` until they are full again")
            for followed in self._followed.values():
                followed.place, followed.at = 0, 0
        self._epoch = epoch
        self._warm_at = int(epoch.rpartition(b":")[2]) + self._plan.keep_ms
        return await self.read(asks)

    async def _begin_again(self, asks: Asks) -> SharedRead:
        """Has missed a part of the log (an idle worker, a long outage): forgets all but what it still has to write."""
        log.warning("Shared windows are read anew: others wrote more than %d MB since this worker last read", LOG_BYTES_MAX >> 20)
        self._state, self._followed = self._plan.new(), self._follow()
        for _, written in self._unsent:
            for name, given in written.items():
                self._state.merge(name, given)
        return await self.read(asks)

    def _follow(self) -> dict[str, _Followed]:
        return {store.name: _Followed(store.plan.keep_ms + DAY_MS) for store in self._plan.stores}

    def _missing(self, asks: Asks, cause: str) -> SharedRead:
        return SharedRead(asks, self._state, missing=True, degraded=(Degraded(COMPONENT, cause),))


def _width(store: StoreSpec) -> int:
    """Gives the bytes of an entry."""
    return 8 * (FIXED + len(store.values) + len(store.keys))


def _names(asks: Asks, store: StoreSpec) -> list[bytes]:
    """Gives the entities asked for, once each, nobody left out."""
    name = asks.entries[store.name].name
    given = dict.fromkeys(np.ascontiguousarray(name, "<i8").view("V16").ravel().tolist())
    given.pop(bytes(16), None)
    return list(given)
