"""When the ledger's version may be raised: every member has known the next one for a while.

`leader/versions.py` asks `version_to_raise` and proposes what it says. The while is there for whoever upgrades: as long as it lasts a node can still
be taken back to the older program; from the raise on it cannot (DESIGN §5, Versions).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from igor_node.words import SECOND

ANNOUNCED_FOR = 600 * SECOND  # without a break in this leader's term


@dataclass(frozen=True, slots=True)
class Announced:
    """The highest version that a connected node says it knows, and since when it has said so."""

    version: int
    since: int


def version_to_raise(current: int, leader: str, members: Iterable[str], announced: Mapping[str, Announced], now: int) -> int | None:
    """The version that all members know, where it is higher and was announced for long enough. A leader that is alone waits for nobody."""
    names = {leader, *members}
    if not all(node in announced for node in names):
        return None  # one is away, and may come back as the older program it was
    version = min(announced[node].version for node in names)
    if version <= current:
        return None
    waits = len(names) > 1 and any(now - announced[node].since < ANNOUNCED_FOR for node in names)
    return None if waits else version
