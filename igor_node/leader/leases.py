"""The leader's book of leases: when each attempt was renewed last, and which attempts are condemned. Memory of one term, no I/O.

Promise (SEMANTICS, `on_node_loss: rerun`): two attempts of one stage never run at once. The ledger makes the next attempt only when
`AttemptsLost` is committed, and the leader proposes that only when no wrapper can still run the old one. Why not:

  The wrapper's side. A wrapper ends its command when its lease L has run out, counted on its machine's CLOCK_BOOTTIME from the sending of the
  newest message whose answer it (or its node) got: a heartbeat that named it, its own renewal, or, for a fresh assignment, the Hello or
  heartbeat whose answer was the last one that came *before the assignment on the same stream*. So an assignment that was stuck in a socket
  while the machine slept is late by its own count, and a node never starts one whose lease is out. A renewal that comes after the lease ran
  out changes nothing.

  The leader's side. It answers a message only while it holds the quorum lease, checked after the message arrived, so no other leader had begun
  then: the sending lies before the begin of any later term. And it notes, before it answers, a moment that is not earlier than that sending:
    1. a heartbeat or a renewal that arrives: now, for each attempt named;
    2. an assignment that is placed, or sent, also again: now. Answers go out in order, so the node's count for it began before;
    3. what an earlier term's leader answered: the begin of this term.
  It waits L + margin from the newest of the three (rules/node_loss.py). The sending came first, so the wrapper's L is out by then; the margin
  covers clocks of different speed and the time in which the kernel ends the process.

  The gap between deciding and committing. While `AttemptsLost` is on its way the attempt is *condemned*: it is not renewed any more, and
  not assigned again, or a node that comes back just then would start it beside its successor. Condemned is for ever within a term; the ledger
  refuses it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable


class Leases:
    def __init__(self, began_mono: int) -> None:
        self._began = began_mono
        self._renewed: dict[str, int] = {}
        self._condemned: set[str] = set()

    def renew(self, attempts: Iterable[str], now_mono: int) -> list[str]:
        """Notes a sign of life of these attempts; returns those that are condemned and were not renewed."""
        refused = []
        for attempt in attempts:
            if attempt in self._condemned:
                refused.append(attempt)
            else:
                self._renewed[attempt] = now_mono
        return refused

    def hand_out(self, attempts: Iterable[str], now_mono: int) -> list[str]:
        """Which of these may be assigned (again) now; their leases count anew from here."""
        allowed = [attempt for attempt in attempts if attempt not in self._condemned]
        self.renew(allowed, now_mono)
        return allowed

    def renewed_at(self, attempt: str) -> int:
        return self._renewed.get(attempt, self._began)

    def condemn(self, attempts: Iterable[str]) -> None:
        self._condemned.update(attempts)

    def is_condemned(self, attempt: str) -> bool:
        return attempt in self._condemned

    def keep_only(self, open_attempts: Iterable[str], asked_mono: int) -> None:
        """Forgets renewals of attempts that have ended: the book is as long as the list of open attempts. That list was asked for at `asked_mono`
        and does not know what was placed since: whatever was renewed later stays."""
        still_open = set(open_attempts)
        self._renewed = {attempt: at for attempt, at in self._renewed.items() if at >= asked_mono or attempt in still_open}
