"""A backup: one file with the ledger as of one entry, and the proof that it is whole.

    IGORBAK1 | length of the header u32 | header, JSON | the ledger, an SQLite file | SHA-256 of everything before

`http/api/backup.py` writes it to the client, `igor backup` checks it while it arrives, `recovery.py` checks it again before it restores. It holds no
key and no token in clear (the ledger has hashes alone), but everything that jobs are made of: keep it as you keep the jobs. Standard library only,
because `igor` loads it.

    NotABackup     the file is not one, or not whole; the text says which file, where, and what was expected
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from igor_node.words import IgorError

MAGIC = b"IGORBAK1"
DIGEST_BYTES = 32
HEADER_LIMIT_BYTES = 64 * 1024  # a few hundred in truth
PIECE_BYTES = 1024 * 1024

_LENGTH = struct.Struct(">I")


class NotABackup(IgorError):
    exit_code, title = 1, "Not a whole backup"


@dataclass(frozen=True, kw_only=True)
class Header:
    """`index`, `term`, `ledger_time`: of the last entry in it. `node`, `name`: whose copy it is. `size`: of the ledger, in bytes."""

    cluster: str
    epoch: int
    index: int
    term: int
    ledger_time: int
    ledger_version: int
    node: str
    name: str
    program: str
    taken_at: int
    size: int

    def encode(self) -> bytes:
        text = json.dumps(asdict(self)).encode()
        return MAGIC + _LENGTH.pack(len(text)) + text


class Check:
    """Takes a backup's bytes in order, however they are cut; hands those of the ledger to `sink`. Raises NotABackup, at the latest in `finish`."""

    def __init__(self, name: str, sink: Callable[[bytes], object] = len) -> None:
        self.header: Header | None = None
        self._name = name
        self._sink = sink
        self._digest = hashlib.sha256()
        self._head = b""
        self._left = 0
        self._tail = b""
        self._bytes = 0

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        if self.header is None:
            data = self._read_head(data)
        ledger, rest = data[: self._left], data[self._left :]
        self._left -= len(ledger)
        if ledger:
            self._digest.update(ledger)
            self._sink(ledger)
        self._tail += rest
        if len(self._tail) > DIGEST_BYTES:
            raise NotABackup(f"{self._name}: it goes on behind its end at byte {self._bytes - len(self._tail) + DIGEST_BYTES}")

    def finish(self) -> Header:
        if self.header is None:
            raise NotABackup(f"{self._name}: it ends at byte {self._bytes}, before its header is whole")
        if self._left or len(self._tail) < DIGEST_BYTES:
            missing = self._left + DIGEST_BYTES - len(self._tail)
            raise NotABackup(f"{self._name}: it ends at byte {self._bytes}; {missing} bytes are missing")
        if self._tail != self._digest.digest():
            raise NotABackup(f"{self._name}: it is damaged: its content has not the SHA-256 that stands at its end", hint="take another backup")
        return self.header

    def _read_head(self, data: bytes) -> bytes:
        """What follows the header; nothing as long as that is not whole."""
        self._head += data
        known = self._head[: len(MAGIC)]
        if known != MAGIC[: len(known)]:
            raise NotABackup(f"{self._name}: it is not a backup of Igor: expected {MAGIC.decode()} at byte 0")
        start = len(MAGIC) + _LENGTH.size
        if len(self._head) < start:
            return b""
        (length,) = _LENGTH.unpack_from(self._head, len(MAGIC))
        if length > HEADER_LIMIT_BYTES:
            raise NotABackup(f"{self._name}: damaged at byte {len(MAGIC)}: a header of {length} bytes")
        if len(self._head) < start + length:
            return b""
        self.header = self._decode(self._head[start : start + length])
        self._left = self.header.size
        self._digest.update(self._head[: start + length])
        return self._head[start + length :]

    def _decode(self, text: bytes) -> Header:
        try:
            found = json.loads(text)
            header = Header(**{field.name: found[field.name] for field in fields(Header)})
        except (ValueError, KeyError, TypeError) as problem:
            raise NotABackup(f"{self._name}: damaged at byte {len(MAGIC) + _LENGTH.size}: its header cannot be read ({problem})") from None
        numbers = (header.epoch, header.index, header.term, header.ledger_time, header.ledger_version, header.taken_at, header.size)
        if not all(isinstance(value, int) and value >= 0 for value in numbers):
            raise NotABackup(f"{self._name}: damaged at byte {len(MAGIC) + _LENGTH.size}: a number in its header is none")
        return header


def check_file(path: Path, sink: Callable[[bytes], object] = len) -> Header:
    """Reads all of it. Raises NotABackup, or OSError."""
    check = Check(str(path), sink)
    with path.open("rb") as file:
        while data := file.read(PIECE_BYTES):
            check.feed(data)
    return check.finish()
