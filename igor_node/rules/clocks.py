"""Whether a leader may trust its clock: its distance from the median of the voters' clocks (DESIGN §5, Time).

Called by `leader/timekeeping.py` with what the voters' heartbeats say. Each reading is right only within half a round trip, so the median is known
to lie between two bounds; a leader is off where all that is between them is, it agrees where all of that is near, and else nobody can say. Of two
clocks that differ nobody can say which is wrong, so it takes three to call a leader off. Nanoseconds, of another clock less the leader's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from igor_node.words import SECOND

LIMIT = SECOND  # a leader whose clock is further from the median of the voters hands over


class Reading(NamedTuple):
    """A node's clock less the leader's, right within `within`."""

    error: int
    within: int = 0


class Verdict(StrEnum):
    AGREES = "agrees"
    OFF = "off"
    UNKNOWN = "unknown"


class Judged(NamedTuple):
    """`by`: the leader's clock less the median; `successor`: the voter whose clock is nearest to it. Both of a leader that is off."""

    verdict: Verdict
    by: int = 0
    successor: str = ""


def judge(voters: int, others: Mapping[str, Reading]) -> Judged:
    """`voters`: how many there are, the leader included; `others`: the readings of those that were heard, without the leader's own."""
    own = Reading(0)
    known = [own, *others.values()]
    if len(known) <= voters // 2:
        return Judged(Verdict.UNKNOWN)
    low, high = _bounds(known)
    if low > LIMIT or high < -LIMIT:
        median = (low + high) // 2
        return Judged(Verdict.OFF, -median, min(others, key=lambda node: (abs(others[node].error - median), node)))
    return Judged(Verdict.AGREES if low >= -LIMIT and high <= LIMIT else Verdict.UNKNOWN)


def _bounds(known: list[Reading]) -> tuple[int, int]:
    """Between which the median lies; of an even number of clocks either of the middle ones may be it."""
    lows = sorted(one.error - one.within for one in known)
    highs = sorted(one.error + one.within for one in known)
    return lows[(len(known) - 1) // 2], highs[len(known) // 2]
