"""A replica: consensus as the rest of Igor sees it, from asyncio. Owns the thread of `pump.py`.

    replica = await Replica.start(node=…, address=…, folder=…, machine=ledger, cluster=…, key=…, found=True)
    answer = await replica.propose(command, timeout=5)       # after the command is applied here
    async for term in replica.leadership(): …                # once a term that this node leads, when its own first entry is applied

`start` opens the journal and fails with one clear line; afterwards only `propose` and its like raise. All methods but `start` are for the event loop
that `start` ran in. A replica that halts (disk, damage, an apply that raised) calls `on_halt` with the reason, answers nothing any more, and must be
started again in a new process.

    NotLeader   surely not in the log          Unknown   perhaps in the log: ask again by the command's id
    Busy        a NotLeader of this node: too much waits, try again in a moment
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raft import membership, snapshot, tls, wire
from raft.disk import Disk, RealDisk
from raft.engine import Engine, PeerView, State
from raft.interface import ENTRY_LIMIT_BYTES, Busy, Halted, Member, Members, NodeId, NotLeader, Proposed, StateMachine, Term, Unknown
from raft.journal import Journal, JournalFailed
from raft.pump import News, Proposal, Pump
from raft.recovery import take_epoch
from raft.segment import Damaged
from raft.settings import DEFAULT_SETTINGS, Settings

SWITCH_INTERVAL_S = 0.0005  # of the interpreter's lock: with the loop 40 % busy it took commit p50 from 5.7 to 1.9 ms
WAITING_LIMIT = 10_000  # proposals without an answer
WAITING_LIMIT_BYTES = 64 * 1024 * 1024
MEMBERS_PAUSE_S = 0.05  # between two tries while another change of the members is under way
CLOSE_TIMEOUT_S = 10.0
FSYNC_KEPT_S = 0.5


def boot_s() -> float:
    """The clock of consensus. It goes on while the machine is suspended, as CLOCK_MONOTONIC does not: who wakes up knows that its lease is over."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PeerStatus(msgspec.Struct, frozen=True):
    """`match_index` and `caught_up` are known to a leader only. `last_heard_s` ago; None: not since this process started."""

    connected: bool
    match_index: int
    caught_up: bool
    last_heard_s: float | None


class Status(msgspec.Struct, frozen=True):
    state: State
    term: Term
    leader: NodeId | None
    members: Members
    commit_index: int
    applied_index: int
    last_index: int
    halted: str | None
    peers: Mapping[NodeId, PeerStatus]
    quorum: bool
    """This node leads with a lease, or heard a leader within an election time-out."""
    leaderless_s: float
    """So long it has heard no leader, led nothing and helped nobody to lead, since it started."""
    fsync_p50_ms: float | None
    epoch: int = 0


class Replica:
    def __init__(self, node: NodeId, settings: Settings, on_applied: Callable[[int], None] | None, on_halt: Callable[[str], None] | None) -> None:
        self._node = node
        self._settings = settings
        self._on_applied = on_applied
        self._on_halt = on_halt
        self._loop = asyncio.get_running_loop()
        self._pump: Pump
        self._thread: threading.Thread
        self._applied = 0
        self._leads: Term | None = None
        self._changed: set[asyncio.Future[None]] = set()
        self._waiting = 0
        self._waiting_bytes = 0
        self._closed = False
        self._fsync_ms: float | None = None
        self._fsync_at = float("-inf")
        self._told_halt = False

    @classmethod
    async def start(
        cls,
        *,
        node: NodeId,
        address: str,
        folder: Path,
        machine: StateMachine,
        cluster: str,
        key: bytes | Callable[[], Sequence[bytes]],
        epoch: int = 0,
        found: bool = False,
        settings: Settings = DEFAULT_SETTINGS,
        on_applied: Callable[[int], None] | None = None,
        on_halt: Callable[[str], None] | None = None,
        disk: Disk | None = None,
        trust: tls.Tls | None = None,
        on_missing_key: Callable[[], None] = lambda: None,
    ) -> Replica:
        """`found` on an empty folder makes a new cluster with this node as its only voter; without it an empty node waits for a leader to connect.
        `epoch` is what a joiner was told of its cluster; the folder keeps it (`recovery.py`). With `trust` every link is inside TLS.

        Raises Halted with one clear line where the folder, the journal or the state machine forbid a start.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        replica = cls(node, settings, on_applied, on_halt)
        own = wire.Credentials(cluster, node, address, key, epoch, secrets.token_hex(8), on_missing_key)
        pump = await asyncio.to_thread(_build, own, folder, machine, found, settings, disk or RealDisk(), replica._post, trust)
        replica._pump = pump
        replica._applied = pump.view.applied_index
        replica._thread = threading.Thread(target=pump.run, name="raft", daemon=True)
        replica._thread.start()
        return replica

    # --- commands and reads

    async def propose(self, command: bytes, timeout: float) -> Proposed:
        """The answer of apply. NotLeader (and Busy): surely not in the log. Unknown: perhaps. Halted: this replica serves nothing."""
        if len(command) > ENTRY_LIMIT_BYTES:
            raise ValueError(f"a command of {len(command)} bytes; the limit is {ENTRY_LIMIT_BYTES}")
        self._check_leads()
        if self._waiting >= WAITING_LIMIT or self._waiting_bytes + len(command) > WAITING_LIMIT_BYTES:
            raise Busy(self._node, f"{self._waiting} proposals wait already; try again in a moment")
        proposal = Proposal(command, self._loop.create_future())
        timer = self._loop.call_later(timeout, _expire, proposal, timeout)
        self._waiting += 1
        self._waiting_bytes += len(command)
        try:
            self._pump.proposals.append(proposal)
            self._pump.wake()
            index, term, result = await proposal.future
            return Proposed(index, term, result)
        finally:
            timer.cancel()
            proposal.abandoned = True
            self._waiting -= 1
            self._waiting_bytes -= len(command)

    async def read_barrier(self, timeout: float) -> int:
        """A confirmed round of heartbeats (not the lease), then applied up to there: what is read here now is not older than this call."""
        self._check_leads()
        future = self._loop.create_future()

        def begin() -> None:
            try:
                self._pump.await_read(self._pump.engine.start_read(), future)
            except NotLeader as problem:
                self._pump.outcome(future, problem)

        self._pump.call(begin)
        index: int = await self._within(timeout, future, "no majority answered")
        return index

    # --- who leads

    def is_leader(self) -> bool:
        """With a valid quorum lease: nobody else can have been elected yet. Safe to call from any thread."""
        return boot_s() < self._pump.view.lease_until and not self._pump.ended

    def leader(self) -> NodeId | None:
        return None if self._pump.ended else self._pump.view.leader

    def term(self) -> Term:
        return self._pump.view.term

    async def leadership(self) -> AsyncIterator[Term]:
        """Yields each term that this node leads, once its own first entry is applied here; ends when the replica does."""
        seen = 0
        while not self._is_over():
            if self._leads is not None and self._leads > seen:
                seen = self._leads
                yield seen
            else:
                await self._change()

    async def lost(self, term: Term) -> None:
        """Returns when this node no longer leads `term`."""
        while self._leads == term and not self._is_over():
            await self._change()

    def leads(self, term: Term) -> bool:
        return self._leads == term and not self._is_over()

    async def transfer_leadership(self, to: NodeId | None, timeout: float) -> bool:
        """Hands over to `to`, or to the voter that is furthest. False where nobody could take it in time; True when this node leads no more."""
        term = self.term()
        self._check_leads()
        future = self._loop.create_future()
        self._pump.call(lambda: self._pump.outcome(future, self._pump.engine.transfer(to)))
        if not await self._within(timeout, future, "the hand-over could not begin"):
            return False
        try:
            async with asyncio.timeout(timeout):
                while self._stands_in(term):  # also before the term's first entry is applied, when `leadership` has not told of it yet
                    await self._change()
        except TimeoutError:
            return False
        return True

    def _stands_in(self, term: Term) -> bool:
        view = self._pump.view
        return view.state == State.LEADER and view.term == term and not self._is_over()

    # --- members

    async def add_learner(self, member: Member, timeout: float) -> None:
        """It gets every entry from now on, and a snapshot if it needs one. A member already there gets the new address."""
        await self._change_members(lambda members: membership.with_learner(members, member), timeout)

    async def add_voter(self, node: NodeId, timeout: float) -> None:
        """A learner that is caught up becomes a voter. ValueError where it is no member, or not caught up when the time is over."""
        until = self._loop.time() + timeout
        while not self.status().members.is_voter(node):
            self._check_leads()
            if self.status().members.find(node) is None:
                raise ValueError(f"{node} must be a learner before it can become a voter")
            peer = self._pump.view.peers.get(node)
            if peer is not None and peer.caught_up:
                return await self._change_members(lambda members: membership.with_voter(members, node), until - self._loop.time())
            if self._loop.time() > until:
                raise ValueError(f"{node} has not caught up with the log yet; try again later")
            await asyncio.sleep(MEMBERS_PAUSE_S)

    async def remove(self, node: NodeId, timeout: float) -> None:
        """No voter and no learner any more. A leader does not remove itself: it hands over first (ValueError)."""
        await self._change_members(lambda members: membership.without(members, node), timeout)

    async def _change_members(self, change: Callable[[Members], Members], timeout: float) -> None:
        """Proposes the list as it then is, again and again while another change is under way, and waits until it is applied here."""
        until = self._loop.time() + timeout
        while True:
            self._check_leads()
            proposal = Proposal(b"", self._loop.create_future())
            self._pump.call(lambda proposal=proposal: self._propose_members(change, proposal))  # type: ignore[misc]
            try:
                await self._within(until - self._loop.time(), proposal.future, "the change of members was not committed in time")
                return
            except _TryAgain as problem:
                if self._loop.time() + MEMBERS_PAUSE_S > until:
                    raise ValueError(str(problem)) from None
            await asyncio.sleep(MEMBERS_PAUSE_S)

    def _propose_members(self, change: Callable[[Members], Members], proposal: Proposal) -> None:
        """In the tick thread. What may not be is a ValueError at once; what may not be *now* is tried again."""
        pump, engine = self._pump, self._pump.engine
        if engine.state != State.LEADER:
            pump.outcome(proposal.future, NotLeader(engine.leader))
            return
        settled = engine.members_index <= engine.applied_index
        try:
            wanted = change(engine.members)
            if settled:
                membership.check_change(engine.members, wanted, self._node)
        except ValueError as problem:
            pump.outcome(proposal.future, problem if settled else _TryAgain(str(problem)))
            return
        if settled and wanted == engine.members:
            pump.outcome(proposal.future, None)
            return
        try:
            term, index = engine.propose_members(wanted)
            pump.await_entry(term, index, [proposal])
        except NotLeader as problem:
            pump.outcome(proposal.future, problem)
        except ValueError as problem:
            pump.outcome(proposal.future, _TryAgain(str(problem)))

    # --- the rest

    def status(self) -> Status:
        view, now = self._pump.view, boot_s()
        heard = view.leader is not None and now - view.leader_heard_at < self._settings.election_max_s
        over = self._pump.ended
        return Status(
            state=State.FOLLOWER if over else view.state,
            term=view.term,
            leader=self.leader(),
            members=view.members,
            commit_index=view.commit_index,
            applied_index=view.applied_index,
            last_index=view.last_index,
            halted=self._pump.halted,
            peers={node: _peer_status(peer, now) for node, peer in view.peers.items()},
            quorum=not over and (heard or now < view.lease_until),
            leaderless_s=0.0 if view.state == State.LEADER and not over else now - max(view.leader_heard_at, view.vote_at),
            fsync_p50_ms=self._fsync_p50_ms(now),
            epoch=self._pump.epoch,
        )

    def _fsync_p50_ms(self, now: float) -> float | None:
        """Sorted anew at most twice a second: the status is asked for with every request."""
        if now - self._fsync_at >= FSYNC_KEPT_S:
            fsyncs = list(self._pump.fsyncs_s)
            self._fsync_at, self._fsync_ms = now, statistics.median(fsyncs) * 1000 if fsyncs else None
        return self._fsync_ms

    def addresses(self) -> Mapping[NodeId, str]:
        """Where each member was reached last, or is said to be."""
        return self._pump.addresses

    def hint(self, addresses: Mapping[NodeId, str]) -> None:
        """Where members may be found if they moved while this node could not hear of it. Whoever is there must prove who it is."""
        self._pump.call(lambda: self._pump.hint(addresses))

    def check_members(self) -> None:
        """Somebody was taken out of the cluster: connections of nodes that `trust` admits no more are closed at once."""
        self._pump.call(self._pump.check_members)

    @property
    def was_refused(self) -> bool:
        """Halted because the cluster will have no more of it: an older epoch, or a copied data directory."""
        return self._pump.was_refused

    def adopt(self, sock: socket.socket) -> None:
        """An accepted socket whose first bytes, still unread, are `wire.MAGIC`. It belongs to consensus from now on."""
        if self._is_over():
            sock.close()
        else:
            self._pump.call(lambda: self._pump.accept(sock))

    async def close(self) -> None:
        """Stops the thread and the links; what waits is answered Unknown. Hand the leadership over first to spare the others an election."""
        self._closed = True
        self._pump.stop()
        await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT_S)
        self._notify()

    def _check_leads(self) -> None:
        if self._is_over():
            raise Halted(self._pump.halted or "this replica is closed")
        view = self._pump.view
        if view.state != State.LEADER:
            raise NotLeader(view.leader)

    def _is_over(self) -> bool:
        return self._closed or self._pump.ended

    async def _within(self, timeout: float, future: asyncio.Future[Any], what: str) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unknown(f"{what} within {timeout:.1f} s") from None

    # --- news from the tick thread

    def _post(self, news: News) -> None:
        """In the tick thread: one hop a batch."""
        try:
            self._loop.call_soon_threadsafe(self._hear, news)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _hear(self, news: News) -> None:
        for future, outcome in news.outcomes:
            if not future.done():
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        if news.applied_index != self._applied:
            self._applied = news.applied_index
            if self._on_applied is not None:
                self._on_applied(news.applied_index)
        leads = None if self._pump.ended else self._pump.view.leads
        if leads != self._leads or self._pump.ended:
            self._leads = leads
            self._notify()
        if self._pump.ended:
            self._bury()

    def _bury(self) -> None:
        """The thread is over: what it never took is surely not in the log."""
        while self._pump.proposals:
            proposal = self._pump.proposals.popleft()
            if not proposal.future.done():
                proposal.future.set_exception(Halted(self._pump.halted or "this replica is closed"))
        if self._pump.halted is not None and self._on_halt is not None and not self._told_halt:
            self._told_halt = True
            self._on_halt(self._pump.halted)

    async def _change(self) -> None:
        future = self._loop.create_future()
        self._changed.add(future)
        try:
            await future
        finally:
            self._changed.discard(future)

    def _notify(self) -> None:
        for future in self._changed:
            if not future.done():
                future.set_result(None)


def _peer_status(peer: PeerView, now: float) -> PeerStatus:
    heard = None if peer.last_heard is None else max(0.0, now - peer.last_heard)
    return PeerStatus(peer.connected, peer.match_index, peer.caught_up, heard)


class _TryAgain(Exception):
    """The change of members must not be made now."""


def _expire(proposal: Proposal, timeout: float) -> None:
    proposal.abandoned = True
    if not proposal.future.done():
        proposal.future.set_exception(Unknown(f"not applied within {timeout:.1f} s; it may still be"))


def _build(
    own: wire.Credentials,
    folder: Path,
    machine: StateMachine,
    found: bool,
    settings: Settings,
    disk: Disk,
    post: Callable[[News], None],
    trust: tls.Tls | None = None,
) -> Pump:
    """Everything of a start that reads the disk. In a thread, so that the loop goes on."""
    try:
        journal = Journal.open(disk, str(folder))
        snapshot.clear(folder)
    except Damaged as problem:
        raise Halted(str(problem)) from problem
    except OSError as problem:
        raise Halted(f"the journal in {folder} cannot be opened: {problem.strerror or problem}") from problem
    try:
        empty = journal.last_index == 0 and journal.term == 0 and machine.applied().index == 0
        own = msgspec.structs.replace(own, epoch=take_epoch(folder, own.epoch, empty=empty))
        if found and empty:
            membership.found(journal, Member(own.node, own.address))
        chance = random.Random()
        engine = Engine(node=own.node, journal=journal, applied=machine.applied(), monotonic=boot_s, chance=chance, settings=settings)
        journal.sync()
        engine.synced()
    except JournalFailed as problem:
        journal.close()
        raise Halted(str(problem)) from problem
    except Halted:
        journal.close()
        raise
    return Pump(engine=engine, journal=journal, machine=machine, own=own, folder=folder, post=post, monotonic=boot_s, chance=chance, trust=trust)
