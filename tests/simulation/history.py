"""A random life of a cluster from one seed: it is founded, grows from one voter to some, works, suffers, and must come back.

For `TROUBLE_S` virtual seconds clients ask, members come and go, nodes crash, sleep and lose their disks' favour, links break. Then all is mended,
and within `RECOVERY_S` there must be a leader with a lease that commits, and a few seconds later every member must hold the same ledger, and
what the clients saw must be linearizable.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from raft import membership
from raft.engine import Engine
from raft.interface import Member, Members
from raft.journal import Journal
from raft.settings import ALL_MENDS, Mends, Settings
from tests.simulation.clients import Client
from tests.simulation.linearizable import Operation, offending_key
from tests.simulation.network import Link
from tests.simulation.node import SEGMENT_BYTES, SimNode
from tests.simulation.world import Broken, World

NODES = 5
CLIENTS = 3
TROUBLE_S = 32.0
RECOVERY_S = 8.0
LENGTH_S = 43.0
WANTED_VOTERS = (1, 2, 3, 3, 3, 3, 3, 5)


class History:
    def __init__(self, seed: int, mends: Mends = ALL_MENDS) -> None:
        streams = seed % 5 not in (1, 3)
        weather = {} if streams else {"loss": 0.03, "doubling": 0.05}
        chance = random.Random(f"settings {seed}")
        settings = Settings(append_entries=chance.choice((2, 20, 2_000)), appends_in_flight=chance.choice((1, 2, 8)))
        self.world = World(seed, settings=settings, mends=mends, streams=streams, **weather)
        self.world.kept_entries = chance.choice((0, 40, 400))  # few: snapshots are needed often; many: logs are cut back instead
        self.chance = self.world.chance
        self.world.network.delay_s = self.chance.choice((0.001, 0.004, 0.02))
        self.mean_fault_s = self.chance.choice((0.4, 0.8, 2.5))
        self.wanted_voters = self.chance.choice(WANTED_VOTERS)
        self.operations: list[Operation] = []
        self.faults: tuple[Callable[[], None], ...] = (
            self.crash_one,
            self.crash_one_in_a_step,
            self.crash_one_in_a_step,
            self.separate_some,
            self.separate_leader,
            self.separate_leader,
            self.flap,
            self.cut_one_way,
            self.deafen_one,
            self.lull,
            self.break_connection,
            self.pause_one,
            self.pause_in_a_step,
            self.pause_in_a_step,
            self.slow_network,
            self.slow_disk,
            self.full_disk,
            self.failing_disk,
        )

    def run(self) -> None:
        """Raises Broken where a promise is."""
        world = self.world
        nodes = [world.add_node(chr(ord("a") + number)) for number in range(NODES)]
        membership.found(Journal.open(nodes[0].disk, "j", segment_bytes=SEGMENT_BYTES), Member("a", "a"))
        for node in nodes:
            node.start()
        for number in range(CLIENTS):
            Client(world, number, self.operations, LENGTH_S - 2)
        self._later(0.2, self.work)
        self._later(0.3, self.look_after_members)
        self._later(self.chance.choice((0.5, 4.0)), self.trouble)
        world.run_until(TROUBLE_S)
        self.mend()
        self.must_recover()
        self._must_agree()
        key = offending_key(self.operations)
        if key is not None:
            raise Broken("reads and writes are linearizable", f"no order explains what the clients saw of register {key}")

    def _later(self, mean_s: float, function: Callable[[], None]) -> None:
        self.world.at(self.world.now + mean_s * (0.3 + 1.4 * self.chance.random()), function)

    # --- work for the log, beside that of the clients

    def work(self) -> None:
        self._later(0.2, self.work)
        if self.world.now < self.world.quiet_until:
            return
        node = self._leading() or self.chance.choice(list(self.world.nodes.values()))
        for _ in range(self.chance.choice((1, 1, 1, 5, 60)) if self.chance.random() < 0.3 else 1):
            self.world.ask(node, self.chance.randrange(200))
        if self.chance.random() < 0.2:
            self.world.read(node)

    def _leading(self) -> SimNode | None:
        """Any node that believes to lead, sometimes one that no longer does."""
        leading = self.world.leading()
        return self.chance.choice(leading) if leading else None

    # --- members

    def look_after_members(self) -> None:
        node = self._leading()
        if self.world.now > TROUBLE_S:
            return
        if node is not None:
            if self.chance.random() < 0.05:
                node.transfer(None)
            else:
                node.change_members(self._next_list)
        self._later(0.3 if self.world.now < 5 else 1.2, self.look_after_members)

    def _next_list(self, engine: Engine) -> Members | None:
        members, peers = engine.members, engine.peers()
        absent = sorted(self.world.nodes.keys() - members.ids())
        ready = [member.id for member in members.learners if peers[member.id].caught_up and peers[member.id].match_index]
        others = [member.id for member in members.voters if member.id != engine.node]
        if self.chance.random() < 0.05:
            return self._any_list()
        if len(members.voters) < self.wanted_voters and ready:
            return membership.with_voter(members, ready[0])
        if len(members.voters) + len(members.learners) < self.wanted_voters and absent:
            return membership.with_learner(members, Member(absent[0], absent[0]))
        if self.chance.random() < 0.25 and len(members.voters) >= self.wanted_voters and absent:
            return membership.with_learner(members, Member(absent[0], self.chance.choice((absent[0], absent[0] + "2"))))
        if self.chance.random() < 0.2 and ready and len(members.voters) < NODES:
            return membership.with_voter(members, self.chance.choice(ready))
        if self.chance.random() < 0.2 and others and len(members.voters) >= self.wanted_voters:
            return membership.without(members, self.chance.choice(others))
        return None

    def _any_list(self) -> Members:
        """What nobody should ask for; the engine may refuse it, and must where it is dangerous."""
        voters = self._group()
        return Members(tuple(Member(name, name) for name in sorted(voters)), tuple(Member(name, name) for name in sorted(self._group() - voters)))

    # --- faults

    def trouble(self) -> None:
        if self.world.now < TROUBLE_S:
            self.chance.choice(self.faults)()
            self._later(self.mean_fault_s, self.trouble)

    def _someone(self) -> SimNode:
        leader = self.world.leader()
        return leader if leader is not None and self.chance.random() < 0.4 else self.chance.choice(list(self.world.nodes.values()))

    def crash_one(self) -> None:
        self.world.crash(self._someone(), power=self.chance.random() < 0.5)
        if self.chance.random() < 0.15:  # all at once
            for node in self.world.nodes.values():
                self.world.crash(node, power=self.chance.random() < 0.5)

    def crash_one_in_a_step(self) -> None:
        self._someone().die_in_a_step(self.chance.randrange(1, 12))

    def separate_some(self) -> None:
        self._heal_later(self.world.separate(self._group()))

    def _group(self) -> set[str]:
        names = list(self.world.nodes)
        self.chance.shuffle(names)
        return set(names[: self.chance.randrange(1, NODES)])

    def separate_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self._heal_later(self.world.separate({leader.id}))
            for _ in range(self.chance.choice((0, 2, 10, 60))):  # a tail of its own, to be cut back
                self.world.ask(leader)

    def flap(self) -> None:
        """A partition that comes and goes, faster than elections or slower."""
        self._flap(self._group(), self.world.now + 4 * self.chance.random(), self.chance.choice((0.05, 0.3, 0.8)))

    def _flap(self, group: set[str], until: float, mean_s: float) -> None:
        links = self.world.separate(group)
        self._later(mean_s, lambda: self.world.heal(links))
        if self.world.now < until:
            self._later(2 * mean_s, lambda: self._flap(group, until, mean_s))

    def cut_one_way(self) -> None:
        links = self.chance.sample(self.world.network.all_links(), self.chance.randrange(1, 4))
        for link in links:
            self.world.network.cut(link)
        self._heal_later(links)

    def _heal_later(self, links: list[Link]) -> None:
        self._later(2.0, lambda: self.world.heal(links))

    def deafen_one(self) -> None:
        """One node hears the leader no more, and everybody else does."""
        leader = self.world.leader()
        others = [node for node in self.world.nodes.values() if node is not leader]
        if leader is not None:
            link = self.world.network.link(leader, self.chance.choice(others))
            self.world.network.cut(link)
            self._heal_later([link])

    def lull(self) -> None:
        """Nobody asks anything: all logs are equal, and whoever asks for votes may get them."""
        self.world.quiet_until = self.world.now + 5 * self.chance.random()

    def break_connection(self) -> None:
        for link in self.chance.sample(self.world.network.all_links(), self.chance.randrange(1, 6)):
            self.world.network.disconnect(link)
            self.world.network.connect(link)

    def pause_one(self) -> None:
        self._someone().stalled_until = self.world.now + 2.5 * self.chance.random()

    def pause_in_a_step(self) -> None:
        """Between deciding and syncing, between two messages, before a transaction: there is no place where a process cannot stand still."""
        self._someone().sleep_in_a_step(self.chance.randrange(1, 12), 1.5 * self.chance.random())

    def slow_network(self) -> None:
        self.world.network.delay_s = self.chance.choice((0.001, 0.004, 0.02, 0.1, 0.3))
        self._later(2.0, self._ordinary_network)

    def _ordinary_network(self) -> None:
        self.world.network.delay_s = 0.004

    def slow_disk(self) -> None:
        self._trouble_with_a_disk(lambda node: setattr(node.trouble, "slow_s", self.chance.choice((0.01, 0.1, 0.6))))

    def full_disk(self) -> None:
        self._trouble_with_a_disk(lambda node: setattr(node.trouble, "full", True))

    def _trouble_with_a_disk(self, begin: Callable[[SimNode], None]) -> None:
        node = self._someone()
        begin(node)
        self._later(2.0, node.trouble.repair)

    def failing_disk(self) -> None:
        self._someone().fail_in_a_step(self.chance.randrange(1, 6))

    # --- and back

    def mend(self) -> None:
        world = self.world
        world.note("all is mended")
        world.network.delay_s, world.network.loss, world.network.doubling = 0.002, 0.0, 0.0
        for node in world.nodes.values():
            node.trouble.repair()
            world.start(node)
        world.heal()

    def must_recover(self) -> None:
        world, checks = self.world, self.world.checks
        world.quiet_until = 0.0
        before = checks.visible
        deadline = TROUBLE_S + RECOVERY_S
        recovered = world.run_until(deadline, lambda: checks.visible > before and world.well_led())
        if not recovered:
            raise Broken("it recovers", f"no leader committed anything within {RECOVERY_S} s after all was mended")
        self.recovered_s = world.now - TROUBLE_S
        world.run_until(LENGTH_S)

    def _must_agree(self) -> None:
        leader = self.world.leader()
        if leader is None:
            raise Broken("it recovers", "there is no leader at the end")
        for member in leader.engine.members.ids():
            node = self.world.nodes[member]
            if node.ledger.index < leader.ledger.index - 70:
                raise Broken("members catch up", f"{member} stands at {node.ledger.index}, the leader at {leader.ledger.index}")
