"""Hundreds of seeds: whatever goes wrong, every event is answered, by its own windows, and nothing is committed that is not safe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import keep
from tests.simulation.world import KINDS, Scenario, simulate

SEEDS = 160
AT_ONCE = 20

# A process that ends leaves coroutines behind; a real one takes them with it.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


def judge(seed: int) -> None:
    report = simulate(seed)
    assert not report.breaches, f"seed {seed}, kept in {keep(report)} (make simulate ARGS='--seed {seed}'):\n" + "\n".join(
        report.breaches[:9]
    )
    assert report.figures["batches"]


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_seed_finds_a_breach(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        judge(seed)


def test_the_seeds_cover_every_kind_of_fault() -> None:
    scenarios = [Scenario.of(seed) for seed in range(SEEDS)]
    assert {kind for scenario in scenarios for kind in scenario.faults} == set(KINDS)
    assert {(scenario.partitions, scenario.workers) for scenario in scenarios} >= {(1, 1), (1, 2), (3, 1), (3, 2), (3, 3)}


def test_a_seed_tells_the_same_story_in_another_process() -> None:
    seed = 3
    here = simulate(seed)
    code = f"from tests.simulation.world import simulate; r = simulate({seed}); print(r.digest, len(r.trace))"
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert there.stdout.split() == [str(here.digest), str(len(here.trace))]
