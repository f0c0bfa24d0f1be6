"""What stands in front of PySyncObj: pure functions that decide what of a message the engine may see, and what it may believe.

`engine.py` calls them with what it knows and acts on the answers; nothing here keeps state or reads a clock. Each one mends a fault of PySyncObj
0.3.17 that `docs/consensus.md` names, by a rule of Raft (Ongaro's thesis; the sections stand beside the rules).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from raft.interface import Entry, Term
from raft.messages import Append, VoteRequest

TermAt = Callable[[int], Term | None]


class Trimmed(msgspec.Struct, frozen=True):
    """What of an append is new: `entries` follow (`prev_index`, `prev_term`), which the log holds. `cut`: what stands there now conflicts.

    `covered` is the last index the message vouches for: the log up to there is the leader's, and nothing is known of what follows.
    """

    prev_index: int
    prev_term: Term
    entries: list[Entry]
    cut: bool
    covered: int


class Mismatch(msgspec.Struct, frozen=True):
    """The log does not hold what the append follows. `hint`: where the leader should go on."""

    hint: int


def trim(append: Append, base_index: int, last_index: int, commit: int, term_at: TermAt) -> Trimmed | Mismatch:
    """Raft 3.5: only a conflict of terms cuts the log. A repeated or late append says nothing of the entries behind its own."""
    prev, entries = append.prev_index, append.entries
    if prev == last_index and term_at(prev) == append.prev_term:  # nearly always
        return Trimmed(prev, append.prev_term, entries, False, prev + len(entries))
    if prev < base_index:  # the log begins behind it; what was cut away was committed, so it is the leader's too
        skipped = base_index - prev
        prev, entries = base_index, entries[skipped:]
    elif term_at(prev) != append.prev_term:
        return Mismatch(conflict_hint(prev, last_index, commit, term_at))
    known = 0
    while known < len(entries) and term_at(entries[known].index) == entries[known].term:
        known += 1
    covered = prev + len(entries)
    fresh = entries[known:] if known else entries
    prev += known
    term = term_at(prev)
    assert term is not None
    return Trimmed(prev, term, fresh, bool(fresh) and prev < last_index, covered)


def conflict_hint(prev: int, last_index: int, commit: int, term_at: TermAt) -> int:
    """Thesis 3.5, "If desired": where the conflicting term begins here, never below commit + 1: up to commit every leader's log is this one."""
    if prev > last_index:
        return last_index + 1
    conflicting = term_at(prev)
    first = prev
    while first - 1 > commit and term_at(first - 1) == conflicting:
        first -= 1
    return max(first, commit + 1)


def up_to_date(request: VoteRequest, last_index: int, last_term: Term) -> bool:
    """Raft 3.6.1: a vote only for a log that holds everything this one may have helped to commit."""
    return (request.last_term, request.last_index) >= (last_term, last_index)


def hears_a_leader(request: VoteRequest, *, leads: bool, heard_at: float, now: float, election_min_s: float) -> bool:
    """Thesis 4.2.3: while a leader was heard within the shortest time-out nobody else gets a vote, unless that leader asked for it.

    Leases rest on this. `heard_at` is the start of the process until a leader is heard: what was promised before a crash still holds.
    """
    if request.transfer:
        return False
    return leads or now < heard_at + election_min_s


def grants_in_advance(request: VoteRequest, term: Term, last_index: int, last_term: Term) -> bool:
    """Thesis 9.6, pre-vote: would a real request for that term win this vote?"""
    return request.term > term and up_to_date(request, last_index, last_term)


def majority(reached: Sequence[float], own: float) -> float:
    """The highest value that a majority has reached: `reached` of the other voters, `own` this one's."""
    if not reached:
        return own
    values = sorted((*reached, own), reverse=True)
    return values[len(values) // 2]
