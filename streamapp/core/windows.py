"""Exact sliding windows in event time: the contract of a window, and the store that answers it for one kind of entity in one partition.

A window of length W and delay D at a row with event time t holds the entity's entries with time in (t - D - W, t - D], to the millisecond,
ties in order of arrival, the row itself included where D = 0 and `include_current`. A row more than `grace` behind the high mark is late:
it changes nothing and is answered as of its own time from what is held, itself included. Entries matter for W + D + grace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core import windows_entries as memory
from streamapp.core.errors import ConfigError, InvariantBroken
from streamapp.core.growing import fresh, grown
from streamapp.core.next_table import NextTable
from streamapp.core.windows_index import address, table_for
from streamapp.core.windows_kernel import advance
from streamapp.core.windows_snapshot import collect, plant

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]

KINDS: Mapping[str, int] = {
    "count": memory.COUNT,
    "sum": memory.SUM,
    "mean": memory.MEAN,
    "max": memory.MAX,
    "distinct": memory.DISTINCT,
    "since": memory.SINCE,
    "activity": memory.ACTIVITY,
}
QUERY, WRITE, EVENT = memory.QUERY, memory.WRITE, memory.QUERY | memory.WRITE

CAP_MAX = 1 << 16
WHERE = len(memory.State._fields) + 6 + len(memory.Layout._fields) - 4 + 6  # numbers of `WindowStore.where`
UNITS_MAX = 1 << 46  # CAP_MAX of these still add up below 2^63
ACTIVITY_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of event time behind a row; lengths in ms."""

    length_ms: int
    delay_ms: int = 0
    include_current: bool = True


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One number asked of a window; `window` and `column` are positions in the store's plan (of values; of keys for distinct)."""

    kind: str
    window: int
    column: int = 0
    prior: float | None = None  # what a cold entity gets in place of its own value


@dataclass(frozen=True, slots=True)
class StorePlan:
    """Everything that shapes a store: its windows, what is asked of them, and the columns an entry keeps.

    decimals: one per value column; a value is kept as an int64 number of 10^-decimals units.
    """

    windows: tuple[Window, ...]
    aggregates: tuple[Aggregate, ...]
    decimals: tuple[int, ...] = ()
    keys: int = 0
    grace_ms: int = 0
    cap: int = 4096
    cold_below: int = 10

    @property
    def keep_ms(self) -> int:
        """How long an entry can matter: the longest W + D, and grace."""
        return max(window.length_ms + window.delay_ms for window in self.windows) + self.grace_ms


@dataclass(frozen=True, slots=True)
class Answers:
    """n rows by k aggregates in the plan's order.

    exact int64: count, distinct; sum, max and mean's sum in units; ms since last (-1: none). value float64: the feature; NaN where mean,
    max or since have nothing to go by, or the row asked nothing. flags int32: bits of events.Flag (late, cold_entity, overflow).
    """

    exact: Int64
    value: Float64
    flags: Int32


def units(values: Float64 | Sequence[float], decimals: int) -> Int64:
    """Takes n numbers; gives them as int64 multiples of 10^-decimals, rounded half to even; NaN counts 0, beyond +-2^46 is clipped.

    Sums of units are exact. A float that was written with at most `decimals` decimals comes back as exactly that decimal below 2^46 units.
    """
    scaled = np.rint(np.asarray(values, np.float64) * 10.0**decimals)
    whole: Int64 = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=UNITS_MAX, neginf=-UNITS_MAX), -UNITS_MAX, UNITS_MAX).astype(np.int64)
    return whole


def activity_units(types: Sequence[str], weights: Mapping[str, float], other: float) -> Int64:
    """Takes n event types; gives their weights in 1/1000: `activity` is log1p of the sum of weights in a window, 0 without events."""
    table = {name: int(units([weight], ACTIVITY_DECIMALS)[0]) for name, weight in weights.items()}
    rest = int(units([other], ACTIVITY_DECIMALS)[0])
    return np.fromiter((table.get(name, rest) for name in types), np.int64, len(types))


def check(plan: StorePlan) -> None:
    """Takes a plan; raises ConfigError where it cannot be kept exactly."""
    if not plan.windows or any(window.length_ms <= 0 or window.delay_ms < 0 for window in plan.windows):
        raise ConfigError("a store needs windows of positive length and no negative delay", "correct `window` and `delay`")
    if not 1 <= plan.cap <= CAP_MAX:
        raise ConfigError(f"cap {plan.cap} is outside 1 to {CAP_MAX}", "correct `cap`")
    if plan.grace_ms < 0 or plan.keep_ms >= 1 << 60:
        raise ConfigError("grace is negative or a window longer than time itself", "correct `grace`")
    for aggregate in plan.aggregates:
        if aggregate.kind not in KINDS:
            raise ConfigError(f"unknown aggregate `{aggregate.kind}`", f"use one of {', '.join(KINDS)}")
        columns = plan.keys if aggregate.kind == "distinct" else len(plan.decimals)
        needs_column = aggregate.kind not in ("count", "since")
        if not 0 <= aggregate.window < len(plan.windows) or (needs_column and not 0 <= aggregate.column < columns):
            raise ConfigError(f"aggregate `{aggregate.kind}` names a window or column that is not there", "correct the plan")


def _layout(plan: StorePlan) -> tuple[memory.Layout, int]:
    """Gives the plan as arrays for the kernel, and how many cells an entity needs for it."""
    order = sorted(range(len(plan.aggregates)), key=lambda a: plan.aggregates[a].window)
    chosen = [plan.aggregates[a] for a in order]
    cells = 2 * len(plan.windows)
    cell_of = np.zeros(len(chosen), np.int64)
    for a, aggregate in enumerate(chosen):
        if aggregate.kind in ("max", "distinct"):
            cell_of[a] = memory.CELLS + cells
            cells += 1
    per_window = [sum(1 for aggregate in chosen if aggregate.window == w) for w in range(len(plan.windows))]
    scale = [10.0 ** plan.decimals[a.column] if a.kind in ("sum", "mean", "max", "activity") else 1.0 for a in chosen]
    return memory.Layout(
        length=np.array([w.length_ms for w in plan.windows], np.int64),
        delay=np.array([w.delay_ms for w in plan.windows], np.int64),
        current=np.array([w.include_current for w in plan.windows], np.int64),
        cell=memory.CELLS + 2 * np.arange(len(plan.windows), dtype=np.int64),
        begin=np.cumsum([0, *per_window], dtype=np.int64),
        kind=np.array([KINDS[a.kind] for a in chosen], np.int64),
        column=np.array([a.column for a in chosen], np.int64),
        memory=cell_of,
        out=np.array(order, np.int64),
        scale=np.array(scale, np.float64),
        prior=np.array([np.nan if a.prior is None else a.prior for a in chosen], np.float64),
        keep=plan.keep_ms,
        grace=plan.grace_ms,
        cap=plan.cap,
        cold_below=plan.cold_below,
    ), cells


@dataclass(slots=True)
class WindowStore:
    """The entries of one kind of entity in one partition, and its answers; grows by itself, frees by event time."""

    plan: StorePlan
    slots: int = 64
    entries: int = 256
    _layout: memory.Layout = field(init=False, repr=False)
    _state: memory.State = field(init=False, repr=False)
    _next: NextTable = field(init=False, repr=False, default_factory=NextTable)
    where: Int64 = field(init=False, repr=False)  # memory and layout for core.windows_moves: addresses, sizes, numbers

    def __post_init__(self) -> None:
        check(self.plan)
        self._layout, cells = _layout(self.plan)
        values, keys, slots, entries = len(self.plan.decimals), self.plan.keys, max(2, self.slots), max(16, self.entries)
        register = np.full(memory.REGISTERS, -1, np.int64)
        register[: memory.BLOCKS] = 0
        register[memory.SLOT_FREE] = -1
        state = memory.State(
            register=register,
            table=table_for(slots),
            mark=fresh((slots, 2), np.int64),
            stamp=fresh((slots, memory.BASE + values), np.int64),
            lane=fresh((slots, memory.CELLS + cells), np.int32),
            time=fresh((entries,), np.int64),
            total=fresh((entries, values), np.int64),
            key=fresh((entries, keys), np.int64),
            link=fresh((entries, 2 * keys), np.int32),
        )
        self._hold(state)

    def _hold(self, state: memory.State) -> None:
        self._state, layout = state, self._layout
        sizes = (len(state.table), len(state.mark), len(state.time), len(self.plan.decimals), self.plan.keys, state.lane.shape[1])
        asked = (len(layout.length), len(layout.kind), layout.keep, layout.grace, layout.cap, layout.cold_below)
        self.where = np.array([*map(address, state), *sizes, *map(address, layout[:-4]), *asked], np.int64)

    def advance(self, names: Int64, time: Int64, high: Int64, values: Int64, keys: Int64, mode: Int8 | None = None) -> Answers:
        """Takes n rows in offset order; gives every row's answers and moves the store past them.

        names int64[n, 2] (windows_index.hash_names; (0, 0) takes no part), time and high int64[n] ms (effective event time, and the
        partition's high mark after the row: windows_clock), values int64[n, v] units, keys int64[n, q] hashes, mode int8[n] bits of QUERY
        and WRITE (default EVENT, both). However rows are cut into calls, answers are equal. Memory grows by doubling.
        """
        n, k = len(time), len(self.plan.aggregates)
        answers = Answers(np.empty((n, k), np.int64), np.empty((n, k), np.float64), np.empty(n, np.int32))
        self._run(names, time, high, values, keys, mode, answers, emit=True)
        return answers

    def apply(self, names: Int64, time: Int64, high: Int64, values: Int64, keys: Int64, mode: Int8 | None = None) -> None:
        """Takes the rows `advance` took; leaves the store as `advance` would, and answers nothing."""
        nothing = Answers(np.empty((0, 0), np.int64), np.empty((0, 0), np.float64), np.empty(0, np.int32))
        self._run(names, time, high, values, keys, mode, nothing, emit=False)

    def _run(
        self, names: Int64, time: Int64, high: Int64, values: Int64, keys: Int64, mode: Int8 | None, answers: Answers, *, emit: bool
    ) -> None:
        n = len(time)
        if mode is None:
            mode = np.full(n, EVENT, np.int8)
        wanted = ((n, 2), (n,), (n, len(self.plan.decimals)), (n, self.plan.keys), (n,))
        if (names.shape, high.shape, values.shape, keys.shape, mode.shape) != wanted:
            raise InvariantBroken(f"{n} rows came with columns of another shape than {wanted}")
        row = 0
        while True:
            row = advance(
                self._state, self._layout, names, time, high, mode, values, keys, row, emit, answers.exact, answers.value, answers.flags
            )
            if row == n:
                break
            self.grow()
        self.ready()

    def ready(self) -> None:
        """Makes ready for more entities, a little with each micro-batch."""
        self._next.prepare(len(self._state.mark), int(self._state.register[memory.SLOT_TOP]))

    def grow(self) -> None:
        """Makes room for what the kernel wanted when it stopped."""
        if self._state.register[memory.WANTED] == memory.MORE_SLOTS:
            self._more_slots(2 * len(self._state.mark))
        else:
            self._more_entries(2 * len(self._state.time))

    def _more_slots(self, slots: int) -> None:
        self._grow(("mark", "stamp", "lane"), slots, table=self._next.take(self._state.table, slots))

    def _more_entries(self, entries: int) -> None:
        if entries > 1 << 31:
            raise InvariantBroken("one partition would hold more than 2^31 window entries", "use more partitions or shorter windows")
        self._grow(("time", "total", "key", "link"), entries)

    def _grow(self, columns: Iterable[str], rows: int, **others: Int64) -> None:
        self._hold(self._state._replace(**{name: grown(getattr(self._state, name), rows) for name in columns}, **others))

    def __len__(self) -> int:
        """Entities held; some may have expired without having been freed yet."""
        return int(self._state.register[memory.ENTITIES])

    @property
    def held(self) -> int:
        """Entries held."""
        return int(self._state.register[memory.ENTRIES])

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays, used or not."""
        return sum(array.nbytes for array in self._state)

    def snapshot(self, high: int) -> dict[str, Int64]:
        """Takes the high mark; gives what is alive at it as columns, e entities and h entries.

        name [e, 2], about [e, 3] (entries held, interactions seen, newest dropped time); time [h], value [h, v], key [h, q], grouped by
        entity in event-time order; high [1], keep_ms [1]. Remembered stretches are not in it: no answer depends on them.
        """
        parts = collect(self._state, high - self.plan.keep_ms)
        return {**parts, "high": np.array([high], np.int64), "keep_ms": np.array([self.plan.keep_ms], np.int64)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes a snapshot, also one read-only; from here on the store answers as the one it was taken from.

        Windows, aggregates and priors may differ; a plan that looks further back than was kept, or has other columns, raises ConfigError.
        """
        values, keys = arrays["value"], arrays["key"]
        if int(arrays["keep_ms"][0]) < self.plan.keep_ms:
            raise ConfigError(
                f"the windows reach back {self.plan.keep_ms} ms, the state holds {int(arrays['keep_ms'][0])} ms",
                "rebuild the state from the events, or keep the windows within what is held",
            )
        if values.shape[1:] != (len(self.plan.decimals),) or keys.shape[1:] != (self.plan.keys,):
            raise ConfigError("the state was written for other value or key columns", "rebuild the state from the events")
        about = arrays["about"]
        places = 1 << np.maximum(memory.FIRST_CLASS, np.ceil(np.log2(np.maximum(about[:, 0], 1))).astype(np.int64))
        self.slots, self.entries = len(about) + len(about) // 8 + 64, int(places.sum()) + int(places.sum()) // 8 + 256
        self.__post_init__()
        plant(self._state, self._layout, arrays["name"], about, arrays["time"], values, keys)


def warm_up() -> None:
    """Compiles (or loads from the cache) every kernel for every column type, so that the first event does not wait for it."""
    plan = StorePlan((Window(1000),), (Aggregate("count", 0), Aggregate("max", 0), Aggregate("distinct", 0)), decimals=(2,), keys=1)
    store = WindowStore(plan, slots=2, entries=16)
    n = 100
    names, row = np.arange(1, 2 * n + 1, dtype=np.int64).reshape(n, 2), np.arange(n, dtype=np.int64)
    store.advance(names, row, row, row[:, None], row[:, None])
    store.apply(names, row + n, row + n, row[:, None], row[:, None])
    WindowStore(plan).restore(store.snapshot(2 * n))
