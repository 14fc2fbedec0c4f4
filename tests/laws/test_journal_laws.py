"""Laws of the journal's records: every int64 comes back, rows come back as they were, and a log read back is the state it was made by."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core import journal as codec
from streamapp.core.dedupe import DECISION, SeenIds
from streamapp.core.errors import BusError, ConfigError
from streamapp.core.journal import Head, Release
from streamapp.core.packing import pack, unpack
from streamapp.core.replay import Replay
from streamapp.core.windows import Aggregate, StorePlan, Window, WindowStore
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_partition import Entries, PartitionState, Rows

PLANS = {
    "card": StorePlan((Window(50),), (Aggregate("count", 0), Aggregate("sum", 0)), (2,), 0, 10, 64, 2),
    "customer": StorePlan((Window(400, 5),), (Aggregate("count", 0), Aggregate("distinct", 0)), (), 1, 10, 64, 2),
}

int64s = st.integers(-(2**63), 2**63 - 1)
columns = st.one_of(
    st.lists(int64s, min_size=1, max_size=40),
    st.lists(st.integers(-3, 300), min_size=1, max_size=400),
    st.lists(st.sampled_from([-(2**63), 2**63 - 1, 0, 2**40]), min_size=40, max_size=400),
    st.builds(
        lambda start, steps: np.cumsum([start, *steps]).tolist(), st.integers(0, 2**50), st.lists(st.integers(0, 70_000), max_size=300)
    ),
)


@given(st.lists(columns, min_size=1, max_size=5))
@settings(deadline=None)  # the first call compiles
def test_columns_of_int64_come_back(given_columns: list[list[int]]) -> None:
    n = min(map(len, given_columns))
    matrix = np.array([column[:n] for column in given_columns], np.int64)
    packed = pack(np.vstack([matrix, matrix[:1]]))
    back, used = unpack(packed + b"tail", len(matrix) + 1, n)
    assert used == len(packed)
    assert (back == np.vstack([matrix, matrix[:1]])).all()
    assert len(packed) <= len(given_columns) * (24 + 8 * n) + 24


@given(st.lists(columns, min_size=1, max_size=3), st.data())
def test_packed_columns_that_were_cut_off_or_changed_are_refused_or_read_within_bounds(given_columns: list[list[int]], data: Any) -> None:
    n = min(map(len, given_columns))
    packed = pack(np.array([column[:n] for column in given_columns], np.int64))
    with pytest.raises(ConfigError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))], len(given_columns), n)


def new_state() -> PartitionState:
    return PartitionState(Clock(10_000), SeenIds(300), {name: WindowStore(plan) for name, plan in PLANS.items()})


@st.composite
def streams(draw: st.DrawFn) -> Rows:
    """Rows with gaps in offsets, some ids twice, times that wander; scores with NaN."""
    n = draw(st.integers(1, 60))
    steps = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    times = draw(st.lists(st.integers(0, 900), min_size=n, max_size=n))
    who = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    ids = draw(st.lists(st.integers(1, 80), min_size=n, max_size=n))
    offset, at, name = np.cumsum(steps).astype(np.int64), np.array(times, np.int64), np.array(who, np.int64)
    entries = {
        "card": Entries(np.stack([name, name], 1), (name * 37)[:, None], np.empty((n, 0), np.int64)),
        "customer": Entries(np.stack([name % 2 + 1, name], 1), np.empty((n, 0), np.int64), (name * 5)[:, None]),
    }
    decision = np.zeros(n, DECISION)
    decision["offset"], decision["score"], decision["release"] = offset, np.where(name == 2, np.nan, name / 7), name * 1000
    decision["route"], decision["decided_by"], decision["settled"] = name % 3, name % 2, True
    return Rows(offset, at, np.full(n, 1000, np.int64), np.stack([np.array(ids, np.int64)] * 2, 1), entries, decision)


def part(rows: Rows, low: int, high: int) -> Rows:
    entries = {name: Entries(one.name[low:high], one.value[low:high], one.key[low:high]) for name, one in rows.entries.items()}
    assert rows.decision is not None
    return Rows(
        rows.offset[low:high],
        rows.event_time[low:high],
        rows.broker_time[low:high],
        rows.event_id[low:high],
        entries,
        rows.decision[low:high],
    )


def same(left: Rows, right: Rows) -> None:
    for name in ("offset", "event_time", "broker_time", "event_id"):
        assert np.array_equal(getattr(left, name), getattr(right, name))
    assert left.entries.keys() == right.entries.keys()
    for store, one in left.entries.items():
        for name in ("name", "value", "key"):
            assert np.array_equal(getattr(one, name), getattr(right.entries[store], name))
    assert left.decision is not None and right.decision is not None and left.decision.tobytes() == right.decision.tobytes()


@given(streams(), st.integers(1, 70))
def test_rows_come_back_whole_and_in_pieces(rows: Rows, limit: int) -> None:
    found = []
    for piece in codec.pieces(rows, limit):
        head, body = codec.decode(codec.encode(delta_head(0, 1, **codec.shape_of(piece)), codec.pack_rows(piece)))
        found.append(codec.unpack_rows(head, body))
    same(codec.concatenated(found), rows)


def delta_head(since: int, after: int, base: int = -1, generation: int = 1, **more: Any) -> Head:
    return Head("delta", since, after, generation, 4, base, 0, (after, after, after, after, after), **more)


def delta(rows: Rows, since: int, **more: Any) -> bytes:
    return codec.encode(delta_head(since, int(rows.offset[-1]) + 1, **codec.shape_of(rows), **more), codec.pack_rows(rows))


def beginning(start: int = 0) -> bytes:
    return codec.encode(delta_head(-1, start), b"")


def log_of(rows: Rows, cuts: list[int]) -> tuple[list[bytes], list[PartitionState]]:
    """Gives one delta per run of rows, after a beginning; and the state after each."""
    edges = sorted({0, len(rows.offset), *(cut % len(rows.offset) for cut in cuts)})
    records, states, since = [beginning()], [new_state()], 0
    for low, high in pairwise(edges):
        run = part(rows, low, high)
        records.append(delta(run, since))
        since = int(run.offset[-1]) + 1
        state = new_state()
        state.apply(part(rows, 0, high))
        states.append(state)
    return records, states


def saved(state: PartitionState, since: int, base: int = 0) -> list[bytes]:
    head = Head("snapshot", -1, since, 1, 4, base, 0, (since,) * 5, releases=(Release(7, "r", ("rule", "default")),))
    return list(codec.cut(state.snapshot()).records(head))


def assert_equal_states(left: PartitionState, right: PartitionState) -> None:
    one, other = left.snapshot(), right.snapshot()
    assert one.keys() == other.keys()
    for name in one:
        a, b = one[name], other[name]
        if name.split("/")[0] in PLANS:  # entities come in the order in which they were first met
            continue
        assert a.tobytes() == b.tobytes(), name
    for store in PLANS:
        for names in (one, other):
            order = np.lexsort(names[f"{store}/name"].T)
            names[f"{store}/sorted"] = names[f"{store}/about"][order]
        assert np.array_equal(one[f"{store}/sorted"], other[f"{store}/sorted"]), store


@given(streams(), st.lists(st.integers(0, 60), max_size=6), st.data())
@settings(max_examples=60)
def test_a_log_with_a_snapshot_torn_records_and_a_former_owner_gives_the_state_it_was_made_by(
    rows: Rows, cuts: list[int], data: Any
) -> None:
    records, states = log_of(rows, cuts)
    at = data.draw(st.integers(1, len(records) - 1))
    since = int(codec.decode(records[at])[0].next)
    chunks = saved(states[at], since)
    torn = [codec.encode(codec.decode(chunks[0])[0].__class__(*[getattr(Head("snapshot", -1, since, 2, 4, 0, 0, (0,) * 5, total=9,
            arrays=codec.decode(chunks[0])[0].arrays), field) for field in Head.__struct_fields__]), b"")]  # fmt: skip
    # Behind the snapshot's place in the log: its chunks, deltas, records of a former owner, and a snapshot that was never finished.
    behind = [*records[at + 1 :], *torn]
    for zombie in data.draw(st.lists(st.sampled_from(records[1:]), max_size=3)):
        low = behind.index(zombie) + 1 if zombie in behind else 0  # it continued what was in the log then
        behind.insert(data.draw(st.integers(low, len(behind))), zombie)
    place = data.draw(st.integers(0, len(behind)))
    log = [*behind[:place], *chunks, *behind[place:]] if data.draw(st.booleans()) else [*chunks, *behind]
    for begin in (log, [*records[: at + 1], *log]):
        replay = Replay(new_state)
        for low in range(0, len(begin), 3):
            replay.take(list(enumerate(begin))[low : low + 3])
        replay.finish()
        assert replay.position == int(rows.offset[-1]) + 1
        assert replay.outputs == [replay.position] * 5
        assert_equal_states(replay.state, states[-1])


@given(streams(), st.lists(st.integers(0, 60), min_size=1, max_size=6), st.data())
@settings(max_examples=30)
def test_a_log_that_lost_its_beginning_or_its_middle_is_refused(rows: Rows, cuts: list[int], data: Any) -> None:
    records, _ = log_of(rows, cuts)
    lost = data.draw(st.integers(1, len(records) - 1))
    holed = records[lost:] if lost > 1 else records[1:]
    if lost == 1:
        first = codec.decode(holed[0])[0]
        assert first.since == 0
    replay = Replay(new_state)
    replay.take(enumerate(holed))
    with pytest.raises(BusError, match="overtaken"):
        replay.finish()


def test_a_reset_voids_what_lies_before_it() -> None:
    rows = Rows(*([np.arange(3, dtype=np.int64)] * 3), np.arange(6, dtype=np.int64).reshape(3, 2), {}, None)  # type: ignore[arg-type]
    replay = Replay(lambda: PartitionState(Clock(0), SeenIds(10), {}))
    replay.take([(0, beginning()), (1, codec.encode(delta_head(0, 3, **codec.shape_of(rows)), codec.pack_rows(rows)))])
    replay.take([(2, codec.encode(Head("reset", -1, 40, 1, 4, -1, 0, (9,) * 5), b""))])
    replay.finish()
    assert (replay.position, replay.base, replay.outputs, len(replay.state.seen)) == (40, 2, [9] * 5, 0)


@pytest.mark.parametrize("record", [b"", b"\x02" + beginning()[1:], b"{}", beginning()[:9]])
def test_a_record_of_another_format_is_refused(record: bytes) -> None:
    with pytest.raises(ConfigError, match=r"format 1|cannot be read"):
        codec.decode(record)


def test_a_snapshot_is_cut_into_chunks_below_the_brokers_limit() -> None:
    state = new_state()
    rng = np.random.default_rng(1)
    n = 120_000
    name = rng.integers(1, 2**62, (n, 2))
    entries = {
        "card": Entries(name, rng.integers(1, 10_000, (n, 1)), np.empty((n, 0), np.int64)),
        "customer": Entries(name[::-1].copy(), np.empty((n, 0), np.int64), rng.integers(1, 2**62, (n, 1))),
    }
    at = np.full(n, 500, np.int64)
    state.apply(Rows(np.arange(n), at, at, rng.integers(1, 2**62, (n, 2)), entries, None))
    chunks = saved(state, n)
    assert len(chunks) > 5
    assert max(map(len, chunks)) < 950_000
    replay = Replay(new_state)
    replay.take(enumerate(chunks[:-1]))
    assert replay.position is None  # torn: as if it were not there
    replay.take([(99, chunks[-1])])
    replay.finish()
    assert replay.position == n
    assert replay.releases[7].name == "r"
    assert_equal_states(replay.state, state)
