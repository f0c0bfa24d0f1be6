"""Virtual time and what happens in it: an event heap, the nodes, their network, and the checks after every event.

Everything that chance decides comes from the one seed, so that a history can be run again to the letter.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from raft import membership
from raft.engine import State
from raft.interface import Entry, Kind, Member, Members
from raft.journal import Journal
from raft.settings import ALL_MENDS, DEFAULT_SETTINGS, Mends, Settings
from tests.simulation.checks import Broken, Checks
from tests.simulation.clients import Attempt, Reading
from tests.simulation.machine import Command, Verb
from tests.simulation.network import Link, Network
from tests.simulation.node import SEGMENT_BYTES, SimNode

NOTES_KEPT = 400
EVENTS_LIMIT = 200_000  # ten times what a lively history has: nodes that keep each other or themselves awake


class World:
    def __init__(
        self,
        seed: int,
        *,
        settings: Settings = DEFAULT_SETTINGS,
        mends: Mends = ALL_MENDS,
        **network: Any,
    ) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.settings = settings
        self.mends = mends
        self.now = 0.0
        self.events = 0
        self.notes: list[str] = []
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.nodes: dict[str, SimNode] = {}
        self.network = Network(self, **network)
        self.checks = Checks(self)
        self.counts: Counter[str] = Counter()
        self.operations = 0
        self.restarts = True
        self.kept_entries: int | None = None  # at most, when logs are cut by themselves as ledgers become durable; None: they are not
        self.quiet_until = 0.0  # of clients

    def at(self, time: float, function: Callable[..., None], *arguments: Any) -> None:
        self.events += 1
        if self.events > EVENTS_LIMIT:
            raise Broken("nodes come to rest", f"{self.events} events in {self.now:.1f} s")
        heapq.heappush(self._heap, (time, self.events, function, arguments))

    def run_until(self, time: float, condition: Callable[[], bool] | None = None) -> bool:
        """To that time, or to the event after which `condition` holds; True if it does.

        A node that sleeps in the middle of its turn calls this from within an event. Where another falls asleep meanwhile, for longer, both wake up
        when that one does: the time never goes back.
        """
        heap = self._heap
        while heap and heap[0][0] <= time:
            due, _, function, arguments = heapq.heappop(heap)
            self.now = max(self.now, due)
            function(*arguments)
            if condition is not None and condition():
                return True
        self.now = max(self.now, time)
        return condition is not None and condition()

    def note(self, text: str) -> None:
        self.notes.append(f"{self.now:9.4f}  {text}")
        if len(self.notes) > NOTES_KEPT:
            del self.notes[: NOTES_KEPT // 2]

    # --- nodes

    def add_node(self, name: str) -> SimNode:
        node = self.nodes[name] = SimNode(self, name)
        return node

    def cluster(self, voters: int, others: int = 0) -> list[SimNode]:
        """Nodes a, b, c, …; the first ones are voters of a cluster whose first entry all of them hold. All are started."""
        names = [chr(ord("a") + number) for number in range(voters + others)]
        nodes = [self.add_node(name) for name in names]
        first = Entry(1, 1, Kind.MEMBERS, membership.encode(Members(voters=tuple(Member(name, name) for name in names[:voters]))))
        for node in nodes[:voters]:
            journal = Journal.open(node.disk, "j", segment_bytes=SEGMENT_BYTES)
            journal.set_vote(1, None)
            journal.append([first])
            journal.sync()
        for node in nodes:
            node.start()
        return nodes

    def restart_later(self, node: SimNode) -> None:
        self.note(f"{node.id} stops")
        if self.restarts:
            self.at(self.now + 0.1 + 3 * self.chance.random() ** 2, self.start, node)

    def start(self, node: SimNode) -> None:
        if not node.up:
            self.note(f"{node.id} starts")
            node.start()
            if not node.up:
                self.restart_later(node)

    def crash(self, node: SimNode, *, power: bool) -> None:
        if node.up:
            node.die(power=power)
            self.restart_later(node)

    def elect(self, name: str | None = None, within_s: float = 10.0) -> SimNode:
        """Until a node (that node, by hand-over) leads and holds a lease."""
        if not self.run_until(self.now + within_s, self.well_led):
            raise Broken("it recovers", f"there is no leader after {within_s} s")
        leader = self.leader()
        assert leader is not None  # it leads well
        if name is None or leader.id == name:
            return leader
        wanted = self.nodes[name]
        self.run_until(self.now + 0.3)
        if not leader.engine.transfer(name):
            raise Broken("scenario", f"{leader.id} cannot hand over to {name}")
        leader.wake()
        if not self.run_until(self.now + within_s, lambda: self.well_led() and self.leader() is wanted):
            raise Broken("scenario", f"{name} was not elected")
        return wanted

    def well_led(self) -> bool:
        leader = self.leader()
        return leader is not None and leader.engine.leads_since_applied is not None and leader.engine.has_lease()

    def pass_time(self, seconds: float) -> None:
        self.run_until(self.now + seconds)

    def leading(self) -> list[SimNode]:
        """The nodes that believe to lead."""
        return [node for node in self.nodes.values() if node.up and node.engine.state is State.LEADER]

    def leader(self) -> SimNode | None:
        """Of these the one of the highest term."""
        return max(self.leading(), key=lambda node: node.engine.term, default=None)

    def ask(self, node: SimNode, size: int = 12) -> int:
        """A command that changes nothing, asked of that node once, come what may."""
        self.operations += 1
        Attempt(self, Command(self.operations, 1, Verb.FILL)).ask(node, size + 8)
        return self.operations

    def read(self, node: SimNode, key: int = 0) -> None:
        """Asked of that node once."""
        Reading(self, key).ask(node)

    # --- weather

    def separate(self, group: set[str]) -> list[Link]:
        """Both directions between the group and the others: these links."""
        between = [link for link in self.network.all_links() if (link.source.id in group) != (link.target.id in group)]
        for link in between:
            self.network.cut(link)
        return between

    def lose_held(self) -> None:
        """What waits at cuts never arrives."""
        for link in self.network.all_links():
            link.held.clear()

    def heal(self, links: Iterable[Link] | None = None) -> None:
        """These, or all."""
        for link in self.network.all_links() if links is None else links:
            self.network.heal(link)
            if link.source.up and link.target.up:
                self.network.connect(link)


__all__ = ["Broken", "World"]
