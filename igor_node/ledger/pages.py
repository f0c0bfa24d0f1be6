"""Checksums of the pages of a ledger's file: a byte that the disk changed is found at the next start, before anything is served from it.

SQLite checks its write-ahead log and not its file. The file changes in one way alone: a checkpoint copies pages from the log (`ledger.py`; nobody
else checkpoints). So beside the file stand the sums of its pages, `FILE-sums`, and, while a checkpoint may be copying, what it may copy,
`FILE-noted`:

    note()          the sums of the pages in the log, synced, before a checkpoint: from here on either sum of a page is right
    (checkpoint)    SQLite copies; sync() makes that durable
    settle(…)       the sums of what was copied, synced; only what may still be copied stays noted

A crash in between leaves pages with one of two or more sums that are all known, or torn ones, of which the log still has the content. The caller
sees to it that the log does not begin anew before what was copied from it is settled. A page without a sum (an older igor-node's ledger, a copy that
was just installed) gets one when it is first looked at. `check` looks at a span of pages; at a start at most START_BYTES of them, so that a large
ledger is in service soon, and the rest is looked at beside the work. A disk that cannot take the sums begins them anew, and costs nobody a commit.

POSIX locks are lost with the first descriptor of a file that a process closes, so the one of the file is kept until all of SQLite's are closed.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from igor_node.ledger.files import NOTED, SUMS, sync_folder
from raft.interface import Halted

START_BYTES = 512 * 1024 * 1024  # of the file, looked at before a start: about a second
SLICE_PAGES = 512  # looked at in one go beside the work
READ_PAGES = 256

_MAGIC = b"IGORSUM1"
_HEAD = struct.Struct("<8sI4x")
_BATCH = struct.Struct("<II")  # how many, checksum of what follows: pairs of page and sum
_LOG_HEAD, _FRAME_HEAD = 32, 24
_UNKNOWN = 0


class DamagedLedger(Halted):
    """The file holds what was never written to it."""

    def __init__(self, file: Path, page: int, page_bytes: int) -> None:
        where = f"{file}: damaged at page {page} (bytes {(page - 1) * page_bytes} to {page * page_bytes - 1})"
        super().__init__(f"{where}: its checksum is not that of what was written there")


class Pages:
    """Of one file. Not for two threads at once: `ledger.py` calls it at the open and in the thread that checkpoints."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._log = file.with_name(file.name + "-wal")
        self._sums_path = file.with_name(file.name + SUMS)
        self._noted_path = file.with_name(file.name + NOTED)
        self._main = -1
        self._page_bytes = 0
        self._sums = array("I")
        self._changed: set[int] = set()  # numbers of pages whose sum is not written yet
        self._noted: dict[int, set[int]] = {}
        self._generation = b""  # of the log: it changes when the log begins anew
        self._frames: list[tuple[int, int]] = []  # page and sum of the log's frames behind the settled ones
        self._settled = 0  # frames of the log
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
        found, known = _sum(page, content), self._sums[page - 1] if page <= len(self._sums) else _UNKNOWN
        if known == _UNKNOWN:
            self._set(page, found)
        elif found != known and found not in self._noted.get(page, ()) and page not in self._in_log():
            raise DamagedLedger(self.file, page, self._page_bytes)

    def _in_log(self) -> set[int]:
        """Pages of which the log has a newer content: whoever reads them gets that, and the next checkpoint writes it. In the file they may be
        anything, because the power may go while the disk writes one."""
        try:
            log = self._log.read_bytes()
        except FileNotFoundError:
            return set()
        step, salts = _FRAME_HEAD + self._page_bytes, log[16:24]
        heads = (log[at : at + 16] for at in range(_LOG_HEAD, len(log) - step + 1, step))
        return {int.from_bytes(head[:4], "big") for head in takewhile(lambda head: head[8:16] == salts, heads)}

    def _count(self) -> int:
        return os.fstat(self._main).st_size // self._page_bytes if self._page_bytes else 0

    # --- around a checkpoint

    def read_log(self) -> bytes:
        """The head of the log and all frames that are not settled. Short: the writer is held meanwhile."""
        try:
            descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._generation, self._settled = b"", 0
            return b""
        try:
            head = os.pread(descriptor, _LOG_HEAD, 0)
            if head[16:24] != self._generation:
                self._generation, self._settled = head[16:24], 0
            start = _LOG_HEAD + self._settled * (_FRAME_HEAD + self._page_bytes)
            return head + os.pread(descriptor, max(0, os.fstat(descriptor).st_size - start), start)
        finally:
            os.close(descriptor)

    def note(self, log: bytes) -> int:
        """What `read_log` gave. Returns how many frames of the log are committed."""
        self.attach()
        size, salts = self._page_bytes, log[16:24]
        self._frames, committed = [], 0
        view = memoryview(log)
        for at in range(_LOG_HEAD, len(log) - size - _FRAME_HEAD + 1, size + _FRAME_HEAD):
            if bytes(view[at + 8 : at + 16]) != salts:
                break
            page = int.from_bytes(view[at : at + 4], "big")
            self._frames.append((page, _sum(page, view[at + _FRAME_HEAD : at + _FRAME_HEAD + size])))
            if bytes(view[at + 4 : at + 8]) != b"\0\0\0\0":
                committed = len(self._frames)
        self._on_disk(lambda: self._write_noted([pair for pair in self._frames if pair[1] not in self._noted.get(pair[0], ())]))
        return self._settled + committed

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

    def settle(self, copied: int, *, whole: bool) -> None:
        """SQLite is done with so many frames of the log, and the file is synced. `whole`: there were no more. Else a page with a later frame was left
        as it was, and the writer may have added such frames meanwhile: then the file says which of the known sums a page has."""
        count = max(0, copied - self._settled)
        if whole:
            for page, found in self._frames[:count]:
                self._set(page, found)
        else:
            for page in dict.fromkeys(page for page, _ in self._frames[:count]):
                found = _sum(page, self._read(page, 1))
                if found in self._noted.get(page, ()):
                    self._set(page, found)
        del self._frames[:count]
        self._settled += count
        if self._changed:
            self._on_disk(self._write_sums)
        if self._noted:
            self._on_disk(self._note_the_rest)

    # --- on disk

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
        if data[: _HEAD.size] != _HEAD.pack(_MAGIC, self._page_bytes):
            return
        self._sums.frombytes(data[_HEAD.size : _HEAD.size + (len(data) - _HEAD.size) // 4 * 4])
        try:
            noted = self._noted_path.read_bytes()
        except FileNotFoundError:
            return
        for page, found in _pairs(noted):
            self._noted.setdefault(page, set()).add(found)

    def _on_disk(self, act: Callable[[], None]) -> None:
        """A disk that does not take the sums: what stands there may be wrong from here on, so it goes."""
        try:
            act()
        except OSError:
            self._sums_path.unlink(missing_ok=True)
            self._noted_path.unlink(missing_ok=True)
            self._sums, self._noted, self._changed = array("I"), {}, set()

    def _note_the_rest(self) -> None:
        """Frames that were not copied because somebody reads an earlier state: whoever closes the file last copies them."""
        os.truncate(self._noted_path, 0)
        self._noted = {}
        self._write_noted(self._frames)

    def _write_noted(self, pairs: list[tuple[int, int]]) -> None:
        if not pairs:
            return
        flat = array("I", [number for pair in pairs for number in pair]).tobytes()
        new = not self._noted_path.exists()
        descriptor = os.open(self._noted_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, _BATCH.pack(len(pairs), zlib.crc32(flat)) + flat)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self._noted_path.parent)
        for page, found in pairs:
            self._noted.setdefault(page, set()).add(found)

    def _write_sums(self) -> None:
        new = not self._sums_path.exists()
        descriptor = os.open(self._sums_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, _HEAD.pack(_MAGIC, self._page_bytes), 0)
            for first, last in _spans(sorted(self._changed)):
                os.pwrite(descriptor, self._sums[first - 1 : last].tobytes(), _HEAD.size + 4 * (first - 1))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._changed.clear()
        if new:
            sync_folder(self._sums_path.parent)


def _sum(page: int, content: memoryview) -> int:
    """Never _UNKNOWN. The few bytes of the first page that SQLite changes when a copy becomes a ledger in use (its journal mode, and counters of
    changes) are left out: that change alone does not go through the log."""
    if page == 1:
        first = bytearray(content)
        first[18:20], first[24:28], first[92:100] = bytes(2), bytes(4), bytes(8)
        return zlib.crc32(first) or 1
    return zlib.crc32(content) or 1


def _write_all(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError("a short write")


def _pairs(data: bytes) -> list[tuple[int, int]]:
    """Batches up to the first that is not whole: what it would have said had not begun."""
    found: list[tuple[int, int]] = []
    at = 0
    while at + _BATCH.size <= len(data):
        count, checksum = _BATCH.unpack_from(data, at)
        flat = data[at + _BATCH.size : at + _BATCH.size + 8 * count]
        if len(flat) < 8 * count or zlib.crc32(flat) != checksum:
            break
        numbers = array("I", flat)
        found += zip(numbers[::2], numbers[1::2], strict=True)
        at += _BATCH.size + len(flat)
    return found


def _spans(numbers: list[int]) -> list[tuple[int, int]]:
    """Runs of neighbours, as first and last."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
