"""One-line faults of consensus. `mutations.py` hunts for them; `mutations.json` and the table in `docs/consensus.md` say what found each."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    name: str
    what: str
    file: str
    line: str  # what stands there, found once in the file; it may take a line beside it to say which one is meant
    instead: str


def _mend(name: str) -> Fault:
    return Fault(f"no_{name}", f"the mend `{name}` is off", "raft/settings.py", f"    {name}: bool = True", f"    {name}: bool = False")


ENGINE, GATE, JOURNAL, PUMP = "raft/engine.py", "raft/gate.py", "raft/journal.py", "raft/pump.py"
LEADERSHIP, MEMBERSHIP, SEAMS = "raft/leadership.py", "raft/membership.py", "raft/seams.py"

FAULTS: tuple[Fault, ...] = (
    _mend("trim_appends"),
    _mend("hold_commit"),
    _mend("tag_replies"),
    _mend("drop_strangers"),
    _mend("count_votes_once"),
    _mend("one_change_at_a_time"),
    _mend("change_after_first_entry"),
    _mend("members_from_log"),
    _mend("roll_back_members"),
    _mend("own_appends"),
    _mend("send_at_once"),
    _mend("keep_sending_position"),
    _mend("count_only_synced"),
    _mend("conflict_hint"),
    _mend("pre_vote"),
    _mend("refuse_votes"),
    _mend("fall_back"),
    _mend("answer_old_terms"),
    _mend("lease_from_sending"),
    _mend("lease_ends_with_transfer"),
    _mend("read_by_round"),
    # The turn and the disk.
    Fault("sends_before_sync", "a turn sends before it syncs", PUMP, "        engine.tick()\n", "        engine.tick(); self._send()\n"),
    Fault(
        "skips_fsync",
        "the journal writes and does not sync",
        JOURNAL,
        "            segment.file.write(segment.end, frame)\n            segment.file.sync()",
        "            segment.file.write(segment.end, frame)",
    ),
    Fault(
        "skips_fsync_of_a_segment",
        "a new segment is put in place unsynced",
        JOURNAL,
        "        file.write(0, frames.MAGIC + head + frame)\n        file.sync()",
        "        file.write(0, frames.MAGIC + head + frame)",
    ),
    Fault(
        "skips_sync_of_the_folder",
        "a new segment's name is not made durable",
        JOURNAL,
        '{segment.name}")\n        self._disk.sync_folder(self._folder)',
        '{segment.name}")',
    ),
    Fault(
        "removes_a_segment_too_early",
        "a segment goes while its last entry is needed",
        JOURNAL,
        "self._segments[0].highest <= self._log.base.index",
        "self._segments[0].highest <= self._log.base.index + 1",
    ),
    Fault(
        "forgets_a_vote",
        "a vote for another in the same term is not noted",
        JOURNAL,
        "if (term, vote) != (self._log.term, self._log.vote):",
        "if term != self._log.term:",
    ),
    Fault(
        "forgets_the_vote_on_disk",
        "the journal writes the term and not the vote",
        JOURNAL,
        "self._pending.append(Vote(term, vote))",
        "self._pending.append(Vote(term, None))",
    ),
    Fault(
        "forgets_the_vote_of_a_segment",
        "of older segments' vote nothing is known when they are gone",
        JOURNAL,
        "            log.term, log.vote = record.term, record.vote",
        "            log.term = record.term",
    ),
    Fault(
        "forgets_the_vote_at_a_start",
        "a start asks the journal for the term and not for the vote",
        SEAMS,
        "        return self._journal.vote",
        "        return None",
    ),
    Fault(
        "forgets_a_cut",
        "the journal does not write that its tail was cut",
        JOURNAL,
        "            self._pending.append(Truncate(index, previous_term))",
        "            pass",
    ),
    Fault(
        "forgets_a_reset",
        "the journal does not write that a snapshot took its place",
        JOURNAL,
        "        self._pending.append(Reset(index, term))",
        "        pass",
    ),
    Fault(
        "forgets_what_it_synced",
        "a new segment begins with an old account of the log",
        JOURNAL,
        "        self._pending = []\n        self._synced = _stand(self._log)",
        "        self._pending = []",
    ),
    # Appends.
    Fault(
        "old_terms_are_leaders",
        "the term of an append is not compared",
        ENGINE,
        "        if append.term < self._SyncObj__raftCurrentTerm:",
        "        if append.term < 0:",
    ),
    Fault(
        "place_without_term",
        "an append's place is judged by index alone, not by term",
        GATE,
        "    elif term_at(prev) != append.prev_term:",
        "    elif term_at(prev) is None:",
    ),
    Fault(
        "known_without_term",
        "an entry is known where any entry stands",
        GATE,
        "term_at(entries[known].index) == entries[known].term:",
        "term_at(entries[known].index) is not None:",
    ),
    Fault(
        "cuts_what_is_known",
        "a late append cuts what follows its entries",
        GATE,
        "bool(fresh) and prev < last_index, covered",
        "prev < last_index, covered",
    ),
    Fault(
        "vouches_for_its_tail",
        "a follower vouches for its whole log, not for what the append covers",
        GATE,
        "    covered = prev + len(entries)\n",
        "    covered = last_index\n",
    ),
    Fault(
        "hints_too_far", "the hint where to go on skips an entry", GATE, "    return max(first, commit + 1)", "    return max(first, commit + 1) + 1"
    ),
    # Votes.
    Fault(
        "keeps_leading",
        "a leader that sees a higher term goes on in it",
        ENGINE,
        "        self._SyncObj__setCurrentTerm(term, None)\n        self._SyncObj__setState(_FOLLOWER)",
        "        self._SyncObj__setCurrentTerm(term, None)",
    ),
    Fault(
        "learners_campaign",
        "who has no vote asks for votes",
        ENGINE,
        "        if not self._votes or not self._SyncObj__connectedToAnyone():",
        "        if not self._SyncObj__connectedToAnyone():",
    ),
    Fault(
        "learners_count",
        "learners count as voters",
        ENGINE,
        "        self._SyncObj__otherNodes = set(voters)",
        "        self._SyncObj__otherNodes = set(voters) | set(learners)",
    ),
    Fault("votes_soon", "votes are refused for half a time-out only", GATE, "now < heard_at + election_min_s", "now < heard_at + election_min_s / 2"),
    Fault(
        "votes_after_a_start",
        "what was promised before a crash does not hold after it",
        ENGINE,
        "        self._heard_at = monotonic()",
        "        self._heard_at = NEVER",
    ),
    # Leases and reads.
    Fault(
        "lease_too_long",
        "a lease lasts as long as the longest election time-out",
        ENGINE,
        "self.settings.election_min_s * self.settings.lease_share",
        "self.settings.election_max_s",
    ),
    Fault(
        "lease_without_margin",
        "a lease has no margin for clocks that differ",
        ENGINE,
        "self.settings.election_min_s * self.settings.lease_share",
        "self.settings.election_min_s",
    ),
    Fault(
        "minority_lease",
        "a lease rests on one less than a majority",
        GATE,
        "    return values[len(values) // 2]",
        "    return values[len(values) // 2 - 1]",
    ),
    Fault("shows_its_lease", "other threads see a lease that has ended until the turn is over", PUMP, "        self._withdraw_lease()\n", ""),
    Fault(
        "goes_on_after_asking",
        "a leader whose hand-over came to nothing goes on, though the other was asked",
        ENGINE,
        "            if handover.asked:\n",
        "            if False:\n",
    ),
    Fault(
        "read_by_an_old_round",
        "answers to a sending before the read confirm it",
        ENGINE,
        "ReadToken(self.term, self._lead.seq + 1,",
        "ReadToken(self.term, self._lead.seq,",
    ),
    Fault(
        "reads_before_its_first_entry",
        "a new leader answers reads before an entry of its term is committed",
        ENGINE,
        "max(self._SyncObj__raftCommitIndex, self._SyncObj__noopIDx))",
        "self._SyncObj__raftCommitIndex)",
    ),
    Fault(
        "reads_before_it_applied",
        "a confirmed read does not wait for the ledger",
        PUMP,
        "        if index is None or self.engine.applied_index < index:",
        "        if index is None:",
    ),
    # Members.
    Fault("two_voters_at_once", "two voters may come or go in one change", MEMBERSHIP, "    if len(changed) > 1:", "    if len(changed) > 2:"),
    Fault(
        "change_upon_change",
        "the next change need not wait for the last",
        ENGINE,
        "            if self._history.latest_index > self._SyncObj__raftCommitIndex:",
        "            if False:",
    ),
    Fault(
        "change_one_entry_early",
        "members may change while the term's first entry is under way",
        ENGINE,
        "self._SyncObj__raftCommitIndex < self._SyncObj__noopIDx:",
        "self._SyncObj__raftCommitIndex < self._SyncObj__noopIDx - 1:",
    ),
    Fault(
        "list_survives_its_cut",
        "a list that is cut off at its own index stays in force",
        MEMBERSHIP,
        "self._lists[-1][0] >= index:",
        "self._lists[-1][0] > index:",
    ),
    Fault(
        "forgets_a_list_too_early",
        "the list before one that is not applied yet is forgotten",
        MEMBERSHIP,
        "self._lists[1][0] <= index:",
        "self._lists[1][0] <= index + 1:",
    ),
    Fault(
        "newcomers_hold_everything",
        "a new member is believed to hold the log",
        ENGINE,
        "match[peer], following[peer], answered[peer] = 0,",
        "match[peer], following[peer], answered[peer] = self._journal.last_index,",
    ),
    # Snapshots and starts.
    Fault(
        "keeps_what_does_not_join",
        "a log is kept behind a snapshot whose term it does not share",
        ENGINE,
        "        if journal.term_at(applied.index) == applied.term:",
        "        if journal.term_at(applied.index) is not None:",
    ),
    Fault(
        "installs_behind_itself",
        "a snapshot is installed over a ledger that is further",
        PUMP,
        "        if stands.index <= self.engine.applied_index:\n            return",
        "        if False:\n            return",
    ),
    # What clients are told.
    Fault(
        "unknown_as_refused",
        "what may be in the log is called refused",
        PUMP,
        "(proposal.future, Unknown(reason)) for proposal in self._waiting.values()",
        "(proposal.future, NotLeader(None)) for proposal in self._waiting.values()",
    ),
    Fault(
        "leaves_them_waiting",
        "a deposed leader does not answer its waiting proposals",
        PUMP,
        "        if self._waiting and (engine.state != State.LEADER or engine.term != self._waiting_term):",
        "        if False:",
    ),
    Fault(
        "goes_on_after_an_apply_that_raised",
        "an apply that raised is passed over",
        PUMP,
        '            raise Halted(f"applying {span} failed: {type(problem).__name__}: {problem}") from problem',
        "            results = [None] * len(entries)",
    ),
    Fault(
        "answers_for_another",
        "an entry of another leader in the same place is taken for the own",
        PUMP,
        "            if entry.term == term:",
        "            if True:",
    ),
    Fault(
        "followers_propose", "who does not lead takes proposals", ENGINE, "        self._check_leads()\n        term, first", "        term, first"
    ),
)
