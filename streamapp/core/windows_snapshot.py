"""What is alive in a store as flat columns, and back: the compact form that a snapshot record carries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core import windows_entries as memory
from streamapp.core.windows_entries import BASE, CLASS, DROPPED, FIRST, FIRST_CLASS, HELD, MAX, OFFSET, OLDEST, SEEN, place
from streamapp.core.windows_index import compiled, insert

Int64 = npt.NDArray[np.int64]


@compiled
def _alive(s: Any, slot: int, limit: int) -> int:
    """Gives the position of the first entry after `limit`; HELD when there is none."""
    offset, first, mask = s.lane[slot, OFFSET], s.lane[slot, FIRST], (1 << s.lane[slot, CLASS]) - 1
    at = 0
    while at < s.lane[slot, HELD] and s.time[place(offset, first, mask, at)] <= limit:
        at += 1
    return at


@compiled
def _measure(s: Any, limit: int) -> Any:
    entities, entries = 0, 0
    for slot in range(s.register[memory.SLOT_TOP]):
        if s.lane[slot, HELD] > 0:
            alive = s.lane[slot, HELD] - _alive(s, slot, limit)
            entities += alive > 0
            entries += alive
    return entities, entries


@compiled
def _collect(s: Any, limit: int, name: Any, about: Any, time: Any, value: Any, key: Any) -> None:
    entity, entry = 0, 0
    for slot in range(s.register[memory.SLOT_TOP]):
        begin = _alive(s, slot, limit) if s.lane[slot, HELD] > 0 else 0
        held = s.lane[slot, HELD]
        if begin >= held:
            continue
        name[entity, 0], name[entity, 1] = s.mark[slot, 0], s.mark[slot, 1]
        about[entity, 0], about[entity, 1], about[entity, 2] = held - begin, s.lane[slot, SEEN], s.stamp[slot, DROPPED]
        offset, first, mask = s.lane[slot, OFFSET], s.lane[slot, FIRST], (1 << s.lane[slot, CLASS]) - 1
        for x in range(begin, held):
            here = place(offset, first, mask, x)
            time[entry] = s.time[here]
            for c in range(value.shape[1]):
                value[entry, c] = memory.value_at(s.total, s.stamp[slot, BASE + c], offset, first, mask, x, c)
            for c in range(key.shape[1]):
                key[entry, c] = s.key[here, c]
            entry += 1
        entity += 1


@compiled
def _plant(s: Any, p: Any, name: Any, about: Any, time: Any, value: Any, key: Any) -> int:
    entry = 0
    for slot in range(len(name)):
        held, size_class = about[slot, 0], FIRST_CLASS
        while (1 << size_class) < held:
            size_class += 1
        block = s.register[memory.ARENA_TOP]
        s.register[memory.ARENA_TOP] = block + (1 << size_class)
        insert(s.table, name[slot, 0], slot)
        s.mark[slot, 0], s.mark[slot, 1] = name[slot, 0], name[slot, 1]
        for c in range(s.lane.shape[1]):
            s.lane[slot, c] = 0
        for a in range(len(p.kind)):
            if p.kind[a] == MAX:
                s.lane[slot, p.memory[a]] = -1
        for c in range(s.stamp.shape[1]):
            s.stamp[slot, c] = 0
        s.stamp[slot, OLDEST], s.stamp[slot, DROPPED] = time[entry], about[slot, 2]
        s.lane[slot, OFFSET], s.lane[slot, CLASS] = block, size_class
        s.lane[slot, HELD], s.lane[slot, SEEN] = held, about[slot, 1]
        for x in range(held):
            here = block + x
            s.time[here] = time[entry]
            for c in range(value.shape[1]):
                s.total[here, c] = value[entry, c] + (s.total[here - 1, c] if x > 0 else 0)
            for c in range(key.shape[1]):
                s.key[here, c] = key[entry, c]
            memory.link_entry(s.key, s.link, block, 0, (1 << size_class) - 1, x + 1, x)
            entry += 1
    s.register[memory.SLOT_TOP] = s.register[memory.ENTITIES] = len(name)
    s.register[memory.ENTRIES] = entry
    return entry


def collect(state: memory.State, limit: int) -> dict[str, Int64]:
    """Takes a store's memory and the time before which nothing matters; gives name, about, time, value, key (see WindowStore.snapshot)."""
    entities, entries = _measure(state, limit)
    parts = {
        "name": np.empty((entities, 2), np.int64),
        "about": np.empty((entities, 3), np.int64),
        "time": np.empty(entries, np.int64),
        "value": np.empty((entries, state.total.shape[1]), np.int64),
        "key": np.empty((entries, state.key.shape[1]), np.int64),
    }
    _collect(state, limit, parts["name"], parts["about"], parts["time"], parts["value"], parts["key"])
    return parts


def plant(state: memory.State, layout: memory.Layout, name: Int64, about: Int64, time: Int64, value: Int64, key: Int64) -> None:
    """Takes an empty store's memory, large enough, and collected parts; fills the one with the other."""
    if len(name):
        owned = [np.array(part, np.int64, order="C") for part in (name, about, time, value, key)]
        _plant(state, layout, *owned)
