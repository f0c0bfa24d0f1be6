"""One node of the simulation: the production pump with engine and journal, on a simulated disk, between simulated links.

`SimPump` is `raft/pump.py` itself: its turn, its answers, its order. What would be a thread is an event here (snapshots are copied by one), what
would be a socket is `SimLinks`, and nobody sleeps: `World` runs a turn when something came or a deadline is due. A *kill* ends the process: what
was written stays. A *power cut* takes everything unsynced. Either may strike at any *step* of a turn: a call to the disk, a message that is sent,
a transaction of the ledger. At any step the node may also sleep, while the others go on: a slow disk, or a process that is paused.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from raft.engine import Engine, State
from raft.interface import Applied, Halted, Members, NotLeader
from raft.journal import Damaged, Journal, JournalFailed
from raft.messages import Message, VoteReply, VoteRequest
from raft.pump import News, Proposal, Pump
from raft.wire import Credentials, frame
from tests.simulation.disks import PowerCut, SimDisk, Trouble
from tests.simulation.machine import Copy, Machine, Stand

if TYPE_CHECKING:
    from tests.simulation.world import World

SEGMENT_BYTES = 8 * 1024  # small, so that segments change often
DRIFT = 0.05  # a clock runs so much faster or slower at most: any two differ in speed by a tenth

_HEAD_BYTES = len(frame(None)) - len(msgspec.msgpack.encode(None))
_decode = msgspec.msgpack.Decoder(Message).decode


class Call:
    """What a client waits for at a node: an outcome, once, or none where the node dies first."""

    __slots__ = ("_is_done", "_settle")

    def __init__(self, settle: Callable[[Any], None]) -> None:
        self._settle = settle
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def cancel(self) -> None:
        self._is_done = True

    def settle(self, outcome: Any) -> None:
        if not self._is_done:
            self._is_done = True
            self._settle(outcome)


class SimJournal(Journal):
    """The journal, and what it is told, for the checks."""

    node: SimNode

    @classmethod
    def of(cls, node: SimNode) -> Self:
        journal = cls.open(node.disk, "j", segment_bytes=SEGMENT_BYTES)
        journal.node = node
        return journal

    @property
    def wants_spare(self) -> bool:
        """The pump is told no, and what it would do in a thread comes as an event."""
        node = self.node
        if not node.spare_comes and super().wants_spare:
            node.spare_comes = True
            node.world.at(node.world.now + 0.2 * node.chance.random(), node.make_spare, node.life)
        return False

    def append(self, entries: Any) -> None:
        last = self._log.last
        super().append(entries)
        self.node.world.checks.log_grew(self.node, last.term, entries)

    def truncate_from(self, index: int) -> None:
        self.node.world.counts["logs cut back"] += 1
        super().truncate_from(index)

    def sync(self) -> bool:
        if self.node.stall_before_sync_s:
            self.node.stall_before_sync()
        wrote = super().sync()
        if self.node.disk.is_clean():
            self.node.synced_last = self.last_index
        return wrote


class SimLinks:
    """In place of the pump's sockets."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self._last_data: bytes | None = None
        self._last_message: Any = None

    def wait(self, timeout_s: float) -> list[tuple[str, Any]]:
        node = self.node
        while node.changes:
            peer, up = node.changes.popleft()
            (node.pump.connected if up else node.pump.disconnected)(peer)
        received = list(node.inbox)
        node.inbox.clear()
        return received

    def send(self, peer: str, data: bytes) -> None:
        node = self.node
        node.step("send")
        if data is not self._last_data:
            self._last_data, self._last_message = data, _decode(memoryview(data)[_HEAD_BYTES:])
        node.said(peer, self._last_message)
        node.world.network.send(node, peer, self._last_message)

    def wake(self) -> None:
        self.node.wake()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def set_members(self, members: Any) -> None:
        """Everybody stays connected to everybody, which is harsher."""

    def hint(self, addresses: Any) -> None:
        """Nobody moves here."""

    def addresses(self) -> dict[str, str]:
        return {}

    def is_known(self, peer: str) -> bool:
        return peer in self.node.world.nodes

    def address_of(self, peer: str) -> str:
        return peer

    def next_deadline(self) -> float:
        return float("inf")


class SimTransfers:
    """In place of the threads that copy a ledger: the other's, as it is after a while, is installed by the pump."""

    serving = 0
    served_lately = False

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.fetching = False
        self.fetch_at = 0.0

    def fetch(self, leader: str, _address: str) -> None:
        node = self.node
        if not self.fetching and node.clock() >= self.fetch_at:
            self.fetching = True
            node.world.at(node.world.now + 0.02 + 0.2 * node.chance.random(), self.copied, leader, node.life)

    def copied(self, source: str, life: int) -> None:
        node = self.node
        if life != node.life:
            return
        other = node.world.nodes[source]
        if not other.up or node.world.network.link(other, node).cut:
            self.fetching, self.fetch_at = False, node.clock() + 1
            return
        stand = other.machine.now
        node.pump.call(lambda: self.install(stand))

    def install(self, stand: Stand) -> None:
        node, before = self.node, self.node.engine.applied_index
        self.fetching = False
        node.pump._install(Copy(stand), Applied(stand.index, stand.term, stand.members))  # type: ignore[arg-type]
        if node.engine.applied_index != before:
            node.world.counts["snapshots installed"] += 1
            node.world.checks.snapshot_installed(node)

    def committed(self, took_s: float) -> None:
        pass

    def look_after(self, needed: int, *, hurry: bool) -> None:
        pass


class SimPump(Pump):
    """The production pump; only what it does in threads, and the sizes at which it cuts the journal, are the simulation's."""

    def __init__(self, node: SimNode, engine: Engine) -> None:
        super().__init__(
            engine=engine,
            journal=node.journal,
            machine=node.machine,  # type: ignore[arg-type]
            own=Credentials("simulated", node.id, node.id, b""),
            folder=Path("simulated"),
            post=node.hear_news,
            monotonic=node.clock,
            chance=node.chance,
        )
        self._links.close()
        self._links = SimLinks(node)  # type: ignore[assignment]
        self._transfers = SimTransfers(node)  # type: ignore[assignment]
        self._node = node

    def pause(self) -> float:
        """How long it would sleep; from now on `wake` wakes it."""
        return self._pause()

    def _cut(self) -> None:
        """As in production, but a few entries are kept, not megabytes."""
        machine, chance, kept = self._node.machine, self._node.chance, self._node.world.kept_entries
        if kept is None:
            return
        if chance.random() < 0.5:
            machine.durable = machine.now
        upto = min(machine.durable_index(), self.engine.applied_index) - chance.randrange(kept + 1)
        if upto > self._journal.base.index:
            self.engine.compact(upto)
            self._journal.sync()


class SimNode:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.id = name
        self.chance = random.Random(f"{world.seed} {name}")
        self.disk = SimDisk(self.chance)
        self.trouble = Trouble()
        self.machine = Machine(self)
        self.up = False
        self.in_turn = False
        self.halted = False  # by its disk
        self.life = 0
        self.rate = 1 + DRIFT * self.chance.choice((-1, 1, 2 * self.chance.random() - 1))
        self.offset = 1000 * self.chance.random() + 10
        self.inbox: deque[tuple[str, Any]] = deque()
        self.changes: deque[tuple[str, bool]] = deque()
        self.turn_at: float | None = None
        self.wake_at = 0.0
        self.stalled_until = 0.0
        self.stall_before_sync_s = 0.0
        self.spare_comes = False
        self.synced_last = 0
        self.highest_term_said = 0
        self.votes_said: dict[int, str] = {}

    @property
    def engine(self) -> Engine:
        return self.pump.engine

    @property
    def ledger(self) -> Stand:
        return self.machine.now

    # --- life and death

    def clock(self) -> float:
        return self.offset + self.rate * self.world.now

    def start(self) -> None:
        """What `Replica.start` does. A disk that says no leaves the node down."""
        world = self.world
        self.life += 1
        try:
            self._build()
        except PowerCut:
            self.die(power=True)
            return
        except (OSError, Halted) as problem:
            world.checks.may_halt(self, problem)
            return
        except Damaged as problem:
            world.checks.broken("what a crash tore is not taken for damage", f"{self.id} does not start: {problem}")
        self.up = True
        self.halted = self.trouble.failed = False
        world.counts["starts"] += 1
        self.synced_last = self.journal.last_index
        world.checks.started(self)
        for other in world.nodes.values():
            if other is not self:
                world.network.connect(world.network.link(self, other))
                world.network.connect(world.network.link(other, self))
        self.wake()

    def _build(self) -> None:
        self.disk.on_step = self.trouble.step
        self.journal = SimJournal.of(self)
        engine = Engine(
            node=self.id,
            journal=self.journal,
            applied=self.machine.applied(),
            monotonic=self.clock,
            chance=self.chance,
            settings=self.world.settings,
            mends=self.world.mends,
        )
        self.journal.sync()
        engine.synced()
        self.pump = SimPump(self, engine)
        self.disk.on_step = self.step

    def die(self, *, power: bool) -> None:
        world = self.world
        self._end_life()
        world.counts["power cuts" if power else "kills"] += 1
        if power:
            self.disk.cut_power(world.chance)
            if world.chance.random() < 0.7:
                self.machine.now = self.machine.durable
        for other in world.nodes.values():
            if other is not self:
                world.network.disconnect(world.network.link(self, other), delivers=True)
                world.network.disconnect(world.network.link(other, self))

    def _end_life(self) -> None:
        self.up = self.in_turn = self.spare_comes = False
        self.life += 1
        self.trouble.disarm()
        self.stall_before_sync_s = self.stalled_until = 0.0
        self.inbox.clear()
        self.changes.clear()
        self.turn_at = None
        self.wake_at = 0.0  # the alarm of this life wakes nobody in the next

    def _halt(self, problem: Exception) -> None:
        """The end of `Pump.run` and of `Replica`: every waiting proposal hears of it, what was not taken is surely not in the log."""
        self.world.note(f"{self.id} halts: {problem}")
        self.world.checks.may_halt(self, problem)
        self.world.counts["halts"] += 1
        self.pump._end(str(problem), str(problem))
        for proposal in self.pump.proposals:
            proposal.future.settle(Halted(str(problem)))
        self.die(power=False)
        self.halted = True
        self.world.restart_later(self)

    # --- steps: where it may die, or sleep

    def step(self, call: str) -> None:
        trouble = self.trouble
        if not trouble.quiet:
            trouble.step(call)
            if call == "sync" and trouble.slow_s:
                self.sleep(trouble.slow_s * self.chance.random())

    def die_in_a_step(self, steps: int, *, power: bool | None = None) -> None:
        def strike(_call: str) -> None:
            self._fall(power=self.world.chance.random() < 0.6 if power is None else power)
            raise PowerCut

        self.trouble.arm(steps, strike)

    def sleep_in_a_step(self, steps: int, seconds: float) -> None:
        self.trouble.arm(steps, lambda _call: self.sleep(seconds))

    def fail_in_a_step(self, steps: int) -> None:
        self.trouble.arm(steps, self.trouble.fail)

    def stall_before_sync(self) -> None:
        seconds, self.stall_before_sync_s = self.stall_before_sync_s, 0.0
        self.sleep(seconds)

    def sleep(self, seconds: float) -> None:
        """In the middle of a turn: the others' events go on inside this call, and one of them may be this node's death."""
        if not self.in_turn:
            return
        life = self.life
        self.world.checks.after(self)
        self.world.run_until(self.world.now + seconds)
        if self.life != life:
            raise PowerCut

    def _fall(self, *, power: bool) -> None:
        if self.up:
            self.die(power=power)
            self.world.restart_later(self)

    def make_spare(self, life: int) -> None:
        """What a thread of the pump does, at any time: also while the turn sleeps."""
        if life == self.life:
            self.spare_comes = False
            try:
                self.journal.make_spare()
            except PowerCut:
                pass  # the whole node is down

    def has_on_disk(self, index: int, term: int | None) -> bool:
        """By the checker's own books; a node that is down holds what it had synced."""
        if index <= self.journal.base.index:
            return True
        return index <= self.synced_last and self.journal.term_at(index) == term

    # --- what reaches it

    def hear(self, sender: str, message: Any) -> None:
        if self.up:
            self.inbox.append((sender, message))
            self.wake()

    def link_changed(self, peer: str, *, up: bool) -> None:
        self.changes.append((peer, up))
        self.wake()

    def propose(self, command: bytes, call: Call) -> Proposal | None:
        """As `Replica.propose`; without the wait."""
        if not self.up or self.pump.view.state is not State.LEADER:
            call.settle(NotLeader(None))
            return None
        proposal = Proposal(command, call)
        self.pump.proposals.append(proposal)
        self.pump.wake()
        return proposal

    def read(self, call: Call) -> None:
        """As `Replica.read_barrier`."""
        if not self.up or self.pump.view.state is not State.LEADER:
            call.settle(NotLeader(None))
            return

        def begin() -> None:
            try:
                self.pump.await_read(self.pump.engine.start_read(), call)
            except NotLeader as problem:
                self.pump.outcome(call, problem)

        self.pump.call(begin)

    def change_members(self, change: Callable[[Engine], Members | None]) -> None:
        """In the pump's turn, as the replica does; what the engine refuses is let be."""

        def begin() -> None:
            engine = self.pump.engine
            if engine.state is not State.LEADER:
                return
            wanted = change(engine)
            try:
                if wanted is not None:
                    engine.propose_members(wanted)
                    self.world.counts["lists proposed"] += 1
                    self.world.note(f"{self.id} proposes voters {[m.id for m in wanted.voters]} learners {[m.id for m in wanted.learners]}")
            except (NotLeader, ValueError):
                pass

        if self.up:
            self.pump.call(begin)

    def transfer(self, to: str | None) -> None:
        if self.up:
            self.pump.call(lambda: self.pump.outcome(Call(lambda _began: None), self.pump.engine.transfer(to)))

    def hear_news(self, news: News) -> None:
        for call, outcome in news.outcomes:
            call.settle(outcome)

    def said(self, peer: str, message: Any) -> None:
        """What leaves the node is a promise, and the checks keep it."""
        self.highest_term_said = max(self.highest_term_said, self.engine.term)
        self.world.checks.speaks(self)
        match message:
            case VoteRequest(pre=False):
                self.world.checks.voted(self, message.term, self.id)
            case VoteReply(granted=True, pre=False):
                self.world.checks.voted(self, message.term, peer)

    # --- the turn

    def wake(self) -> None:
        """A turn soon: several messages may meet in one."""
        if self.turn_at is None and not self.in_turn:
            self.turn_at = max(self.world.now + 0.0005 * self.chance.random(), self.stalled_until)
            self.world.at(self.turn_at, self._turn, self.life)

    def _alarm(self, life: int) -> None:
        if self.up and life == self.life and self.wake_at <= self.world.now:
            self.wake_at = float("inf")
            self.wake()

    def _turn(self, life: int) -> None:
        if life != self.life or not self.up:
            return
        if self.world.now < self.stalled_until:
            self.turn_at = self.stalled_until
            self.world.at(self.turn_at, self._turn, life)
            return
        self.turn_at = None
        self.in_turn = True
        try:
            self.pump._turn()
        except PowerCut:
            return
        except JournalFailed as problem:
            self._halt(problem)
            return
        except Halted as problem:
            if not self.machine.fails:
                self.world.checks.broken("no node halts without a cause", f"{self.id}: {problem}")
            self.machine.fails = False
            self._halt(problem)
            return
        self.in_turn = False
        self._rest()

    def _rest(self) -> None:
        """Until something comes or is due."""
        self.world.checks.after(self)
        pause = self.pump.pause()
        if self.inbox or self.changes or pause <= 0:
            self.wake()
            return
        due = self.world.now + max(pause / self.rate, 1e-5)
        if self.wake_at <= self.world.now or due < self.wake_at:
            self.wake_at = due
            self.world.at(due, self._alarm, self.life)
