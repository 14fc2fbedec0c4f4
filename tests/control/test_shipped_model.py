"""The model that comes with the program: it must serve the pipeline file beside it, on this machine, now."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamapp.adapters.models import OnnxModel, latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.release import assemble, inputs_of
from streamapp.core.calibrate import probability
from streamapp.core.route import APPROVE, BLOCK, route_by_thresholds
from streamapp.pipeline import Serving

MODELS = Path(__file__).parents[2] / "models"
FRIENDLY = (
    "Are you coming to dinner tonight? Mum made soup.",
    "Sorry, I am late, the bus did not stop. Start without me",
    "Thanks for the lift yesterday, it saved my day :)",
    "Did you finish the second chapter? We could talk about it on Monday.",
    "ok see you then",
)
UNWANTED = (
    "WINNER! You have been selected for a £500 cash prize. Call 09061234567 now to claim. Cost 150p/min",
    "FREE ringtone! Text TONE to 85555 to claim your free weekly ringtone, 16+ only, txt STOP to end",
    "URGENT! Your mobile number has won a £2000 bonus prize. To claim call 09050001234 from a landline",
)


@pytest.fixture(scope="module")
def serving() -> Serving:
    return assemble(load_pipeline("messages"), {}, b"test")


@pytest.fixture(scope="module")
def model(serving: Serving) -> OnnxModel:
    return load_model(
        MODELS / "messages" / latest_version(MODELS, "messages"),
        feature_spec=serving.features.hash,
        vectorise=lambda card, events: inputs_of(serving, card, events),
    )


def routes(texts: tuple[str, ...], model: OnnxModel, serving: Serving) -> list[int]:
    events: list[dict[str, Any]] = [{"user_id": "u", "text": text} for text in texts]
    margins = model.logits(inputs_of(serving, model.card, events))
    believed = probability(margins, "binary", model.calibration)[:, 0]
    return route_by_thresholds(believed, model.card.approve.value, model.card.block.value).tolist()


def test_it_passes_its_own_smoke_test_under_the_features_of_today(model: OnnxModel) -> None:
    assert len(model.card.smoke) >= 5
    assert model.card.parity_max_abs <= 1e-6


def test_it_is_small_and_its_promises_were_reachable(model: OnnxModel) -> None:
    files = list((MODELS / "messages" / model.card.version).iterdir())
    assert sum(path.stat().st_size for path in files) < 1_000_000
    block, approve = model.card.block, model.card.approve
    assert block.value is not None and approve.value is not None and approve.value <= block.value
    assert block.observed is not None and block.observed >= 0.95
    assert model.card.metrics["test"]["pr_auc"] >= 0.98


def test_friends_pass_and_prizes_do_not(model: OnnxModel, serving: Serving) -> None:
    assert routes(FRIENDLY, model, serving) == [APPROVE] * len(FRIENDLY)
    assert routes(UNWANTED, model, serving) == [BLOCK] * len(UNWANTED)


def test_hiding_the_words_does_not_help(model: OnnxModel, serving: Serving) -> None:
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in UNWANTED[1])
    hidden = "\u200b".join(UNWANTED[2])
    cyrillic = UNWANTED[0].translate(str.maketrans("aeocpACEOPT", "аеосрАСЕОРТ"))
    assert APPROVE not in routes((wide, hidden, cyrillic), model, serving)


def test_an_account_the_training_data_never_saw_changes_nothing(model: OnnxModel, serving: Serving) -> None:
    """The texts it was trained on had no profiles: whatever the store says of an account must not move the margin."""
    scaler = model.card.scaler
    for name in ("account_age_days", "follower_count", "messages_sent_7d"):
        place = scaler.names.index(name)
        assert scaler.low[place] == scaler.high[place]
    assert np.isfinite(model.logits(inputs_of(serving, model.card, [{"user_id": "u", "text": "x" * 10_000}]))).all()
