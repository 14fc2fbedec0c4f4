"""Training knows a label from when it was told on, and generated labels are told as their mix says."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pytest

from streamapp.control.history import History, read_history
from streamapp.control.payments import DAY_MS, PaymentMix, payments
from streamapp.control.payments_labels import LabelMix, Told, payment_labels
from streamapp.core.errors import ConfigError
from tests.label_line import SERVING, label
from tests.line import serving_of

N, TERMINALS = 600, 2
WEEK_MS = 7 * DAY_MS


def write(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def material() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times, terminals, truths, and when each was told: a third of them after their windows have begun to look."""
    rng = np.random.default_rng(5)
    time = np.sort(rng.integers(0, 40 * DAY_MS, N))
    delay = np.where(rng.random(N) < 0.3, rng.uniform(7, 12, N), rng.uniform(0, 7, N))
    return time, rng.integers(0, TERMINALS, N), rng.random(N) < 0.3, time + (delay * DAY_MS).astype(np.int64)


def history(tmp_path: Path, material: tuple[np.ndarray, ...], *, told: bool) -> History:
    time, terminal, truth, when = material
    words = ["fraud" if positive else "genuine" for positive in truth]
    events = [
        {"event_id": f"e{row}", "event_time": int(time[row]), "customer_id": "c", "terminal_id": f"t{terminal[row]}", "label": words[row]}
        for row in range(N)
    ]
    labels = [label(f"e{row}", int(time[row]), words[row], f"t{terminal[row]}", labelled_at=int(when[row])) for row in range(N)]
    file = write(tmp_path / "events.jsonl", events)
    rng = np.random.default_rng(6)
    known = [write(tmp_path / "told.jsonl", [labels[row] for row in rng.permutation(N).tolist()])] if told else []
    return read_history([file], SERVING, "label", "fraud", told_files=known)


@pytest.mark.parametrize("told", [True, False])
def test_windows_hold_what_was_told_when_each_event_came(tmp_path: Path, material: tuple[np.ndarray, ...], told: bool) -> None:
    time, terminal, truth, when = material
    found = history(tmp_path, material, told=told)
    counts, risks = found.of(["known_7d_count"])[:, 0], found.of(["known_7d_risk"])[:, 0]
    for row in range(N):
        held = (terminal == terminal[row]) & (time > time[row] - 2 * WEEK_MS) & (time <= time[row] - WEEK_MS)
        if told:
            held &= when <= time[row]
        assert counts[row] == held.sum(), row
        assert risks[row] == pytest.approx(truth[held].mean() if held.any() else 0.0, abs=1e-6)
    assert counts.max() > 20 and (not told or found.files[-1]["labels"])


def test_a_label_without_its_time_and_labels_without_windows_are_refused(tmp_path: Path) -> None:
    events = write(tmp_path / "events.jsonl", [{"event_id": "e", "event_time": 5, "customer_id": "c", "label": "fraud"}])
    bare = write(tmp_path / "bare.jsonl", [label("e", 5, "fraud")])
    with pytest.raises(ConfigError, match="labelled_at"):
        read_history([events], SERVING, "label", "fraud", told_files=[bare])
    with pytest.raises(ConfigError, match="no window that labels move"):
        read_history([events], serving_of(), "label", "fraud", told_files=[bare])


def test_what_is_no_label_is_counted_and_left_out(tmp_path: Path, material: tuple[np.ndarray, ...]) -> None:
    history(tmp_path, material, told=True)
    with (tmp_path / "told.jsonl").open("a") as file:
        file.write(json.dumps(label("e1", 5, "guilty", labelled_at=6)) + "\n")
    found = read_history([tmp_path / "events.jsonl"], SERVING, "label", "fraud", told_files=[tmp_path / "told.jsonl"])
    assert found.left_out["label rejected: pattern_mismatch"] == 1


MIX = PaymentMix(seed=11, customers=2_000, terminals=4_000)
COUNT = 20_000


@pytest.fixture(scope="module")
def labels() -> list[Told]:
    return list(payment_labels(COUNT, MIX))


def test_generated_labels_come_in_order_and_one_seed_is_one_stream(labels: list[Told]) -> None:
    assert list(payment_labels(COUNT, MIX)) == labels
    assert all(earlier.told_ms <= later.told_ms for earlier, later in pairwise(labels))


def test_generated_labels_are_about_the_payments_and_mostly_come_in_time(labels: list[Told]) -> None:
    events = {event["event_id"]: event for event in map(orjson.loads, (one.value or b"" for one in payments(COUNT, MIX)))}
    last: dict[str, str] = {}
    late = corrected = 0
    for one in labels:
        word = orjson.loads(one.label.value or b"")
        event = events[word["event_id"]]
        assert (word["event_time"], word["terminal_id"], word["labelled_at"]) == (event["event_time"], event["terminal_id"], one.told_ms)
        assert word["labelled_at"] >= word["event_time"] and one.label.key == event["customer_id"].encode()
        corrected += word["event_id"] in last
        late += word["labelled_at"] > word["event_time"] + WEEK_MS
        last[word["event_id"]] = word["label"]
    assert all(word == events[event_id]["label"] for event_id, word in last.items()), "the last word is the truth"
    share = LabelMix()
    assert len(last) / COUNT == pytest.approx(1 - share.never, abs=0.005)
    assert corrected / COUNT == pytest.approx(share.wrong_first, abs=0.002)
    assert 0.002 < late / COUNT < share.late
