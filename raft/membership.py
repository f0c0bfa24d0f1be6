"""Who belongs to the cluster: the whole list as one log entry, in force from the moment it is in the log.

`History` is the lists of the log in order: the one the ledger was applied with, then each one the journal holds after it, committed or not.
The last one counts; when the log is cut back, the one before counts again (Raft thesis, section 4.1). `check_change` is what a leader asks
before it proposes another: at most one voter comes or goes at a time, so that any majority of the old list meets any of the new.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raft.interface import Entry, Kind, Member, Members
from raft.journal import Journal

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Members).decode

MEMBERS_LIMIT = 64  # in one list: each gets every entry from the leader


class History:
    """The lists in force since some index, each with the index of its entry."""

    def __init__(self, index: int, members: Members) -> None:
        self._lists = [(index, members)]

    @property
    def latest(self) -> Members:
        return self._lists[-1][1]

    @property
    def latest_index(self) -> int:
        return self._lists[-1][0]

    def take(self, entries: Iterable[Entry]) -> bool:
        """Notes the lists among new entries. True if there was one."""
        found = [(entry.index, decode(entry.data)) for entry in entries if entry.kind == Kind.MEMBERS and entry.index > self.latest_index]
        self._lists.extend(found)
        return bool(found)

    def cut_from(self, index: int) -> bool:
        """Entries from `index` on are gone. True if that brought an earlier list back. The first one stays: it was applied."""
        before = len(self._lists)
        while len(self._lists) > 1 and self._lists[-1][0] >= index:
            self._lists.pop()
        return len(self._lists) < before

    def forget_before(self, index: int) -> None:
        """Everything up to `index` is applied and cannot be cut back: of the lists up to there only the last is needed."""
        while len(self._lists) > 1 and self._lists[1][0] <= index:
            self._lists.pop(0)


def check_change(old: Members, new: Members, leader: str) -> None:
    """Raises ValueError, with words for a person, where `new` must not follow `old`."""
    ids = [member.id for member in (*new.voters, *new.learners)]
    if len(set(ids)) != len(ids):
        raise ValueError("a node stands twice in the list of members")
    if len(ids) > MEMBERS_LIMIT:
        raise ValueError(f"{len(ids)} members are too many; at most {MEMBERS_LIMIT} get the log")
    if not new.is_voter(leader):
        raise ValueError(f"{leader} leads and cannot take itself out; transfer the leadership first")
    changed = {member.id for member in old.voters} ^ {member.id for member in new.voters}
    if len(changed) > 1:
        raise ValueError(f"only one voter may come or go at a time, not {', '.join(sorted(changed))}")


def found(journal: Journal, founder: Member) -> None:
    """Writes the first entry of a new cluster, whose only voter is the founder, into an empty journal, synced."""
    if journal.last_index or journal.term:
        raise ValueError("this journal is not empty: the node already belongs to a cluster")
    journal.set_vote(1, None)
    journal.append([Entry(1, 1, Kind.MEMBERS, encode(Members(voters=(founder,))))])
    journal.sync()


def with_learner(members: Members, member: Member) -> Members:
    """The list with `member` in it, as a learner unless it votes already; its address is the new one."""
    if members.is_voter(member.id):
        return Members(voters=_put(members.voters, member), learners=members.learners)
    return Members(voters=members.voters, learners=_put(members.learners, member))


def with_voter(members: Members, node: str) -> Members:
    """The list with that learner as a voter."""
    member = members.find(node)
    if member is None:
        raise ValueError(f"{node} must be a learner before it can become a voter")
    return Members(voters=_put(members.voters, member), learners=_drop(members.learners, node))


def without(members: Members, node: str) -> Members:
    return Members(voters=_drop(members.voters, node), learners=_drop(members.learners, node))


def _put(members: tuple[Member, ...], member: Member) -> tuple[Member, ...]:
    return tuple(sorted((*_drop(members, member.id), member)))


def _drop(members: tuple[Member, ...], node: str) -> tuple[Member, ...]:
    return tuple(member for member in members if member.id != node)
