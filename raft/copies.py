"""The copies of the state machine that a leader hands out: made once for all who need one, and kept for a while.

A copy is known by the SHA-256 of its bytes, so a follower whose connection broke goes on where it was as long as the same copy is there. One that
ends before the journal begins is of no use any more, for no log would follow it: then another is made. At most one is kept beside those in use.

Any thread may call everything here.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raft.interface import Applied, StateMachine

KEPT_S = 120.0  # after its last use: followers come back within seconds, or need a newer one
OUTGOING_PREFIX = "outgoing-"
_SUFFIX = ".snapshot"


@dataclass
class Copy:
    id: str
    stands: Applied
    path: Path
    size: int
    users: int = 0
    used_at: float = 0.0


class Copies:
    def __init__(self, folder: Path, machine: StateMachine, monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._machine = machine
        self._monotonic = monotonic
        self._made = 0
        self._making = threading.Lock()  # whoever comes meanwhile waits for that copy and shares it
        self._state = threading.Lock()
        self._newest: Copy | None = None

    def take(self, needed: int) -> Copy:
        """One that stands at `needed` or later. Blocks while it is made; give it back. Raises what the state machine or the disk does."""
        with self._making:
            with self._state:
                found = self._newest
                if found is not None and found.stands.index >= needed:
                    found.users += 1
                    return found
            made = self._make()
            with self._state:
                old, self._newest = self._newest, made
                made.users += 1
            if old is not None and not old.users:
                old.path.unlink(missing_ok=True)
            return made

    def give_back(self, copy: Copy) -> None:
        with self._state:
            copy.users -= 1
            copy.used_at = self._monotonic()
            done = not copy.users and copy is not self._newest
        if done:
            copy.path.unlink(missing_ok=True)

    def is_old(self, needed: int) -> bool:
        """There is one that nobody uses, and its time is over, or no follower can go on behind it."""
        found = self._newest
        if found is None or found.users:
            return False
        return found.stands.index < needed or self._monotonic() >= found.used_at + KEPT_S

    def drop_old(self, needed: int) -> None:
        """Removes the one that `is_old`. Takes a file system a third of a second a gigabyte: not for a thread that must answer."""
        with self._state:
            found = self._newest
            if found is None or not self.is_old(needed):
                return
            self._newest = None
        found.path.unlink(missing_ok=True)

    def _make(self) -> Copy:
        self._made += 1
        path = self._folder / f"{OUTGOING_PREFIX}{self._made}{_SUFFIX}"
        try:
            stands = self._machine.snapshot(path)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return Copy(digest, stands, path, os.fstat(file.fileno()).st_size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def clear(folder: Path) -> None:
    """Removes what an earlier life handed out."""
    for left in sorted(folder.glob(f"{OUTGOING_PREFIX}*{_SUFFIX}*")):
        left.unlink()
