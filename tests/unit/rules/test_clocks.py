"""A leader is off when its clock is surely more than a second from the median of the voters' clocks; what is not sure is not said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node.rules.clocks import LIMIT, Reading, Verdict, judge
from igor_node.words import MILLISECOND, SECOND


def readings(*seconds: float, within_s: float = 0.001) -> dict[str, Reading]:
    return {f"n{number}": Reading(int(one * SECOND), int(within_s * SECOND)) for number, one in enumerate(seconds, 2)}


@pytest.mark.parametrize(
    "voters, others, verdict, by_s, successor",
    [
        pytest.param(1, readings(), Verdict.AGREES, 0, "", id="alone"),
        pytest.param(3, readings(0.01, -0.02), Verdict.AGREES, 0, "", id="all agree"),
        pytest.param(3, readings(0.01), Verdict.AGREES, 0, "", id="a majority agrees, one is not heard"),
        pytest.param(3, readings(), Verdict.UNKNOWN, 0, "", id="nobody is heard"),
        pytest.param(3, readings(-10, -10.2), Verdict.OFF, 10, "n2", id="the leader is ahead of both"),
        pytest.param(3, readings(3600, 3600.1), Verdict.OFF, -3600, "n2", id="the leader is behind both"),
        pytest.param(3, readings(0.1, 500), Verdict.AGREES, 0, "", id="another voter is off"),
        pytest.param(3, readings(500), Verdict.UNKNOWN, 0, "", id="two that differ: nobody can say which is wrong"),
        pytest.param(3, readings(-500, 500), Verdict.AGREES, 0, "", id="three that differ: the middle one is the median"),
        pytest.param(3, readings(5, 500), Verdict.OFF, -5, "n2", id="three that differ: the leader is an outer one"),
        pytest.param(5, readings(-5, -5, 0, -5.01), Verdict.OFF, 5, "n2", id="two of five are off, and one of them leads"),
        pytest.param(5, readings(-5), Verdict.UNKNOWN, 0, "", id="two of five say nothing"),
        pytest.param(3, readings(-1.5, -1.5, within_s=0.6), Verdict.UNKNOWN, 0, "", id="round trips too long to be sure that it is off"),
        pytest.param(3, readings(0.9, 0.9, within_s=0.2), Verdict.UNKNOWN, 0, "", id="and too long to be sure that it is not"),
    ],
)
def test_the_verdict(voters: int, others: dict[str, Reading], verdict: Verdict, by_s: float, successor: str) -> None:
    judged = judge(voters, others)
    assert (judged.verdict, judged.successor) == (verdict, successor)
    assert abs(judged.by - by_s * SECOND) <= 2 * MILLISECOND


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=6), st.integers(0, 5))
def test_whoever_takes_over_is_nearer_to_the_median_and_so_it_ends(seconds: list[int], leads: int) -> None:
    """Hand over until a leader agrees: the clocks are what they are, each leader sees the others relative to its own."""
    clocks = {f"n{number}": one * SECOND for number, one in enumerate(seconds)}
    leader = f"n{leads % len(seconds)}"
    for _ in range(len(seconds)):
        judged = judge(len(clocks), {node: Reading(clock - clocks[leader]) for node, clock in clocks.items() if node != leader})
        if judged.verdict is not Verdict.OFF:
            return
        assert abs(judged.by) > LIMIT
        leader = judged.successor
    raise AssertionError("it was handed over in circles")
