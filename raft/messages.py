"""What one node says to another: five messages, encoded by `wire.py` as MessagePack.

The engine makes and takes them; the links of the pump and of the simulator carry them. Every one carries the term of its sender. Arrays, not
maps, on the wire: a field is only ever added at the end, with a default.
"""

from __future__ import annotations

import msgspec

from raft.interface import Entry, Term


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """From a leader: the entries after `prev_index`, or none (a heartbeat). `seq` counts the leader's sendings, the reply brings it back.

    `snapshot`: what follows the receiver's log is cut from the leader's; fetch a snapshot out of band. No entries come with it.
    """

    term: Term
    seq: int
    prev_index: int
    prev_term: Term
    commit: int
    entries: list[Entry] = []
    snapshot: bool = False


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag="reply"):
    """`success`: everything before `next_index` is on the sender's disk and the leader's. `reset`: go on from `next_index` (a hint)."""

    term: Term
    seq: int
    next_index: int
    success: bool
    reset: bool


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag="vote"):
    """`pre`: would you vote for me in `term`? Changes nothing at either end. `transfer`: the leader asked me to take over."""

    term: Term
    last_index: int
    last_term: Term
    pre: bool = False
    transfer: bool = False


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag="voted"):
    """`term` is the one asked for where the vote is granted, else the sender's own."""

    term: Term
    granted: bool
    pre: bool = False


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag="timeout_now"):
    """From a leader that hands over: begin an election at once."""

    term: Term


Message = Append | AppendReply | VoteRequest | VoteReply | TimeoutNow
