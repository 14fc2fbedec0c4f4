"""The input: seeded events of a few users, with copies, late ones, disorder, and poison in between."""

from __future__ import annotations

import json
import random
from collections import deque
from typing import Any

BEGIN_MS = 1_700_000_000_000
STEP_MS = 9_000
USERS = 40
DISORDER_MS = 45_000  #  less than the grace of a minute
LATE_MS = 20 * 60_000
TEXTS = ("see you at noon", "WIN a PRIZE now!!! http://win.example", "ok", "call me back please", "free free free money, click here")

Record = tuple[bytes | None, bytes | None]


class Stream:
    """Gives records of the `counts` pipeline, or of `payments`; equal seeds give equal bytes."""

    def __init__(self, seed: int, pipeline: str = "counts", *, poison: float = 0.02, memo: float = 0.0, copies: float = 0.03) -> None:
        """Shares: `poison` cannot be decided, of `memo` no verdict can hold, `copies` were sent before."""
        self._random = random.Random(seed)
        self._payments = pipeline == "payments"
        self._poison, self._memo, self._copies = poison, memo, copies
        self._number = 0
        self._recent: deque[Record] = deque(maxlen=50)

    def take(self, count: int) -> list[Record]:
        """Gives the next `count` records."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Record:
        rng, draw = self._random, self._random.random()
        if draw < self._poison:
            return self._garbage()
        if draw < self._poison + self._copies and self._recent:
            return rng.choice(self._recent)
        self._number += 1
        user = rng.randrange(USERS)
        at_ms = BEGIN_MS + self._number * STEP_MS
        draw = rng.random()
        if draw < 0.02:
            at_ms -= LATE_MS
        elif draw < 0.15:
            at_ms -= rng.randrange(DISORDER_MS)
        event = self._event(user, at_ms)
        record = event[self._key].encode(), json.dumps(event).encode()
        if len(record[1]) < 10_000:
            self._recent.append(record)
        return record

    @property
    def _key(self) -> str:
        return "customer_id" if self._payments else "user_id"

    def _event(self, user: int, at_ms: int) -> dict[str, Any]:
        rng = self._random
        event: dict[str, Any] = {
            "event_id": f"e{self._number}", "event_time": at_ms, self._key: f"u{user}", "card_id": f"u{user}-{rng.randrange(2)}",
            "amount": rng.randrange(1, 20_000) / 100,
        }  # fmt: skip
        if self._payments:
            terminal, country = f"t{rng.randrange(20)}", rng.choice(["DE", "FR", "US"])
            return event | {"terminal_id": terminal, "country": country, "ip": f"198.51.100.{rng.randrange(30)}", "device_id": f"d{user}"}
        event["text"] = rng.choice(TEXTS)
        if rng.random() < self._memo:
            event["memo"] = "m" * 520_000
        return event

    def _garbage(self) -> Record:
        rng = self._random
        key = f"u{rng.randrange(USERS)}".encode()
        good = {"event_id": f"g{rng.randrange(1 << 40)}", "event_time": BEGIN_MS, self._key: key.decode(), "card_id": "c", "amount": 1.5}
        if self._payments:
            good["terminal_id"] = "t1"
        return rng.choice([
            (key, b'{"event_id": "cut'), (key, b"\xff\xfe\x00"), (key, b"[1, 2, 3]"), (key, b""), (key, b"null"),
            (b"somebody else", _json(good)),
            (key, _json(good | {"amount": "much"})), (key, _json({**good, "amount": -4})), (key, _json(good | {"card_id": None})),
            (key, b"\x00" * 300), (key, b"{" * 2_000), (None, _json(good)),
        ])  # fmt: skip


def _json(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()
