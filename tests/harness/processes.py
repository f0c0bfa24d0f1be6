"""Finding and ending the processes of a test, and only those: by a mark in the environment of each node, and by its folder.

A node is started with the mark. Its pre-loaded process and its wrappers have an environment of their own, but work inside the node's folder
(`/proc/PID/cwd`); commands are found as their descendants. `end_machine` freezes them all before it kills, so that nobody is born in
between: what a power cut does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
MARK = "IGOR_HARNESS_MARK"


def wait_for(condition: Callable[[], T], timeout_s: float, what: str, poll_s: float = 0.05) -> T:
    """Returns the first true answer of `condition`. Raises AssertionError that names `what` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}; last answer: {answer!r}")
        time.sleep(poll_s)


def _environ_has(pid: int, needle: bytes) -> bool:
    try:
        return needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def parents() -> dict[int, int]:
    """pid -> pid of its parent, for every process that can be read now."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            found[int(name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def descendants(roots: set[int]) -> set[int]:
    tree = parents()
    found = set(roots)
    grew = True
    while grew:
        more = {pid for pid, parent in tree.items() if parent in found} - found
        grew = bool(more)
        found |= more
    return found


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder)
    except OSError:
        return False


def marked(mark: str, folder: Path) -> set[int]:
    """Every live process with the mark in its environment or working in the folder, this one left out."""
    needle = f"{MARK}={mark}".encode()
    where = folder.resolve()
    return {pid for pid in parents() if pid != os.getpid() and (_environ_has(pid, needle) or _works_in(pid, where))}


def send(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end_machine(*nodes: tuple[str, Path]) -> set[int]:
    """Kills every process of these nodes (mark, folder: see `marked`) and their descendants at one instant. Returns their pids."""
    gone: set[int] = set()
    for _ in range(20):
        alive = descendants({pid for mark, folder in nodes for pid in marked(mark, folder)}) - {os.getpid()}
        fresh = alive - gone
        if not fresh:
            break
        send(alive, signal.SIGSTOP)
        gone |= alive
    send(gone, signal.SIGKILL)
    return gone
