"""Windows of entities that cross partitions (ip, device, terminal): asked for, answered and moved by rows, as the local ones are.

The contract: every worker keeps a copy of the entities its own partitions meet. Before a micro-batch is decided the copy takes in what
other workers have acknowledged since; then the rows themselves move it, so that micro-batches in flight count at once. Hence a feature is
exact in event time over (a) all that this worker decided and (b) all that others had acknowledged when the micro-batch was read, and
eventually consistent beyond that: an event that another worker has in flight is not seen yet, and nothing decided is decided again.
A single worker, and a replay that merges partitions by event time, see everything. Idempotent by event id over the pipeline's horizon.

Lateness is that of the row's own partition: one that lags behind the others is answered as of its own time from what the longest window
of the *newest* row of that entity still holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from streamapp.core.cascade import Degraded
from streamapp.core.dedupe import SeenIds
from streamapp.core.events import Plan
from streamapp.core.spec import PipelineSpec, local_entities
from streamapp.core.state import Remembered
from streamapp.core.velocity import StoreSpec, VelocityFeature, duration_ms, parse_velocity
from streamapp.core.velocity_entries import entries
from streamapp.core.windows import WRITE, Int32, Int64, WindowStore
from streamapp.core.windows_clock import Clock, Ticks
from streamapp.core.windows_moves import share_all
from streamapp.core.windows_partition import Entries

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Asks:
    """What n rows of a plan ask of the shared stores: entries by store in plan order, and the newest event time among them, ms."""

    entries: Mapping[str, Entries]
    mark: int


@dataclass(frozen=True, slots=True)
class SharedEntries:
    """k entries of one store, as they travel: name int64[k, 2], id int64[k, 2] of the event, time int64[k] ms, value [k, v], key [k, q]."""

    name: Int64
    id: Int64
    time: Int64
    value: Int64
    key: Int64

    def __len__(self) -> int:
        return len(self.time)

    def where(self, wanted: Bool) -> SharedEntries:
        """Gives the entries for which `wanted` [k] is true."""
        return SharedEntries(self.name[wanted], self.id[wanted], self.time[wanted], self.value[wanted], self.key[wanted])


@dataclass(slots=True)
class SharedState:
    """One worker's copy: a window store and the ids seen, by store. Moved by `SharedPlan` only."""

    stores: dict[str, WindowStore]
    seen: dict[str, SeenIds]
    clock: dict[str, Clock]

    def merge(self, name: str, given: SharedEntries) -> int:
        """Takes entries that others acknowledged, in any order and any number of times; gives how many were new."""
        seen, clock = self.seen[name], self.clock[name]
        admission = seen.admit(given.id, given.time, given.time, clock)
        new = ~admission.duplicate
        time, count = given.time[new], int(np.count_nonzero(new))
        self.stores[name].apply(given.name[new], time, time, given.value[new], given.key[new], np.full(count, WRITE, np.int8))
        return count


@dataclass(frozen=True, slots=True)
class SharedRead:
    """What prefetch brought for a plan: its asks, the worker's copy, and whether it may be believed.

    `missing`: the features are missing and their indicator is 1; the rows move the copy all the same.
    """

    asks: Asks
    state: SharedState
    missing: bool = False
    degraded: tuple[Degraded, ...] = ()


@dataclass(frozen=True, slots=True)
class Shared:
    """What the copy gave for n rows: feature columns [n, m] (NaN: nothing to go by), flags int32[n], and what is to be told to others."""

    values: Float64
    flags: Int32
    written: Mapping[str, SharedEntries] = field(default_factory=dict)


class SharedPlan:
    """The shared state of one pipeline: stores of entities that are neither key nor colocated, and the features that come of them."""

    def __init__(self, spec: PipelineSpec) -> None:
        velocity, _ = parse_velocity(spec.velocity, {name: one.type for name, one in spec.event.fields.items()})
        local = local_entities(spec)
        self.stores: tuple[StoreSpec, ...] = tuple(
            store for store in velocity.stores if store.fed_by == "events" and store.entity not in local
        )
        names = {store.name for store in self.stores}
        self._answered = tuple(feature for feature in velocity.features if feature.store in names)
        self.features: tuple[VelocityFeature, ...] = (*self._answered, *map(indicator, self.stores))
        self.names = tuple(feature.name for feature in self.features)
        at = {store.name: place for place, store in enumerate(self.stores)}
        self._wanted = np.array([(at[one.store], one.position) for one in self.features], np.int64).reshape(-1, 2)
        self.keep_ms = max((store.plan.keep_ms for store in self.stores), default=0)
        self.horizon_ms, self._skew_max_ms = duration_ms(spec.state.horizon), duration_ms(spec.state.skew_max)

    def new(self) -> SharedState:
        """Gives the copy of a worker that has met nobody."""
        return SharedState(
            {store.name: WindowStore(store.plan) for store in self.stores},
            {store.name: SeenIds(self.horizon_ms) for store in self.stores},
            {store.name: Clock(0) for store in self.stores},
        )

    def asks(self, plan: Plan) -> Asks:
        """Takes a plan; gives what its rows ask."""
        asked: dict[str, Entries] = {}
        for store in self.stores:
            asked[store.name] = Entries(*entries(store, plan, plan.hashed))
        skewed = plan.event_time > plan.received_at + self._skew_max_ms
        return Asks(asked, int(np.where(skewed, plan.received_at, plan.event_time).max(initial=0)))

    def answer(self, n: int, remembered: Remembered, read: SharedRead | None) -> Shared:
        """Takes what the partitions' states gave for the plan's n rows, and what was read; gives features, and moves the copy in place.

        Rows of one partition keep their order; partitions are merged by their high marks. None: nothing is kept, all is missing.
        """
        values = np.full((n, len(self.features)), np.nan, order="F")
        flags = np.zeros(n, np.int32)
        if not n or not self.stores or read is None:
            return Shared(values, flags)
        ticks = [step.moved.admission.ticks for step in remembered.steps]
        time, high = np.concatenate([one.time for one in ticks]), np.concatenate([one.high for one in ticks])
        ids = np.concatenate([step.rows.event_id for step in remembered.steps])
        state, names, asked = read.state, [store.name for store in self.stores], read.asks.entries
        new = share_all(
            [state.stores[name] for name in names], [state.seen[name] for name in names], [state.clock[name] for name in names],
            [asked[name] for name in names], Ticks(time, high, remembered.flags), ids, self._wanted, values, flags, missing=read.missing,
        )  # fmt: skip
        written = {
            name: SharedEntries(given.name[rows], ids[rows], time[rows], given.value[rows], given.key[rows])
            for name, rows, given in zip(names, new, map(asked.__getitem__, names), strict=True)
            if rows.size
        }
        return Shared(values, flags, written)

    def layout(self, name: str) -> str:
        """Gives a short hash of what an entry of the store is made of: entries of another layout are other entries."""
        store = next(store for store in self.stores if store.name == name)
        return blake2b(repr((store.entity, store.fed_by, store.values, store.keys)).encode(), digest_size=4).hexdigest()


def indicator(store: StoreSpec) -> VelocityFeature:
    """Gives the feature that is 1 where the windows of a store are not known."""
    name = f"{store.name.replace('.', '_')}_windows_missing"
    told = f"1 where the windows of {store.entity} are not known: no {store.entity}, or their store did not answer"
    return VelocityFeature(name, name, store.name, -1, "missing", store.entity, 0, 0, 1.0, told)


# On the wire an entry is a row of little-endian int64: time, id (2), values, keys. Entries of one entity lie end to end.

FIXED = 3


def pack(given: SharedEntries) -> tuple[bytes, Int64, bytes]:
    """Takes k entries; gives e entities' names (16 bytes each), bytes per entity int64[e], and the rows, grouped by entity."""
    order = np.lexsort((given.name[:, 1], given.name[:, 0]))
    name = given.name[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (name[1:] != name[:-1]).any(axis=1)
    at = np.flatnonzero(first)
    rows = np.column_stack((given.time, given.id, given.value, given.key))[order].astype("<i8")
    lengths = np.diff(np.append(at, len(order))) * rows.shape[1] * 8
    return name[at].astype("<i8").tobytes(), lengths, rows.tobytes()


def unpack(names: bytes, lengths: Int64, rows: bytes, values: int, keys: int) -> SharedEntries:
    """Takes what `pack` gave and the columns of an entry; gives the entries. Raises ValueError where the bytes are no such entries."""
    width = 8 * (FIXED + values + keys)
    if (lengths % width).any() or int(lengths.sum()) != len(rows):
        raise ValueError("these are no entries of this store")
    table = np.frombuffer(rows, "<i8").reshape(-1, width // 8).astype(np.int64)
    who = np.repeat(np.frombuffer(names, "<i8").reshape(-1, 2).astype(np.int64), lengths // width, axis=0)
    split = FIXED + values
    return SharedEntries(who, table[:, 1:3].copy(), table[:, 0].copy(), table[:, FIXED:split].copy(), table[:, split:].copy())
