"""The processes below a wrapper: the command, all that it started, and the children that ask the voters, which are no process of the command's.

A wrapper is a subreaper: nothing below it can leave it, and what lost its parent becomes its child. So a look at the process table finds
everything that is to be ended, and `reap` hears of every end.
"""

from __future__ import annotations

import os
import signal
import time

from wrapper import linux, protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KILL_LIMIT_NS = 5_000_000_000  # a process that a KILL has not ended by then hangs in the kernel and is reported
KILL_PAUSE_S = 0.002


class Tree:
    def __init__(self, askers: set[int]) -> None:
        self.pid = os.getpid()
        self.askers = askers
        self.command_pid = 0
        self.status: int | None = None  # of the command, as `wait` gives it; None while it runs
        self.alone = True  # no child is left
        self.max_rss_bytes = self.cpu_ns = 0

    def begin(self, command_pid: int) -> None:
        """A command was started."""
        self.command_pid, self.status, self.alone = command_pid, None, False
        self.max_rss_bytes = self.cpu_ns = 0

    def reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.alone = True
                return
            if pid == 0:
                # A child that lives: the command, something it left, or the one that asks the voters.
                self.alone = self.status is not None and bool(self.askers) and not self._pids()
                return
            if pid == self.command_pid:
                self.status, self.command_pid = status, 0
            if pid in self.askers:
                self.askers.discard(pid)
            else:
                self.max_rss_bytes = max(self.max_rss_bytes, usage.ru_maxrss * 1024)
                self.cpu_ns += int((usage.ru_utime + usage.ru_stime) * 1e9)

    def terminate(self) -> None:
        pids = self._pids()
        signal_all(pids, signal.SIGTERM)
        signal_all(pids, signal.SIGCONT)  # one that is stopped could not hear it

    def kill(self, meanwhile: Callable[[], None]) -> list[int]:
        """KILL until nothing is left: what forks meanwhile is found by the next look. Returns what is left after KILL_LIMIT_NS."""
        deadline = protocol.boot_ns() + KILL_LIMIT_NS
        while True:
            self.reap()
            left = self._pids()
            if not left or protocol.boot_ns() > deadline:
                self.alone = True
                return left
            signal_all(left, signal.SIGKILL)
            meanwhile()
            time.sleep(KILL_PAUSE_S)

    def _pids(self) -> list[int]:
        return [pid for pid in linux.descendants(self.pid) if pid not in self.askers]


def kill_marked(cookie: bytes) -> None:
    """End the processes whose environment holds `cookie`: what a wrapper that was killed may have left with the machine's init."""
    deadline = protocol.boot_ns() + KILL_LIMIT_NS
    while (left := linux.processes_with(cookie)) and protocol.boot_ns() < deadline:
        signal_all(left, signal.SIGKILL)
        time.sleep(KILL_PAUSE_S)


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # ended meanwhile, or a set-user-ID program: the caller looks again
