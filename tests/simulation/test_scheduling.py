"""A small fleet through weeks in the suite, a fleet of 200 jobs through a year in the soak; and faults of scheduling that must be noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.mutations import changed_source
from tests.simulation.scheduling import simulate
from tests.simulation.scheduling_faults import FAULTS, hunt

FOUND_IN_THE_SUITE = ("room_of_two", "a_fire_is_dropped", "missed_unsaid")


@pytest.mark.parametrize("seed", [1, 2])
async def test_weeks_of_a_small_fleet(tmp_path: Path, seed: int) -> None:
    """No promise breaks, and what should happen did."""
    fleet = await simulate(tmp_path, seed, jobs=40, days=40)
    assert len(fleet.world.starts) > 300 and len(fleet.happened) > 6


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(int(os.environ.get("IGOR_SEEDS") or 10)))
async def test_a_year_of_200_jobs(tmp_path: Path, seed: int) -> None:
    fleet = await simulate(tmp_path, 1_000 + seed, jobs=200, days=365)
    assert len(fleet.world.starts) > 10_000


@pytest.mark.parametrize("name", FOUND_IN_THE_SUITE)
def test_a_fault_of_scheduling_is_found(name: str) -> None:
    assert hunt(name) is not None


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
def test_each_fault_of_scheduling_is_found(name: str) -> None:
    assert hunt(name) is not None


def test_the_lines_of_all_faults_are_there() -> None:
    """Where code moves, its fault moves with it."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25
    assert all(changed_source(fault) for fault in FAULTS)
