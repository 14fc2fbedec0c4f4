"""The published windows of the Fraud Detection Handbook, recomputed by the engine from the raw transactions, cell by cell."""

from __future__ import annotations

import gzip
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streamapp.core.dedupe import DECISION, SeenIds
from streamapp.core.windows import QUERY, WRITE, Aggregate, StorePlan, Window, WindowStore, units
from streamapp.core.windows_clock import Clock
from streamapp.core.windows_index import hash_names
from streamapp.core.windows_partition import Entries, PartitionState, Rows

Array = npt.NDArray[np.float64]
DAY_MS = 86_400_000
SPANS = (DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
RELEASE = 7 * DAY_MS  # a label is known a week after its transaction
AGGREGATES = tuple(Aggregate(kind, window) for window in range(3) for kind in ("count", "mean"))
CUSTOMER = StorePlan(tuple(Window(span) for span in SPANS), AGGREGATES, decimals=(2,))
TERMINAL = StorePlan(tuple(Window(span, delay_ms=RELEASE) for span in SPANS), AGGREGATES, decimals=(0,))
LABELS = StorePlan(TERMINAL.windows, AGGREGATES, decimals=(0,), grace_ms=RELEASE)


@dataclass
class Handbook:
    """Transactions up to 7 July in order of time, and the published answers with their row among them."""

    transaction: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    customer: npt.NDArray[np.int64]
    terminal: npt.NDArray[np.int64]
    amount: npt.NDArray[np.int64]
    fraud: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    answer_customer: Array
    answer_terminal: Array
    alone: npt.NDArray[np.bool_]  # answers whose customer has no second transaction in the same second


def table(path: Path, columns: range) -> Array:
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, delimiter=",", skiprows=1, usecols=columns, dtype=np.float64)


@pytest.fixture(scope="module")
def handbook(shared_data: Path) -> Handbook:
    folder = shared_data / "fraud_handbook"
    if not folder.is_dir():
        pytest.skip("shared data is absent: fraud_handbook")
    raw = table(folder / "transactions_2018-04-01_2018-07-31.csv.gz", range(6))
    answers = np.concatenate(
        [table(folder / f"oracle_windows_{span}.csv.gz", range(13)) for span in ("2018-04-01_2018-04-14", "2018-07-01_2018-07-07")]
    )
    raw = raw[: int(np.flatnonzero(raw[:, 0] == answers[:, 0].max())[0]) + 1]
    whole = raw[:, :4].astype(np.int64)
    assert np.all(np.diff(whole[:, 1]) >= 0)
    row = np.searchsorted(whole[:, 0], answers[:, 0])
    assert np.array_equal(whole[row, 0], answers[:, 0])
    _, which, times = np.unique(whole[:, 2] * (1 << 32) + whole[:, 1], return_inverse=True, return_counts=True)
    return Handbook(
        whole[:, 0], whole[:, 1] * 1000, whole[:, 2], whole[:, 3], units(raw[:, 4], 2), raw[:, 5].astype(np.int64), row,
        answers[:, 1:7], answers[:, 7:13], times[which[row]] == 1,
    )  # fmt: skip


def names(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    unique, which = np.unique(numbers, return_inverse=True)
    return hash_names([str(number) for number in unique])[which]


def no_keys(n: int) -> npt.NDArray[np.int64]:
    return np.empty((n, 0), np.int64)


def rows_of(book: Handbook) -> Rows:
    n = len(book.time)
    decision = np.zeros(n, DECISION)
    decision["offset"] = np.arange(n)
    return Rows(
        np.arange(n), book.time, book.time, names(book.transaction),
        {
            "customer": Entries(names(book.customer), book.amount[:, None], no_keys(n)),
            "terminal": Entries(names(book.terminal), book.fraud[:, None], no_keys(n)),
        },
        decision,
    )  # fmt: skip


def between(rows: Rows, begin: int, end: int) -> Rows:
    part = slice(begin, end)
    entries = {name: Entries(e.name[part], e.value[part], e.key[part]) for name, e in rows.entries.items()}
    assert rows.decision is not None
    return Rows(rows.offset[part], rows.event_time[part], rows.broker_time[part], rows.event_id[part], entries, rows.decision[part])


def fresh() -> PartitionState:
    return PartitionState(Clock(60_000), SeenIds(DAY_MS), {"customer": WindowStore(CUSTOMER), "terminal": WindowStore(TERMINAL)})


def assert_published(book: Handbook, customer: Array, terminal: Array) -> None:
    """Counts equal in every cell, means and risks within 1e-6; only customers with two transactions in one second are left out."""
    assert (~book.alone).sum() < 20 and len(book.row) == 201_805
    mine, published = customer[book.row][book.alone], book.answer_customer[book.alone]
    np.testing.assert_array_equal(mine[:, 0::2], published[:, 0::2])
    np.testing.assert_allclose(mine[:, 1::2], published[:, 1::2], rtol=0, atol=1e-6)
    mine, published = np.nan_to_num(terminal[book.row]), book.answer_terminal  # nothing to go by: the handbook says 0
    np.testing.assert_array_equal(mine[:, 0::2], published[:, 0::2])
    np.testing.assert_allclose(mine[:, 1::2], published[:, 1::2], rtol=0, atol=1e-6)


def test_published_windows_in_one_piece(handbook: Handbook) -> None:
    moved = fresh().advance(rows_of(handbook))
    assert_published(handbook, moved.answers["customer"].value, moved.answers["terminal"].value)
    assert not np.any(moved.admission.duplicate)


@pytest.mark.parametrize("seed", [1, 2])
def test_published_windows_with_random_cuts_and_a_crash(handbook: Handbook, seed: int) -> None:
    """A worker dies twice: the next one takes the snapshot, replays the deltas after it (some of them twice), and goes on."""
    rng = np.random.default_rng(seed)
    rows, state = rows_of(handbook), fresh()
    n = len(rows.offset)
    sizes = np.where(rng.random(3 * n // 1000) < 0.3, 1, rng.integers(1, 2500, 3 * n // 1000))
    edges = np.unique(np.concatenate([[0, n], np.cumsum(sizes)[np.cumsum(sizes) < n]]))
    parts = [between(rows, int(a), int(b)) for a, b in itertools.pairwise(edges)]
    crashes = set(rng.integers(len(parts) // 10, len(parts), 2).tolist())
    customer, terminal = np.empty((n, 6)), np.empty((n, 6))
    saved, since = state.snapshot(), 0
    for number, part in enumerate(parts):
        if number in crashes:
            state = fresh()
            state.restore(saved)
            for delta in parts[max(0, since - 3) : number]:
                state.apply(delta)
        elif rng.random() < 0.01:
            saved, since = state.snapshot(), number
        moved = state.advance(part)
        assert part.decision is not None
        state.settle(moved.admission, part.decision)
        customer[part.offset], terminal[part.offset] = moved.answers["customer"].value, moved.answers["terminal"].value
    assert_published(handbook, customer, terminal)


def test_published_risk_from_labels_that_come_a_week_later(handbook: Handbook) -> None:
    """Transactions only ask; the truth is written by a label stream, as of the transaction's time, just before a week has passed."""
    n = len(handbook.time)
    who, time = names(handbook.terminal), handbook.time
    order = np.argsort(np.concatenate([time + RELEASE, time]), kind="stable")  # at equal times the label comes first
    mode = np.repeat(np.array([WRITE, QUERY], np.int8), n)[order]
    high = np.concatenate([time + RELEASE, time])[order]
    answers = WindowStore(LABELS).advance(
        np.concatenate([who, who])[order],
        np.concatenate([time, time])[order],
        high,
        np.concatenate([handbook.fraud, np.zeros(n, np.int64)])[order][:, None],
        no_keys(2 * n),
        mode,
    )
    asked = mode == QUERY
    terminal = np.empty((n, 6))
    terminal[np.concatenate([np.arange(n), np.arange(n)])[order][asked]] = answers.value[asked]
    published = handbook.answer_terminal
    np.testing.assert_array_equal(terminal[handbook.row][:, 0::2], published[:, 0::2])
    np.testing.assert_allclose(np.nan_to_num(terminal[handbook.row][:, 1::2]), published[:, 1::2], rtol=0, atol=1e-6)
