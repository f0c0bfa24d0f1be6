"""Copies of the state machine under way, from here and to here, each in a thread of its own. What is decided is decided in the tick thread.

`pump.py` calls everything but the `_run_…`, which are the threads; they come back through `call`, which runs a function in the tick thread.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from raft import snapshot, tls, wire
from raft.copies import KEPT_S, Copies
from raft.interface import Applied, NodeId, StateMachine
from raft.pace import JUDGE_S, Pace, Regard
from raft.threads import begin_thread

BYTES_A_SECOND = 32 * 1024 * 1024  # to all followers together: a gigabyte in half a minute; less while commits feel it
AT_ONCE = 2  # served; a third follower is sent away and comes again
RETRY_S = 1.0
LATELY_S = 60.0  # in which a follower takes the log behind its copy

log = logging.getLogger("raft")


class Transfers:
    def __init__(
        self,
        *,
        own: wire.Credentials,
        folder: Path,
        machine: StateMachine,
        call: Callable[[Callable[[], None]], None],
        install: Callable[[Path, Applied], None],
        monotonic: Callable[[], float],
        trust: tls.Tls | None = None,
    ) -> None:
        """`install` is called in the tick thread, when a copy is complete here."""
        self._own = own
        self._trust = trust
        self._served: set[socket.socket] = set()
        self._call = call
        self._install = install
        self._monotonic = monotonic
        self._copies = Copies(folder, machine, monotonic)
        self._pace = Pace(BYTES_A_SECOND)
        self._regard = Regard(self._pace)
        self._judge_at = 0.0
        self._incoming = snapshot.Incoming(folder / snapshot.INCOMING_NAME)
        self.serving = 0
        self._fetching = False
        self._fetch_at = 0.0
        self._holds_part = True  # perhaps, of an earlier life
        self._wanted_at = monotonic()
        self._served_at = float("-inf")

    # --- from here

    @property
    def served_lately(self) -> bool:
        """A follower has a copy, or is about to, and needs the log that follows it."""
        return self.serving > 0 or self._monotonic() < self._served_at + LATELY_S

    def serve(self, peer: NodeId, sock: socket.socket, frames: wire.Frames, needed: int) -> None:
        """`needed`: where a copy must stand at least so that the journal goes on behind it."""
        if self.serving >= AT_ONCE:
            sock.close()
            return
        if begin_thread("raft-snapshot", self._run_serve, peer, sock, frames, needed):
            self.serving += 1
            self._served.add(sock)
        else:
            sock.close()

    def check_members(self) -> None:
        """Whoever is no member any more gets no more of a copy: its thread finds the connection closed."""
        for sock in self._served:
            if self._trust is not None and isinstance(sock, ssl.SSLSocket):
                try:
                    self._trust.admit(sock)
                except tls.NotAdmitted:
                    tls.cut(sock)

    def committed(self, took_s: float) -> None:
        """A proposal of this leader was applied, so long after it was taken."""
        self._regard.took(took_s)
        now = self._monotonic()
        if now >= self._judge_at:
            self._judge_at = now + JUDGE_S
            self._regard.judge(copying=self.serving > 0)

    def look_after(self, needed: int, *, hurry: bool) -> None:
        """`hurry`: the log that must be kept meanwhile grows too long."""
        self._pace.hurry = hurry
        if self._copies.is_old(needed):
            begin_thread("raft-remove", self._run_remove, needed)
        if self._holds_part and not self._fetching and self._monotonic() > self._wanted_at + KEPT_S:
            self._fetching = begin_thread("raft-remove", self._run_drop)  # the log came after all, and no leader has that copy any more

    def _run_remove(self, needed: int) -> None:
        try:
            self._copies.drop_old(needed)
        except OSError as problem:  # the next start removes it
            log.warning("the copy that was handed out is not removed: %s", problem)

    def _run_serve(self, peer: NodeId, sock: socket.socket, frames: wire.Frames, needed: int) -> None:
        try:
            with sock:
                want = snapshot.wanted(sock, frames)
                copy = self._copies.take(needed)
                try:
                    snapshot.serve(sock, copy, want, self._pace)
                finally:
                    self._copies.give_back(copy)
            log.info("a snapshot that stands at %d went to %s", copy.stands.index, peer)
        except Exception as problem:  # the edge of the thread: the follower asks again, this node goes on
            log.warning("no snapshot for %s: %s: %s", peer, type(problem).__name__, problem)
        self._call(lambda: self._served_one(sock))

    def _served_one(self, sock: socket.socket) -> None:
        self._served.discard(sock)
        self.serving -= 1
        self._served_at = self._monotonic()

    # --- to here

    def fetch(self, leader: NodeId, address: str) -> None:
        self._wanted_at = self._monotonic()
        if self._fetching or self._wanted_at < self._fetch_at:
            return
        self._fetching = self._holds_part = True
        if not begin_thread("raft-snapshot", self._run_fetch, leader, address):
            self._fetch_failed()

    def _run_fetch(self, leader: NodeId, address: str) -> None:
        installed = threading.Event()
        try:
            with snapshot.fetching(self._own, leader, address, self._incoming, self._trust) as stands:
                self._call(lambda: self._fetched(stands, installed))
                installed.wait(snapshot.INSTALL_TIMEOUT_S)
        except Exception as problem:  # the edge of the thread: whatever it was, the next try may find it otherwise
            log.warning("no snapshot from %s: %s", leader, problem)
            self._call(self._fetch_failed)

    def _fetched(self, stands: Applied, installed: threading.Event) -> None:
        self._install(self._incoming.path, stands)
        self._incoming.drop()
        self._fetching = False
        installed.set()

    def _run_drop(self) -> None:
        try:
            self._incoming.drop()
        except OSError as problem:
            log.warning("what came of a copy is not removed: %s", problem)
        self._call(self._dropped)

    def _dropped(self) -> None:
        self._fetching = self._holds_part = False

    def _fetch_failed(self) -> None:
        self._fetching = False
        self._fetch_at = self._monotonic() + RETRY_S
