"""Lists and rules in a running worker: it knows the topic when it starts, follows it, and every verdict names the version that decided."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from streamapp.bus.feed import feeder
from streamapp.bus.follow import Follower, follower
from streamapp.bus.topics import Topics, create_topics
from streamapp.cli.children import Child, Children
from streamapp.config import load_pipeline
from streamapp.core.lists_entry import encode, entry_of
from streamapp.core.spec import PipelineSpec

DEADLINE_S = 150  # a first start compiles its kernels
FOLLOWED_S = 5.0  # a second is promised; the rest is the way there and back (an event, its verdict) on a machine that does other work too
PIPELINE = """
[pipeline]
name = "posts"
version = "1"
owner = "safety"
key = "user"
[event.fields.user]
type = "id"
required = true
[event.fields.ip]
type = "id"
[event.fields.amount]
type = "number"
default = 0.0
[lists.banned]
effect = "deny"
fields = ["user"]
[lists.friends]
effect = "allow"
fields = ["user"]
[lists.proxies]
[[rules]]
code = "from_a_proxy"
when = 'in_list(ip, "proxies")'
route = "block"
text = "from a proxy"
hit = { ip = "192.0.2.1", lists = { proxies = ["192.0.2.1"] } }
miss = { ip = "192.0.2.1" }
[[rules]]
code = "amount_limit"
when = "amount > 25000"
route = "block"
text = "{value} dollars; a single payment may be at most {limit}"
hit = { amount = 25000.01 }
miss = { amount = 25000.0 }
[[rules]]
code = "being_tried"
when = "amount > 100"
route = "block"
mode = "shadow"
text = "{value}"
hit = { amount = 100.01 }
miss = { amount = 100 }
[thresholds]
default_route = "approve"
"""


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def broker(request: pytest.FixtureRequest, namespace: str) -> str:
    address: str = request.getfixturevalue(request.param)
    if request.param == "kafka":
        await create_topics(address, Topics(namespace), partitions=4)
    return address


class Ground:
    """A worker of the pipeline above, its inputs and its decisions."""

    def __init__(self, broker: str, namespace: str, folder: Path) -> None:
        self.path = folder / "posts.toml"
        self.path.write_text(PIPELINE)
        self.spec: PipelineSpec = load_pipeline(str(self.path))
        self.broker, self.namespace, self.topics = broker, namespace, Topics(namespace)

    def worker(self, children: Children) -> Child:
        where = ["--pipeline", str(self.path), "--bootstrap", self.broker, "--namespace", self.namespace, "--metrics-port", "0"]
        return children.start("worker", ["worker", *where])

    async def put(self, name: str, entry: str, *, off: bool = False) -> int:
        """Gives the version from which on the entry counts."""
        key, made = entry_of(name, self.spec.lists[name], entry, None, owner="", reason="", added_at=1, expires_at=0)
        async with feeder(self.broker, self.topics.lists, in_one_order=True) as lists:
            places = await lists.send([key], [None if off else encode(made)])
        return int(places.offset[0]) + 1

    async def send(self, **fields: Any) -> None:
        async with feeder(self.broker, self.topics.events) as events:
            await events.send([b"u"], [json.dumps({"user": "u", **fields}).encode()])

    async def next(self, decisions: Follower, children: Children) -> dict[str, Any]:
        give_up = time.monotonic() + DEADLINE_S
        while not (found := await decisions.poll(100)):
            children.check()
            assert time.monotonic() < give_up, "no decision"
        assert len(found) == 1
        return json.loads(found[0].value or b"")  # type: ignore[no-any-return]

    async def until(self, decisions: Follower, children: Children, version: int, **fields: Any) -> dict[str, Any]:
        """Sends the event until it is decided under lists of at least `version`; gives that decision."""
        give_up = time.monotonic() + DEADLINE_S
        while True:
            await self.send(**fields)
            decision = await self.next(decisions, children)
            if int(decision["versions"]["lists"].partition("-")[0]) >= version:
                return decision
            assert time.monotonic() < give_up, decision


async def test_a_worker_follows_the_lists_and_names_their_version(broker: str, namespace: str, tmp_path: Path) -> None:
    ground = Ground(broker, namespace, tmp_path)
    known = await ground.put("banned", "mallory")
    await ground.put("proxies", "192.0.2.1")
    with Children() as children:
        running = ground.worker(children)
        async with follower(broker, [ground.topics.decisions], fetch_wait_ms=10) as decisions:
            await ground.send(user="mallory", amount=101)
            first = await ground.next(decisions, children)
            assert (first["verdict"], first["decided_by"]) == ("block", "list:banned"), "known before the first event is decided"
            assert int(first["versions"]["lists"].partition("-")[0]) >= known
            assert (first["shadow_rules"], first["degraded"]) == (["being_tried"], [{"component": "model", "cause": "none"}])
            await ground.send(ip="192.0.2.1")
            assert [one["code"] for one in (await ground.next(decisions, children))["reasons"]] == ["from_a_proxy"]
            version = await ground.put("friends", "u")
            allowed = await ground.until(decisions, children, version, ip="192.0.2.1")
            assert (allowed["verdict"], allowed["decided_by"]) == ("approve", "list:friends")
            version = await ground.put("banned", "u")
            assert (await ground.until(decisions, children, version))["decided_by"] == "list:banned"
            version = await ground.put("banned", "u", off=True)
            again = await ground.until(decisions, children, version)
            assert again["decided_by"] == "list:friends"
            assert again["versions"]["lists"].partition("-")[2] == allowed["versions"]["lists"].partition("-")[2], (
                "the same is on them again"
            )
            for amount, route in ((25_000.0, "approve"), (25_000.01, "block")):
                await ground.send(user="somebody", amount=amount)
                assert (await ground.next(decisions, children))["verdict"] == route, "the exact limit, through a worker"
            took_s = []
            for number in range(5):
                version = await ground.put("proxies", f"198.51.100.{number}")
                began_s = time.monotonic()
                await ground.until(decisions, children, version)
                took_s.append(time.monotonic() - began_s)
            median_s = statistics.median(took_s)
            assert median_s < FOLLOWED_S, f"a worker follows within a second; the median was {median_s:.2f} s of {took_s}"
        assert running.stop(12.0) == 0, running.last_words()
