"""What processes of the simulation leave to this one's garbage collector when they end; a real process takes it with it."""

from __future__ import annotations

import pytest

#: Coroutines that never ran or were thrown away half-way, and clients that nobody closed: no other exception of a finaliser is let pass.
_FINALISED = "Exception ignored in. <(coroutine|(async_)?generator|function AIOKafka)"
LEFT_BEHIND = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings(f"ignore:{_FINALISED}:pytest.PytestUnraisableExceptionWarning"),
]
