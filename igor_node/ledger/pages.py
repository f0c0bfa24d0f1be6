"""Checksums of the pages of a ledger's file: a byte that the disk changed is found at the next start, before anything is served from it.

SQLite checks its write-ahead log and not its file. The file changes in one way alone: a checkpoint copies pages from the log (`ledger.py`; nobody
else checkpoints). So beside the file stand the sums of its pages, `FILE-sums`, and a page that a checkpoint may be copying has none:

    note()          the pages in the log lose their sums, synced, before a checkpoint
    (checkpoint)    SQLite copies; sync() makes that durable
    settle()        all of them were copied: they are read again and get their sums, synced

So a good page is never called damaged: whatever a crash leaves of a checkpoint, and whatever stands in the log, has no sum to differ from. What is
noted too much costs only that those pages are not checked for a while. Whoever else had the file open and was the last to close it has copied the log
without a word (another program, or an end in disorder of this one): then the log is gone though the sums say that the file is in use, or it is
another log than they know, and all sums are forgotten. A page without a sum gets one when it is looked at.

`check` looks at a span of pages; at a start at most START_BYTES of them, so that a large ledger is in service soon, and the rest is looked at beside
the work. A disk that cannot take the sums loses them, and costs nobody a commit.

POSIX locks are lost with the first descriptor of a file that a process closes, so the one of the file is kept until all of SQLite's are closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path

from igor_node.ledger.files import SUMS, sync_folder
from raft.interface import Halted

START_BYTES = 512 * 1024 * 1024  # of the file, looked at before a start: about a second
SLICE_PAGES = 512  # looked at in one go beside the work
READ_PAGES = 256

_MAGIC = b"IGORSUM2"
_HEAD = struct.Struct("<8sI8s")  # size of a page, and the log that was noted last
_LOG_HEAD, _FRAME_HEAD = 32, 24
_UNKNOWN = 0
_CLOSED, _IN_USE = bytes(8), b"\xff" * 8  # in place of a log: the file was closed in order; it is in use, and no log was noted yet

_log = logging.getLogger("igor.ledger")


class DamagedLedger(Halted):
    """The file holds what was never written to it."""

    def __init__(self, file: Path, page: int, page_bytes: int) -> None:
        where = f"{file}: damaged at page {page} (bytes {(page - 1) * page_bytes} to {page * page_bytes - 1})"
        super().__init__(f"{where}: its checksum is not that of what was written there")


class Pages:
    """Of one file. Not for two threads at once: `ledger.py` calls it at the open and in the thread that checkpoints."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._wal = file.with_name(file.name + "-wal")
        self._sums_path = file.with_name(file.name + SUMS)
        self._main = -1
        self._page_bytes = 0
        self._sums = array("I")
        self._changed: set[int] = set()  # numbers of pages whose sum is not written yet
        self._generation = _IN_USE  # which log was noted last, as its head names it: it changes when the log begins anew
        self._began_here = not self.log_bytes()  # the log was begun in this life, so that nothing stands in it that was not written
        self._seen = 0  # frames of it that were noted, up to the last that was committed
        self._open: set[int] = set()  # pages that are noted and not settled
        self._next = 1  # page to look at
        self._sync_failed = False
        self.attach()
        self._load()

    @property
    def looked_through(self) -> bool:
        return self._next > self._count()

    def attach(self) -> None:
        """The file, once it is there."""
        if self._main < 0 and self.file.exists():
            self._main = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        if self._main >= 0 and not self._page_bytes:
            head = os.pread(self._main, 18, 0)
            size = int.from_bytes(head[16:18], "big")
            self._page_bytes = 65_536 if size == 1 else size

    def begin(self) -> None:
        """SQLite has the file open from here on: an end without `end` is one in disorder."""
        self.attach()
        self._on_disk(self._write_sums)

    def end(self) -> None:
        """All of the log has been copied and settled, and SQLite is about to close the file."""
        if not self._open:
            self._generation = _CLOSED
            self._on_disk(self._write_sums)

    def close(self) -> None:
        """After all of SQLite's connections to the file."""
        if self._main >= 0:
            os.close(self._main)
            self._main = -1

    # --- looking

    def check(self, pages: int) -> None:
        """The next so many. Raises DamagedLedger."""
        stop = min(self._count() + 1, self._next + pages)
        if len(self._sums) > self._count():
            raise DamagedLedger(self.file, self._count() + 1, self._page_bytes)  # the file ends before what was written to it does
        while self._next < stop:
            count = min(READ_PAGES, stop - self._next)
            data = self._read(self._next, count)
            for page in range(self._next, self._next + count):
                start = (page - self._next) * self._page_bytes
                self._look(page, data[start : start + self._page_bytes])
            self._next += count
        if self.looked_through and self._changed:
            self._on_disk(self._write_sums)

    def check_at_start(self) -> None:
        if self._page_bytes:
            self.check(max(1, START_BYTES // self._page_bytes))

    def give_up(self) -> None:
        """Damage was found and told: nothing more is to be looked at."""
        self._next = self._count() + 1

    def _read(self, page: int, count: int) -> memoryview:
        try:
            return memoryview(os.pread(self._main, count * self._page_bytes, (page - 1) * self._page_bytes))
        except OSError as problem:
            raise Halted(f"{self.file} cannot be read at page {page}: {problem.strerror}") from problem

    def _look(self, page: int, content: memoryview) -> None:
        if page in self._open:
            return
        found, known = _sum(page, content), self._sums[page - 1] if page <= len(self._sums) else _UNKNOWN
        if known == _UNKNOWN:
            self._set(page, found)
        elif found != known:
            raise DamagedLedger(self.file, page, self._page_bytes)

    def _count(self) -> int:
        return os.fstat(self._main).st_size // self._page_bytes if self._page_bytes else 0

    # --- around a checkpoint

    def read_log(self) -> bytes:
        """The head of the log and all frames that are not noted. Short, for the writer is held meanwhile: also where a reader keeps the log from
        being copied for long, and where an earlier log was longer than this one and its frames stand behind."""
        try:
            descriptor = os.open(self._wal, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            head = os.pread(descriptor, _LOG_HEAD, 0)
            begun_anew = _generation(head) != self._generation
            # A log of an earlier life may hold frames behind a torn one, over which SQLite writes: there it is read whole each time.
            seen = self._seen if self._began_here and not begun_anew else 0
            frame_bytes = _FRAME_HEAD + self._page_bytes
            parts, at = [head], _LOG_HEAD + seen * frame_bytes
            while part := os.pread(descriptor, READ_PAGES * frame_bytes, at):
                parts.append(part)
                at += len(part)
                last = (len(part) // frame_bytes - 1) * frame_bytes
                if last < 0 or part[last + 8 : last + 16] != _generation(head):
                    break
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def log_bytes(self) -> int:
        """Of the write-ahead log, as long as it ever was since it was made or truncated."""
        try:
            return os.stat(self._wal).st_size
        except FileNotFoundError:
            return 0

    def note(self, log: bytes) -> int:
        """What `read_log` gave. Returns how many frames of the log are committed, or more."""
        self.attach()
        size, generation = self._page_bytes, _generation(log)
        if generation is None:
            return 0
        is_new = generation != self._generation
        if is_new:
            self._began_here = self._began_here or self._seen > 0
            self._generation = generation
        if is_new or not self._began_here:
            self._seen = 0
        view, frames = memoryview(log), 0
        for at in range(_LOG_HEAD, len(log) - size - _FRAME_HEAD + 1, size + _FRAME_HEAD):
            if bytes(view[at + 8 : at + 16]) != generation:
                break
            frames += 1
            self._forget(int.from_bytes(view[at : at + 4], "big"))
            if bytes(view[at + 4 : at + 8]) != b"\0\0\0\0":  # a commit; what follows the last one may be written over
                self._seen += frames
                frames = 0
        if is_new or self._changed:
            self._on_disk(self._write_sums)
        return self._seen

    def sync(self) -> None:
        """The file. SQLite does so by itself only where it has copied the log to its very end: not while the writer goes on. Raises Halted: after a
        failed sync nobody knows what the file holds, and a second one would say that all is well."""
        try:
            if self._main >= 0:
                os.fsync(self._main)
        except OSError as problem:
            self._sync_failed = True
            raise Halted(f"{self.file} could not be synced: {problem.strerror}") from problem
        if self._sync_failed:
            raise Halted(f"{self.file} could not be synced before")

    def settle(self) -> None:
        """All that was noted is copied and synced, or stands in the log under a frame that is not noted yet: what the file holds now is what it
        ought to hold, until the next `note`."""
        count = self._count()
        for page in sorted(self._open):
            if page <= count:
                self._set(page, _sum(page, self._read(page, 1)))
        self._open.clear()
        if self._changed:
            self._on_disk(self._write_sums)

    # --- on disk

    def _forget(self, page: int) -> None:
        self._open.add(page)
        if page <= len(self._sums) and self._sums[page - 1] != _UNKNOWN:
            self._sums[page - 1] = _UNKNOWN
            self._changed.add(page)

    def _set(self, page: int, found: int) -> None:
        if page > len(self._sums):
            self._sums.extend([_UNKNOWN] * (page - len(self._sums)))
        if self._sums[page - 1] != found:
            self._sums[page - 1] = found
            self._changed.add(page)

    def _load(self) -> None:
        try:
            data = self._sums_path.read_bytes()
        except FileNotFoundError:
            return
        if len(data) < _HEAD.size or data[:12] != _HEAD.pack(_MAGIC, self._page_bytes, b"")[:12]:
            return
        noted = _HEAD.unpack_from(data)[2]
        if not self._may_follow(noted):
            _log.info("another program has had the ledger %s open and copied its log: the sums of its pages are made anew", self.file)
            return
        self._generation = _IN_USE if noted == _CLOSED else noted
        self._sums.frombytes(data[_HEAD.size : _HEAD.size + (len(data) - _HEAD.size) // 4 * 4])

    def _may_follow(self, noted: bytes) -> bool:
        """Whether nothing can have been copied into the file since the sums were written: the log is still there, or was followed by the next, which
        this node's writer began when all of it had been copied and settled."""
        if noted == _CLOSED:
            return True
        try:
            found = _generation(self._wal.open("rb").read(_LOG_HEAD))
        except FileNotFoundError:
            return False
        if noted == _IN_USE or found is None:
            return True
        return found == noted or found[:4] == ((int.from_bytes(noted[:4], "big") + 1) % (1 << 32)).to_bytes(4, "big")

    def _on_disk(self, act: Callable[[], None]) -> None:
        """A disk that does not take the sums: what stands there may be wrong from here on, so it goes."""
        try:
            act()
        except OSError:
            self._sums, self._changed = array("I"), set()
            self._sums_path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                sync_folder(self._sums_path.parent)

    def _write_sums(self) -> None:
        if not self._page_bytes:
            return
        new = not self._sums_path.exists()
        descriptor = os.open(self._sums_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, _HEAD.pack(_MAGIC, self._page_bytes, self._generation), 0)
            for first, last in _spans(sorted(self._changed)):
                os.pwrite(descriptor, self._sums[first - 1 : last].tobytes(), _HEAD.size + 4 * (first - 1))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._changed.clear()
        if new:
            sync_folder(self._sums_path.parent)


def _generation(log: bytes) -> bytes | None:
    """The salts in a log's head; None where it has none."""
    return log[16:24] if len(log) >= _LOG_HEAD else None


def _sum(page: int, content: memoryview) -> int:
    """Never _UNKNOWN. The few bytes of the first page that SQLite changes when a copy becomes a ledger in use (its journal mode, and counters of
    changes) are left out: that change alone does not go through the log."""
    if page == 1:
        first = bytearray(content)
        first[18:20], first[24:28], first[92:100] = bytes(2), bytes(4), bytes(8)
        return zlib.crc32(first) or 1
    return zlib.crc32(content) or 1


def _spans(numbers: list[int]) -> list[tuple[int, int]]:
    """Runs of neighbours, as first and last."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
