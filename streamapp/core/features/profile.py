"""What is known about the writer before the event, from the profile store; what is not known is counted and marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.core.features.catalogue import FeatureDef


def _defined(name: str, description: str, default: float, high: float) -> FeatureDef:
    return FeatureDef(
        name=name, version=1, description=description, created_at="2026-11-21", tags=("profile",), default=default, low=0.0, high=high
    )


def indicator(name: str) -> FeatureDef:
    """Gives the definition of the column that says where `name` was missing."""
    return _defined(f"{name}_missing", f"1 where the profile does not know `{name}`, else 0", 1.0, 1.0)


_KNOWN: tuple[FeatureDef, ...] = (
    _defined("account_age_days", "age of the account at the time of the event, in days", 30.0, 3650.0),
    _defined("follower_count", "followers of the user", 0.0, 1e6),
    _defined("messages_sent_7d", "messages of the user in the seven days before the event", 0.0, 1e4),
)

FEATURES: tuple[FeatureDef, ...] = (*_KNOWN, *(indicator(definition.name) for definition in _KNOWN))


def _number(value: Any) -> float:
    """Gives a finite float, or NaN for everything else (texts that are numbers count: stores keep strings)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | bytes):
        return np.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return np.nan
    return number if np.isfinite(number) else np.nan


def compute(
    names: Iterable[str], keys: Sequence[str], profiles: Mapping[str, Mapping[str, Any]], n: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Takes the names to read, the entity key of each of n rows and the profiles that were found.

    Gives float64[n] per name, NaN where it is not known (absent, null, not a finite number). Raises ValueError where rows and keys differ.
    Cost: nothing per row while `profiles` is empty; one profile is read once per batch however often it occurs.
    """
    if not profiles:
        return {name: np.full(n, np.nan) for name in names}
    if len(keys) != n:
        raise ValueError(f"{len(keys)} keys for {n} rows")
    slot: dict[str, int] = {}
    row_slot = np.fromiter((slot.setdefault(key, len(slot)) for key in keys), np.int64, n)
    nothing: Mapping[str, Any] = {}
    found = [profiles.get(key, nothing) for key in slot]
    return {name: np.array([_number(profile.get(name)) for profile in found], np.float64)[row_slot] for name in names}
