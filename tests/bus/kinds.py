"""The brokers and the kinds of delivery that the same tests of workers hold on and under."""

from __future__ import annotations

import pytest

from streamapp.bus.topics import Topics, create_topics

_PAIRS = [("embedded", "at_least_once"), ("kafka", "at_least_once"), ("kafka", "exactly_once")]
KINDS = [pytest.param(one, id="-".join(one), marks=pytest.mark.kafka if one[0] == "kafka" else ()) for one in _PAIRS]


async def broker_of(request: pytest.FixtureRequest, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Gives the broker's address for a fixture with `KINDS`; workers that are started from now on deliver as it says."""
    kind, delivery = request.param
    monkeypatch.setenv("STREAMAPP_DELIVERY", delivery)
    address: str = request.getfixturevalue(kind)
    if kind == "kafka":
        await create_topics(address, Topics(namespace), partitions=4)
    return address
