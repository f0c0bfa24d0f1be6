"""The leader's clock as a node measures it: four time stamps, the least round trip of the last 8, and only of a leader whose clock is good."""

from __future__ import annotations

from pathlib import Path

import pytest

from igor_node.agent.pulse import Pulse
from igor_node.words import MILLISECOND, SECOND, Instant
from wrapper import protocol

AHEAD = 1_000_000 * SECOND  # the leader's wall clock less this machine's steady one


def at(steady: int, ahead: int = AHEAD) -> Instant:
    return Instant(ahead + steady)


def beat(pulse: Pulse, steady: int, *, ahead: int = AHEAD, good: bool = True) -> None:
    pulse.answered(pulse.beat(steady), steady + 2 * MILLISECOND, at(steady + MILLISECOND, ahead), at(steady + MILLISECOND, ahead), good=good)


def test_how_long_the_leader_let_a_hello_wait_says_nothing_of_its_clock(tmp_path: Path) -> None:
    """2 s until it has its lease; commands that come with the Welcome would start a second early."""
    pulse = Pulse(tmp_path, "boot")
    pulse.connected(100 * SECOND, 102 * SECOND, at(100 * SECOND + MILLISECOND), at(102 * SECOND - MILLISECOND), good=True)
    assert pulse.clock_ns == AHEAD and pulse.reading(Instant(0))[1] == MILLISECOND


def test_the_least_round_trip_is_believed(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path, "boot")
    pulse.connected(100 * SECOND, 103 * SECOND, at(102 * SECOND), at(102 * SECOND), good=True)
    assert pulse.clock_ns == AHEAD + SECOND // 2 and pulse.reading(Instant(0))[1] == 3 * SECOND // 2
    beat(pulse, 200 * SECOND)
    assert pulse.clock_ns == AHEAD and pulse.reading(Instant(0))[1] == MILLISECOND


def test_a_leader_whose_clock_is_in_doubt_is_measured_and_not_followed(tmp_path: Path) -> None:
    """Nothing that waits for its due time starts early because somebody leads for a moment whose clock is 30 s ahead."""
    pulse = Pulse(tmp_path, "boot")
    pulse.connected(100 * SECOND, 100 * SECOND, at(100 * SECOND), at(100 * SECOND), good=True)
    ahead = AHEAD + 30 * SECOND
    pulse.connected(200 * SECOND, 200 * SECOND, at(200 * SECOND, ahead), at(200 * SECOND, ahead), good=False)
    beat(pulse, 201 * SECOND, ahead=ahead, good=False)
    assert pulse.clock_ns == AHEAD
    now = protocol.boot_ns()
    error, within = pulse.reading(Instant(AHEAD + now))
    assert error == pytest.approx(-30 * SECOND, abs=SECOND) and within == 0
    beat(pulse, 202 * SECOND, ahead=ahead, good=True)  # the others agree with it after all
    assert pulse.clock_ns == ahead
