"""The in-memory twin of the profile store: for the embedded broker, tests, replays and scoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamapp.core.cascade import Degraded
from streamapp.core.profiles import WRONG, Float64, Int64, Part, ProfilePlan, ProfileRead


class MemoryProfiles:
    """Keeps profiles for as long as the process lives; nothing expires."""

    def __init__(self, plan: ProfilePlan) -> None:
        self._plan = plan
        self._kept: dict[tuple[str, str], bytes] = {}
        self.loaded_ms = 0

    async def ask(self, keys: Sequence[str]) -> Sequence[str]:
        """Gives the keys: there is nothing to wait for."""
        return keys

    async def answer(self, question: Sequence[str]) -> ProfileRead:
        """Gives what was written of each row's entity."""
        return self.known(question)

    def known(self, keys: Sequence[str]) -> ProfileRead:
        """Gives the same at once, for whoever has no event loop."""
        columns, wrong = [np.empty((len(keys), 0))], False
        for part in self._plan.parts:
            values, _, state = part.unpack([self._kept.get((part.name, key)) for key in keys])
            columns.append(values)
            wrong |= bool((state == WRONG).any())
        return ProfileRead(np.hstack(columns), (Degraded("profiles", "wrong_type"),) if wrong else ())

    async def write(self, part: Part, keys: Sequence[str], values: Float64, updated_ms: Int64, ttl_s: float) -> None:
        """Keeps the values; they do not expire."""
        self.put(part, keys, values, updated_ms)

    def put(self, part: Part, keys: Sequence[str], values: Float64, updated_ms: Int64) -> None:
        """Keeps the values, at once."""
        self._kept |= {(part.name, key): value for key, value in zip(keys, part.pack(values, updated_ms), strict=True)}

    async def loaded(self, now_ms: int, ttl_s: float) -> None:
        """Notes the time."""
        self.loaded_ms = now_ms

    async def find(self, part: Part, key: str) -> bytes | None:
        """Gives the value of one entity."""
        return self._kept.get((part.name, key))

    async def close(self) -> None:
        """Does nothing: there is nothing to end."""
