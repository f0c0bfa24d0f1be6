"""Every mend is needed: its scenario runs well with all mends on, and breaks the promise it protects when that one is off."""

from __future__ import annotations

import msgspec
import pytest

from raft.settings import ALL_MENDS, Mends
from tests.simulation.checks import Broken
from tests.simulation.scenarios import OTHERS, SCENARIOS, run_scenario
from tests.simulation.world import World

SEEDS = range(3)


def test_every_mend_has_a_scenario():
    assert sorted(SCENARIOS) == sorted(Mends.__struct_fields__)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mend", SCENARIOS)
def test_with_all_mends_the_scenario_runs_well(mend: str, seed: int):
    run_scenario(mend, seed)


@pytest.mark.parametrize("mend", SCENARIOS)
def test_without_the_mend_the_promise_breaks(mend: str):
    """By the same world and seed that runs well above, with that one mend off."""
    scenario = SCENARIOS[mend]
    world = World(0, settings=scenario.settings, mends=msgspec.structs.replace(ALL_MENDS, **{mend: False}))
    with pytest.raises(KeyError if scenario.promise == "no error" else Broken) as caught:
        scenario.run(world)
    if isinstance(caught.value, Broken):
        assert caught.value.promise == scenario.promise, caught.value


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", OTHERS)
def test_other_scenarios_run_well(name: str, seed: int):
    """What breaks in them breaks by a fault of `faults.py`."""
    run_scenario(name, seed)
