"""The output of one try on disk: bounded, its first and last parts kept, and never a reason for the command to stop.

Half of the limit holds the beginning; after that come parts of an eighth each, of which the newest are kept. A part's name says how much was
stored before it, so offsets stay true when older parts go, and a reader sees where something is missing. What cannot be written (a full disk)
is counted and named in the log as soon as there is room again.
"""

from __future__ import annotations

import os

from wrapper import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrapper.masking import Forms, Masker

LATER_PARTS = 4  # kept after the first: with an eighth of the limit each, the last three eighths at least
SMALLEST_PART_BYTES = 4096
PIECES_A_PART = 16  # a record of short lines is several times as long as they are: what a part may be too long by
PAUSE_AFTER_ERROR_NS = 200_000_000  # a full disk is asked five times a second, not at every line


class Log:
    def __init__(self, try_n: int, limit_bytes: int, masked: Forms | None = None) -> None:
        """`masked`: what must not be seen (masking.py)."""
        self.try_n = try_n
        self.maskers: dict[bytes, Masker] = {}
        if masked:
            from wrapper.masking import Masker  # only here: few wrappers have secrets

            self.maskers = {stream: Masker(masked) for stream in (protocol.STDOUT, protocol.STDERR)}
        self.first_bytes = max(limit_bytes // 2, SMALLEST_PART_BYTES)
        self.part_bytes = max(limit_bytes // 8, SMALLEST_PART_BYTES)
        self.offset = 0  # of the part that is being written
        self.size = 0  # written into it
        self.later: list[int] = []  # offsets of the parts after the first
        self.lost_bytes = 0
        self.lost_why = ""
        self.quiet_until = 0
        self.fd = -1

    def write(self, stream: bytes, data: bytes, at: int) -> None:
        """Never raises for what a disk can do."""
        if stream in self.maskers:
            data = self.maskers[stream].feed(data)
        self._write(stream, data, at)

    def _write(self, stream: bytes, data: bytes, at: int) -> None:
        if self.lost_bytes and at >= self.quiet_until and self._store(self._mark(at), at):
            self.lost_bytes = 0
        step = max(1, self.part_bytes // PIECES_A_PART)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if self.lost_bytes or not self._store(protocol.log_records(stream, at, piece), at):
                self.lost_bytes += len(piece)

    def note(self, text: str, at: int) -> None:
        """A line of the wrapper's own."""
        self.write(protocol.IGOR, text.encode() + b"\n", at)

    def close(self, at: int) -> None:
        for stream, masker in self.maskers.items():
            self._write(stream, masker.end(), at)
        if self.lost_bytes:
            self._store(self._mark(at), at)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _mark(self, at: int) -> bytes:
        text = f"{self.lost_bytes} bytes of output are missing here: {self.lost_why}\n"
        return protocol.log_records(protocol.IGOR, at, text.encode())

    def _store(self, records: bytes, at: int) -> bool:
        try:
            if self.fd < 0:
                self._open()
            elif self.size >= (self.part_bytes if self.offset else self.first_bytes):
                self._next_part()
            if os.write(self.fd, records) != len(records):
                raise OSError("the disk is full")
        except OSError as problem:
            self.lost_why = problem.strerror or str(problem)
            self.quiet_until = at + PAUSE_AFTER_ERROR_NS
            self._cut_back()
            return False
        self.size += len(records)
        return True

    def _open(self) -> None:
        name = protocol.log_name(self.try_n, self.offset)
        self.fd = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def _next_part(self) -> None:
        os.close(self.fd)
        self.fd = -1
        self.offset += self.size
        self.size = 0
        self.later.append(self.offset)
        if len(self.later) > LATER_PARTS:
            os.unlink(protocol.log_name(self.try_n, self.later.pop(0)))
        self._open()

    def _cut_back(self) -> None:
        """A record that was written in part is taken back, so that every line in the file is whole."""
        if self.fd >= 0:
            try:
                os.ftruncate(self.fd, self.size)
            except OSError:
                pass  # the next reader skips a damaged line
