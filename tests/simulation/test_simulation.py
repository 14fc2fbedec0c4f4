"""Hundreds of seeds: whatever goes wrong, every event is answered, by its own windows, and nothing is committed that is not safe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.left_behind import LEFT_BEHIND
from tests.simulation.process import Process
from tests.simulation.run import keep, replay
from tests.simulation.world import KINDS, LINE_STEPS, LOADING_STEPS, OF_TRANSACTIONS, ROUND_STEPS, Report, Scenario, World, simulate

SEEDS = {False: 160, True: 200}  # at least once, exactly once
AT_ONCE = 20
PARTS = [
    pytest.param(once, first, id=f"{'exactly' if once else 'at_least'}-{first}")
    for once in SEEDS
    for first in range(0, SEEDS[once], AT_ONCE)
]

pytestmark = LEFT_BEHIND


def judge(seed: int, *, exactly_once: bool) -> Report:
    report = simulate(seed, Scenario.of(seed, exactly_once=exactly_once))
    assert not report.breaches, f"seed {seed}, kept in {keep(report)} ({replay(report)}):\n" + "\n".join(report.breaches[:9])
    assert report.figures["batches"]
    return report


@pytest.mark.parametrize(("exactly_once", "first"), PARTS)
def test_no_seed_finds_a_breach(first: int, *, exactly_once: bool) -> None:
    reports = [judge(seed, exactly_once=exactly_once) for seed in range(first, first + AT_ONCE)]
    if exactly_once:  # somebody was fenced, and something that was sent is seen by nobody
        assert sum(report.figures["fenced"] for report in reports) and sum(report.figures["aborted"] for report in reports)
        assert not any(report.figures["repeated"] for report in reports)


@pytest.mark.parametrize("exactly_once", SEEDS)
def test_the_seeds_cover_every_kind_of_fault(*, exactly_once: bool) -> None:
    scenarios = [Scenario.of(seed, exactly_once=exactly_once) for seed in range(SEEDS[exactly_once])]
    assert {kind for scenario in scenarios for kind in scenario.faults} == set(KINDS) - (set() if exactly_once else OF_TRANSACTIONS)
    assert {(scenario.partitions, scenario.workers) for scenario in scenarios} >= {(1, 1), (1, 2), (3, 1), (3, 2), (3, 3)}


@pytest.mark.parametrize("exactly_once", SEEDS)
def test_every_step_that_faults_wait_for_is_reached(monkeypatch: pytest.MonkeyPatch, *, exactly_once: bool) -> None:
    seen, reached = set[str](), World.reached

    def noted(world: World, process: Process, step: str) -> None:
        seen.add(step)
        reached(world, process, step)

    monkeypatch.setattr(World, "reached", noted)
    for seed in range(8):
        simulate(seed, Scenario.of(seed, exactly_once=exactly_once))
    assert seen == {*LINE_STEPS, *LOADING_STEPS, *(ROUND_STEPS if exactly_once else ())}


@pytest.mark.parametrize("exactly_once", SEEDS)
def test_a_seed_tells_the_same_story_in_another_process(*, exactly_once: bool) -> None:
    scenario = f"Scenario.of(3, exactly_once={exactly_once})"
    here = simulate(3, Scenario.of(3, exactly_once=exactly_once))
    code = f"from tests.simulation.world import Scenario, simulate; r = simulate(3, {scenario}); print(r.digest, len(r.trace))"
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert there.stdout.split() == [str(here.digest), str(len(here.trace))]
