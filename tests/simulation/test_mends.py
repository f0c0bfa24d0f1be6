"""Every mend is needed: its scenario runs well with all mends on, and breaks the promise it protects when that one is off."""

from __future__ import annotations

import msgspec
import pytest

from raft.settings import ALL_MENDS, Mends
from tests.simulation.checks import Broken
from tests.simulation.scenarios import SCENARIOS, unsynced_answers
from tests.simulation.world import World

SEEDS = range(3)


def test_every_mend_has_a_scenario():
    assert sorted(SCENARIOS) == sorted(Mends.__struct_fields__)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mend", SCENARIOS)
def test_with_all_mends_the_scenario_runs_well(mend: str, seed: int):
    SCENARIOS[mend].run(World(seed, settings=SCENARIOS[mend].settings))


@pytest.mark.parametrize("mend", SCENARIOS)
def test_without_the_mend_the_promise_breaks(mend: str):
    """By the same world and seed that runs well above, with that one mend off."""
    scenario = SCENARIOS[mend]
    world = World(0, settings=scenario.settings, mends=msgspec.structs.replace(ALL_MENDS, **{mend: False}))
    with pytest.raises(KeyError if scenario.promise == "no error" else Broken) as caught:
        scenario.run(world)
    if isinstance(caught.value, Broken):
        assert caught.value.promise == scenario.promise, caught.value


def test_nothing_leaves_a_node_before_its_sync():
    """The order of the turn is a mend too; `mutations.py` has the turn that sends first."""
    unsynced_answers(World(0))
