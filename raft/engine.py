"""The engine: PySyncObj's `SyncObj` as a core, messages in and messages out, without thread, clock, socket or file of its own.

Who calls it: `pump.py` in the Raft thread, and the simulator, both in this order, the *turn*:

    receive(...) for each message, propose(...), tick()      the engine decides; what it writes is in the journal's memory
    journal.sync(), synced()                                 only now is it on disk
    take_outbox()                                            and only now may what vouches for it leave the node
    committed(limit), apply, mark_applied(index)             never anything that this disk does not hold

PySyncObj elects, replicates and commits: its functions run as they are (`upstream.py` names them, over a namespace with our clock and chance),
and see the journal as their log and the outbox as their network through `seams.py`. In front stands `gate.py`. What PySyncObj does
unsafely is overridden here, each place under a switch of `settings.Mends`; `docs/consensus.md` tells the fault behind each. This is the only file
that reads or writes attributes named `_SyncObj__…`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import StrEnum
from types import MethodType
from typing import Any

import msgspec
from pysyncobj import SyncObjConf
from pysyncobj.syncobj import SyncObj

from raft import gate, membership, upstream
from raft.interface import ENTRY_LIMIT_BYTES, Applied, Entry, Halted, Kind, Members, NodeId, NotLeader, Term
from raft.journal import Journal
from raft.leadership import NEVER, Handover, Leadership
from raft.messages import Append, AppendReply, Message, TimeoutNow, VoteReply, VoteRequest
from raft.seams import JournalAsLog, OutboxAsNetwork, Peer
from raft.settings import ALL_MENDS, DEFAULT_SETTINGS, Mends, Settings

_FOLLOWER, _CANDIDATE, _LEADER = 0, 1, 2  # PySyncObj's numbers
_AT_ONCE = -1.0  # an election deadline that has always passed


class State(StrEnum):
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


_STATES = (State.FOLLOWER, State.CANDIDATE, State.LEADER)


class PeerView(msgspec.Struct, frozen=True):
    """A peer as seen from here. The indexes are known to a leader only (0 elsewhere); `last_heard` on this node's monotonic clock."""

    connected: bool
    match_index: int
    next_index: int
    caught_up: bool
    last_heard: float | None


class ReadToken(msgspec.Struct, frozen=True):
    """A read begun at a leader: `index` holds everything acknowledged before, once a majority has answered a sending from `seq` on."""

    term: Term
    seq: int
    index: int


class Engine(SyncObj):  # type: ignore[misc]
    """One node's consensus. Not safe for threads: one thread, or none, calls it."""

    _SyncObj__newAppendEntriesTime: float  # PySyncObj's: when the next heartbeat is due
    # Of followers and candidates.
    _chosen: bool  # an election was agreed on, in advance or by the leader's wish
    _by_transfer: bool
    _chosen_in: Term  # both are of that term: in a later one nobody has agreed to anything
    _asked_term: Term  # votes in advance are out for it; 0: none are
    _asked_granted: set[Peer]
    _granted: set[Peer]
    _reply_seq: int
    _hint: int | None  # goes with the reply to the append at hand
    _cut_tail: bool  # the append at hand conflicts with what stands in its place
    _snapshot_from: NodeId | None
    # Of this node's place in the list of members.
    _history: membership.History
    _votes: bool
    _targets: list[Peer]

    def __init__(
        self,
        *,
        node: NodeId,
        journal: Journal,
        applied: Applied,
        monotonic: Callable[[], float],
        chance: random.Random,
        settings: Settings = DEFAULT_SETTINGS,
        mends: Mends = ALL_MENDS,
    ) -> None:
        """Starts where the ledger stands. Raises Halted where the journal begins behind that: then the ledger lost what it had promised to keep."""
        self.node = node
        self.settings = settings
        self.mends = mends
        self._journal = journal
        self._monotonic = monotonic
        self._chance = chance
        self._peers: dict[NodeId, Peer] = {}
        self._votes, self._targets = False, []
        self._outbox: list[tuple[NodeId, Message]] = []
        self._last_heard: dict[Peer, float] = {}
        self._heard_at = monotonic()  # when a leader was heard: at first the start, for what was promised before it
        self._lead = Leadership(-1)
        self._must_send = False  # at the next tick: something was proposed, or a peer can take more
        self._reset_follower()
        self._place_journal(applied)
        self._synced = journal.last_index
        self._history = membership.History(applied.index, applied.members)
        self._start_upstream(applied)
        self._read_members(applied)
        if not self._SyncObj__otherNodes and self._votes:
            self._SyncObj__raftElectionDeadline = self._heard_at  # alone there is nobody to wait for

    def _start_upstream(self, applied: Applied) -> None:
        settings = self.settings
        configuration = SyncObjConf(
            autoTick=False,
            dynamicMembershipChange=False,
            appendEntriesPeriod=settings.heartbeat_s,
            raftMinTimeout=settings.election_min_s,
            raftMaxTimeout=settings.election_max_s,
            leaderFallbackTimeout=settings.fallback_s if self.mends.fall_back else 30.0,
            appendEntriesBatchSizeBytes=2 * ENTRY_LIMIT_BYTES if self.mends.own_appends else 2**16,
        )
        copies = upstream.copies(self._monotonic, self._chance, JournalAsLog(self._journal, applied.index, self._append, self._cut))
        begin = copies.pop("__init__")
        self._upstream_send = MethodType(copies.pop("_SyncObj__sendAppendEntries"), self)
        for name, function in copies.items():
            setattr(self, name, MethodType(function, self))
        begin(self, self._peer(self.node), [], configuration, transport=OutboxAsNetwork(self._send))
        self._SyncObj__raftLastApplied = applied.index

    # --- what others may know

    @property
    def state(self) -> State:
        return _STATES[self._SyncObj__raftState]

    @property
    def term(self) -> Term:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def leader(self) -> NodeId | None:
        leader: Peer | None = self._SyncObj__raftLeader
        return None if leader is None else str(leader.id)

    @property
    def members(self) -> Members:
        """The list in force: the last one in the ledger or the log, committed or not."""
        return self._history.latest

    @property
    def members_index(self) -> int:
        """Of the entry with that list; where it is not above `commit_index` no change is under way."""
        return self._history.latest_index

    @property
    def commit_index(self) -> int:
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    @property
    def last_index(self) -> int:
        return self._journal.last_index

    @property
    def leads_since_applied(self) -> Term | None:
        """The term this node leads, once that term's own first entry is applied here."""
        if self._SyncObj__raftState == _LEADER and self._SyncObj__raftLastApplied >= self._SyncObj__noopIDx:
            return self.term
        return None

    def has_lease(self) -> bool:
        """Leads, and no other node can have been elected yet. Nothing may rely on it for safety: the log decides."""
        return self._monotonic() < self.lease_until()

    def lease_until(self) -> float:
        """When `has_lease` will be false unless more answers come; for threads that may read only what was published."""
        if self._SyncObj__raftState != _LEADER or (self._lead.handover is not None and self.mends.lease_ends_with_transfer):
            return NEVER
        return self._lead.heard_by_majority(self._SyncObj__otherNodes) + self.settings.election_min_s * self.settings.lease_share

    def peers(self) -> dict[NodeId, PeerView]:
        leads = self._SyncObj__raftState == _LEADER
        match, following = self._SyncObj__raftMatchIndex, self._SyncObj__raftNextIndex
        return {
            peer.id: PeerView(
                connected=peer in self._SyncObj__connectedNodes,
                match_index=match[peer] if leads else 0,
                next_index=following[peer] if leads else 0,
                caught_up=leads and match[peer] >= self._SyncObj__raftCommitIndex,
                last_heard=self._last_heard.get(peer),
            )
            for peer in self._targets
        }

    def match_indexes(self) -> list[tuple[NodeId, int]]:
        """What a leader knows its peers to hold; empty elsewhere."""
        if self._SyncObj__raftState != _LEADER:
            return []
        return [(peer.id, match) for peer, match in self._SyncObj__raftMatchIndex.items()]

    def next_deadline(self) -> float:
        """The monotonic time at which `tick` has something to do, unless a message or proposal comes first."""
        if self._SyncObj__raftState != _LEADER:
            return float(self._SyncObj__raftElectionDeadline)
        if self._must_send and self.mends.send_at_once:
            return self._monotonic()
        due = float(self._SyncObj__newAppendEntriesTime)
        return due if self._lead.handover is None else min(due, self._lead.handover.until)

    def take_outbox(self) -> list[tuple[NodeId, Message]]:
        """To be sent, in this order, and only after a sync of the journal."""
        outbox, self._outbox = self._outbox, []
        return outbox

    # --- the turn

    def tick(self) -> None:
        """Elections, commit index, fall-back, hand-over; sends what was proposed and heartbeats that are due."""
        now = self._monotonic()
        committed = self._SyncObj__raftCommitIndex
        led = self._SyncObj__raftState == _LEADER
        if led:
            self._hand_over(now)
        elections = not led and self._campaign(now)
        self._onTick()
        if self._SyncObj__raftState == _LEADER:
            self._hold_to_synced(committed)
            self._notice_commit(now)
        elif led:
            self._step_down(now)
        if elections:
            self._after_election(now)

    def synced(self) -> None:
        """The driver says: everything in the journal is on disk."""
        self._synced = self._journal.last_index
        if self._SyncObj__raftState == _LEADER and not self._SyncObj__otherNodes and self._journal.last_term == self._SyncObj__raftCurrentTerm:
            self._SyncObj__raftCommitIndex = self._synced  # alone, the own disk is the majority

    def committed(self, limit: int) -> Sequence[Entry]:
        """The next entries to apply, at most `limit`: committed, and on this disk."""
        first = self._SyncObj__raftLastApplied + 1
        last = self._SyncObj__raftCommitIndex
        if self.mends.count_only_synced and last > self._synced:
            last = self._synced
        if last < first:
            return ()
        return self._journal.entries(first, min(last, first + limit - 1) + 1)

    def mark_applied(self, index: int, members: Members | None = None) -> None:
        """Entries up to `index` are in the ledger. (Which list of members that made does not matter here: the log knew it first.)"""
        self._SyncObj__raftLastApplied = index
        self._history.forget_before(index)

    def compact(self, upto: int) -> None:
        """Entries up to `upto` will not be needed: the ledger holds them for good."""
        upto = min(upto, self._SyncObj__raftLastApplied)
        if upto > self._journal.base.index:
            self._journal.cut_to(upto)

    # --- proposals and reads

    def propose(self, commands: Sequence[bytes]) -> tuple[Term, int]:
        """Term and index of the first. They are sent, together, by the next `tick`."""
        self._check_leads()
        term, first = self._SyncObj__raftCurrentTerm, self._journal.last_index + 1
        self._journal.append([Entry(index, term, 0, command) for index, command in enumerate(commands, first)])
        self._must_send = True
        return term, first

    def propose_members(self, members: Members) -> tuple[Term, int]:
        """In force at once, here and wherever the entry arrives. ValueError says why it must not be proposed now."""
        self._check_leads()
        if self.mends.change_after_first_entry and self._SyncObj__raftCommitIndex < self._SyncObj__noopIDx:
            raise ValueError("this term has committed nothing yet, so an earlier change may still be open; try again in a moment")
        if self.mends.one_change_at_a_time:
            if self._history.latest_index > self._SyncObj__raftCommitIndex:
                raise ValueError("another change of the members is under way; try again when it is committed")
            membership.check_change(self.members, members, self.node)
        index = self._journal.last_index + 1
        self._append([Entry(index, self.term, Kind.MEMBERS, membership.encode(members))])
        self._must_send = True
        return self.term, index

    def start_read(self) -> ReadToken:
        """ReadIndex (Raft thesis 6.4): the next `tick` asks every peer whether this node still leads."""
        if self._SyncObj__raftState != _LEADER:
            raise NotLeader(self.leader)
        self._lead.round_wanted = self._must_send = True
        # Before the term's first entry is committed the commit index may be behind; that entry follows all that ever was.
        return ReadToken(self.term, self._lead.seq + 1, max(self._SyncObj__raftCommitIndex, self._SyncObj__noopIDx))

    def read_confirmed(self, token: ReadToken) -> int | None:
        """The index to wait for; None while the answers are out. NotLeader when this leadership has ended."""
        if self._SyncObj__raftState != _LEADER or self.term != token.term:
            raise NotLeader(self.leader)
        if self.mends.read_by_round and not self._lead.answered_by_majority(self._SyncObj__otherNodes, token.seq):
            return None
        return token.index

    def transfer(self, to: NodeId | None) -> bool:
        """Begins to hand over, to the voter that is furthest where none is named. False where nobody can take it.

        From now on there is no lease and no proposal. When that takes too long the leader goes on if it has not asked the other yet, and steps
        down if it has: that request may still be on its way, and may unseat whoever leads then in this term.
        """
        if self._SyncObj__raftState != _LEADER or self._lead.handover is not None:
            return False
        match = self._SyncObj__raftMatchIndex
        willing = [peer for peer in self._SyncObj__otherNodes & self._SyncObj__connectedNodes if to is None or peer.id == to]
        if not willing:
            return False
        successor = max(willing, key=lambda peer: (match[peer], peer.id))
        self._lead.handover = Handover(successor, self._monotonic() + self.settings.transfer_s)
        self._must_send = True
        return True

    # --- links and snapshots

    def connected(self, peer: NodeId) -> None:
        """The link to that node is up. What was on its way before may be lost, so sending goes on behind what it is known to hold."""
        found = self._peer(peer)
        self._SyncObj__onNodeConnected(found)
        self._lead.reconnected(found)
        match = self._SyncObj__raftMatchIndex.get(found, 0)
        if match and self._SyncObj__raftState == _LEADER:
            self._SyncObj__raftNextIndex[found] = match + 1
        self._must_send = True

    def disconnected(self, peer: NodeId) -> None:
        self._SyncObj__onNodeDisconnected(self._peer(peer))

    def wants_snapshot(self) -> NodeId | None:
        """The leader that no longer has what follows this node's log; until `installed` is called, or it has it after all."""
        return self._snapshot_from

    def installed(self, applied: Applied) -> None:
        """The ledger was replaced by one that stands there. What the journal holds behind it is kept if it joins, else dropped."""
        if applied.index <= self.applied_index:
            return
        kept = self._place_journal(applied)
        self._synced = self._synced if kept else applied.index
        self._SyncObj__raftLastApplied = applied.index
        self._SyncObj__raftCommitIndex = max(self.commit_index, applied.index)
        self._snapshot_from = None
        self._read_members(applied)

    # --- messages

    def receive(self, sender: NodeId, message: Message) -> None:
        peer = self._peer(sender)
        now = self._last_heard[peer] = self._monotonic()
        match message:
            case Append():
                self._on_append(peer, message, now)
            case AppendReply():
                self._on_append_reply(peer, message, now)
            case VoteRequest():
                self._on_vote_request(peer, message, now)
            case VoteReply():
                self._on_vote_reply(peer, message)
            case TimeoutNow():
                self._on_timeout_now(peer, message)

    def _on_append(self, peer: Peer, append: Append, now: float) -> None:
        self._reply_seq = append.seq
        if append.term < self._SyncObj__raftCurrentTerm:
            if self.mends.answer_old_terms:  # else a node that is ahead by an election nobody won could never be led again
                self._SyncObj__sendNextNodeIdx(peer)
            return
        if append.term == self._SyncObj__raftCurrentTerm and self._SyncObj__raftState == _LEADER:
            raise Halted(f"two leaders in term {append.term}: {self.node} and {peer.id}")
        self._heard_at = now
        self._asked_term = 0  # whoever hears a leader asks for no votes
        base = self._journal.base.index
        if append.snapshot and append.prev_index >= base and self._journal.term_at(append.prev_index) != append.prev_term:
            self._on_snapshot_notice(peer, append)
            return
        self._snapshot_from = None
        self._deliver_append(peer, append)

    def _deliver_append(self, peer: Peer, append: Append) -> None:
        prev, prev_term, entries, commit = append.prev_index, append.prev_term, append.entries, append.commit
        covered = prev + len(entries)
        self._cut_tail, self._hint = True, None
        if self.mends.trim_appends:
            journal = self._journal
            found = gate.trim(append, journal.base.index, journal.last_index, self._SyncObj__raftCommitIndex, journal.term_at)
            if isinstance(found, gate.Trimmed):
                prev, prev_term, entries, covered, self._cut_tail = found.prev_index, found.prev_term, found.entries, found.covered, found.cut
            if self._cut_tail and prev < self._SyncObj__raftCommitIndex and isinstance(found, gate.Trimmed):
                raise Halted(f"{peer.id} contradicts committed entry {prev + 1} in term {append.term}")
            if isinstance(found, gate.Mismatch) and self.mends.conflict_hint:
                self._hint = found.hint
        self._SyncObj__onMessageReceived(
            peer,
            {
                "type": "append_entries",
                "term": append.term,
                "prevLogIdx": prev,
                "prevLogTerm": prev_term,
                "entries": [(entries, entries[-1].index, entries[-1].term)] if entries else [],
                "commit_index": min(commit, covered) if self.mends.hold_commit else commit,
            },
        )

    def _on_snapshot_notice(self, peer: Peer, append: Append) -> None:
        """PySyncObj takes it for a snapshot without content: the term and the leader count, and nothing about the log follows from it."""
        commit = min(append.commit, self._SyncObj__raftCommitIndex) if self.mends.hold_commit else append.commit
        self._SyncObj__onMessageReceived(peer, {"type": "append_entries", "term": append.term, "commit_index": commit})
        self._snapshot_from = peer.id
        self._hint = self._SyncObj__raftCommitIndex + 1
        self._SyncObj__sendNextNodeIdx(peer, reset=True)

    def _on_append_reply(self, peer: Peer, reply: AppendReply, now: float) -> None:
        if self.mends.drop_strangers and peer not in self._SyncObj__raftMatchIndex:
            return
        if reply.term > self._SyncObj__raftCurrentTerm and self.mends.tag_replies:
            self._adopt(reply.term, now)
            return
        if self._SyncObj__raftState != _LEADER:
            return
        if self.mends.tag_replies and (reply.term != self._SyncObj__raftCurrentTerm or not 0 < reply.seq <= self._lead.seq):
            return
        self._lead.note_answer(peer, reply.seq, None if self.mends.lease_from_sending else now)
        before = self._SyncObj__raftNextIndex[peer]
        reset = reply.reset and self._lead.rewinds(peer, reply.seq)
        self._SyncObj__onMessageReceived(peer, {"type": "next_node_idx", "reset": reset, "next_node_idx": reply.next_index, "success": reply.success})
        self._place_next(peer, before, reset=reset)

    def _place_next(self, peer: Peer, before: int, *, reset: bool) -> None:
        """PySyncObj has moved the position to send from; never below what has arrived, nor back over what is on its way."""
        following, match = self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex[peer]
        if reset:
            following[peer] = max(match + 1, min(following[peer], self._journal.last_index + 1))
            self._lead.rewound(peer)
        elif following[peer] < before and self.mends.keep_sending_position:
            following[peer] = before
        self._lead.arrived(peer, match)
        if following[peer] <= self._journal.last_index and (self.mends.conflict_hint or not reset):
            self._must_send = True

    def _on_vote_request(self, peer: Peer, request: VoteRequest, now: float) -> None:
        leads = self._SyncObj__raftState == _LEADER
        refused = self.mends.refuse_votes and gate.hears_a_leader(
            request, leads=leads, heard_at=self._heard_at, now=now, election_min_s=self.settings.election_min_s
        )
        if request.pre:
            self._answer_in_advance(peer, request, refused=refused)
        elif not refused:
            self._SyncObj__onMessageReceived(
                peer,
                {"type": "request_vote", "term": request.term, "last_log_index": request.last_index, "last_log_term": request.last_term},
            )

    def _answer_in_advance(self, peer: Peer, request: VoteRequest, *, refused: bool) -> None:
        granted = not refused and gate.grants_in_advance(request, self._SyncObj__raftCurrentTerm, self._journal.last_index, self._journal.last_term)
        term = request.term if granted else self._SyncObj__raftCurrentTerm
        self._outbox.append((peer.id, VoteReply(term, granted, True)))

    def _on_vote_reply(self, peer: Peer, reply: VoteReply) -> None:
        if self.mends.drop_strangers and peer not in self._SyncObj__otherNodes:
            return
        if not reply.granted:
            if reply.term > self._SyncObj__raftCurrentTerm and self._SyncObj__raftState != _LEADER:
                self._adopt(reply.term, self._monotonic())
        elif reply.pre:
            self._count_in_advance(peer, reply.term)
        elif not (self.mends.count_votes_once and (peer in self._granted or reply.term != self._SyncObj__raftCurrentTerm)):
            self._granted.add(peer)
            self._SyncObj__onMessageReceived(peer, {"type": "response_vote", "term": reply.term})

    def _on_timeout_now(self, peer: Peer, message: TimeoutNow) -> None:
        if not self._votes or self._SyncObj__raftState == _LEADER:
            return
        self._SyncObj__onMessageReceived(peer, {"type": "timeout_now", "term": message.term})
        if self._SyncObj__transferInProgress and self._SyncObj__raftElectionDeadline == 0:
            self._chosen = self._by_transfer = True
            self._chosen_in = message.term

    # --- elections

    def _campaign(self, now: float) -> bool:
        """At the deadline: asks in advance whether an election could be won, and lets PySyncObj begin it when that is so."""
        if self._SyncObj__raftElectionDeadline > now:
            # Something that came after it put the deadline off again: what was agreed on is over, and above all no longer "by transfer".
            self._chosen = self._by_transfer = self._SyncObj__transferInProgress = False
            return False
        if not self._votes or not self._SyncObj__connectedToAnyone():
            self._wait_for_election(now)
            return False
        if self._chosen_in != self._SyncObj__raftCurrentTerm:
            self._chosen = self._by_transfer = False
        if self.mends.pre_vote and not self._chosen and self._SyncObj__otherNodes:
            self._ask_in_advance(now)
            return False
        self._granted.clear()
        self._SyncObj__raftElectionDeadline = _AT_ONCE
        return True

    def _ask_in_advance(self, now: float) -> None:
        self._SyncObj__raftElectionDeadline = now + self._retry_time()
        self._SyncObj__raftLeader = None
        self._asked_term = self._SyncObj__raftCurrentTerm + 1
        self._asked_granted.clear()
        request = VoteRequest(self._asked_term, self._journal.last_index, self._journal.last_term, pre=True)
        self._outbox.extend((peer.id, request) for peer in self._targets if peer in self._SyncObj__otherNodes)

    def _count_in_advance(self, peer: Peer, term: Term) -> None:
        if term != self._asked_term or term != self._SyncObj__raftCurrentTerm + 1 or self._SyncObj__raftState == _LEADER:
            return
        self._asked_granted.add(peer)
        if len(self._asked_granted & self._SyncObj__otherNodes) + 1 > (len(self._SyncObj__otherNodes) + 1) / 2:
            self._asked_term = 0
            self._chosen = True
            self._chosen_in = self._SyncObj__raftCurrentTerm
            self._SyncObj__raftElectionDeadline = _AT_ONCE

    def _after_election(self, now: float) -> None:
        """PySyncObj has asked for votes (or already leads, alone). Should they split, the next attempt need not wait a whole time-out."""
        self._chosen = self._by_transfer = False
        self._asked_term = 0
        self._SyncObj__raftElectionDeadline = now + self._retry_time()

    def _wait_for_election(self, now: float) -> None:
        self._chosen = self._by_transfer = False
        self._SyncObj__raftElectionDeadline = now + self._SyncObj__generateRaftTimeout()

    def _retry_time(self) -> float:
        return self._chance.uniform(self.settings.retry_min_s, self.settings.retry_max_s)

    def _adopt(self, term: Term, now: float) -> None:
        """A member has seen a higher term: this one is over."""
        led = self._SyncObj__raftState == _LEADER
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = None
        if led:
            self._step_down(now)

    def _step_down(self, now: float) -> None:
        self._lead = Leadership(-1)
        self._wait_for_election(now)

    # --- leading

    def _reset_follower(self) -> None:
        self._chosen = self._by_transfer = self._cut_tail = False
        self._asked_term = self._chosen_in = self._reply_seq = 0
        self._asked_granted, self._granted = set(), set()
        self._hint = self._snapshot_from = None

    def _check_leads(self) -> None:
        if self._SyncObj__raftState != _LEADER:
            raise NotLeader(self.leader)
        if self._lead.handover is not None:
            raise NotLeader(self._lead.handover.successor.id, f"the leadership is being handed over to {self._lead.handover.successor.id}")

    def _hold_to_synced(self, committed: int) -> None:
        """PySyncObj counts the leader's own log as it is in memory; a vote for an entry is worth what the disk holds of it."""
        if self.mends.count_only_synced and self._SyncObj__raftCommitIndex > self._synced:
            self._SyncObj__raftCommitIndex = max(committed, self._synced)

    def _notice_commit(self, now: float) -> None:
        if self._SyncObj__raftCommitIndex > self._lead.told_commit:
            due: float = self._SyncObj__newAppendEntriesTime
            self._SyncObj__newAppendEntriesTime = min(due, now + self.settings.commit_notice_s)

    def _hand_over(self, now: float) -> None:
        handover = self._lead.handover
        if handover is None:
            return
        if not handover.asked:
            self.transferLeadership(handover.successor, handover.note)  # PySyncObj sends it when the other holds all of the log
        if now >= handover.until:
            self._lead.handover = None
            if handover.asked:
                self._SyncObj__setState(_FOLLOWER)
                self._SyncObj__raftLeader = None
                self._step_down(now)

    def _send_entries(self, peer: Peer, seq: int) -> bool:
        """What the peer lacks, in messages of bounded size, as many as may be unanswered; some of it now, and the rest when others have had their
        turn. True if anything was sent."""
        journal, settings = self._journal, self.settings
        begin: int = self._SyncObj__raftNextIndex[peer]
        start, stop, last = begin, begin + settings.step_entries, journal.last_index
        flying = self._lead.in_flight(peer)
        while start <= last and len(flying) < settings.appends_in_flight:
            if start >= stop:
                self._must_send = True
                break
            entries = journal.entries(start, min(start + settings.append_entries, stop), settings.append_bytes)
            self._send_append(peer, seq, start - 1, entries)
            start += len(entries)
            flying.append(start - 1)
        self._SyncObj__raftNextIndex[peer] = start
        return start > begin

    def _send_append(self, peer: Peer, seq: int, prev: int, entries: list[Entry]) -> None:
        term_before = self._journal.term_at(prev)
        assert term_before is not None
        append = Append(self._SyncObj__raftCurrentTerm, seq, prev, term_before, self._SyncObj__raftCommitIndex, entries)
        self._outbox.append((peer.id, append))

    def _send_snapshot_notice(self, peer: Peer, seq: int) -> None:
        base = self._journal.base
        self._outbox.append((peer.id, Append(self._SyncObj__raftCurrentTerm, seq, base.index, base.term, self._SyncObj__raftCommitIndex, [], True)))

    # --- log and members

    def _append(self, entries: list[Entry]) -> None:
        self._journal.append(entries)
        if self._history.take(entries):
            self._follow_members()

    def _cut(self, index: int) -> None:
        self._journal.truncate_from(index)
        self._synced = min(self._synced, index - 1)
        if self.mends.roll_back_members and self._history.cut_from(index):
            self._follow_members()

    def _place_journal(self, applied: Applied) -> bool:
        """The ledger decides where the log stands; a suffix that joins it is kept."""
        journal = self._journal
        if applied.index < journal.base.index:
            raise Halted(
                f"the ledger stands at {applied.index}, but the journal begins after {journal.base.index}: the ledger lost what was durable; "
                "empty this node's data directory and let it join again"
            )
        if journal.term_at(applied.index) == applied.term:
            return True
        journal.reset(applied.index, applied.term)
        return False

    def _read_members(self, applied: Applied) -> None:
        self._history = membership.History(applied.index, applied.members)
        if self.mends.members_from_log:
            self._history.take(self._journal.entries(applied.index + 1, self._journal.last_index + 1))
        self._follow_members()

    def _follow_members(self) -> None:
        """Voters are PySyncObj's other nodes, learners its read-only nodes: they get the log and do not count."""
        members, now = self._history.latest, self._monotonic()
        voters = [self._peer(member.id) for member in members.voters if member.id != self.node]
        learners = [self._peer(member.id) for member in members.learners if member.id != self.node]
        self._votes = members.is_voter(self.node)
        self._targets = [*voters, *learners]
        self._SyncObj__otherNodes = set(voters)
        self._SyncObj__readonlyNodes = set(learners)
        match, following, answered = self._SyncObj__raftMatchIndex, self._SyncObj__raftNextIndex, self._SyncObj__lastResponseTime
        for peer in match.keys() - set(self._targets):
            del match[peer], following[peer]
        for peer in self._targets:
            if peer not in match:
                match[peer], following[peer], answered[peer] = 0, self._journal.last_index + 1, now

    def _peer(self, node: NodeId) -> Peer:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = Peer(node)
        return peer

    def _send(self, peer: Peer, message: dict[str, Any]) -> None:
        self._outbox.append((peer.id, self._message(message)))

    def _message(self, message: dict[str, Any]) -> Message:
        """What PySyncObj sends by itself, as one of our messages."""
        match message["type"]:
            case "request_vote":
                return VoteRequest(message["term"], message["last_log_index"], message["last_log_term"], transfer=self._by_transfer)
            case "response_vote":
                return VoteReply(message["term"], True)
            case "timeout_now":
                return TimeoutNow(message["term"])
            case "append_entries":  # only when PySyncObj's own way of sending runs
                entries = [self._journal.entry(index) for _, index, _ in message["entries"]]
                return Append(message["term"], self._lead.seq, message["prevLogIdx"], message["prevLogTerm"], message["commit_index"], entries)
        raise AssertionError(f"PySyncObj sent {message['type']!r}, which nothing here should make it do")

    # --- in place of PySyncObj's own

    def _SyncObj__sendAppendEntries(self) -> None:
        """No entry beyond what a peer may leave unanswered, none pickled in pieces; a peer that is too far behind is told so."""
        now = self._monotonic()
        if self._lead.term != self._SyncObj__raftCurrentTerm:
            self._lead = Leadership(self._SyncObj__raftCurrentTerm)
            self._lead.round_wanted = True
        lead = self._lead
        everybody = lead.round_wanted or now >= self._SyncObj__newAppendEntriesTime
        self._must_send = lead.round_wanted = False
        lead.told_commit = self._SyncObj__raftCommitIndex
        seq = lead.stamp(now)
        if not self.mends.own_appends:
            self._upstream_send()
            return
        if everybody:
            self._SyncObj__newAppendEntriesTime = now + self.settings.heartbeat_s
        for peer in self._targets:
            if peer not in self._SyncObj__connectedNodes:
                continue
            following = self._SyncObj__raftNextIndex[peer]
            if following <= self._journal.base.index:
                if everybody:
                    self._send_snapshot_notice(peer, seq)
            elif not self._send_entries(peer, seq) and everybody:
                self._send_append(peer, seq, following - 1, [])

    def _SyncObj__sendNextNodeIdx(self, node: Peer, reset: bool = False, nextNodeIdx: int | None = None, success: bool = False) -> None:
        """With our term and the number of the append that is answered; a hint where to go on."""
        following = self._journal.last_index + 1 if nextNodeIdx is None else nextNodeIdx
        if reset and self._hint is not None:
            following = self._hint
        self._outbox.append((node.id, AppendReply(self._SyncObj__raftCurrentTerm, self._reply_seq, following, success, reset)))

    def _SyncObj__getEntries(self, fromIDx: int, count: int | None = None, maxSizeBytes: int | None = None) -> list[Any]:
        """PySyncObj asks for the term of one entry, for an append's place and whether anything stands behind it, or for a batch to send."""
        term = self._journal.term_at(fromIDx)
        if term is None:
            return []
        if maxSizeBytes is not None:
            found = self._journal.entries(fromIDx, self._journal.last_index + 1, maxSizeBytes)
            return [(entry.data, entry.index, entry.term) for entry in found]
        here = (None, fromIDx, term)
        return [here, None] if count is None and self._cut_tail and fromIDx < self._journal.last_index else [here]

    def _SyncObj__applyLogEntries(self) -> bool:
        """The driver applies, in batches. True: send now, not when the period is over."""
        return (self._must_send and self.mends.send_at_once) or self._monotonic() >= self._SyncObj__newAppendEntriesTime

    def _checkCommandsToApply(self) -> None:
        """The driver proposes, with `propose`."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """The driver compacts, with `compact`."""
