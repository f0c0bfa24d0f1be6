"""A copy of the state machine's file from one node to another, out of band, for a follower whose next entry the leader has cut.

The follower opens a connection of purpose `snapshot` to the leader's Raft port (`fetch`), the leader answers on it (`serve`), each in a thread of its
own (`transfers.py`): ticks and commits go on at both ends. In frames of `wire.py`:

    follower   Want    the copy of which it holds a part, and how much; nothing at first
    leader     Begin   which copy this is (its SHA-256), where it stands, its size, and from where on it comes: from there, or from 0
    leader     Piece   offset, bytes, CRC-32 of both …  as fast as the pace allows (`pace.py`)

The follower writes pieces that are whole, and notes now and then, after a sync, how far it is. A connection that breaks costs nothing of that, a kill
what came since the last note; the rest is asked for, and comes as long as the leader still has the same copy. When all is there, the whole is read
again and must have the digest that it is known by; then it is the follower's to install, and the connection ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import ssl
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from raft import copies, tls, wire
from raft.addresses import look_up
from raft.copies import Copy
from raft.interface import Applied, NodeId
from raft.pace import PORTION_BYTES, Pace, keep_reserve, write_out

PIECE_BYTES = 256 * 1024
NOTE_BYTES = 16 * 1024 * 1024  # received between two notes of how far it is: what a broken connection costs at most
CONNECT_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 30.0  # neither end waits longer for the other to take or give a piece
COPY_TIMEOUT_S = 600.0  # how long the leader's state machine may take to write the copy
INSTALL_TIMEOUT_S = 120.0  # how long the leader keeps the log that follows the copy for a follower that has all of it
INCOMING_NAME = "incoming.snapshot"
NOTE_SUFFIX = ".note"
_OFFSET_BYTES = 8


class Want(msgspec.Struct, frozen=True, tag="want"):
    copy: str = ""
    offset: int = 0


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    copy: str
    stands: Applied
    size: int
    offset: int


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    offset: int
    data: bytes
    checksum: int


log = logging.getLogger("raft")
_WANT = msgspec.msgpack.Decoder(Want)
_PARTS = msgspec.msgpack.Decoder(Begin | Piece)


class TransferFailed(Exception):
    """The copy did not come through; the follower tries again."""


def clear(folder: Path) -> None:
    """Removes what an earlier life handed out, and what it received if that is good for nothing."""
    copies.clear(folder)
    incoming = Incoming(folder / INCOMING_NAME)
    if incoming.held() == Want():
        incoming.drop()


# --- the leader's end


def wanted(sock: socket.socket, frames: wire.Frames) -> Want:
    """What the follower asks for; `frames` holds what has been read already."""
    sock.settimeout(STALL_TIMEOUT_S)
    frames.limit = wire.HELLO_LIMIT_BYTES
    return _WANT.decode(_body(sock, frames))


def serve(sock: socket.socket, copy: Copy, want: Want, pace: Pace) -> None:
    """Sends the copy and waits for the follower to install it. Blocks; for a thread of its own. OSError when the follower is gone."""
    sock.settimeout(STALL_TIMEOUT_S)
    offset = want.offset if want.copy == copy.id and 0 <= want.offset <= copy.size else 0
    sock.sendall(wire.frame(Begin(copy.id, copy.stands, copy.size, offset)))
    with copy.path.open("rb") as file:
        file.seek(offset)
        while data := file.read(PIECE_BYTES):
            pace.spend(len(data))
            sock.sendall(wire.frame(Piece(offset, data, _checksum(offset, data))))
            offset += len(data)
    sock.settimeout(INSTALL_TIMEOUT_S)
    sock.recv(1)  # nothing but the end comes


# --- the follower's end


class Note(msgspec.Struct, frozen=True):
    """The first `offset` bytes of that copy are in the incoming file, synced."""

    copy: str
    offset: int


class Incoming:
    """The file that a copy comes into, and the note of how much of it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(path.name + NOTE_SUFFIX)

    def held(self) -> Want:
        """What is there of which copy; an empty Want where nothing is that could be trusted."""
        try:
            note = msgspec.json.decode(self._note.read_bytes(), type=Note)
            whole = 0 < note.offset <= self.path.stat().st_size
        except (OSError, ValueError):
            return Want()
        return Want(note.copy, note.offset) if whole else Want()

    def note(self, copy: str, offset: int) -> None:
        """The bytes are synced. The note itself need not be: an older one, or none, only costs the way."""
        part = self._note.with_name(self._note.name + ".part")
        part.write_bytes(msgspec.json.encode(Note(copy, offset)))
        part.rename(self._note)

    def forget(self) -> None:
        """What is there belongs to somebody else now."""
        self._note.unlink(missing_ok=True)

    def drop(self) -> None:
        self.forget()  # before what it speaks of
        self.path.unlink(missing_ok=True)


def fetch(own: wire.Credentials, leader: NodeId, address: str, path: Path, trust: tls.Tls | None = None) -> Applied:
    """That node's copy in `path`, checked and synced, and where it stands. Blocks; raises TransferFailed or OSError."""
    incoming = Incoming(path)
    with fetching(own, leader, address, incoming, trust) as stands:
        incoming.forget()
    return stands


@contextlib.contextmanager
def fetching(own: wire.Credentials, leader: NodeId, address: str, incoming: Incoming, trust: tls.Tls | None = None) -> Iterator[Applied]:
    """The same, and within it the connection is held: so long the leader keeps the log that follows the copy."""
    with _open(address, leader, trust) as sock:
        try:
            frames = wire.Frames()
            _greet(sock, frames, wire.Dialling(own, leader, wire.Purpose.SNAPSHOT))
            held = incoming.held()
            sock.sendall(wire.frame(held))
            sock.settimeout(COPY_TIMEOUT_S)
            stands = _receive(_parts(sock, frames), held, incoming)
        except (wire.WireError, *wire.UNREADABLE, TimeoutError, ValueError) as problem:
            raise TransferFailed(f"no snapshot from {leader}: {problem}") from problem
        yield stands


def _open(address: str, leader: NodeId, trust: tls.Tls | None) -> socket.socket:
    """With TLS MAGIC is sent, and it is known who is there."""
    try:
        family, place = look_up(address)[0]
    except ValueError as problem:
        raise TransferFailed(str(problem)) from None
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_TIMEOUT_S)
        sock.connect(place)
        return sock if trust is None else _begin_tls(sock, leader, trust)
    except OSError:
        sock.close()
        raise


def _begin_tls(sock: socket.socket, leader: NodeId, trust: tls.Tls) -> socket.socket:
    sock.sendall(wire.MAGIC)
    inner = tls.wrap(trust.dialling(), sock, accepted=False)
    try:
        inner.do_handshake()
        node = trust.admit(inner)
        if node != leader:
            raise tls.NotAdmitted(f"the certificate of the node there is that of {node}")
    except OSError as problem:
        inner.close()
        raise TransferFailed(f"no snapshot from {leader}: {tls.in_words(problem)}") from problem
    except tls.NotAdmitted as problem:
        inner.close()
        raise TransferFailed(f"no snapshot from {leader}: {problem}") from problem
    return inner


def _greet(sock: socket.socket, frames: wire.Frames, hello: wire.Dialling) -> None:
    sock.sendall(hello.hello if isinstance(sock, ssl.SSLSocket) else hello.opening)
    while not hello.done:
        sock.sendall(hello.receive(_body(sock, frames)))
    frames.limit = wire.FRAME_LIMIT_BYTES


def _body(sock: socket.socket, frames: wire.Frames) -> bytes:
    while (body := frames.next()) is None:
        data = sock.recv(PIECE_BYTES)
        if not data:
            raise wire.WireError("the connection ended early")
        frames.feed(data)
    return body


def _parts(sock: socket.socket, frames: wire.Frames) -> Iterator[Begin | Piece]:
    while True:
        yield _PARTS.decode(_body(sock, frames))
        sock.settimeout(STALL_TIMEOUT_S)


def _receive(parts: Iterator[Begin | Piece], held: Want, incoming: Incoming) -> Applied:
    begin = next(parts)
    if not isinstance(begin, Begin):
        raise wire.WireError(f"a {type(begin).__name__} where a Begin was due")
    if begin.offset and Want(begin.copy, begin.offset) != held:
        raise wire.WireError(f"it goes on at byte {begin.offset} of a copy, where {held.offset} of another was asked for")
    if begin.offset:
        log.info("a snapshot goes on at byte %d of %d", begin.offset, begin.size)
    else:
        incoming.drop()
    with incoming.path.open("r+b" if begin.offset else "wb") as file:
        file.truncate(begin.offset)  # what came after the note may be whole or not
        file.seek(begin.offset)
        _write_pieces(parts, begin, file, incoming)
    _check_digest(begin, incoming)
    _sync_folder(incoming.path.parent)
    return begin.stands


def _write_pieces(parts: Iterator[Begin | Piece], begin: Begin, file: BinaryIO, incoming: Incoming) -> None:
    offset = written = noted = begin.offset
    writing = False
    try:
        while offset < begin.size:
            piece = next(parts)
            if not isinstance(piece, Piece) or not _fits(piece, offset, begin.size):
                raise wire.WireError(f"what came for byte {offset} is damaged or out of order")
            keep_reserve(file.fileno())
            writing = True
            file.write(piece.data)
            offset += len(piece.data)
            if offset - written >= PORTION_BYTES:
                file.flush()
                write_out(file.fileno())  # a sync of a file that grows would have the whole file system's journal written each time
                written = offset
            if offset - noted >= NOTE_BYTES:
                incoming.note(begin.copy, _sync(file))
                noted = offset
            writing = False
    finally:
        if writing:  # the disk failed: after that a sync may succeed, and a look find in memory what is not on the disk
            incoming.forget()
        elif offset > noted:
            incoming.note(begin.copy, _sync(file))


def _fits(piece: Piece, offset: int, size: int) -> bool:
    return piece.offset == offset and 0 < len(piece.data) <= size - offset and piece.checksum == _checksum(offset, piece.data)


def _sync(file: BinaryIO) -> int:
    file.flush()
    os.fdatasync(file.fileno())
    return file.tell()


def _check_digest(begin: Begin, incoming: Incoming) -> None:
    with incoming.path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != begin.copy:
            incoming.drop()
            raise wire.WireError(f"all {begin.size} bytes came, and their checksum differs")


def _checksum(offset: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(offset.to_bytes(_OFFSET_BYTES, "big")))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
