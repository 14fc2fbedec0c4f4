"""What is known about the writer before the event, from the profile store; what is not known is counted and marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from streamapp.core.features.catalogue import FeatureDef

Float64 = npt.NDArray[np.float64]
DAY_MS = 86_400_000

#: The feature that is computed against the event's time, and what the store keeps for it.
AGE, CREATED = "account_age_days", "account_created_ms"
#: The feature that batch scoring leaves behind; it has a place of its own in the store, because it expires by itself.
BATCH_RISK = "batch_risk"


def _defined(name: str, description: str, default: float, high: float, version: int = 1) -> FeatureDef:
    return FeatureDef(
        name=name, version=version, description=description, created_at="2026-11-21", tags=("profile",), default=default, low=0.0, high=high
    )


def indicator(name: str) -> FeatureDef:
    """Gives the definition of the column that says where `name` was missing."""
    return _defined(f"{name}_missing", f"1 where the profile does not know `{name}`, else 0", 1.0, 1.0)


_KNOWN: tuple[FeatureDef, ...] = (
    _defined(AGE, "age of the account at the time of the event, in whole days", 30.0, 3650.0, version=2),
    _defined("is_verified", "1 where the user is verified, else 0", 0.0, 1.0),
    _defined("follower_count", "followers of the user", 0.0, 1e6),
    _defined("messages_sent_7d", "messages of the user in the seven days before the event", 0.0, 1e4),
    _defined("spam_reports_received", "times others reported the user for spam", 0.0, 1e4),
    _defined("avg_message_length", "mean length of the user's messages, in characters", 0.0, 1e4),
    _defined("reply_rate", "share of the user's messages that were answered", 0.0, 1.0),
    _defined("block_rate", "times others blocked the user, per message sent: blocks / max(sent, 1)", 0.0, 1.0),
    _defined(BATCH_RISK, "score of the user's worst message in the last batch scoring, where it was above the cut", 0.0, 1.0),
)

FEATURES: tuple[FeatureDef, ...] = (*_KNOWN, *(indicator(definition.name) for definition in _KNOWN))
#: The eight user features in their fixed order (FE4): the order in which they are stored.
USER_FEATURES: tuple[str, ...] = tuple(definition.name for definition in _KNOWN if definition.name != BATCH_RISK)


def compute(names: Iterable[str], columns: Sequence[str], stored: Float64 | None, event_time: npt.NDArray[np.int64]) -> dict[str, Float64]:
    """Takes the names to give, the store's columns and their values for n events [n, columns] (None: nothing was read), epoch ms [n].

    Gives float64[n] per name, NaN where it is not known or not finite. The age is of the event's time and never below 0.
    """
    if stored is None:
        nothing = np.full(len(event_time), np.nan)
        return dict.fromkeys(names, nothing)
    place = {name: at for at, name in enumerate(columns)}
    return {name: age_days(stored[:, place[CREATED]], event_time) if name == AGE else stored[:, place[name]] for name in names}


def age_days(created_ms: Float64, event_time: npt.NDArray[np.int64]) -> Float64:
    """Gives whole days from `created_ms` to `event_time` [n], 0 where the account is younger than the event; NaN stays."""
    days: Float64 = np.floor((event_time - created_ms) / DAY_MS)
    return np.maximum(days, 0.0)
