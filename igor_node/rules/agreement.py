"""Whether ledgers agree, when a person asks now: what `igor verify` shows.

Each node tells its digest at the end of its ledger and at the marks that it keeps. They are compared at the highest entry of which all who answered
know the digest. Who is wrong follows `divergence.who_differs`, by which the leader judges all the time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from igor_node.rules.divergence import who_differs

SAME, DIFFERS, UNDECIDED = "same", "differs", "undecided"


@dataclass(frozen=True, slots=True)
class Told:
    """One node's digests by entry, in hex."""

    node: str
    digests: Mapping[int, str]


def common_entry(told: Sequence[Told]) -> int | None:
    """The highest entry of which everybody knows the digest; None where there is none (they are busy, and young)."""
    known = [set(one.digests) for one in told]
    return max(set.intersection(*known), default=None) if known else None


def judge(told: Sequence[Told], voters: Collection[str], entry: int) -> dict[str, str]:
    """node -> verdict, for the digests at that entry."""
    digests = {one.node: one.digests[entry] for one in told}
    if len(set(digests.values())) == 1:
        return dict.fromkeys(digests, SAME)
    verdict = who_differs({node: digest.encode() for node, digest in digests.items()}, voters)
    return {node: SAME if node in verdict.agree else DIFFERS if node in verdict.differ else UNDECIDED for node in digests}
