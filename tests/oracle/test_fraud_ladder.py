"""The ladder of the handbook's transactions in small: sixteen days, its published cells, and that each rung is worth its features."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from streamapp.control.boost import BoostRecipe
from streamapp.control.evaluate import pr_auc

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    place = importlib.util.spec_from_file_location("fraud_ladder", ROOT / "bench" / "fraud_ladder.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    monkeypatch.setitem(sys.modules, place.name, module)  # dataclasses look their module up
    place.loader.exec_module(module)
    return module


def test_sixteen_days_of_the_ladder(ladder: ModuleType, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared_data / ladder.FOLDER
    if not folder.is_dir():
        pytest.skip("shared data is absent: fraud_handbook")
    history, ids = ladder.history_of(shared_data, 16 * ladder.DAY_S)
    cells, differ, apart = ladder.compared(history, ids, [folder / ladder.PUBLISHED[0]])
    assert cells > 1_500_000 and differ == 0 and apart < 1e-4
    for name, day in (("TRAIN", 8), ("CALIBRATE", 13), ("CALIBRATED", 14), ("TEST", 14), ("END", 16)):
        monkeypatch.setattr(ladder, name, day)
    days = history.time_ms / 86_400_000
    truth = history.positive[(days >= 14) & (days < 16)]
    found = []
    for features in ladder.LADDER.values():
        boosted, believed = ladder.fitted(history, features, BoostRecipe(trees=30), days)
        assert boosted.scaler.names == features
        found.append(pr_auc(believed, truth))
    assert np.all(np.diff(found) > 0.05), found
