"""Training on a history: features are those the line computes, and what is written can serve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from streamapp import pipeline
from streamapp.adapters.models import load_model
from streamapp.config import load_pipeline
from streamapp.control.boost import BoostRecipe
from streamapp.control.history import read_history
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.release import assemble, load_serving
from streamapp.control.train_trees import costs, top_precision, train_trees, without_shared
from streamapp.core.errors import ConfigError, ModelRejected
from streamapp.core.events import Segment
from streamapp.core.labels import LabelRead
from streamapp.core.shared import SharedRead

SPEC = load_pipeline("payments")
SERVING = assemble(SPEC, {}, b"test-key-of-16-b")
MIX = PaymentMix(seed=3, customers=1_000, terminals=2_000, stolen=0.01)
RECIPE = BoostRecipe(trees=20, rows_per_leaf=20)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paid") / "paid.jsonl"
    path.write_bytes(b"".join((record.value or b"") + b"\n" for record in payments(30_000, MIX)))
    return path


def lines_of(file: Path, count: int) -> list[bytes]:
    return file.read_bytes().splitlines()[:count]


def test_the_history_has_the_features_that_decide_sees_however_it_is_cut(file: Path, tmp_path: Path) -> None:
    lines = lines_of(file, 6_000)
    short = tmp_path / "short.jsonl"
    short.write_bytes(b"\n".join(lines))
    history = read_history([short], SERVING, "label", "fraud")
    state, shared, known, found, first = SERVING.state.new(), SERVING.shared.new(), SERVING.labels.new(), [], 0
    for rows in (1, 7, 992, 3_000, 2_000):
        part = lines[first : first + rows]
        offsets = np.arange(first, first + rows, dtype=np.int64)
        events = [orjson.loads(line) for line in part]
        times = np.array([event["event_time"] for event in events], np.int64)
        segment = Segment("t", 0, 1, offsets, times, [event["customer_id"].encode() for event in events], part, [()] * rows)
        plan = pipeline.plan([segment], SERVING)
        read = pipeline.Read(shared=SharedRead(SERVING.shared.asks(plan), shared), labels=LabelRead(known))
        outcome = pipeline.decide(plan, read, [state], SERVING, 0, lambda: 0.0)
        found.append(outcome.features.values.astype(np.float32))
        first += rows
    assert np.array_equal(history.values, np.concatenate(found))
    for name in ("customer_7d_count", "terminal_7d_count", "ip_24h_count"):
        assert history.values[:, history.names.index(name)].max() > 5, "windows fill"
    assert history.positive.sum() == sum(b'"label":"fraud"' in line for line in lines)


def test_copies_and_rejects_move_nothing_and_the_unlabelled_move_windows(file: Path, tmp_path: Path) -> None:
    lines = lines_of(file, 3_000)
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(b"\n".join(lines))
    unlabelled = [line.replace(b'"label":', b'"marked":') if row % 3 == 0 else line for row, line in enumerate(lines)]
    mixed = [one for row, line in enumerate(unlabelled) for one in ([line, line] if row % 7 == 1 else [line])]
    mixed.insert(100, lines[5].replace(b'"amount":', b'"amount":-'))
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"\n".join(mixed))
    one, two = (read_history([path], SERVING, "label", "fraud") for path in (plain, other))
    kept = np.arange(3_000) % 3 != 0
    assert np.array_equal(one.values[kept], two.values)
    assert two.left_out["unlabelled"] >= 1_000 and two.left_out["duplicate"] > 250
    assert [times for reason, times in two.left_out.items() if reason.startswith("rejected")] == [1]


def test_lines_that_are_no_events_change_nothing_and_are_counted(file: Path, tmp_path: Path) -> None:
    lines = lines_of(file, 2_000)
    plain, mixed = tmp_path / "plain.jsonl", tmp_path / "mixed.jsonl"
    plain.write_bytes(b"\n".join(lines))
    timeless = lines[7].replace(b'"event_time":', b'"when":')
    odd = [b"not json", b"[1]", b'"\xff"', timeless, lines[9].replace(b'"event_time":', b'"event_time":99999999999999999999,"when":')]
    mixed.write_bytes(b"\n".join([*odd, *lines[:1_000], *odd, *lines[1_000:]]))
    one, two = (read_history([path], SERVING, "label", "fraud") for path in (plain, mixed))
    assert np.array_equal(one.values, two.values) and two.files[0]["rows"] == 2_010
    left_out = {reason: count for reason, count in two.left_out.items() if reason not in one.left_out}
    assert left_out.pop("rejected: invalid_time", 0) + left_out.pop("rejected: out_of_range", 0) == 2
    assert left_out == {
        "rejected: invalid_json": 2, "rejected: not_an_object": 2, "rejected: invalid_utf8": 2, "without event_time": 2,
    }  # fmt: skip


def test_with_cold_rows_each_event_is_seen_twice_and_only_the_first_forgets_nothing(file: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.jsonl"
    short.write_bytes(b"\n".join(lines_of(file, 12_000)))
    plain = read_history([short], SERVING, "label", "fraud")
    both = read_history([short], SERVING, "label", "fraud", cold_ms=86_400_000)
    by_time = np.argsort(plain.time_ms, kind="stable")
    assert np.array_equal(both.values[~both.cold], plain.values[by_time]) and not plain.cold.any()
    assert np.array_equal(both.positive[both.cold], plain.positive[by_time])
    count = both.names.index("customer_30d_count")
    warm, cold = both.values[~both.cold, count], both.values[both.cold, count]
    assert (cold <= warm).all() and cold[-2_000:].mean() < 0.5 * warm[-2_000:].mean()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not json\n[1]\nnot json\n", "no event in these files; left out: 2 rejected: invalid_json, 1 rejected: not_an_object"),
        (b'{"customer_id":"c","card_id":"k","terminal_id":"t","amount":1,"label":"fraud"}\n', "left out: 1 without event_time"),
        (b'{"customer_id":"c","card_id":"k","terminal_id":"t","amount":1,"label":"fraud","event_time":5}\n', "both classes"),
        (b"\n", "no event in these files"),
    ],
)
def test_data_that_cannot_train_is_refused_with_the_reason(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_history([path], SERVING, "label", "fraud")


def test_a_version_is_written_that_can_serve_and_is_never_overwritten(file: Path, tmp_path: Path) -> None:
    report = train_trees(SPEC, [file], tmp_path, load_model=load_model, recipe=RECIPE, version="7")
    card = report.card
    assert card.parity_max_abs <= 1e-6 and not card.linear and card.framework.startswith("LightGBM")
    assert card.training["split"] == "time" and card.training["cold_rows"]["test"] == card.training["rows"]["test"] // 2
    ends = [card.training["windows_ms"][part] for part in ("train", "validation", "test")]
    assert ends[0][1] < ends[1][0] and ends[1][1] < ends[2][0]
    best = {rung.name: rung.pr_auc or 0.0 for rung in report.ladder}
    assert best["boosted trees"] > best["rules"]
    assert len({example.logits for example in card.smoke}) > 1, "smoke examples take different ways through the trees"
    serving = load_serving(SPEC, tmp_path, b"test-key-of-16-b", load_model, lambda models, name: "7")
    assert serving.tiers[0].model is not None
    told = card.metrics["attribution"]
    assert told["base_difference"] < 1e-9, "paths and SHAP values start from one base"
    assert told["sign_of_top_3"] > 0.8 and told["mean_abs_difference"] < 2 * told["mean_abs"]
    with pytest.raises(ModelRejected, match="immutable"):
        train_trees(SPEC, [file], tmp_path, load_model=load_model, recipe=RECIPE, version="7")
    assert sorted(path.name for path in (tmp_path / "payments").iterdir()) == ["7"]


def test_rows_without_the_shared_store_are_those_decide_sees_when_it_does_not_answer(file: Path) -> None:
    lines = lines_of(file, 2_000)
    events = [orjson.loads(line) for line in lines]
    times = np.array([event["event_time"] for event in events], np.int64)
    keys = [event["customer_id"].encode() for event in events]
    segment = Segment("t", 0, 1, np.arange(2_000), times, keys, lines, [()] * 2_000)
    there, alone = (
        pipeline.decide(plan, read, [SERVING.state.new()], SERVING, 0, lambda: 0.0).features
        for plan in [pipeline.plan([segment], SERVING)]
        for read in (
            pipeline.Read(shared=SharedRead(SERVING.shared.asks(plan), SERVING.shared.new())),
            pipeline.Read(shared=SharedRead(SERVING.shared.asks(plan), SERVING.shared.new(), missing=True)),
        )
    )
    values = there.values.astype(np.float32)
    without_shared(values, there.names, SERVING, np.ones(2_000, np.bool_))
    assert np.array_equal(values, alone.values.astype(np.float32))
    assert not np.array_equal(there.values, alone.values)


def test_the_best_of_each_day_are_judged_by_day() -> None:
    day = np.repeat(np.array([0, 86_400_000, 172_800_000]), (4, 4, 1))
    believed = np.array([0.9, 0.8, 0.1, 0.2, 0.1, 0.9, 0.8, 0.3, 1.0])
    positive = np.array([1, 1, 0, 1, 1, 0, 1, 0, 0], np.bool_)
    assert top_precision(believed, positive, day, 2) == 0.75  # the third day has too few events
    assert top_precision(believed, positive, day, 5) is None


def test_the_cost_cut_is_where_a_block_costs_what_a_miss_costs() -> None:
    found = costs(np.array([0.03, 0.04, 0.5, 0.9]), np.array([True, False, False, True]), BoostRecipe())
    assert found == {"cut": round(5 / 155, 6), "per_1000_events": 40_000.0, "per_1000_events_approving_all": 75_000.0}
