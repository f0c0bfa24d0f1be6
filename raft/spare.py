"""The file of the journal's next segment, filled with zeros and synced before it is needed: megabytes of writing that stop no tick.

`make` may run in any thread, everything else in the tick thread, which never waits for it: where there is no spare, the tick makes a segment itself.
A start removes what a crash left of it: its name is not that of a segment.
"""

from __future__ import annotations

import contextlib
import threading

from raft.disk import Disk, File
from raft.segment import UNFINISHED

SPARE_NAME = "spare" + UNFINISHED


class Spare:
    def __init__(self, disk: Disk, folder: str, size: int) -> None:
        self.path = f"{folder}/{SPARE_NAME}"
        self._disk = disk
        self._size = size
        self._busy = threading.Lock()  # held while one is made
        self._file: File | None = None
        self._failed = False
        self._closed = False

    @property
    def is_wanted(self) -> bool:
        return self._file is None and not self._failed and not self._closed and not self._busy.locked()

    def make(self) -> None:
        with self._busy:
            if self._file is not None or self._failed or self._closed:
                return
            try:
                self._file = self._disk.create(self.path, self._size)
                self._file.sync()
            except OSError:  # perhaps there is room again when the tick needs a segment; else it says so
                self._failed = True
                self._drop()

    def _drop(self) -> None:
        """A file of which nothing is known is never used."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):  # its name is not needed before the next start, which removes it
                self._disk.remove(self.path)

    def take(self) -> File | None:
        """None where there is none, or it is not ready. From then on another one may be made."""
        if not self._busy.acquire(blocking=False):
            return None
        try:
            file, self._file, self._failed = self._file, None, False
            return file
        finally:
            self._busy.release()

    def close(self) -> None:
        self._closed = True
        if self._busy.acquire(blocking=False):
            if self._file is not None:
                self._file.close()
            self._busy.release()
