"""Laws of partials: batch cuts change nothing, partitions do not see one another, merging is a commutative sum."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.card import Reference
from streamapp.core.errors import RejectCode
from streamapp.core.observe import Rejected, WindowedObservations
from streamapp.core.partials import Layout, Observations

REFERENCES = {
    "a": Reference(edges=(-1.0, 0.0, 1.0), counts=(1, 2, 3, 4), n=10, mean=0.3, std=1.7),
    "score": Reference(edges=(0.3, 0.6), counts=(5, 3, 2), n=10, mean=0.4, std=0.2),
}
LAYOUT = Layout.of(("a", "b"), ("rule", "fast", "default"), REFERENCES)
CODES = list(RejectCode)

# One record: partition, event time, value, probability, or a reject.
record = st.tuples(st.integers(0, 2), st.integers(0, 3000), st.floats(), st.floats(0, 1), st.booleans(), st.integers(0, 3))
streams = st.lists(record, max_size=60)
cuts = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def observe(records: list[tuple], sizes: list[int], part_n: int = 7) -> list[Observations]:
    """Runs a stream through, cut into batches of these sizes (cycled); offsets are given before the cut."""
    windows = WindowedObservations(LAYOUT, window_ms=500, part_n=part_n, grace_ms=70)
    closed: list[Observations] = []
    numbered, at, turn = list(enumerate(records)), 0, 0
    while at < len(numbered):
        batch = numbered[at : at + sizes[turn % len(sizes)]]
        at, turn = at + len(batch), turn + 1
        good = [(offset, r) for offset, r in batch if not (r[4] and r[5] == 0)]
        bad, seen = [], 0
        for offset, r in batch:
            if r[4] and r[5] == 0:
                bad.append((seen, r[0], r[1], CODES[offset % len(CODES)]))
            else:
                seen += 1
        n = len(good)
        value = np.array([r[2] for _, r in good], np.float64)
        p = np.array([r[3] for _, r in good], np.float64)
        closed += windows.add(
            partition=np.array([r[0] for _, r in good], np.int64), offset=np.array([o for o, _ in good], np.int64),
            event_time=np.array([r[1] for _, r in good], np.int64), values=np.column_stack([value, p]), score=p, probability=p,
            route=np.array([r[5] % 3 for _, r in good], np.int8), decided_by=np.zeros(n, np.int8),
            flags=np.array([r[5] for _, r in good], np.int32), missing=np.array([np.isnan(value).sum(), 0]), clipped=np.zeros(2, np.int64),
            rejected=Rejected.of(*(list(c) for c in zip(*bad, strict=True))) if bad else Rejected.of((), (), (), ()),
        )  # fmt: skip
    return closed + windows.flush()


def exact(partial: Observations) -> tuple:
    """All that must not depend on cuts: what is counted per batch stays out."""
    totals = partial.totals.copy()
    for group in ("missing", "clipped"):
        totals[LAYOUT.place[group]] = 0
    return (
        partial.partition, partial.start_ms, partial.end_ms, partial.final, partial.first_offset, partial.last_offset, partial.first_time,
        partial.last_time, totals.tolist(),
    )  # fmt: skip


def merged(partials: list[Observations]) -> Observations:
    total = partials[0]
    for partial in partials[1:]:
        total += partial
    return total


@settings(max_examples=60, deadline=None)
@given(streams, cuts)
def test_batch_cuts_change_nothing(records: list[tuple], sizes: list[int]) -> None:
    cut, whole = observe(records, sizes), observe(records, [len(records) or 1])
    for partition in range(3):
        assert [exact(c) for c in cut if c.partition == partition] == [exact(c) for c in whole if c.partition == partition]
    if whole:
        assert merged(cut).totals.tolist() == merged(whole).totals.tolist()


@settings(max_examples=40, deadline=None)
@given(streams, cuts)
def test_partitions_do_not_see_one_another(records: list[tuple], sizes: list[int]) -> None:
    together = observe(records, sizes)
    for partition in range(3):
        # The others' records keep their offsets: they are taken out, not renumbered.
        alone = [r for r in records if r[0] == partition]
        offsets = [i for i, r in enumerate(records) if r[0] == partition]
        mine = [c for c in together if c.partition == partition]
        assert sum(c.n for c in mine) == sum(not (r[4] and r[5] == 0) for r in alone)
        assert [c.totals[LAYOUT.place["route"]].tolist() for c in observe(alone, [5]) if c.partition == partition] == [
            c.totals[LAYOUT.place["route"]].tolist() for c in mine
        ]
        assert all(c.last_offset in offsets or c.last_offset == -1 for c in mine)


@settings(max_examples=40, deadline=None)
@given(streams, st.randoms(use_true_random=False))
def test_merging_is_a_commutative_sum(records: list[tuple], random: object) -> None:
    partials = observe(records, [9], part_n=3)
    if not partials:
        return
    shuffled = partials.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    half = len(shuffled) // 2
    by_halves = merged(shuffled[half:]) + merged(shuffled[:half]) if half else merged(shuffled)
    one, other = merged(partials), by_halves
    assert exact(one) == exact(other) and one.totals.tolist() == other.totals.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_moments_are_those_of_the_values(values: list[float]) -> None:
    partials = observe([(0, 10, v, 0.5, False, 0) for v in values], [4])
    mean, std, n = merged(partials).moments("a")
    assert n == len(values)
    np.testing.assert_allclose([mean, std**2], [np.mean(values), np.var(values)], atol=3e-5)
