"""The compiled inner loop of the windows: one pass over the rows of a micro-batch, in offset order.

A row that moves both ends of a remembered stretch forward slides it (each entry enters and leaves once); any other row (late, out of
order, a question about the past) is answered by scanning and leaves it alone. Whatever decides an answer is counted from the row itself
(its time, its high mark), never from when something was really freed: so cuts, snapshots and growth cannot be seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamapp.core.windows_entries import (
    ACTIVITY,
    BASE,
    CLASS,
    COLD,
    COUNT,
    CURSOR,
    DISTINCT,
    DROPPED,
    ENTITIES,
    ENTRIES,
    FIRST,
    FIRST_CLASS,
    FOREVER,
    HELD,
    LATE,
    MAX,
    MEAN,
    MORE_ARENA,
    MORE_SLOTS,
    NEVER,
    OFFSET,
    OLDEST,
    OVERFLOW,
    QUERY,
    SEEN,
    SINCE,
    SLOT_FREE,
    SLOT_TOP,
    SUM,
    WANTED,
    WRITE,
    Layout,
    State,
    forget,
    link_entry,
    move_ring,
    peak_of,
    place,
    scan_distinct,
    seek,
    shift,
    slide_distinct,
    take_block,
    trim,
    upto,
    value_at,
)  # fmt: skip
from streamapp.core.windows_index import compiled, find, inlined, insert, prefetch

AHEAD = 6  # rows between asking for an entity's memory and needing it; flat between 4 and 12 where it was measured
SWEEP = 2  # idle entities looked at per row: what is dead but not yet freed is at most what half a round of rows brings


@inlined
def _ask_ahead(s: State, p: Layout, names: Any, i: int) -> None:
    """Asks for the memory of coming rows: first their place in the table, then the entity, then its newest entries and window edges."""
    table, lane = s.table, s.lane
    places = len(table) - 1
    if i + 2 * AHEAD < len(names):
        prefetch(table, names[i + 2 * AHEAD, 0] & 0xFFFFFFFF & places)
    if i + AHEAD < len(names):
        word = table[names[i + AHEAD, 0] & 0xFFFFFFFF & places]
        if word != 0:
            likely = (word & 0xFFFFFFFF) - 1
            prefetch(lane, likely)
            prefetch(lane, likely + 1)  # where this one's row ends
            prefetch(s.stamp, likely)
            prefetch(s.mark, likely)
    if i + AHEAD // 2 < len(names):
        word = table[names[i + AHEAD // 2, 0] & 0xFFFFFFFF & places]
        if word != 0:
            likely = (word & 0xFFFFFFFF) - 1
            offset, first, mask = lane[likely, OFFSET], lane[likely, FIRST], (1 << lane[likely, CLASS]) - 1
            newest = offset + ((first + lane[likely, HELD]) & mask)
            prefetch(s.time, newest)
            prefetch(s.total, newest)
            if s.key.shape[1] > 0:
                prefetch(s.key, newest)
                prefetch(s.link, newest)
            if mask > 7:
                for w in range(len(p.cell)):
                    edge = offset + ((first + lane[likely, p.cell[w]]) & mask)
                    prefetch(s.time, edge)
                    prefetch(s.total, edge)
                    if s.key.shape[1] > 0:
                        prefetch(s.link, edge)


@inlined
def _retire(s: State, p: Layout, slot: int, limit: int) -> int:
    """Frees what is at or before `limit` of the row's own entity and of the next idle ones; gives the slot, -1 if its entity is gone."""
    register, stamp, lane, time = s.register, s.stamp, s.lane, s.time
    victim = slot
    for turn in range(SWEEP + 1):
        if turn > 0:
            victim = register[CURSOR]
            if victim >= register[SLOT_TOP]:
                victim = 0
            register[CURSOR] = victim + 1
        if victim < 0 or victim >= register[SLOT_TOP] or stamp[victim, OLDEST] > limit:
            continue
        offset, first, mask = lane[victim, OFFSET], lane[victim, FIRST], (1 << lane[victim, CLASS]) - 1
        if time[place(offset, first, mask, lane[victim, HELD] - 1)] <= limit:
            forget(s, victim)
            if victim == slot:
                slot = -1
            continue
        gone = 1
        while time[place(offset, first, mask, gone)] <= limit:
            gone += 1
        trim(s, p, victim, gone)
    return slot


@compiled
def _welcome(s: State, p: Layout, low: int, high: int) -> int:
    """Gives a slot to a name that has none, or -1 when the arena must grow first."""
    register, lane, stamp = s.register, s.lane, s.stamp
    block = take_block(register, s.time, FIRST_CLASS)
    if block < 0:
        return -1
    slot: int = register[SLOT_FREE]
    if slot >= 0:
        register[SLOT_FREE] = lane[slot, OFFSET]
    else:
        slot = register[SLOT_TOP]
        register[SLOT_TOP] = slot + 1
    register[ENTITIES] += 1
    insert(s.table, low, slot)
    s.mark[slot, 0], s.mark[slot, 1] = low, high
    for c in range(lane.shape[1]):
        lane[slot, c] = 0
    for a in range(len(p.kind)):
        if p.kind[a] == MAX:
            lane[slot, p.memory[a]] = -1
    for c in range(stamp.shape[1]):
        stamp[slot, c] = 0
    stamp[slot, OLDEST], stamp[slot, DROPPED] = FOREVER, NEVER
    lane[slot, OFFSET], lane[slot, CLASS] = block, FIRST_CLASS
    return slot


@inlined
def _put(s: State, p: Layout, slot: int, at: int, t: int, values: Any, keys: Any, i: int) -> None:
    """Puts the row's entry at position `at` of a ring that has a place left."""
    lane, stamp, total = s.lane, s.stamp, s.total
    offset, first, held, mask = lane[slot, OFFSET], lane[slot, FIRST], lane[slot, HELD], (1 << lane[slot, CLASS]) - 1
    here = place(offset, first, mask, at)
    if at == held:
        for c in range(total.shape[1]):
            before = total[place(offset, first, mask, at - 1), c] if at > 0 else stamp[slot, BASE + c]
            total[here, c] = before + values[i, c]
        for c in range(s.key.shape[1]):
            s.key[here, c] = keys[i, c]
        link_entry(s.key, s.link, offset, first, mask, held + 1, at)
    else:
        shift(s, p, slot, at, values, keys, i)
    s.time[here] = t
    if at == 0:
        stamp[slot, OLDEST] = t
    lane[slot, HELD] = held + 1
    lane[slot, SEEN] = min(lane[slot, SEEN] + 1, 0x7FFFFFFE)
    s.register[ENTRIES] += 1


@compiled
def _most(total: Any, base: int, offset: int, first: int, mask: int, known: int, since: int, left: int, right: int, column: int) -> int:
    """Gives the position of the maximum of [left, right) from that of a stretch that ended at `since`; one scan when that has left."""
    if known < left:
        since = left
        known = -1
    new: int = peak_of(total, base, offset, first, mask, max(since, left), right, column)
    if new < 0 or known < 0:
        return max(new, known)
    best = value_at(total, base, offset, first, mask, known, column)
    return new if value_at(total, base, offset, first, mask, new, column) >= best else known


@inlined
def _answer(  # noqa: C901 -- one branch an aggregate
    s: State, p: Layout, slot: int, at: int, i: int, t: int, limit: int, event: bool, write: bool, cold: bool, values: Any, keys: Any,
    exact: Any, value: Any,
) -> int:  # fmt: skip
    """Writes row i's answers from what its entity holds (slot -1: nothing), `at` entries of it before the row; gives overflow or 0."""
    lane, stamp, time, total, link = s.lane, s.stamp, s.time, s.total, s.link
    offset, first, mask, held, flag = 0, 0, 0, 0, 0
    if slot >= 0:
        offset, first, mask, held = lane[slot, OFFSET], lane[slot, FIRST], (1 << lane[slot, CLASS]) - 1, lane[slot, HELD]
    for w in range(len(p.length)):
        top = t - p.delay[w]
        low = max(top - p.length[w], limit)
        itself = event and p.current[w] == 1 and p.delay[w] == 0
        beside = itself and not write  # a late row counts in its own answer, but is not held
        left, right, old_left, old_right, forward = 0, 0, 0, 0, False
        cell = p.cell[w]
        if slot >= 0:
            old_left, old_right = lane[slot, cell], lane[slot, cell + 1]
            if p.delay[w] == 0:
                right = at + 1 if itself and write else at
            else:
                right = seek(time, offset, first, mask, held, old_right, top)
            left = min(right, seek(time, offset, first, mask, held, old_left, low))
            forward = left >= old_left and right >= old_right
            if stamp[slot, DROPPED] > low:
                flag = OVERFLOW
        count = right - left + (1 if beside else 0)
        for a in range(p.begin[w], p.begin[w + 1]):
            kind, column, memory = p.kind[a], p.column[a], p.memory[a]
            number, real = 0, np.nan
            if kind == COUNT:
                number = count
                real = float(count)
            elif kind in (SUM, MEAN, ACTIVITY):
                if right > left:
                    before = total[place(offset, first, mask, left - 1), column] if left > 0 else stamp[slot, BASE + column]
                    number = total[place(offset, first, mask, right - 1), column] - before
                if beside:
                    number += values[i, column]
                if kind == SUM:
                    real = number / p.scale[a]
                elif kind == ACTIVITY:
                    real = np.log1p(number / p.scale[a])
                elif count > 0:
                    real = number / (p.scale[a] * count)
            elif kind == MAX:
                most = -1
                if slot >= 0:
                    base = stamp[slot, BASE + column]
                    known = lane[slot, memory] if forward else -1
                    most = _most(total, base, offset, first, mask, known, old_right, left, right, column)
                    if forward:
                        lane[slot, memory] = most
                    if most >= 0:
                        number = value_at(total, base, offset, first, mask, most, column)
                if beside and (most < 0 or values[i, column] > number):
                    number = values[i, column]
                if count > 0:
                    real = number / p.scale[a]
            elif kind == DISTINCT:
                if forward:
                    number = slide_distinct(link, offset, first, mask, lane[slot, memory], old_left, old_right, left, right, column)
                    lane[slot, memory] = number
                else:
                    number = scan_distinct(link, offset, first, mask, left, right, column)
                if beside:
                    x = left
                    while x < right and s.key[place(offset, first, mask, x), column] != keys[i, column]:
                        x += 1
                    number += x >= right
                real = float(number)
            elif kind == SINCE:
                last = at - 1 if p.delay[w] == 0 else right - 1
                number = -1
                if slot >= 0 and last >= left:
                    number = t - time[place(offset, first, mask, last)]
                    real = float(number)
            if cold and not np.isnan(p.prior[a]):
                real = p.prior[a]
            exact[i, p.out[a]], value[i, p.out[a]] = number, real
        if forward:
            lane[slot, cell], lane[slot, cell + 1] = left, right
    return flag


@inlined
def _silence(p: Layout, i: int, exact: Any, value: Any) -> None:
    """Writes what a row gets that asked nothing."""
    for a in range(len(p.kind)):
        exact[i, a], value[i, a] = 0, np.nan


@compiled
def advance(  # noqa: C901 -- the way of a row, top to bottom; its steps are the functions above, compiled into it
    s: State, p: Layout, names: Any, time: Any, high: Any, mode: Any, values: Any, keys: Any, start: int, emit: bool,
    exact: Any, value: Any, flags: Any,
) -> int:  # fmt: skip
    """Takes rows from `start` on; gives the row before which memory must grow (register[WANTED] says which), or their number.

    emit = False keeps the entries and answers nothing. Rows whose name is (0, 0) take no part.
    """
    register, lane, stamp = s.register, s.lane, s.stamp
    for i in range(start, len(time)):
        if register[ENTITIES] >= len(s.mark) - 1 or 2 * register[ENTITIES] >= len(s.table):
            register[WANTED] = MORE_SLOTS
            return i
        _ask_ahead(s, p, names, i)
        limit = high[i] - p.keep
        slot = _retire(s, p, find(s.table, s.mark, names[i, 0], names[i, 1]), limit)
        if mode[i] == 0 or (names[i, 0] == 0 and names[i, 1] == 0):
            if emit:
                flags[i] = 0
                _silence(p, i, exact, value)
            continue
        t = time[i]
        event = mode[i] & WRITE != 0
        late = event and t < high[i] - p.grace
        write = event and not late
        flag = LATE if late else 0
        if slot < 0 and write:
            slot = _welcome(s, p, names[i, 0], names[i, 1])
            if slot < 0:
                register[WANTED] = MORE_ARENA
                return i
        at, seen = 0, 0
        if slot >= 0:
            held, mask = lane[slot, HELD], (1 << lane[slot, CLASS]) - 1
            if write and held > mask:
                block = take_block(register, s.time, lane[slot, CLASS] + 1)
                if block < 0:
                    register[WANTED] = MORE_ARENA
                    return i
                move_ring(s, slot, lane[slot, CLASS] + 1, block)
                mask = 2 * mask + 1
            offset, first = lane[slot, OFFSET], lane[slot, FIRST]
            at = held
            if held > 0 and s.time[place(offset, first, mask, held - 1)] > t:
                at = upto(s.time, offset, first, mask, 0, held - 1, t)
            if write:
                _put(s, p, slot, at, t, values, keys, i)
            seen = lane[slot, SEEN]
        if emit and mode[i] & QUERY != 0:
            cold = seen + (1 if late else 0) < p.cold_below
            if cold:
                flag |= COLD
            flag |= _answer(s, p, slot, at, i, t, limit, event, write, cold, values, keys, exact, value)
        elif emit:
            _silence(p, i, exact, value)
        if write and lane[slot, HELD] > p.cap:
            stamp[slot, DROPPED] = max(stamp[slot, DROPPED], stamp[slot, OLDEST])
            trim(s, p, slot, 1)
        if emit:
            flags[i] = flag
    return len(time)
