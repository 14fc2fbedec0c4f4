"""What simulated processes leave behind when they are killed is taken away here, not in somebody else's test."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def nothing_left() -> Iterator[None]:
    """A process that ends leaves coroutines behind that were never awaited; a real one takes them with it."""
    yield
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        gc.collect()
