"""What heartbeats tell this node: how far the leader's clock is from its own, and until when its attempts' leases are good.

Both are measured on CLOCK_BOOTTIME, so a step of this machine's wall clock changes nothing. `Pulse` is fed by `link.py` with every heartbeat sent and
every answer received; it writes the lease file that all wrappers read (`protocol.Lease` says under which condition they may).

Why an attempt whose assignment comes too late never starts. The stream is one ordered connection. The lease of a new attempt counts from
`lease_base`: the sending of the latest Hello or heartbeat whose answer came *before* the assignment did. The leader sent that answer, and had
received that heartbeat, before it sent the assignment; so the node's count begins before the sending of the assignment, however long it was under
way or this machine was suspended in between. The leader for its part must not give the attempt up before lease + margin from the *sending* of the
assignment (each time it sends it), or from the arrival of a heartbeat that names it, whichever is later.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path

import structlog

from igor_node.words import Instant
from wrapper import protocol

SAMPLES = 8  # the one with the least round trip is believed
OPEN_BEATS_LIMIT = 64  # heartbeats without an answer that are remembered; the link is closed long before

log = structlog.get_logger("agent.pulse")


class Pulse:
    def __init__(self, root: Path, boot_id: str) -> None:
        self.boot_id = boot_id
        self._path = root / protocol.LEASE
        self._seq = 0
        self._sent: dict[int, int] = {}
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES)  # (round trip, leader's clock minus CLOCK_BOOTTIME)
        self._good: tuple[int, int] | None = None  # the sample that counts, of the last leader whose clock was good
        self.lease_base = 0
        self.answered_boot_ns = 0
        before = protocol.read_lease(str(self._path))
        self._lease = before if before is not None and before.boot_id == boot_id else None

    # --- the stream

    def connected(self, hello_sent: int, welcome_received: int, leader_received: Instant, leader_sent: Instant, *, good: bool) -> None:
        """A leader has answered Hello. Another leader has another clock: what was measured before is forgotten."""
        self._sent.clear()
        self._samples.clear()
        self._add_sample(hello_sent, welcome_received, leader_received, leader_sent, good)
        self.lease_base, self.answered_boot_ns = hello_sent, welcome_received

    def beat(self, now: int) -> int:
        """The number of the heartbeat that is sent now."""
        self._seq += 1
        self._sent[self._seq] = now
        if len(self._sent) > OPEN_BEATS_LIMIT:
            self._sent.pop(next(iter(self._sent)))
        return self._seq

    def answered(self, seq: int, now: int, leader_received: Instant, leader_sent: Instant, *, good: bool) -> None:
        sent = self._sent.pop(seq, None)
        if sent is None:
            return
        self._add_sample(sent, now, leader_received, leader_sent, good)
        self.lease_base, self.answered_boot_ns = max(self.lease_base, sent), now
        self._renew(sent, now)

    def _add_sample(self, sent: int, received: int, leader_received: Instant, leader_sent: Instant, good: bool) -> None:
        """Four time stamps: what the leader did in between is no part of the way. What waits for its due time follows a good clock only: one leader
        whose clock is ahead would start all of it at once, before anybody could say so."""
        round_trip = (received - sent) - (leader_sent - leader_received)
        self._samples.append((max(round_trip, 0), ((leader_received - sent) + (leader_sent - received)) // 2))
        if good:
            self._good = min(self._samples)

    # --- the clock

    @property
    def clock_ns(self) -> int:
        """The leader's wall clock minus CLOCK_BOOTTIME here; this machine's own wall clock as long as no leader was heard."""
        if self._good is not None:
            return self._good[1]
        if self._lease is not None:
            return self._lease.clock_ns
        return time.time_ns() - protocol.boot_ns()

    def reading(self, wall: Instant) -> tuple[int | None, int]:
        """How far this machine's wall clock is ahead of that of the leader it is connected to, whether or not that one is good; and half of the
        least round trip: how wrong that may be."""
        if not self._samples:
            return None, 0
        round_trip, clock_ns = min(self._samples)
        return wall - protocol.boot_ns() - clock_ns, round_trip // 2

    def now(self) -> Instant:
        """The leader's time."""
        return Instant(protocol.boot_ns() + self.clock_ns)

    # --- leases

    def lease_good(self, lease_ns: int, now: int) -> bool:
        """Whether an assignment that comes now may still start."""
        return now < self.lease_base + lease_ns

    def _renew(self, sent: int, received: int) -> None:
        last = self._lease
        steady = last is not None and received - last.renewed_boot_ns <= protocol.STEADY_GAP_NS
        since = last.steady_boot_ns if steady and last is not None else received
        self._lease = protocol.Lease(self.boot_id, max(sent, last.renewed_boot_ns if last else 0), since, self.clock_ns)
        try:
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, self._lease.line(), 0)
            finally:
                os.close(fd)
        except OSError as problem:  # a full disk: past half of their leases the wrappers renew themselves
            log.error("the lease file cannot be written", path=str(self._path), reason=problem.strerror)
