"""The simulation notices what breaks the order of delivery: each of these small breaks in the program is found within a few seeds."""

from __future__ import annotations

import pytest

from tests.simulation.left_behind import LEFT_BEHIND
from tests.simulation.mutants import MUTANTS, Mutant, broken
from tests.simulation.mutants_in_rounds import MUTANTS_IN_ROUNDS
from tests.simulation.world import Scenario, simulate

SEEDS = 60

pytestmark = LEFT_BEHIND


def noticed(mutant: Mutant, *, exactly_once: bool) -> bool:
    with broken(mutant):
        seeds = range(mutant.seed, mutant.seed + SEEDS)
        return any(simulate(seed, Scenario.of(seed, mutant.faults, exactly_once=exactly_once)).breaches for seed in seeds)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_broken_promise_is_noticed(mutant: Mutant) -> None:
    assert noticed(mutant, exactly_once=False), f"nobody notices that {mutant.what}"


@pytest.mark.parametrize("mutant", MUTANTS_IN_ROUNDS, ids=lambda mutant: mutant.what)
def test_exactly_once_a_broken_promise_is_noticed(mutant: Mutant) -> None:
    assert noticed(mutant, exactly_once=True), f"nobody notices that {mutant.what}"


def test_a_break_that_no_longer_fits_the_source_is_told() -> None:
    with pytest.raises(LookupError, match="find another way"), broken(MUTANTS[0]._replace(edits=(("no such line", ""),))):
        pass
