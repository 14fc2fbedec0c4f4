"""Where in the day and the week an event lies, in UTC, by its own time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamapp.core.features.catalogue import FeatureDef

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
#: 1970-01-01 was a Thursday; Saturday and Sunday are days 5 and 6 of a week that begins on Monday.
_EPOCH_WEEKDAY = 3


def _feature(name: str, description: str, high: float) -> FeatureDef:
    return FeatureDef(name=name, version=1, description=description, created_at="2026-11-21", tags=("calendar",), low=0.0, high=high)


FEATURES: tuple[FeatureDef, ...] = (
    _feature("hour", "Hour of the day, UTC, with its fraction", 24.0),
    _feature("is_night", "1 from 0:00 to 6:59 UTC, else 0", 1.0),
    _feature("is_weekend", "1 on Saturday and Sunday, UTC, else 0", 1.0),
)


def compute(event_time: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Takes epoch ms [n]; gives [3, n] in the order of FEATURES. No clock: the same event gives the same values at any time."""
    hour = (event_time % DAY_MS) / HOUR_MS
    weekday = (event_time // DAY_MS + _EPOCH_WEEKDAY) % 7
    return np.array([hour, hour < 7, weekday >= 5], np.float64)
