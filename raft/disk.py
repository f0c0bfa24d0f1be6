"""The disk as the journal sees it: a handful of calls whose crash behaviour is written down, and the real one.

`raft/journal.py` uses nothing else; the simulator and the tests bring disks that lose or tear what was not synced, or fail. Paths are strings
with `/`. What a power cut may do to a disk behind this interface:

* bytes written since the file's last `sync` may be lost in any part and any order, in units of a sector;
* a file created, renamed or removed since its folder's last `sync_folder` may be found in the old or in the new state;
* what was synced is there, unless the disk is damaged: the journal finds that by its checksums.

Every call may raise OSError. After a failed `sync` nothing is known about the file (Linux drops the dirty pages and reports the error once), so
a caller never syncs again: it stops.
"""

from __future__ import annotations

import os
from typing import Protocol

ZEROS = bytes(1024 * 1024)  # files are filled in pieces of this size


class File(Protocol):
    """An open file of fixed size, read and written at offsets."""

    def read(self, offset: int, size: int) -> bytes:
        """Fewer bytes than asked for only at the end of the file."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """All of it or an OSError; not durable before `sync`."""

    def size(self) -> int: ...

    def sync(self) -> None:
        """Everything written so far, and the file's size, survives a power cut."""

    def close(self) -> None: ...


class Disk(Protocol):
    def make_folder(self, folder: str) -> None:
        """With its parents; durable when it returns. No error when it is there."""

    def list(self, folder: str) -> list[str]:
        """Names of the files in the folder, sorted."""

    def open(self, path: str) -> File:
        """An existing file, to read and write. What it reads is on the disk, not only in the memory of the system."""

    def create(self, path: str, size: int) -> File:
        """A new file filled with zeros (so that later writes change no metadata); durable after `sync` and `sync_folder`."""

    def rename(self, old: str, new: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def sync_folder(self, folder: str) -> None: ...


class RealFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            offset += written
            rest = rest[written:]

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def forget_cached(self) -> None:
        """After a failed sync Linux calls the lost pages clean: they can be read as long as they are in memory, and are not on the disk."""
        os.fdatasync(self._descriptor)  # of a process that was killed before its sync
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._descriptor)


class RealDisk:
    """The machine's own disk, through the operating system."""

    def make_folder(self, folder: str) -> None:
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(os.path.abspath(folder))
        for path in reversed(missing):
            os.mkdir(path, 0o700)
            self.sync_folder(os.path.dirname(os.path.abspath(path)))

    def list(self, folder: str) -> list[str]:
        return sorted(os.listdir(folder))

    def open(self, path: str) -> File:
        file = RealFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        try:
            file.forget_cached()
        except OSError:
            file.close()
            raise
        return file

    def create(self, path: str, size: int) -> File:
        file = RealFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            for offset in range(0, size, len(ZEROS)):
                file.write(offset, memoryview(ZEROS)[: size - offset])
        except OSError:
            file.close()
            os.unlink(path)  # what was written so far may be the room that is missing
            raise
        return file

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def sync_folder(self, folder: str) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
