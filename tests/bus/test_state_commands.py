"""`streamapp state` on a broker: what it shows is what was sent, what it checks is whole, and a reset decides again from the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamapp.bus.topics import Topics, create_topics
from streamapp.cli.children import Children
from streamapp.cli.main import program
from tests.bus.test_kill import PIPELINE, events, feed, read_decisions, start, verify


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def broker(request: pytest.FixtureRequest, namespace: str) -> str:
    address: str = request.getfixturevalue(request.param)
    if request.param == "kafka":
        await create_topics(address, Topics(namespace), partitions=4)
    return address


async def in_thread(*arguments: str, fails: bool = False) -> str:
    import asyncio

    result = await asyncio.to_thread(CliRunner().invoke, program, ["state", *arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


async def test_state_is_shown_checked_and_reset(broker: str, namespace: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "counts.toml"
    path.write_text(PIPELINE)
    where = ["--pipeline", str(path), "--bootstrap", broker, "--namespace", namespace]
    topics, given = Topics(namespace), events(300, 0, seed=2)
    with Children() as children:
        places = await feed(broker, topics, given)
        worker = start(children, broker, namespace, str(path))
        await read_decisions(broker, topics, places, [worker])
        # The embedded broker takes no offsets from outside of a group at all, so that a reset is always refused there.
        refused = await in_thread("reset", *where, "--to", "earliest", "--yes", fails=True)
        assert "cannot be moved" in refused and "Stop its workers" in refused
        assert worker.stop(12) == 0, worker.last_words()
    newest = given[-1]
    shown = json.loads(await in_thread("show", newest["user_id"], *where, "--json"))
    assert [one["newest"] for one in shown["found"]] == [newest["event_time"]]
    assert json.loads(await in_thread("show", "nobody", *where, "--json"))["found"] == []
    checked = json.loads(await in_thread("verify", *where, "--json"))["partitions"]
    assert sum(one["ids"] for one in checked.values()) == len({event["event_id"] for event in given})
    assert sum(one["position"] for one in checked.values()) == len(given)
    if "kafka" not in request.node.callspec.id:
        return
    await in_thread("reset", *where, "--to", "earliest", "--yes")
    assert json.loads(await in_thread("show", newest["user_id"], *where, "--json"))["found"] == []
    with Children() as children:
        more = await feed(broker, topics, [])
        worker = start(children, broker, namespace, str(path))
        twice = await read_decisions(broker, topics, places, [worker])
        while sum(map(len, twice.values())) < 2 * 2 * len(given):  # verdict and decision record of each, again
            twice = await read_decisions(broker, topics, places, [worker])
    assert len(more.offset) == 0
    verify(twice, given, places, repeats=True)
