"""What a leader keeps of one leadership: its sendings, what each peer answered to which of them, and its wish to hand over.

The engine makes a new one for every term it leads, so that nothing of an old leadership can count in a later one. Every sending has a number;
the answer brings it back, and so says when the peer was surely a follower of this leader: when that append was *sent*, however late the answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from raft import gate
from raft.interface import Term
from raft.seams import Peer

NEVER = -math.inf
TIMES_KEPT_S = 5.0  # sending times older than this no longer matter to any lease


class Handover:
    """A leader's wish to be followed by `successor`; `asked`: PySyncObj has sent it the request."""

    def __init__(self, successor: Peer, until: float) -> None:
        self.successor = successor
        self.until = until
        self.asked = False

    def note(self, _result: None, failure: int) -> None:
        """PySyncObj's callback; 0 is success."""
        self.asked = failure == 0


class Leadership:
    def __init__(self, term: Term) -> None:
        self.term = term  # -1: none
        self.seq = 0  # number of the newest sending
        self.round_wanted = False  # a read, or the begin: ask every peer whether it still follows
        self.told_commit = 0  # what the newest sending said
        self.handover: Handover | None = None
        self._sent_at: dict[int, float] = {}
        self._answered_at: dict[Peer, float] = {}  # when the newest append that it answered was sent
        self._answered_seq: dict[Peer, int] = {}
        self._rewound: dict[Peer, int] = {}  # the sending at which it was last asked to go back
        self._in_flight: dict[Peer, deque[int]] = {}  # last indexes of appends without an answer

    def stamp(self, now: float) -> int:
        """The number of a new sending. Stamped before the sync and the socket: a lease that counts from here is never too long."""
        self.seq += 1
        self._sent_at[self.seq] = now
        oldest = next(iter(self._sent_at))
        if self._sent_at[oldest] < now - TIMES_KEPT_S:
            del self._sent_at[oldest]
        return self.seq

    def note_answer(self, peer: Peer, seq: int, arrived: float | None) -> None:
        """`arrived`: count from then, as nobody should; None: from the sending."""
        sent = self._sent_at.get(seq, NEVER) if arrived is None else arrived
        self._answered_at[peer] = max(sent, self._answered_at.get(peer, NEVER))
        self._answered_seq[peer] = max(seq, self._answered_seq.get(peer, 0))

    def heard_by_majority(self, voters: Iterable[Peer]) -> float:
        """The latest time at which a majority surely followed this leader."""
        return gate.majority([self._answered_at.get(peer, NEVER) for peer in voters], math.inf)

    def answered_by_majority(self, voters: Iterable[Peer], seq: int) -> bool:
        return gate.majority([self._answered_seq.get(peer, 0) for peer in voters], math.inf) >= seq

    def rewinds(self, peer: Peer, seq: int) -> bool:
        """Of several answers that ask to go back only the first counts: the others answer what was sent before that was done."""
        return seq > self._rewound.get(peer, 0)

    def rewound(self, peer: Peer) -> None:
        self._rewound[peer] = self.seq
        self.in_flight(peer).clear()

    def in_flight(self, peer: Peer) -> deque[int]:
        found = self._in_flight.get(peer)
        if found is None:
            found = self._in_flight[peer] = deque()
        return found

    def arrived(self, peer: Peer, match_index: int) -> None:
        flying = self.in_flight(peer)
        while flying and flying[0] <= match_index:
            flying.popleft()

    def reconnected(self, peer: Peer) -> None:
        """What was on its way may be lost."""
        self._in_flight.pop(peer, None)
