"""Entries of a window store in memory: rings of one arena, what an entity remembers, and how entries come, go and are found.

An entity holds its entries in event-time order, ties by arrival, in a ring of 2^k places inside one arena. An entry keeps its time,
the running total of every value up to and including itself, its distinct keys, and the distances to the neighbours with the same key.
The sum over any stretch of entries is then the difference of two totals: int64, wrapping, therefore exact whenever the sum itself fits.

Per entity and window a stretch [left, right) is remembered, the one answered last, with the position of its maximum and its number of
distinct keys. It is a cache: no answer depends on it, and snapshots leave it out. Entries that come or go keep it true.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from streamapp.core.events import Flag
from streamapp.core.windows_index import compiled, erase

NEVER = -(1 << 62)  # before all time
FOREVER = 1 << 62
FIRST_CLASS = 1  # an entity starts with a ring of 2^1 places

COUNT, SUM, MEAN, MAX, DISTINCT, SINCE, ACTIVITY = range(7)
QUERY, WRITE = 1, 2  # bits of a row's mode; an event does both, a label only writes, 0 is a row that takes no part

LATE, COLD, OVERFLOW = Flag.LATE, Flag.COLD_ENTITY, Flag.OVERFLOW

# columns of State.lane, int32 per entity; after them come the cells of the windows
OFFSET, CLASS, FIRST, HELD, SEEN, CELLS = range(6)
# columns of State.stamp, int64 per entity; after them the totals before the first entry held
OLDEST, DROPPED, BASE = range(3)
# places of State.register
SLOT_TOP, SLOT_FREE, ENTITIES, ARENA_TOP, CURSOR, ENTRIES, WANTED, BLOCKS = range(8)
REGISTERS = BLOCKS + 32  # heads of the free blocks by class
MORE_SLOTS, MORE_ARENA = 1, 2


class State(NamedTuple):
    """The memory of one store; S slots, A places in the arena, v value columns, q key columns."""

    register: Any  # int64[REGISTERS]
    table: Any  #    int64[T]
    mark: Any  #     int64[S, 2] hash of the entity's name
    stamp: Any  #    int64[S, BASE + v]
    lane: Any  #     int32[S, CELLS + cells]
    time: Any  #     int64[A] event time, ms
    total: Any  #    int64[A, v] running total
    key: Any  #      int64[A, q]
    link: Any  #     int32[A, 2 q] distance back and ahead to the same key, 0 where there is none


class Layout(NamedTuple):
    """What is asked of a store: m windows, k aggregates ordered by window."""

    length: Any  #      int64[m] ms
    delay: Any  #       int64[m] ms
    current: Any  #     int64[m] 1 where the row itself counts
    cell: Any  #        int64[m] lane column of `left`; `right` is the next one
    begin: Any  #       int64[m + 1] first aggregate of each window
    kind: Any  #        int64[k]
    column: Any  #      int64[k] value or key column
    memory: Any  #      int64[k] lane column of the maximum's position or the distinct count, else 0
    out: Any  #         int64[k] output column
    scale: Any  #       float64[k]
    prior: Any  #       float64[k], NaN where a cold entity gets none
    keep: int  #        ms an entry can still matter
    grace: int  #       ms
    cap: int
    cold_below: int


@compiled
def place(offset: int, first: int, mask: int, at: int) -> Any:
    """Gives where in the arena the entry at position `at` of a ring is; unsigned, so that no index is taken from the end."""
    return np.uintp(offset + ((first + at) & mask))


@compiled
def take_block(register: Any, time: Any, size_class: int) -> int:
    """Gives the offset of a free block of 2^size_class places, or -1 when the arena must grow."""
    block: int = register[BLOCKS + size_class]
    if block >= 0:
        register[BLOCKS + size_class] = time[block]  # a free block's first place names the next one
        return block
    block = register[ARENA_TOP]
    if block + (1 << size_class) > len(time):
        return -1
    register[ARENA_TOP] = block + (1 << size_class)
    return block


@compiled
def give_block(register: Any, time: Any, offset: int, size_class: int) -> None:
    time[offset] = register[BLOCKS + size_class]
    register[BLOCKS + size_class] = offset


@compiled
def move_ring(s: State, slot: int, size_class: int, block: int) -> None:
    """Copies an entity's entries to a block of another size and gives the old one back."""
    lane = s.lane
    old, first, old_mask = lane[slot, OFFSET], lane[slot, FIRST], (1 << lane[slot, CLASS]) - 1
    for i in range(lane[slot, HELD]):
        here, there = old + ((first + i) & old_mask), block + i
        s.time[there] = s.time[here]
        for c in range(s.total.shape[1]):
            s.total[there, c] = s.total[here, c]
        for c in range(s.key.shape[1]):
            s.key[there, c] = s.key[here, c]
            s.link[there, 2 * c] = s.link[here, 2 * c]
            s.link[there, 2 * c + 1] = s.link[here, 2 * c + 1]
    give_block(s.register, s.time, old, lane[slot, CLASS])
    lane[slot, OFFSET], lane[slot, CLASS], lane[slot, FIRST] = block, size_class, 0


@compiled
def forget(s: State, slot: int) -> None:
    """Frees an entity with all it holds."""
    s.register[ENTRIES] -= s.lane[slot, HELD]
    give_block(s.register, s.time, s.lane[slot, OFFSET], s.lane[slot, CLASS])
    erase(s.table, s.mark[slot, 0], slot)
    s.stamp[slot, OLDEST] = FOREVER
    s.lane[slot, HELD] = 0
    s.lane[slot, OFFSET] = s.register[SLOT_FREE]
    s.register[SLOT_FREE] = slot
    s.register[ENTITIES] -= 1


@compiled
def trim(s: State, p: Layout, slot: int, count: int) -> None:
    """Frees the `count` oldest entries of an entity that holds more than that; remembered stretches lose them in order."""
    lane = s.lane
    offset, first, mask = lane[slot, OFFSET], lane[slot, FIRST], (1 << lane[slot, CLASS]) - 1
    for w in range(len(p.length)):
        cell = p.cell[w]
        left, right = lane[slot, cell], lane[slot, cell + 1]
        for a in range(p.begin[w], p.begin[w + 1]):
            if p.kind[a] == DISTINCT:
                c = 2 * p.column[a] + 1
                for x in range(left, min(count, right)):
                    ahead = s.link[place(offset, first, mask, x), c]
                    if ahead == 0 or x + ahead >= right:
                        lane[slot, p.memory[a]] -= 1
            elif p.kind[a] == MAX:
                lane[slot, p.memory[a]] = max(-1, lane[slot, p.memory[a]] - count)
        lane[slot, cell], lane[slot, cell + 1] = max(0, left - count), max(0, right - count)
    last = place(offset, first, mask, count - 1)
    for c in range(s.total.shape[1]):
        s.stamp[slot, BASE + c] = s.total[last, c]
    lane[slot, FIRST] = (first + count) & mask
    held = lane[slot, HELD] - count
    lane[slot, HELD] = held
    s.stamp[slot, OLDEST] = s.time[place(offset, first, mask, count)]
    s.register[ENTRIES] -= count
    size_class = lane[slot, CLASS]
    if size_class > FIRST_CLASS + 1 and 4 * held <= mask + 1 and s.register[BLOCKS + size_class - 1] >= 0:
        move_ring(s, slot, size_class - 1, take_block(s.register, s.time, size_class - 1))


@compiled
def upto(time: Any, offset: int, first: int, mask: int, low: int, high: int, limit: int) -> int:
    """Gives how many entries have time <= limit, known to be within [low, high]; logarithmic."""
    while low < high:
        middle = (low + high) >> 1
        if time[place(offset, first, mask, middle)] <= limit:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def seek(time: Any, offset: int, first: int, mask: int, held: int, hint: int, limit: int) -> int:
    """Gives how many of `held` entries have time <= limit: forward from the hint (each entry is passed once), else halving."""
    if hint > 0 and time[place(offset, first, mask, hint - 1)] > limit:
        hint = upto(time, offset, first, mask, 0, hint - 1, limit)
    while hint < held and time[place(offset, first, mask, hint)] <= limit:
        hint += 1
    return hint


@compiled
def link_entry(keys: Any, link: Any, offset: int, first: int, mask: int, held: int, at: int) -> None:
    """Ties the entry at position `at` to its neighbours with the same key; linear in the distance to the previous one."""
    here = place(offset, first, mask, at)
    for c in range(keys.shape[1]):
        wanted = keys[here, c]
        before = at - 1
        while before >= 0 and keys[place(offset, first, mask, before), c] != wanted:
            before -= 1
        after = 0
        if before >= 0:
            there = place(offset, first, mask, before)
            link[here, 2 * c] = at - before
            if link[there, 2 * c + 1] > 0:
                after = before + link[there, 2 * c + 1]
            link[there, 2 * c + 1] = at - before
        else:
            link[here, 2 * c] = 0
            x = at + 1
            while x < held and keys[place(offset, first, mask, x), c] != wanted:
                x += 1
            if x < held:
                after = x
        if after > 0:
            link[here, 2 * c + 1] = after - at
            link[place(offset, first, mask, after), 2 * c] = after - at
        else:
            link[here, 2 * c + 1] = 0


@compiled
def shift(  # noqa: C901 -- one entry moves in; every column and every remembered stretch learns of it
    s: State, p: Layout, slot: int, at: int, values: Any, keys: Any, row: int
) -> None:
    """Puts an entry before others (out of order): linear in the entries held; remembered stretches learn of it."""
    lane = s.lane
    offset, first, mask, held = lane[slot, OFFSET], lane[slot, FIRST], (1 << lane[slot, CLASS]) - 1, lane[slot, HELD]
    for x in range(held, at, -1):
        here, there = place(offset, first, mask, x - 1), place(offset, first, mask, x)
        s.time[there] = s.time[here]
        for c in range(s.total.shape[1]):
            s.total[there, c] = s.total[here, c] + values[row, c]
        for c in range(s.key.shape[1]):
            s.key[there, c] = s.key[here, c]
            back, ahead = s.link[here, 2 * c], s.link[here, 2 * c + 1]
            s.link[there, 2 * c] = back + 1 if back > 0 and x - 1 - back < at else back
            s.link[there, 2 * c + 1] = ahead
    for c in range(s.key.shape[1]):
        for x in range(at):
            here = place(offset, first, mask, x)
            if s.link[here, 2 * c + 1] > 0 and x + s.link[here, 2 * c + 1] >= at:
                s.link[here, 2 * c + 1] += 1
    here = place(offset, first, mask, at)
    for c in range(s.total.shape[1]):
        before = s.total[place(offset, first, mask, at - 1), c] if at > 0 else s.stamp[slot, BASE + c]
        s.total[here, c] = before + values[row, c]
    for c in range(s.key.shape[1]):
        s.key[here, c] = keys[row, c]
    link_entry(s.key, s.link, offset, first, mask, held + 1, at)
    for w in range(len(p.length)):
        cell = p.cell[w]
        left, right = lane[slot, cell], lane[slot, cell + 1]
        if at >= right:
            continue
        inside = at > left
        lane[slot, cell], lane[slot, cell + 1] = left if inside else left + 1, right + 1
        for a in range(p.begin[w], p.begin[w + 1]):
            memory = p.memory[a]
            if p.kind[a] == DISTINCT and inside:
                back, ahead = s.link[here, 2 * p.column[a]], s.link[here, 2 * p.column[a] + 1]
                if (back == 0 or at - back < left) and (ahead == 0 or at + ahead >= right + 1):
                    lane[slot, memory] += 1
            elif p.kind[a] == MAX:
                peak = lane[slot, memory]
                if peak >= at:
                    lane[slot, memory] = peak = peak + 1
                base = s.stamp[slot, BASE + p.column[a]]
                if inside and peak >= 0 and values[row, p.column[a]] > value_at(s.total, base, offset, first, mask, peak, p.column[a]):
                    lane[slot, memory] = at


@compiled
def value_at(total: Any, base: int, offset: int, first: int, mask: int, at: int, column: int) -> int:
    """Gives the value of one entry: the difference of its total and the one before; `base` is the total before the first."""
    before = total[place(offset, first, mask, at - 1), column] if at > 0 else base
    value: int = total[place(offset, first, mask, at), column] - before
    return value


@compiled
def peak_of(total: Any, base: int, offset: int, first: int, mask: int, left: int, right: int, column: int) -> int:
    """Gives the position of the last greatest value in [left, right), -1 when it is empty; linear."""
    before = total[place(offset, first, mask, left - 1), column] if left > 0 else base
    best, best_at = 0, -1
    for x in range(left, right):
        upto = total[place(offset, first, mask, x), column]
        if best_at < 0 or upto - before >= best:
            best, best_at = upto - before, x
        before = upto
    return best_at


@compiled
def slide_distinct(
    link: Any, offset: int, first: int, mask: int, count: int, old_left: int, old_right: int, left: int, right: int, column: int
) -> int:
    """Moves the distinct count of a stretch forward: constant per entry that enters or leaves."""
    for x in range(old_right, right):
        back = link[place(offset, first, mask, x), 2 * column]
        if back == 0 or x - back < old_left:
            count += 1
    for x in range(old_left, left):
        ahead = link[place(offset, first, mask, x), 2 * column + 1]
        if ahead == 0 or x + ahead >= right:
            count -= 1
    return count


@compiled
def scan_distinct(link: Any, offset: int, first: int, mask: int, left: int, right: int, column: int) -> int:
    count = 0
    for x in range(left, right):
        back = link[place(offset, first, mask, x), 2 * column]
        if back == 0 or x - back < left:
            count += 1
    return count
