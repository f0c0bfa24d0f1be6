"""One node of the simulation: the engine, its journal on a simulated disk, a small ledger, and the turn of `raft/pump.py`.

The ledger is one value (index, term, members, digest); what of it is durable lags behind, as with SQLite in WAL mode. A *kill* ends the
process: what was written stays. A *power cut* takes everything unsynced. Either may strike between any two steps of a turn.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from raft import membership
from raft.engine import Engine, ReadToken
from raft.interface import Applied, Entry, Kind, Members, NotLeader
from raft.journal import Journal
from tests.simulation.disks import PowerCut, SimDisk

if TYPE_CHECKING:
    from tests.simulation.world import World

SEGMENT_BYTES = 16 * 1024  # small, so that segments change often
APPLY_BATCH = 50
DRIFT = 0.03


class Ledger(NamedTuple):
    index: int
    term: int
    members: Members
    digest: int

    def after(self, entry: Entry) -> Ledger:
        members = membership.decode(entry.data) if entry.kind == Kind.MEMBERS else self.members
        return Ledger(entry.index, entry.term, members, crc32(entry.data, crc32(b"%d %d" % (entry.term, entry.kind), self.digest)))


EMPTY = Ledger(0, 0, Members(), 0)


class SimNode:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.id = name
        self.disk = SimDisk()
        self.ledger = EMPTY
        self.durable = EMPTY
        self.up = False
        self.life = 0
        self.rate = 1 + DRIFT * (2 * world.chance.random() - 1)
        self.offset = 1000 * world.chance.random() + 10
        self.inbox: deque[tuple[str, Any]] = deque()
        self.changes: deque[tuple[str, bool]] = deque()
        self.commands: deque[tuple[int, bytes]] = deque()
        self.waiting: dict[int, tuple[int, int]] = {}  # index -> (term, operation)
        self.reads: list[tuple[ReadToken, int]] = []
        self.turn_at: float | None = None
        self.wake_at = 0.0
        self.stalled_until = 0.0
        self.stall_before_sync_s = 0.0
        self.in_turn = False
        self.steps_left: int | None = None
        self.synced_last = 0
        self.highest_term_said = 0
        self.fetching = False

    # --- life and death

    def clock(self) -> float:
        return self.offset + self.rate * self.world.now

    def _count_cuts(self) -> None:
        """So that a test can see that histories do cut logs back."""
        truncate, counts = self.journal.truncate_from, self.world.counts

        def counted(index: int) -> None:
            counts["logs cut back"] += 1
            truncate(index)

        self.journal.truncate_from = counted  # type: ignore[method-assign]

    def start(self) -> None:
        world = self.world
        self.life += 1
        try:
            self.journal = Journal.open(self.disk, "j", segment_bytes=SEGMENT_BYTES)
            ledger = self.ledger
            self._count_cuts()
            self.engine = Engine(
                node=self.id,
                journal=self.journal,
                applied=Applied(ledger.index, ledger.term, ledger.members),
                monotonic=self.clock,
                chance=random.Random(f"{world.seed} {self.id} {self.life}"),
                settings=world.settings,
                mends=world.mends,
            )
            self.journal.sync()
        except PowerCut:
            self.die(power=True)
            return
        self.up = True
        world.counts["starts"] += 1
        self.synced_last = self.journal.last_index
        world.checks.started(self)
        for other in world.nodes.values():
            if other is not self:
                world.network.connect(world.network.link(self, other))
                world.network.connect(world.network.link(other, self))
        self.wake()

    def die(self, *, power: bool) -> None:
        world = self.world
        self.up = self.in_turn = self.fetching = False
        self.life += 1
        world.counts["power cuts" if power else "kills"] += 1
        if power:
            self.disk.cut_power(world.chance)
            if world.chance.random() < 0.7:
                self.ledger = self.durable
        self.disk.steps_left = self.steps_left = None
        self.stall_before_sync_s = self.stalled_until = 0.0
        for queue in (self.inbox, self.changes, self.commands):
            queue.clear()
        self.waiting.clear()
        self.reads.clear()
        self.turn_at = None
        for other in world.nodes.values():
            if other is not self:
                world.network.disconnect(world.network.link(self, other), delivers=True)
                world.network.disconnect(world.network.link(other, self))

    def step(self) -> None:
        """A place where a crash may strike."""
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                raise PowerCut

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

    def ask(self, operation: int, command: bytes) -> None:
        if self.up:
            self.commands.append((operation, command))
            self.wake()

    def wake(self) -> None:
        """A turn soon: several messages may meet in one."""
        if self.turn_at is None and not self.in_turn:
            self.turn_at = max(self.world.now + 0.0005 * self.world.chance.random(), self.stalled_until)
            self.world.at(self.turn_at, self._turn, self.life)

    def _alarm(self, life: int) -> None:
        if self.up and life == self.life and self.wake_at <= self.world.now:
            self.wake_at = float("inf")
            self.wake()

    def _set_alarm(self) -> None:
        due = (self.engine.next_deadline() - self.offset) / self.rate
        due = max(due, self.world.now + 1e-5)
        if self.wake_at <= self.world.now or due < self.wake_at:
            self.wake_at = due
            self.world.at(due, self._alarm, self.life)

    # --- the turn

    def _turn(self, life: int) -> None:
        if life != self.life or not self.up:
            return
        if self.world.now < self.stalled_until:
            self.turn_at = self.stalled_until
            self.world.at(self.turn_at, self._turn, life)
            return
        self.turn_at = None
        try:
            self._decide()
            if self.stall_before_sync_s:
                self.in_turn = True
                self.world.at(self.world.now + self.stall_before_sync_s, self._finish, life)
                self.stall_before_sync_s = 0.0
                self.world.checks.after(self)
                return
            self._act()
        except PowerCut:
            self.die(power=self.world.chance.random() < 0.6)
            self.world.restart_later(self)
            return
        self._end_turn()

    def _finish(self, life: int) -> None:
        if life != self.life or not self.up:
            return
        self.in_turn = False
        try:
            self._act()
        except PowerCut:
            self.die(power=self.world.chance.random() < 0.6)
            self.world.restart_later(self)
            return
        self._end_turn()

    def _end_turn(self) -> None:
        self.world.checks.after(self)
        if self.inbox or self.changes or self.commands or self.engine.committed(1):
            self.wake()
        self._set_alarm()

    def _decide(self) -> None:
        engine = self.engine
        while self.changes:
            peer, up = self.changes.popleft()
            (engine.connected if up else engine.disconnected)(peer)
        while self.inbox:
            sender, message = self.inbox.popleft()
            engine.receive(sender, message)
        if self.commands:
            self._propose()
        engine.tick()
        if not self.world.sync_before_send:  # the mistake this order is for
            self._send()
        self.step()

    def _propose(self) -> None:
        asked = list(self.commands)
        self.commands.clear()
        try:
            term, first = self.engine.propose([command for _, command in asked])
        except NotLeader:
            return
        for index, (operation, _) in enumerate(asked, first):
            self.waiting[index] = (term, operation)

    def _act(self) -> None:
        self.journal.sync()
        self.engine.synced()
        self.synced_last = self.journal.last_index
        self.highest_term_said = max(self.highest_term_said, self.engine.term)
        self.step()
        self._send()
        self._apply()
        self._confirm_reads()
        if self.engine.wants_snapshot() is not None and not self.fetching:
            self._fetch_snapshot()

    def _send(self) -> None:
        network = self.world.network
        for target, message in self.engine.take_outbox():
            if self.steps_left is not None:
                self.step()
            network.send(self, target, message)

    def _apply(self) -> None:
        entries = self.engine.committed(APPLY_BATCH)
        if not entries:
            return
        ledger, checks = self.ledger, self.world.checks
        for entry in entries:
            assert entry.index == ledger.index + 1, f"{self.id} was told to apply {entry.index} after {ledger.index}"
            ledger = ledger.after(entry)
            checks.applied(self, entry, ledger)
        self.ledger = ledger
        self.engine.mark_applied(ledger.index, ledger.members)
        self.step()
        for entry in entries:
            waiting = self.waiting.pop(entry.index, None)
            if waiting is not None and waiting[0] == entry.term:
                checks.acknowledged(self, entry, waiting[1])
        if self.world.chance.random() < 0.1:
            self.durable = self.ledger
            self.engine.compact(self.durable.index - self.world.chance.randrange(40))

    def read(self) -> None:
        try:
            self.reads.append((self.engine.start_read(), self.world.checks.highest_acknowledged))
        except NotLeader:
            return
        self.wake()

    def _confirm_reads(self) -> None:
        open_reads = []
        for token, needed in self.reads:
            try:
                index = self.engine.read_confirmed(token)
            except NotLeader:
                continue
            if index is None:
                open_reads.append((token, needed))
            else:
                self.world.checks.read(self, index, needed)
        self.reads = open_reads

    def _fetch_snapshot(self) -> None:
        self.fetching = True
        self.world.at(self.world.now + 0.02 + 0.2 * self.world.chance.random(), self._install, self.engine.wants_snapshot(), self.life)

    def _install(self, source: str, life: int) -> None:
        """Out of band: the other's ledger as it is now; in place first, then the journal follows."""
        if life != self.life or not self.up:
            return
        self.fetching = False
        other = self.world.nodes[source]
        if not other.up or self.in_turn or self.world.network.link(other, self).cut or other.ledger.index <= self.ledger.index:
            return
        self.ledger = self.durable = other.ledger
        try:
            self.step()
            self.engine.installed(Applied(self.ledger.index, self.ledger.term, self.ledger.members))
            self.journal.sync()
            self.engine.synced()
            self.synced_last = self.journal.last_index
        except PowerCut:
            self.die(power=self.world.chance.random() < 0.6)
            self.world.restart_later(self)
            return
        self.world.counts["snapshots installed"] += 1
        self.world.checks.snapshot_installed(self)
        self.wake()
