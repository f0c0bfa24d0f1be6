"""Whose ledger is wrong where replicas of one log have different digests.

`leader/digests.py` asks `who_differs` for each index at which digests were reported, and tells those it names; the leader is judged like all. It is
the voters that decide, because what a majority of them holds is what was acknowledged. Where no majority agrees nobody is named: to throw away one
of three ledgers that all differ would be a guess, and `igor verify` shows them to a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """`agree` hold what a majority of the voters holds, `differ` do not. `undecided`: there are differences, and every voter has been heard."""

    agree: frozenset[str] = frozenset()
    differ: frozenset[str] = frozenset()
    undecided: bool = False


def who_differs(digests: Mapping[str, bytes], voters: Collection[str]) -> Verdict:
    """`digests`: what members, voters and learners, reported for one index."""
    votes = Counter(digest for node, digest in digests.items() if node in voters)
    right = next((digest for digest, count in votes.items() if 2 * count > len(voters)), None)
    if right is None:
        return Verdict(undecided=len(votes) > 1 and all(voter in digests for voter in voters))
    agree = frozenset(node for node, digest in digests.items() if digest == right)
    return Verdict(agree, frozenset(digests) - agree)
