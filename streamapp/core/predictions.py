"""Scores that are used again: the same text of the same user with the same features is scored once within a time to live.

The cache belongs to one Serving, so another release (models, calibration, cuts, rules) begins with an empty one; its release is in the key
all the same. It holds what the cascade said, never a verdict: rules, lists and dedupe look at every event anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamapp.core.cascade import NO_TIER, Scores
from streamapp.core.tiers import tuples
from streamapp.core.windows_index import hash_bytes, hash_names

Bools = npt.NDArray[np.bool_]


class Kept(NamedTuple):
    """What the cascade said of one row, and until when it may be used."""

    until_ms: int
    score: float
    probability: float
    threshold: float
    route: int
    tier: int
    labels: Any


@dataclass(slots=True)
class Recalled:
    """The keys of n rows, what is known of them, and which the cascade still has to look at."""

    keys: list[bytes]
    known: dict[int, Kept]  #  by row
    left: Bools  #             n


class Predictions:
    """The last used scores, `most` of them, each for `ttl_ms`. Cost: a hash of text and features per row, a dictionary look-up."""

    def __init__(self, release: str, ttl_ms: int, most: int) -> None:
        first, second = hash_names([release])[0].view(np.uint64).tolist()
        self._seed: tuple[int, int] = first, second
        self._ttl_ms, self._most = ttl_ms, most
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._hits = self._asked = 0

    def counted(self) -> dict[str, int]:
        """Gives how many rows were answered since it was last called: from what is kept, and by the cascade."""
        hits, asked, self._hits, self._asked = self._hits, self._asked, 0, 0
        return {"cache": hits, "tiers": asked - hits}

    def recall(
        self, users: Sequence[str], texts: Sequence[str] | None, features: npt.NDArray[np.float64], wanted: Bools, now_ms: int
    ) -> Recalled:
        """Takes of n rows the user, the text (None: no model reads one), the features [n, k] and which are to be scored [n]."""
        keys = self._keys(users, texts, features)
        known, left = {}, wanted.copy()
        for row in np.flatnonzero(wanted).tolist():
            kept = self._kept.get(keys[row])
            if kept is None:
                continue
            if kept.until_ms <= now_ms:
                del self._kept[keys[row]]
                continue
            self._kept.move_to_end(keys[row])
            known[row], left[row] = kept, False
        self._asked += int(np.count_nonzero(wanted))
        self._hits += len(known)
        return Recalled(keys, known, left)

    def settle(self, recalled: Recalled, scores: Scores, now_ms: int) -> None:
        """Puts what was known into the scores, and keeps what the cascade said of the others; nothing of a cascade that was degraded."""
        if not scores.degraded:
            for row in np.flatnonzero(recalled.left & (scores.tier != NO_TIER)).tolist():
                self._keep(recalled.keys[row], _kept(scores, row, now_ms + self._ttl_ms))
        for row, kept in recalled.known.items():
            scores.score[row], scores.probability[row], scores.threshold[row] = kept.score, kept.probability, kept.threshold
            scores.route[row], scores.tier[row] = kept.route, kept.tier
            if kept.labels is not None:
                if scores.labels is None:
                    scores.labels = tuples([()] * len(scores.route))
                scores.labels[row] = kept.labels

    def _keep(self, key: bytes, kept: Kept) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def _keys(self, users: Sequence[str], texts: Sequence[str] | None, features: npt.NDArray[np.float64]) -> list[bytes]:
        """Gives 16 bytes per row: a hash of the hashes of user, text and features."""
        n, width = features.shape
        rows = np.ascontiguousarray(features, "<f8").view(np.uint8).reshape(-1)
        parts = [hash_names(users, self._seed), hash_bytes(rows, 8 * width * np.arange(n + 1), self._seed)]
        if texts is not None:
            parts.append(hash_names(texts, self._seed))
        joined = np.hstack(parts)
        data = joined.view(np.uint8).reshape(-1)
        hashed = hash_bytes(data, 8 * joined.shape[1] * np.arange(n + 1), self._seed).tobytes()
        return [hashed[at : at + 16] for at in range(0, 16 * n, 16)]


def _kept(scores: Scores, row: int, until_ms: int) -> Kept:
    return Kept(
        until_ms, float(scores.score[row]), float(scores.probability[row]), float(scores.threshold[row]), int(scores.route[row]),
        int(scores.tier[row]), None if scores.labels is None else scores.labels[row],
    )  # fmt: skip
