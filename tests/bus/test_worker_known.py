"""Labels and lists on the bus and in files: a worker and `score` give the same verdicts."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from streamapp.bus.feed import feeder
from streamapp.bus.follow import Follower, follower
from streamapp.bus.topics import Topics
from streamapp.cli.children import Child, Children
from streamapp.cli.main import program
from streamapp.config import load_pipeline
from streamapp.core.lists_entry import encode, entry_of
from tests.bus.test_worker_labels import DEADLINE_S, worker
from tests.cli.test_known import DAY_MS, FILE, event, label, lines

COMPARED = ("verdict", "decided_by", "reasons", "probability", "threshold", "features", "flags", "degraded", "decision_id", "entity")


async def decisions(running: Child, out: Follower, count: int) -> dict[str, dict[str, Any]]:
    """Waits for so many decisions; gives them by event id."""
    found: dict[str, dict[str, Any]] = {}
    give_up = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert running.running, running.last_words()
        assert time.monotonic() < give_up, sorted(found)
        for record in await out.poll(50):
            one = json.loads(record.value or b"")
            found[one["event_id"]] = one
    return found


async def test_score_with_files_decides_as_a_worker_with_topics(embedded: str, namespace: str, tmp_path: Path) -> None:
    file, topics, now_ms = tmp_path / "known.toml", Topics(namespace), int(time.time() * 1000)
    file.write_text(FILE)
    spec = load_pipeline(str(file))
    # What is told between the two parts is told long after its event: the first part must not know it, the second must.
    told = [
        [label(row, now_ms - 8 * DAY_MS + row, "fraud" if row % 2 else "genuine", now_ms - 500, "tu"[row % 3 == 0]) for row in range(9)],
        [label(row, now_ms - 9 * DAY_MS, "fraud", now_ms + 1000, "tu"[row % 2]) for row in range(20, 26)]
        + [label(1, now_ms - 8 * DAY_MS + 1, "genuine", now_ms + 1000)],  # corrected
    ]
    asked = [
        [event(row, now_ms + 50 * row, ("ann", "bob", "mallory")[row % 3], "tuv"[row % 2 + row % 5 // 4]) for row in range(18)],
        [event(row, now_ms + 1000 + 50 * row, ("ann", "bob", "mallory")[row % 3], "tuv"[row % 2 + row % 5 // 4]) for row in range(18, 36)],
    ]
    seen: dict[str, dict[str, Any]] = {}
    with Children() as children:
        async with (
            feeder(embedded, topics.events) as events,
            feeder(embedded, topics.labels) as labels,
            feeder(embedded, topics.lists, in_one_order=True) as lists,
            follower(embedded, [topics.decisions], fetch_wait_ms=10) as out,
        ):
            key, entry = entry_of("banned", spec.lists["banned"], "mallory", None, owner="", reason="", added_at=now_ms, expires_at=0)
            await lists.send([key], [encode(entry)])
            for part in range(2):  # each begins with a worker that reads all that was told before it decides
                await labels.send([b"k"] * len(told[part]), [json.dumps(one).encode() for one in told[part]])
                running = worker(children, embedded, namespace, file)
                keys = [one["customer_id"].encode() for one in asked[part]]
                await events.send(keys, [json.dumps(one).encode() for one in asked[part]])
                seen |= await decisions(running, out, len(asked[part]))
                assert running.stop(12.0) == 0, running.last_words()
    banned = tmp_path / "banned.txt"
    banned.write_text("mallory\n")
    arguments = ["score", "--features", "--pipeline", str(file), "--list", f"banned={banned}"]
    arguments += [
        "--labels",
        str(lines(tmp_path / "told.jsonl", told[1] + told[0])),
        str(lines(tmp_path / "events.jsonl", asked[0] + asked[1])),
    ]
    answer = await asyncio.to_thread(CliRunner().invoke, program, arguments, catch_exceptions=False)
    assert answer.exit_code == 0
    scored = {one["event_id"]: one for one in map(json.loads, answer.stdout.splitlines())}
    assert scored.keys() == seen.keys()
    for name, one in seen.items():
        assert {member: scored[name][member] for member in COMPARED} == {member: one[member] for member in COMPARED}, name
    assert len({one["features"]["known_7d_count"] for one in seen.values()}) > 3, "labels matter here"
    assert {one["decided_by"] for one in seen.values()} == {"list:banned", "rule", "default"}
    assert {one["versions"]["rules"] for one in seen.values()} == {one["versions"]["rules"] for one in scored.values()}
