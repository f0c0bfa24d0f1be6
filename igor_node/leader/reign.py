"""One term of this node as the leader: what all its loops share, how they propose, and how they sleep.

A `Reign` is made when the term's own first entry is applied here and dies with the leadership; nothing in memory outlives it (DESIGN §6: a new
leader starts from the ledger). Times with `_mono` are nanoseconds of the clock that never steps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from igor_node.edges import Clock
from igor_node.leader.needs import Ledger, Reads, Replica
from igor_node.ledger.changes import Changes
from igor_node.ledger.commands import Command, Done, Envelope, Refused
from igor_node.tasks import first_of
from igor_node.trust.keys import Keys
from igor_node.words import SECOND, new_id
from raft.interface import NotLeader, Term, Unknown

PROPOSE_TIMEOUT_S = 5.0
BUSY_PAUSE_S = 0.05  # the queue of proposals is full: it empties in some milliseconds

log = logging.getLogger("igor.leader")


class Deposed(Exception):
    """This node does not lead the reign's term any more: every loop of it ends."""


@dataclass(eq=False)
class Reign:
    term: Term
    node: str
    replica: Replica
    ledger: Ledger
    reads: Reads
    changes: Changes
    clock: Clock
    keys: Keys = field(repr=False)
    epoch: int = 0
    tls: bool = False
    began_mono: int = 0
    time_in_doubt: bool = False  # timekeeping's word: nothing may be scheduled by this machine's clock

    def __post_init__(self) -> None:
        self.began_mono = self.began_mono or self.clock.monotonic_ns()

    @property
    def key(self) -> bytes:
        """The cluster's, that is in force now."""
        return self.keys.key

    @property
    def age_s(self) -> float:
        return (self.clock.monotonic_ns() - self.began_mono) / SECOND

    async def propose(self, command: Command) -> Done | Refused:
        """What apply answered. An unknown outcome is asked again under the same id for as long as the term lasts. Raises Deposed.

        A loop that has a newer command to propose asks `may_propose` first, and does without it until then.
        """
        now = self.clock.now()
        envelope = Envelope(id=new_id(now), at=now, actor="leader", command=command)  # type: ignore[arg-type]
        entry = self.ledger.known.entry(envelope, self.ledger.version)
        while True:
            try:
                result: Any = (await self.replica.propose(entry, PROPOSE_TIMEOUT_S)).result
            except (NotLeader, Unknown) as problem:
                if not self.replica.leads(self.term):
                    raise Deposed(str(problem)) from problem
                await self.clock.sleep(BUSY_PAUSE_S)
                continue
            if isinstance(result, Refused):
                log.warning("the ledger refused %s: %s", type(command).__name__, result.message)
            assert isinstance(result, (Done, Refused)), f"apply answered {result!r}"
            return result

    def may_propose(self, command: type[Command]) -> bool:
        """Whether the cluster's ledger is of a version that has this command."""
        return self.ledger.known.may_propose(command, self.ledger.version)

    async def change(self, topics: Iterable[str], since: int, seconds: float | None) -> int:
        """Sleeps until one of the topics changed after index `since`, or for so many seconds; the index of the last change."""
        wanted = tuple(topics)
        if self.changes.last(wanted) > since:
            return self.changes.last(wanted)
        naps = [] if seconds is None else [self.clock.sleep(max(0.0, seconds))]
        await first_of(self.changes.wait(wanted, since), *naps)
        return self.changes.last(wanted)

    def is_leader(self) -> bool:
        """With a valid quorum lease: only then an answer may renew anything (leases.py)."""
        return self.replica.leads(self.term) and self.replica.is_leader()
