"""The rows of a micro-batch move the clock, the ids and all stores of several partitions in one call of a kernel.

A micro-batch of some dozen rows over four partitions and as many stores is 24 calls otherwise, each with thirty arrays to be unwrapped:
a fifth of what deciding costs there. So arrays are handed over as addresses, and `PartitionState.advance` stays what it is checked with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from streamapp.core.dedupe import DECISION, DUPLICATE, Admission, SeenIds, admit_rows
from streamapp.core.errors import InvariantBroken
from streamapp.core.windows import EVENT, WHERE, Aggregate, StorePlan, Window, WindowStore
from streamapp.core.windows_clock import CLOCK_SKEW, Clock, Ticks, tick
from streamapp.core.windows_entries import BASE, LATE, QUERY, REGISTERS, Layout, State
from streamapp.core.windows_index import address, compiled, inlined
from streamapp.core.windows_kernel import advance
from streamapp.core.windows_partition import Entries, Moved, PartitionState, Rows

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]

#: What the kernel says: everything moved, a store has to grow first, rows came out of order.
DONE, GROW, DISORDER = range(3)
#: Columns of a partition's row: addresses of its ids' table, marks, times and decisions (all 0: none are remembered), the table's places
#: and the ids' (SeenIds.where); what moves; its rows.
TABLE, MARK, SEEN_AT, DECISIONS, PLACES, SIZE, FIRST, AFTER, HIGH, APPLIED, BEGIN, END = range(12)
#: Columns of a store's row of columns: addresses of name, value and key of the plan's rows.
NAME, VALUE, KEY, COLUMNS = range(4)
_SETTLED, _DECISION_BYTES = DECISION.itemsize - 1, DECISION.itemsize  # `settled` is the last
ANSWERED, EMIT = EVENT, True  # module constants are what a kernel can read


@intrinsic
def at_address(typing_context: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """Gives what stands at an address as an array of a shape (a tuple) and type; numba's own way needs its memory to be counted."""
    array = types.Array(dtype.dtype, len(shape), "C")
    signature = array(address, shape, dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.get_value_type(types.intp)
        lengths = cgutils.unpack_tuple(builder, args[1])
        lengths = [builder.sext(one, number) if one.type.width < number.width else one for one in lengths]
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array.dtype)))
        strides = [size]
        for length in reversed(lengths[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        view = make_array(array)(context, builder)
        data = builder.inttoptr(args[0], view.data.type)
        populate_array(view, data=data, shape=lengths, strides=strides, itemsize=size, meminfo=None)
        return view._getvalue()

    return signature, generate


@inlined
def _state(w: Any) -> Any:
    """Gives a store's memory (WindowStore.where) as the window kernel takes it."""
    table, slots, arena, values, keys, cells = w[9], w[10], w[11], w[12], w[13], w[14]
    return State(
        at_address(w[0], (REGISTERS,), np.int64),
        at_address(w[1], (table,), np.int64),
        at_address(w[2], (slots, 2), np.int64),
        at_address(w[3], (slots, BASE + values), np.int64),
        at_address(w[4], (slots, cells), np.int32),
        at_address(w[5], (arena,), np.int64),
        at_address(w[6], (arena, values), np.int64),
        at_address(w[7], (arena, keys), np.int64),
        at_address(w[8], (arena, 2 * keys), np.int32),
    )


@inlined
def _layout(w: Any) -> Any:
    """Gives what is asked of a store."""
    windows, asked = w[26], w[27]
    return Layout(
        at_address(w[15], (windows,), np.int64),
        at_address(w[16], (windows,), np.int64),
        at_address(w[17], (windows,), np.int64),
        at_address(w[18], (windows,), np.int64),
        at_address(w[19], (windows + 1,), np.int64),
        at_address(w[20], (asked,), np.int64),
        at_address(w[21], (asked,), np.int64),
        at_address(w[22], (asked,), np.int64),
        at_address(w[23], (asked,), np.int64),
        at_address(w[24], (asked,), np.float64),
        at_address(w[25], (asked,), np.float64),
        w[28],
        w[29],
        w[30],
        w[31],
    )


@compiled
def _admit_rows(
    partition: Any, ids: Any, event_time: Any, broker_time: Any, skew_max: int, horizon: int, time: Any, high: Any, flags: Any, place: Any
) -> None:
    """Runs clock and ids of one partition; what is new is not settled yet."""
    if partition[SIZE] == 0:
        mark = partition[HIGH]
        for i in range(len(event_time)):
            t = tick(event_time[i], broker_time[i], skew_max)
            mark = max(mark, t)
            time[i], high[i], flags[i] = t, mark, CLOCK_SKEW if t != event_time[i] else 0
        partition[HIGH] = mark
        return
    size = partition[SIZE]
    decisions = at_address(partition[DECISIONS], (size, _DECISION_BYTES), np.uint8)
    partition[FIRST], partition[AFTER], partition[HIGH] = admit_rows(
        at_address(partition[TABLE], (partition[PLACES],), np.int64),
        at_address(partition[MARK], (size, 2), np.int64),
        at_address(partition[SEEN_AT], (size,), np.int64),
        partition[FIRST], partition[AFTER], ids, event_time, broker_time, skew_max, horizon, partition[HIGH], time, high, flags, place,
    )  # fmt: skip
    for i in range(len(event_time)):
        if flags[i] & DUPLICATE == 0:
            decisions[place[i] & (size - 1), _SETTLED] = 0


@compiled
def _move(
    partitions: Any, stores: Any, columns: Any, ids: Any, offset: Any, event_time: Any, broker_time: Any, skew_max: int, horizon: int,
    time: Any, high: Any, admitted: Any, place: Any, mode: Any, exact: Any, answer: Any, answered: Any, wanted: Any, values: Any,
    flags: Any, at: Any,
) -> int:  # fmt: skip
    """Goes on at partition at[0], store at[1] (-1: its clock and ids), row at[2]; gives DONE, or where it stands still and why.

    stores [p x s, ...] are the partitions' stores one after the other; values[f] is answer wanted[f, 1] of store wanted[f, 0].
    """
    count = len(columns)
    while at[0] < len(partitions):
        partition = partitions[at[0]]
        low, end = partition[BEGIN], partition[END]
        if at[1] < 0:
            before = partition[APPLIED]
            for i in range(low, end):
                if offset[i] <= before:
                    return DISORDER
                before = offset[i]
            partition[APPLIED] = before
            _admit_rows(
                partition, ids[low:end], event_time[low:end], broker_time[low:end], skew_max, horizon, time[low:end], high[low:end],
                admitted[low:end], place[low:end],
            )  # fmt: skip
            for i in range(low, end):
                mode[i] = 0 if admitted[i] & DUPLICATE else ANSWERED
                flags[i] = admitted[i]
            at[1] = 0
        while at[1] < count:
            row = stores[at[0] * count + at[1]]
            s, p = _state(row), _layout(row)
            n, asked = len(event_time), len(p.kind)
            names = at_address(columns[at[1], NAME], (n, 2), np.int64)
            given = at_address(columns[at[1], VALUE], (n, row[12]), np.int64)
            keys = at_address(columns[at[1], KEY], (n, row[13]), np.int64)
            numbers = at_address(exact, (n, asked), np.int64)
            reals = at_address(answer, (n, asked), np.float64)
            at[2] = advance(
                s, p, names[low:end], time[low:end], high[low:end], mode[low:end], given[low:end], keys[low:end], at[2], EMIT,
                numbers[low:end], reals[low:end], answered[low:end],
            )  # fmt: skip
            # What is answered is taken at once: the next store answers into the same memory.
            for f in range(len(wanted)):
                if wanted[f, 0] == at[1]:
                    for i in range(low, low + at[2]):
                        values[f, i] = reals[i, wanted[f, 1]]
            if at[2] < end - low:
                return GROW
            for i in range(low, end):
                flags[i] |= answered[i]
            at[1], at[2] = at[1] + 1, 0
        at[0], at[1] = at[0] + 1, -1
    return DONE


@compiled
def _share(  # noqa: C901 -- the way of a store's rows, top to bottom
    stores: Any, partitions: Any, columns: Any, ids: Any, time: Any, high: Any, copies: Any, order: Any, horizon: int, room: Any,
    places: Any, marks: Any, mode: Any, wanted: Any, missing: bool, values: Any, flags: Any, new: Any, at: Any,
) -> int:  # fmt: skip
    """Goes on at store at[0], row at[1] (-1: its ids) of `order`; gives DONE, or GROW where the store at[0] has to grow first.

    room: addresses of memory for names, times, marks, values, keys, exact and real answers in that order, and for ids and their
    times; values[f] is answer wanted[f, 1] of store wanted[f, 0], or 1 where that is missing (place -1). new[k]: how many entries are new
    to store k, and behind it their rows.
    """
    n = len(order)
    names, then = at_address(room[0], (n, 2), np.int64), at_address(room[1], (n,), np.int64)
    after, answered = at_address(room[2], (n,), np.int64), at_address(room[9], (n,), np.int32)
    taking, times = at_address(room[7], (n, 2), np.int64), at_address(room[8], (n,), np.int64)
    while at[0] < len(stores):
        k = at[0]
        row = stores[k]
        s, p = _state(row), _layout(row)
        asked = len(p.kind)
        given, keys = at_address(room[3], (n, row[12]), np.int64), at_address(room[4], (n, row[13]), np.int64)
        numbers, reals = at_address(room[5], (n, asked), np.int64), at_address(room[6], (n, asked), np.float64)
        if at[1] < 0:
            name, value = at_address(columns[k, NAME], (n, 2), np.int64), at_address(columns[k, VALUE], (n, row[12]), np.int64)
            key = at_address(columns[k, KEY], (n, row[13]), np.int64)
            count = 0
            for j in range(n):
                i = order[j]
                names[j, 0], names[j, 1], then[j], after[j] = name[i, 0], name[i, 1], time[i], high[i]
                for c in range(row[12]):
                    given[j, c] = value[i, c]
                for c in range(row[13]):
                    keys[j, c] = key[i, c]
                mode[j] = 0
                if copies[i] & DUPLICATE == 0 and (name[i, 0] != 0 or name[i, 1] != 0):
                    taking[count, 0], taking[count, 1], times[count] = ids[i, 0], ids[i, 1], time[i]
                    mode[j] = QUERY
                    count += 1
            _admit_rows(
                partitions[k], taking[:count], times[:count], times[:count], 0, horizon, times[:count], marks[:count], answered[:count],
                places[:count],
            )  # fmt: skip
            count = 0
            for j in range(n):
                if mode[j] == QUERY:
                    mode[j] = QUERY if answered[count] & DUPLICATE else ANSWERED
                    count += 1
            at[1] = 0
        at[1] = advance(s, p, names, then, after, mode, given, keys, at[1], EMIT, numbers, reals, answered)
        if at[1] < n:
            return GROW
        count = 0
        for j in range(n):
            i = order[j]
            if mode[j] == ANSWERED and answered[j] & LATE == 0:
                count += 1
                new[k, count] = i
            if not missing:
                flags[i] |= answered[j]
            absent = names[j, 0] == 0 and names[j, 1] == 0
            for f in range(len(wanted)):
                if wanted[f, 0] == k and wanted[f, 1] < 0:
                    values[f, i] = 1.0 if missing or absent else 0.0
                elif wanted[f, 0] == k and not missing:
                    values[f, i] = reals[j, wanted[f, 1]]
        new[k, 0] = count
        at[0], at[1] = k + 1, -1
    return DONE


def move_all(
    states: Sequence[PartitionState], bounds: Sequence[tuple[int, int]], rows: Rows, wanted: Int64, values: Float64, flags: Int32
) -> list[tuple[Rows, Moved]]:
    """Takes states of one plan, the rows low:high of each, all of their rows, and which answers are features, int64[f, 2] (store, place).

    Moves every state past its rows, in place; writes features into `values` [n, f] (Fortran order) and flags into `flags` [n]. Gives each
    state's rows and what they met, without the answers. Law: all of it is what `PartitionState.advance` does one by one.
    Raises InvariantBroken for rows a state is already past.
    """
    n, names = len(rows.offset), list(states[0].stores)
    time, high, place, mode = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int8)
    admitted, answered, at = np.empty(n, np.int32), np.empty(n, np.int32), np.array([0, -1, 0])
    room = n * max([len(states[0].stores[name].plan.aggregates) for name in names], default=0)
    exact, answer = np.empty(room, np.int64), np.empty(room, np.float64)
    partitions = np.array(
        [[*one.seen.where(high - low), one.clock.high, one.applied, low, high] for one, (low, high) in zip(states, bounds, strict=True)]
    )
    columns = addresses(rows.entries[name] for name in names)
    stores = [one.stores[name] for one in states for name in names]
    while (
        said := _move(
            partitions, where(stores), columns, rows.event_id, rows.offset, rows.event_time, rows.broker_time, states[0].clock.skew_max_ms,
            states[0].seen.horizon_ms, time, high, admitted, place, mode, address(exact), address(answer), answered, wanted, values.T,
            flags, at,
        )
    ) == GROW:  # fmt: skip
        stores[int(at[0]) * len(names) + int(at[1])].grow()
    for store in stores:
        store.ready()
    duplicate = (admitted & DUPLICATE) != 0
    copies = bool(duplicate.any())
    moved: list[tuple[Rows, Moved]] = []
    for number, (state, (low, end), (first, after, mark, applied)) in enumerate(
        zip(states, bounds, partitions[:, FIRST : APPLIED + 1].tolist(), strict=True)
    ):
        if said == DISORDER and number == int(at[0]):
            raise InvariantBroken(f"rows from offset {rows.offset[low]} came out of order or twice; offset {applied} is applied already")
        state.seen.moved(first, after)
        state.clock.high, state.applied = mark, applied
        mine = {name: Entries(one.name[low:end], one.value[low:end], one.key[low:end]) for name, one in rows.entries.items()}
        part = Rows(rows.offset[low:end], rows.event_time[low:end], rows.broker_time[low:end], rows.event_id[low:end], mine)
        ticks = Ticks(time[low:end], high[low:end], admitted[low:end])
        admission = Admission(ticks, place[low:end], duplicate[low:end], copies and bool(duplicate[low:end].any()))
        moved.append((part, Moved(admission, {}, flags[low:end])))
    return moved


def share_all(
    stores: Sequence[WindowStore],
    seen: Sequence[SeenIds],
    clocks: Sequence[Clock],
    entries: Sequence[Entries],
    ticks: Ticks,
    ids: Int64,
    wanted: Int64,
    values: Float64,
    flags: Int32,
    *,
    missing: bool,
) -> list[Int64]:
    """Takes shared stores with their ids and clocks, and n rows: entries by store, times, marks and flags, ids int64[n, 2].

    Rows are merged by their marks; copies take no part, and an event that a store has had already asks only. Writes features into
    `values` [n, f] (Fortran order; `wanted` as for `move_all`, place -1: the indicator that there is no answer) and flags into
    `flags` [n]; of a store that is `missing` only the indicator. Gives by store the rows whose entries are new to it and not late.
    """
    n, order = len(ticks.time), np.argsort(ticks.high, kind="stable")
    widths = [(len(one.plan.decimals), one.plan.keys, len(one.plan.aggregates)) for one in stores]
    widest = [max(width[at] for width in widths) for at in range(3)]
    numbers = np.empty(n * (9 + widest[0] + widest[1] + 2 * widest[2]), np.int64)
    answered, mode, at, new = np.empty(n, np.int32), np.empty(n, np.int8), np.array([0, -1]), np.zeros((len(stores), n + 1), np.int64)
    sizes = np.array([0, 2, 1, 1, widest[0], widest[1], widest[2], widest[2], 2]) * n
    room = np.append(address(numbers) + 8 * np.cumsum(sizes), address(answered))
    places, marks = numbers[-n:], numbers[-2 * n : -n]
    partitions = np.array([[*one.where(n), clock.high, 0, 0, n] for one, clock in zip(seen, clocks, strict=True)])
    columns = addresses(entries)
    while _share(
        where(stores), partitions, columns, ids, ticks.time, ticks.high, ticks.flags, order, seen[0].horizon_ms, room, places, marks, mode,
        wanted, missing, values.T, flags, new, at,
    ) == GROW:  # fmt: skip
        stores[int(at[0])].grow()
    for store in stores:
        store.ready()
    for one, clock, (first, after, mark) in zip(seen, clocks, partitions[:, FIRST : HIGH + 1].tolist(), strict=True):
        one.moved(first, after)
        clock.high = mark
    return [rows[1 : 1 + count] for rows, count in zip(new, new[:, 0].tolist(), strict=True)]


def where(stores: Sequence[WindowStore]) -> Int64:
    """Gives what the kernels know of stores' memory, a row each."""
    if not stores:
        return np.empty((0, WHERE), np.int64)
    return np.concatenate([one.where for one in stores]).reshape(len(stores), WHERE)


def addresses(entries: Iterable[Entries]) -> Int64:
    """Gives where the columns of entries are, a row per store."""
    found = [[address(one.name), address(one.value), address(one.key)] for one in entries]
    return np.array(found, np.int64).reshape(len(found), COLUMNS)


def warm_up() -> None:
    """Compiles the kernels, or loads them from the cache."""
    plan = StorePlan((Window(1000),), (Aggregate("count", 0),))
    state, zero = PartitionState(Clock(0), SeenIds(1000), {"": WindowStore(plan)}), np.zeros(1, np.int64)
    nothing, wanted = Entries(np.ones((1, 2), np.int64), np.empty((1, 0), np.int64), np.empty((1, 0), np.int64)), np.zeros((1, 2), np.int64)
    values, flags = np.empty((1, 1), order="F"), np.zeros(1, np.int32)
    move_all([state], [(0, 1)], Rows(zero, zero, zero, nothing.name, {"": nothing}), wanted, values, flags)
    ticks = Ticks(zero, zero, flags)
    share_all([WindowStore(plan)], [SeenIds(1000)], [Clock(0)], [nothing], ticks, nothing.name, wanted, values, flags, missing=False)
