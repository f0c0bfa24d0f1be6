"""The tick: the one thread in which consensus happens, and the order in which it happens.

    wait → deliver what came → take calls and proposals → engine.tick → SYNC the journal → then SEND → apply a bounded batch of what is committed

Nothing leaves the node before what it vouches for is on disk: appends, acknowledgements, votes, and so also a leader's own vote for its entry.
Group commit follows by itself: what arrives during a sync goes into the next one. The thread sleeps only in `links.wait`, until a socket, a
proposal or the engine's next deadline wakes it.

The asyncio side (`replica.py`) puts `Proposal`s and calls into two deques and wakes the thread if it sleeps; what comes back is one `News` a
batch, and the `View`, a frozen picture of the engine that any thread may read. Nobody but this thread touches engine, journal or links.

Any error of disk, apply or our own ends in a halt: nothing is sent any more, every waiting proposal hears of it, the text says why.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raft import membership, tls, wire
from raft.connections import READ_BYTES
from raft.engine import Engine, PeerView, State
from raft.interface import Applied, Busy, Entry, Halted, Kind, Members, NodeId, NotLeader, StateMachine, Term, Unknown
from raft.journal import Journal, JournalFailed
from raft.links import Links
from raft.messages import Append, Message
from raft.threads import begin_thread
from raft.transfers import Transfers

APPLY_ENTRIES = 2_000  # in one batch, at most
APPLY_ENTRIES_MIN = 100  # however slow: a transaction has a price of its own, and ever smaller ones would only pay it more often
APPLY_BYTES = 8 * 1024 * 1024  # of commands in one batch, which is one transaction
APPLY_SPAN_S = 0.02  # a batch should take no longer: meanwhile nothing is heard or sent
PROPOSALS_PER_TICK = 2_000
PROPOSAL_BYTES_PER_TICK = 4 * 1024 * 1024  # bounds one sync
LOOK_AFTER_S = 0.5  # how often it is asked whether the journal can be cut
PEERS_VIEW_S = 0.1  # the peers in the view are at most so old, while anything happens
PAUSE_MAX_S = 1.0
KEEP_BYTES = 16 * 1024 * 1024  # of applied entries, so that a follower that was away for a moment needs no snapshot
HOLD_BYTES = 64 * 1024 * 1024  # kept at most for a connected follower that lags
SERVE_HOLD_BYTES = 192 * 1024 * 1024  # while one fetches a snapshot, and shortly after: what was cut then would make it fetch another
JOURNAL_LIMIT_BYTES = 256 * 1024 * 1024  # in memory; past it no proposal is taken: the state machine's disk does not keep up
BEHIND_READ_BYTES = 16 * 1024  # past it, while there is something to apply: so much is taken from each connection in a turn
BEHIND_SPAN_S = 0.25  # and for so long batches are applied, one after another; no longer, for others must be heard
FSYNC_SAMPLES = 512

log = logging.getLogger("raft")


class View(msgspec.Struct, frozen=True):
    """What the tick thread last knew. `leads`: the term this node leads, once that term's own first entry is applied here."""

    state: State
    term: Term
    leader: NodeId | None
    members: Members
    commit_index: int
    applied_index: int
    last_index: int
    leads: Term | None
    lease_until: float
    leader_heard_at: float
    vote_at: float  # when the term, or the vote in it, changed last, or this process began
    peers: Mapping[NodeId, PeerView]


class Proposal:
    """A command on its way, and the future that waits for it. Set `abandoned` when nobody waits any more: it is not taken then."""

    __slots__ = ("abandoned", "command", "future")

    def __init__(self, command: bytes, future: Any) -> None:
        self.command = command
        self.future = future
        self.abandoned = False


class News:
    """What the asyncio side hears of one batch: outcomes of futures (a value or an exception), and how far the ledger is."""

    __slots__ = ("applied_index", "outcomes")

    def __init__(self, applied_index: int, outcomes: list[tuple[Any, Any]]) -> None:
        self.applied_index = applied_index
        self.outcomes = outcomes


class Pump:
    """Made by `replica.py`, which runs `run` in a thread and gives `post`: a function, safe from any thread, that takes News to the asyncio side."""

    def __init__(
        self,
        *,
        engine: Engine,
        journal: Journal,
        machine: StateMachine,
        own: wire.Credentials,
        folder: Path,
        post: Callable[[News], None],
        monotonic: Callable[[], float],
        chance: random.Random,
        trust: tls.Tls | None = None,
    ) -> None:
        self.proposals: deque[Proposal] = deque()
        self.calls: deque[Callable[[], None]] = deque()
        self.halted: str | None = None
        self.ended = False
        self.epoch = own.epoch
        self.was_refused = False
        self.addresses: Mapping[NodeId, str] = {}  # replaced, never changed
        self.fsyncs_s: deque[float] = deque(maxlen=FSYNC_SAMPLES)
        self.engine = engine
        self._journal = journal
        self._machine = machine
        self._post = post
        self._monotonic = monotonic
        self._links = Links(own, self, monotonic, chance, trust)
        self._sleeping = False
        self._stopping = False
        self._outcomes: list[tuple[Any, Any]] = []
        self._waiting: dict[int, Proposal] = {}  # by index; all of one term
        self._waiting_term: Term = 0
        self._taken: deque[tuple[int, float]] = deque()  # the last index of each batch that waits, and when it was taken
        self._reads: list[tuple[Any, Any]] = []  # (token or index, future)
        self._apply_limit = APPLY_ENTRIES
        self._look_after_at = 0.0
        self._peers_at = 0.0
        self._leader_heard_at = float("-inf")
        self._vote = (engine.term, journal.vote)
        self._vote_at = monotonic()
        self._members: Members | None = None
        self._peers: Mapping[NodeId, PeerView] = {}
        self._transfers = Transfers(own=own, folder=folder, machine=machine, call=self.call, install=self._install, monotonic=monotonic, trust=trust)
        self.view = self._see()

    # --- any thread

    def wake(self) -> None:
        """After something was put into a deque. Cheap while the thread is busy: it looks before it sleeps."""
        if self._sleeping:
            self._sleeping = False  # one byte is enough
            self._links.wake()

    def call(self, function: Callable[[], None]) -> None:
        """Runs it in the tick thread, between two turns. It must be short and must not raise."""
        self.calls.append(function)
        self.wake()

    def stop(self) -> None:
        self._stopping = True
        self._links.wake()

    # --- the thread

    def run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._end("this node is stopping", None)
        except JournalFailed as problem:
            self._end(str(problem), str(problem))
        except Halted as problem:
            self._end(str(problem), str(problem))
        except Exception as problem:  # the edge of the thread: a fault of ours must be seen, and nothing may go on behind it
            log.exception("consensus halts")
            reason = f"consensus failed inside: {type(problem).__name__}: {problem}"
            self._end(reason, reason)

    def _turn(self) -> None:
        engine = self.engine
        self._links.read_bytes = BEHIND_READ_BYTES if self._is_behind() else READ_BYTES
        received = self._links.wait(self._pause())
        self._sleeping = False
        for sender, message in received:
            engine.receive(sender, message)
            if sender == engine.leader:
                self._leader_heard_at = self._monotonic()
        self._take_calls()
        self._take_proposals()
        engine.tick()
        self._note_vote()
        self._sync()
        self._send()
        self._apply()
        self._catch_up()
        self._settle()
        self._tell()
        self._look_after()

    def _pause(self) -> float:
        """How long to sleep. Looks into the deques after saying that it sleeps, so that no wake-up is lost."""
        engine = self.engine
        if engine.applied_index < engine.commit_index:
            return 0.0
        self._sleeping = True
        if self.proposals or self.calls or self._stopping:
            self._sleeping = False
            return 0.0
        due = min(engine.next_deadline(), self._links.next_deadline(), self._look_after_at)
        return max(0.0, min(due - self._monotonic(), PAUSE_MAX_S))

    def _take_calls(self) -> None:
        while self.calls:
            self.calls.popleft()()

    def _take_proposals(self) -> None:
        if not self.proposals:
            return
        batch: list[Proposal] = []
        size = 0
        while self.proposals and len(batch) < PROPOSALS_PER_TICK and size < PROPOSAL_BYTES_PER_TICK:
            proposal = self.proposals.popleft()
            if not proposal.abandoned:
                batch.append(proposal)
                size += len(proposal.command)
        if batch:
            self._propose(batch)

    def _propose(self, batch: list[Proposal]) -> None:
        try:
            if self._journal.uncut_bytes > JOURNAL_LIMIT_BYTES:
                raise Busy(self.engine.leader, "the ledger's disk does not keep up with the log; try again in a moment")
            term, first = self.engine.propose([proposal.command for proposal in batch])
        except NotLeader as problem:
            self._outcomes.extend((proposal.future, problem) for proposal in batch)
            return
        self.await_entry(term, first, batch)

    def await_entry(self, term: Term, first: int, proposals: Sequence[Proposal]) -> None:
        """Their futures get the outcome when the entries from `first` on are applied here."""
        self._waiting_term = term
        self._waiting.update(zip(range(first, first + len(proposals)), proposals, strict=True))
        self._taken.append((first + len(proposals) - 1, self._monotonic()))

    def await_read(self, token: Any, future: Any) -> None:
        self._reads.append((token, future))

    def outcome(self, future: Any, outcome: Any) -> None:
        """For calls: the future gets it (a value or an exception) with the next News."""
        self._outcomes.append((future, outcome))

    def _sync(self) -> None:
        if self._journal.dirty:
            begun = self._monotonic()
            self._journal.sync()
            self.fsyncs_s.append(self._monotonic() - begun)
        self.engine.synced()

    def _send(self) -> None:
        outbox = self.engine.take_outbox()
        if not outbox:
            return
        self._withdraw_lease()
        encoded: dict[Any, bytes] = {}
        for peer, message in outbox:
            key = _sameness(message)
            data = encoded.get(key) if key else None
            if data is None:
                data = wire.frame(message)
                if key:
                    encoded[key] = data
            self._links.send(peer, data)
        self._links.flush()

    def _withdraw_lease(self) -> None:
        """Who hears what leaves now may lead at once, whatever keeps this thread before `_tell`: no other thread must see a lease that has ended."""
        until = self.engine.lease_until()
        if until < self.view.lease_until:
            self.view = msgspec.structs.replace(self.view, lease_until=until)

    def _apply(self) -> None:
        entries = _within_bytes(self.engine.committed(self._apply_limit), APPLY_BYTES)
        if not entries:
            return
        begun = self._monotonic()
        last = entries[-1].index
        try:
            results = self._machine.apply(entries)
            if len(results) != len(entries):
                raise ValueError(f"{len(results)} results for {len(entries)} entries")
        except Halted:  # the machine says in its own words what it met
            raise
        except Exception as problem:  # apply is total: whatever it raises, this ledger must not go on
            log.exception("apply failed")
            span = f"entry {last}" if len(entries) == 1 else f"entries {entries[0].index} to {last}"
            raise Halted(f"applying {span} failed: {type(problem).__name__}: {problem}") from problem
        self.engine.mark_applied(last, _last_members(entries))
        self._fit_apply_limit(len(entries), self._monotonic() - begun)
        if self._waiting:
            self._answer(entries, results)

    def _is_behind(self) -> bool:
        """The state machine does not keep up. A leader takes no proposals then; a follower takes less of the log than it applies meanwhile."""
        return self._journal.uncut_bytes > JOURNAL_LIMIT_BYTES and self.engine.applied_index < self.engine.commit_index

    def _catch_up(self) -> None:
        until = self._monotonic() + BEHIND_SPAN_S
        while self._is_behind():
            self._apply()
            if self._monotonic() >= until:
                return

    def _fit_apply_limit(self, count: int, took_s: float) -> None:
        """As many as fit into APPLY_SPAN_S at the speed of the last batch; at most twice as many as before, never fewer than APPLY_ENTRIES_MIN."""
        fitting = int(count * APPLY_SPAN_S / max(took_s, 1e-6))
        self._apply_limit = max(APPLY_ENTRIES_MIN, min(APPLY_ENTRIES, fitting, 2 * self._apply_limit))

    def _answer(self, entries: Sequence[Entry], results: Sequence[Any]) -> None:
        waiting, term = self._waiting, self._waiting_term
        while self._taken and self._taken[0][0] <= entries[-1].index:
            self._transfers.committed(self._monotonic() - self._taken.popleft()[1])
        for entry, result in zip(entries, results, strict=True):
            proposal = waiting.pop(entry.index, None)
            if proposal is None:
                continue
            if entry.term == term:
                self._outcomes.append((proposal.future, (entry.index, entry.term, result)))
            else:  # another entry was committed in its place
                self._outcomes.append((proposal.future, NotLeader(self.engine.leader, "another leader's entry took its place")))

    def _settle(self) -> None:
        """Proposals of a leadership that is over are answered; reads whose round is confirmed and applied are, too."""
        engine = self.engine
        if self._waiting and (engine.state != State.LEADER or engine.term != self._waiting_term):
            self._give_up("this node stopped leading before the entry was applied")
        if self._reads:
            self._reads = [read for read in self._reads if not self._settle_read(*read)]

    def _settle_read(self, token: Any, future: Any) -> bool:
        try:
            index = self.engine.read_confirmed(token)
        except NotLeader as problem:
            self._outcomes.append((future, problem))
            return True
        if index is None or self.engine.applied_index < index:
            return future.done() or False
        self._outcomes.append((future, index))
        return True

    def _give_up(self, reason: str) -> None:
        self._outcomes.extend((proposal.future, Unknown(reason)) for proposal in self._waiting.values())
        self._waiting.clear()
        self._taken.clear()

    def _note_vote(self) -> None:
        vote = (self.engine.term, self._journal.vote)
        if vote != self._vote:
            self._vote, self._vote_at = vote, self._monotonic()

    def _tell(self) -> None:
        before, self.view = self.view, self._see()
        if self._outcomes or _is_news(before, self.view):
            outcomes, self._outcomes = self._outcomes, []
            self._post(News(self.view.applied_index, outcomes))

    def _see(self) -> View:
        engine = self.engine
        return View(
            engine.state,
            engine.term,
            engine.leader,
            engine.members,
            engine.commit_index,
            engine.applied_index,
            engine.last_index,
            engine.leads_since_applied,
            engine.lease_until(),
            self._leader_heard_at,
            self._vote_at,
            self._peers,
        )

    def _end(self, reason: str, halted: str | None) -> None:
        """The last thing the thread does. What waits may be in the log or not; what was not taken yet surely is not."""
        self.halted = halted
        self.ended = True
        while self.calls:  # those of them that wait for an answer are among who waits then
            with contextlib.suppress(Exception):
                self.calls.popleft()()
        self._give_up(reason)
        self._outcomes.extend((future, Unknown(reason)) for _, future in self._reads)
        for close in (self._links.close, self._journal.close):
            try:
                close()
            except Exception:  # of a disk that is ill, say: who waits must hear of the end all the same
                log.exception("closing failed")
        outcomes, self._outcomes = self._outcomes, []
        self._post(News(self.view.applied_index, outcomes))

    # --- what is done now and then

    def _look_after(self) -> None:
        engine = self.engine
        if engine.members is not self._members:
            self._members = engine.members
            self._peers_at = 0.0  # the view shows them at once
            self._links.set_members({member.id: member.address for member in (*self._members.voters, *self._members.learners)})
        leader = engine.wants_snapshot()
        if leader is not None and self._links.is_known(leader):
            self._transfers.fetch(leader, self._links.address_of(leader))
        if self._journal.wants_spare:
            begin_thread("raft-spare", self._journal.make_spare)
        now = self._monotonic()
        if now >= self._peers_at:
            self._peers_at = now + PEERS_VIEW_S
            self._peers = engine.peers()
            self.addresses = self._links.addresses()
        if now >= self._look_after_at:
            self._look_after_at = now + LOOK_AFTER_S
            self._cut()
            self._transfers.look_after(self._journal.base.index, hurry=self._journal.uncut_bytes > SERVE_HOLD_BYTES / 2)

    def _cut(self) -> None:
        """Keeps some applied entries for followers that were away for a moment; more for one that is connected but behind, within HOLD_BYTES."""
        journal, engine = self._journal, self.engine
        if journal.uncut_bytes <= KEEP_BYTES:
            return
        count = journal.last_index - journal.base.index
        kept = int(count * KEEP_BYTES / 2 / journal.uncut_bytes)
        upto = min(self._machine.durable_index(), engine.applied_index, journal.last_index - kept)
        if journal.uncut_bytes < (SERVE_HOLD_BYTES if self._transfers.served_lately else HOLD_BYTES):
            if self._transfers.serving:
                return
            upto = min([upto, *(peer.match_index for peer in engine.peers().values() if peer.connected and engine.state == State.LEADER)])
        if upto > journal.base.index:
            engine.compact(upto)
            journal.sync()  # removes the segments now, though nothing may be written for long

    # --- links, as their Observer

    def connected(self, peer: NodeId) -> None:
        self.engine.connected(peer)

    def disconnected(self, peer: NodeId) -> None:
        self.engine.disconnected(peer)

    def accept(self, sock: socket.socket) -> None:
        self._links.accept(sock)

    def hint(self, addresses: Mapping[NodeId, str]) -> None:
        self._links.hint(addresses)

    def check_members(self) -> None:
        self._links.check_members()
        self._transfers.check_members()

    def refused(self, reason: str) -> None:
        self.was_refused = True
        raise Halted(reason)

    def snapshot_asked(self, peer: NodeId, sock: socket.socket, frames: wire.Frames) -> None:
        if self.engine.members.find(peer) is None:
            sock.close()
        else:
            self._transfers.serve(peer, sock, frames, self._journal.base.index)

    # --- snapshots: copied in threads, installed here

    def _install(self, path: Path, stands: Applied) -> None:
        """Ledger first, journal second: a ledger ahead of its journal is what the engine's start rule mends after a crash in between."""
        if stands.index <= self.engine.applied_index:
            return
        try:
            self._machine.restore(path)
        except Exception as problem:  # what it left is not known
            log.exception("restore failed")
            raise Halted(f"installing a snapshot failed: {type(problem).__name__}: {problem}") from problem
        self.engine.installed(self._machine.applied())
        self._sync()
        self._give_up("a snapshot was installed here")
        log.info("installed a snapshot that stands at %d", stands.index)


def _is_news(before: View, now: View) -> bool:
    return (before.applied_index, before.leads, before.state, before.term) != (now.applied_index, now.leads, now.state, now.term)


def _sameness(message: Message) -> Any:
    """Equal for appends of one sending with the same contents, so that each is encoded once for all peers. None: not worth it."""
    if type(message) is Append and message.entries:
        return message.seq, message.prev_index, len(message.entries), message.commit
    return None


def _within_bytes(entries: Sequence[Entry], limit: int) -> Sequence[Entry]:
    """As many of the first as fit, at least one."""
    for position, entry in enumerate(entries):
        limit -= len(entry.data)
        if limit < 0 and position:
            return entries[:position]
    return entries


def _last_members(entries: Sequence[Entry]) -> Members | None:
    for entry in reversed(entries):
        if entry.kind == Kind.MEMBERS:
            return membership.decode(entry.data)
    return None
