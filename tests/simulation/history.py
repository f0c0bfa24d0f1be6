"""A random life of a cluster from one seed: it is founded, grows from one voter to three, works, suffers, and must come back.

For `TROUBLE_S` virtual seconds clients ask, members come and go, nodes crash, links break. Then all is mended, and within `RECOVERY_S` there must
be a leader with a lease that commits, and a few seconds later every member must hold the same ledger.
"""

from __future__ import annotations

from collections.abc import Callable

from raft import membership
from raft.engine import State
from raft.interface import Member, Members, NotLeader
from raft.journal import Journal
from raft.settings import ALL_MENDS, Mends
from tests.simulation.node import SEGMENT_BYTES, SimNode
from tests.simulation.world import Broken, World

NODES = 5
TROUBLE_S = 48.0
RECOVERY_S = 8.0
LENGTH_S = 60.0
WANTED_VOTERS = 3


class History:
    def __init__(self, seed: int, mends: Mends = ALL_MENDS, *, sync_before_send: bool = True) -> None:
        streams = seed % 5 not in (1, 3)
        weather = {} if streams else {"loss": 0.03, "doubling": 0.05}
        self.world = World(seed, mends=mends, sync_before_send=sync_before_send, streams=streams, **weather)
        self.chance = self.world.chance
        self.world.network.delay_s = self.chance.choice((0.001, 0.004, 0.02))
        self.mean_fault_s = self.chance.choice((0.6, 1.5, 4.0))
        self.faults: tuple[Callable[[], None], ...] = (
            self.crash_one,
            self.crash_one_in_a_step,
            self.crash_one_in_a_write,
            self.separate_some,
            self.separate_leader,
            self.cut_one_way,
            self.break_connection,
            self.stall_one,
            self.stall_before_sync,
            self.slow_network,
        )

    def run(self) -> None:
        """Raises Broken where a promise is."""
        world = self.world
        nodes = [world.add_node(chr(ord("a") + number)) for number in range(NODES)]
        membership.found(Journal.open(nodes[0].disk, "j", segment_bytes=SEGMENT_BYTES), Member("a", "a"))
        for node in nodes:
            node.start()
        self._later(0.05, self.work)
        self._later(0.3, self.look_after_members)
        self._later(4.0, self.trouble)
        world.run_until(TROUBLE_S)
        self.mend()
        self.must_recover()

    def _later(self, mean_s: float, function: Callable[[], None]) -> None:
        self.world.at(self.world.now + mean_s * (0.3 + 1.4 * self.chance.random()), function)

    # --- clients

    def work(self) -> None:
        node = self._leading() or self.chance.choice(list(self.world.nodes.values()))
        for _ in range(self.chance.choice((1, 1, 1, 5, 60)) if self.chance.random() < 0.3 else 1):
            self.world.ask(node, self.chance.randrange(200))
        if self.chance.random() < 0.2 and node.up and not node.in_turn:
            node.read()
        self._later(0.12, self.work)

    def _leading(self) -> SimNode | None:
        """Any node that believes to lead, sometimes one that no longer does."""
        leading = [node for node in self.world.nodes.values() if node.up and node.engine.state is State.LEADER]
        return self.chance.choice(leading) if leading else None

    # --- members

    def look_after_members(self) -> None:
        node = self._leading()
        if self.world.now > TROUBLE_S:
            return
        if node is not None and not node.in_turn:
            self._change_members(node)
            node.wake()
        self._later(0.3 if self.world.now < 5 else 1.2, self.look_after_members)

    def _change_members(self, node: SimNode) -> None:
        change = self._next_list(node)
        if change is None:
            if self.chance.random() < 0.1:
                node.engine.transfer(None)
            return
        try:
            node.engine.propose_members(change)
        except (NotLeader, ValueError):
            return
        self.world.note(f"{node.id} proposes voters {[m.id for m in change.voters]} learners {[m.id for m in change.learners]}")

    def _next_list(self, node: SimNode) -> Members | None:
        members, peers = node.engine.members, node.engine.peers()
        absent = sorted(self.world.nodes.keys() - members.ids())
        ready = [member.id for member in members.learners if peers[member.id].caught_up and peers[member.id].match_index]
        others = [member.id for member in members.voters if member.id != node.id]
        if len(members.voters) < WANTED_VOTERS and ready:
            return membership.with_voter(members, ready[0])
        if len(members.voters) + len(members.learners) < WANTED_VOTERS and absent:
            return membership.with_learner(members, Member(absent[0], absent[0]))
        if self.chance.random() < 0.25 and len(members.voters) >= WANTED_VOTERS and absent:
            return membership.with_learner(members, Member(absent[0], self.chance.choice((absent[0], absent[0] + "2"))))
        if self.chance.random() < 0.2 and ready and len(members.voters) < NODES:
            return membership.with_voter(members, self.chance.choice(ready))
        if self.chance.random() < 0.2 and len(members.voters) >= WANTED_VOTERS:
            return membership.without(members, self.chance.choice(others))
        return None

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
        self._someone().steps_left = self.chance.randrange(1, 8)

    def crash_one_in_a_write(self) -> None:
        self._someone().disk.steps_left = self.chance.randrange(1, 8)

    def separate_some(self) -> None:
        names = list(self.world.nodes)
        self.chance.shuffle(names)
        self.world.separate(set(names[: self.chance.randrange(1, NODES)]))
        self._later(2.0, self.world.heal)

    def separate_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self.world.separate({leader.id})
            self._later(1.5, self.world.heal)

    def cut_one_way(self) -> None:
        for link in self.chance.sample(self.world.network.all_links(), self.chance.randrange(1, 4)):
            self.world.network.cut(link)
        self._later(2.0, self.world.heal)

    def break_connection(self) -> None:
        for link in self.chance.sample(self.world.network.all_links(), self.chance.randrange(1, 6)):
            self.world.network.disconnect(link)
            self.world.network.connect(link)

    def stall_one(self) -> None:
        self._someone().stalled_until = self.world.now + 2.5 * self.chance.random()

    def stall_before_sync(self) -> None:
        self._someone().stall_before_sync_s = 1.5 * self.chance.random()

    def slow_network(self) -> None:
        self.world.network.delay_s = self.chance.choice((0.001, 0.004, 0.02, 0.1, 0.3))
        self._later(2.0, self._ordinary_network)

    def _ordinary_network(self) -> None:
        self.world.network.delay_s = 0.004

    # --- and back

    def mend(self) -> None:
        world = self.world
        world.note("all is mended")
        world.network.delay_s, world.network.loss, world.network.doubling = 0.002, 0.0, 0.0
        for node in world.nodes.values():
            node.steps_left = node.disk.steps_left = None
            world.start(node)
        world.heal()

    def must_recover(self) -> None:
        world, checks = self.world, self.world.checks
        before = checks.highest_acknowledged
        deadline = TROUBLE_S + RECOVERY_S
        recovered = world.run_until(deadline, lambda: checks.highest_acknowledged > before and world.well_led())
        if not recovered:
            raise Broken("it recovers", f"no leader committed anything within {RECOVERY_S} s after all was mended")
        self.recovered_s = world.now - TROUBLE_S
        world.run_until(LENGTH_S)
        self._must_agree()

    def _must_agree(self) -> None:
        leader = self.world.leader()
        if leader is None:
            raise Broken("it recovers", "there is no leader at the end")
        for member in leader.engine.members.ids():
            node = self.world.nodes[member]
            if node.ledger.index < leader.ledger.index - 70:
                raise Broken("members catch up", f"{member} stands at {node.ledger.index}, the leader at {leader.ledger.index}")
