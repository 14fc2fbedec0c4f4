"""`generate` writes what was asked for, the same for the same seed."""

from __future__ import annotations

import json
from pathlib import Path


def test_equal_seeds_give_equal_bytes(call, tmp_path: Path) -> None:
    first, second, other = (call("generate", "-n", "300", "--seed", seed).stdout_bytes for seed in ("5", "5", "6"))
    assert first == second != other
    assert len(first.splitlines()) == 300
    into = tmp_path / "events.jsonl"
    call("generate", "-n", "300", "--seed", "5", "-o", str(into))
    assert into.read_bytes() == first


def test_shares_and_start_are_as_asked(call) -> None:
    lines = call("generate", "-n", "200", "--garbage", "0", "--spam", "0", "--start-ms", "1700000000000").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["label"] for event in events} == {"ham"}
    assert json.loads(lines[0])["event_time"] in (1_700_000_000_000, "2023-11-14T22:13:20.000+00:00")
