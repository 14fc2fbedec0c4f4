"""The handbook's published terminal risk, from labels as records of their topic, through `plan` and `decide`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streamapp import pipeline
from streamapp.control.release import assemble
from streamapp.core.events import Segment
from streamapp.core.labels import LabelRead
from streamapp.core.spec import parse_spec
from tests.line import ENTITY_KEY
from tests.oracle.test_fraud_handbook import table

DAY_MS = 86_400_000
PARTITIONS = 4
SPEC = parse_spec(
    tomllib.loads(
        """
[pipeline]
name = "handbook"
version = "1"
key = "customer_id"
[event]
key_required = true
[event.fields]
customer_id = { type = "id", required = true }
terminal_id = { type = "id", required = true }
[labels]
positive = ["fraud"]
negative = ["genuine"]
[velocity]
known_1d = { entity = "terminal_id", window = "1d", delay = "7d", fed_by = "labels", aggregates = ["count", "risk"] }
known_7d = { entity = "terminal_id", window = "7d", delay = "7d", fed_by = "labels", aggregates = ["count", "risk"] }
known_30d = { entity = "terminal_id", window = "30d", delay = "7d", fed_by = "labels", aggregates = ["count", "risk"] }
"""
    ),
    "tests",
)
Ints = npt.NDArray[np.int64]


def label_records(whole: Ints, told: Ints, rng: np.random.Generator) -> Segment:
    """Labels in the order in which they are told; each tenth event was first said to be the opposite, one in twenty is told twice."""
    n = len(whole)
    wrong = np.flatnonzero(rng.random(n) < 0.1)
    twice = np.flatnonzero(rng.random(n) < 0.05)
    rows = np.concatenate([np.arange(n), wrong, twice])
    when = np.concatenate([told, told[wrong] - 1000, told[twice]])
    word = np.concatenate([whole[:, 4], 1 - whole[wrong, 4], whole[twice, 4]])
    order = np.argsort(when, kind="stable")
    values: list[bytes | None] = [
        json.dumps(
            {"event_id": str(i), "event_time": t * 1000, "label": "fraud" if f else "genuine", "terminal_id": str(k), "labelled_at": at}
        ).encode()
        for i, t, k, f, at in zip(*whole[rows][order][:, [0, 1, 3]].T.tolist(), word[order].tolist(), when[order].tolist(), strict=True)
    ]
    m = len(values)
    return Segment("l", 0, 0, np.arange(m, dtype=np.int64), when[order], [None] * m, values, [()] * m)


def test_published_risk_from_the_labels_topic(shared_data: Path) -> None:
    """7 to 14 April: counts equal in every cell, risks within 1e-6; labels come between one and seven days after their events."""
    folder = shared_data / "fraud_handbook"
    if not folder.is_dir():
        pytest.skip("shared data is absent: fraud_handbook")
    published = table(folder / "oracle_windows_2018-04-01_2018-04-14.csv.gz", range(13))
    raw = table(folder / "transactions_2018-04-01_2018-07-31.csv.gz", range(6))
    raw = raw[: int(np.flatnonzero(raw[:, 0] == published[:, 0].max())[0]) + 1]
    whole = raw[:, [0, 1, 2, 3, 5]].astype(np.int64)
    n, time, rng = len(whole), whole[:, 1] * 1000, np.random.default_rng(3)
    serving = assemble(SPEC, {}, ENTITY_KEY)
    told = time + rng.integers(DAY_MS, 7 * DAY_MS + 1, n)
    labels = serving.labels.decode([label_records(whole, told, rng)])
    assert not labels.rejects
    known, states = serving.labels.new(), [serving.state.new() for _ in range(PARTITIONS)]
    keys = [str(customer).encode() for customer in whole[:, 2].tolist()]
    values: list[bytes | None] = [
        json.dumps({"event_id": str(i), "event_time": t * 1000, "customer_id": str(c), "terminal_id": str(k)}).encode()
        for i, t, c, k, _ in whole.tolist()
    ]
    partition = whole[:, 2] % PARTITIONS
    found = np.full((n, 6), np.nan)
    low, taken = 0, 0
    while low < n:
        # A batch ends where a label comes later than its event's windows may wait for it: never here, as none is late.
        high = min(n, low + int(rng.integers(1, 4000)))
        here = int(np.searchsorted(labels.said[:, 1], time[high - 1], side="right"))
        known.take(labels.where(np.arange(taken, here)))
        taken = here
        chosen = [np.arange(low, high)[partition[low:high] == one] for one in range(PARTITIONS)]
        segments = [
            Segment("e", one, 0, rows, time[rows], [keys[row] for row in rows], [values[row] for row in rows], [()] * len(rows))
            for one, rows in enumerate(chosen)
        ]
        plan = pipeline.plan(segments, serving)
        assert not plan.rejects
        outcome = pipeline.decide(plan, pipeline.Read(labels=LabelRead(known)), states, serving, 0, lambda: 0.0)
        found[np.concatenate(chosen)] = outcome.features.values[:, :6]
        low = high
    row = np.searchsorted(whole[:, 0], published[:, 0])
    assert len(row) > 130_000 and known.repeated > 4_000
    np.testing.assert_array_equal(found[row][:, 0::2], published[:, 7:13:2])
    np.testing.assert_allclose(found[row][:, 1::2], published[:, 8:13:2], rtol=0, atol=1e-6)
    assert (published[:, 8:13:2] > 0).sum() > 500
