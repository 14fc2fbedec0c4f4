"""What batch scoring leaves behind: the highest probability of each user, where it was above a cut (`[risk_cache]`)."""

from __future__ import annotations

import numpy as np

from streamapp.core.features.profile import BATCH_RISK
from streamapp.core.outcome import Outcome
from streamapp.core.profiles import Float64, Part

#: Where it is stored: beside the profile, because it expires by itself and a load of profiles must not overwrite it.
RISK = Part("risk", (BATCH_RISK,))


class HighestRisk:
    """The highest probability of each user over all outcomes taken. Cost: one dictionary entry per user above the cut."""

    def __init__(self, user_field: str, above: float) -> None:
        self._user_field, self._above = user_field, above
        self._highest: dict[str, float] = {}

    def take(self, outcome: Outcome) -> None:
        """Looks at one outcome; rows that no tier scored say nothing."""
        rows = np.flatnonzero(outcome.probability > self._above)
        users = outcome.plan.column(self._user_field)
        for row, probability in zip(rows.tolist(), outcome.probability[rows].tolist(), strict=True):
            self._highest[users[row]] = max(self._highest.get(users[row], 0.0), probability)

    def found(self) -> tuple[list[str], Float64]:
        """Gives the users and their highest probability [n, 1]."""
        return list(self._highest), np.array(list(self._highest.values())).reshape(-1, 1)
