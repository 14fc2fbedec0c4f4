"""The payments model that is shipped: it loads under today's features, is small, and finds what it was made to find in another world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from streamapp.adapters.models import latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.evaluate import pr_auc
from streamapp.control.history import read_history
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.payments_labels import payment_labels
from streamapp.control.release import load_serving
from streamapp.core.calibrate import probability
from streamapp.core.vectorise import Inputs, scale
from streamapp.pipeline import Serving

MODELS = Path(__file__).resolve().parents[2] / "models"
EVENTS, WARM = 45_000, 30_000


@pytest.fixture(scope="module")
def serving() -> Serving:
    return load_serving(load_pipeline("payments"), MODELS, b"test-key-of-16-b", load_model, latest_version)


def test_it_loads_and_its_file_is_lightgbms_trees(serving: Serving) -> None:
    model = serving.tiers[0].model
    assert model is not None, "the smoke test passed under the features of today"
    card = model.card
    assert card.parity_max_abs <= 1e-6 and len(card.smoke) >= 5 and not card.linear
    assert card.scaler.names == tuple(serving.spec.vector.numeric)
    assert card.hyper_parameters["trees"] == 100 and card.hyper_parameters["depth"] == 5 and card.hyper_parameters["rate"] == 0.1


def test_it_is_small_and_keeps_its_promise_on_weeks_it_has_not_seen(serving: Serving) -> None:
    card = serving.tiers[0].model.card
    assert sum(path.stat().st_size for path in (MODELS / "payments" / card.version).iterdir()) < 500_000
    assert card.block.value is not None and card.block.observed is not None and card.block.observed >= 0.95
    assert card.approve.value is not None and card.approve.value <= card.block.value
    test = card.metrics["test"]
    assert test["positives"] > 500 and test["block_precision"] > 0.9 and test["pr_auc"] > 0.8 and test["caught_recall"] > 0.8
    for hardship in ("test_cold", "test_alone"):  # a worker that has just begun; a store of shared windows that does not answer
        assert card.metrics[hardship]["block_precision"] > 0.9, hardship
    assert all(rung["worth_it"] for rung in card.metrics["ladder"])


def test_it_finds_all_three_kinds_of_fraud_in_another_world(serving: Serving, tmp_path: Path) -> None:
    """Compromised terminals leave no trace but labels that come later: from then on they are found, before that nothing can know them."""
    path, told = tmp_path / "paid.jsonl", tmp_path / "told.jsonl"
    mix = PaymentMix(seed=99, customers=1_000, terminals=2_000, stolen=0.002, compromised=0.0005)
    path.write_bytes(b"".join((record.value or b"") + b"\n" for record in payments(EVENTS, mix)))
    told.write_bytes(b"".join((one.label.value or b"") + b"\n" for one in payment_labels(EVENTS, mix)))
    scenario = np.array([orjson.loads(line)["scenario"] for line in path.read_bytes().splitlines()])
    history = read_history([path], serving, "label", "fraud", told_files=[told])
    model = serving.tiers[0].model
    values = history.of(model.card.scaler.names).astype(np.float64)
    margins = model.logits(Inputs(scale(values, model.card.scaler), None))
    everyone = probability(margins, "binary", model.calibration)[:, 0]
    first = everyone[:WARM] >= model.card.block.value
    assert first.sum() > 20 and history.positive[:WARM][first].mean() > 0.8, "of its first days, from an empty state"
    believed, truth, kind = everyone[WARM:], history.positive[WARM:], scenario[WARM:]
    known = history.of(["terminal_known_30d_positives"])[WARM:, 0] > 0
    telling = (kind != "compromised_terminal") | known
    area = pr_auc(believed[telling], truth[telling])
    assert area is not None and area > 0.8
    assert np.median(believed[kind == "large_amount"]) > 0.9
    assert np.median(believed[kind == "stolen_card"]) > 0.5
    compromised = kind == "compromised_terminal"
    assert (compromised & known).sum() > 30 and np.median(believed[compromised & known]) > 0.5
    assert np.median(believed[compromised & ~known]) < 0.05
