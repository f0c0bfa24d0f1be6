"""A copy of the state machine's file from one node to another, out of band, for a follower whose next entry the leader has cut.

The follower opens a connection of purpose `snapshot` to the leader's Raft port, in a thread of its own (`fetch`); the leader lets the state
machine write a copy and streams it, in a thread too (`serve`). Ticks go on at both ends. The stream, in frames of `wire.py`:

    Begin   where the copy stands, its size     Piece  offset, bytes, CRC-32 of both …     End  SHA-256 of the whole

The follower's file is complete, checked and synced before `fetch` returns; the tick thread then installs it: first the state machine by a rename,
then the journal by a reset. A crash in between leaves a state machine ahead of its journal, which the engine's start rule mends.
"""

from __future__ import annotations

import hashlib
import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from raft import wire
from raft.interface import Applied, NodeId, StateMachine
from raft.links import look_up

PIECE_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 30.0  # neither end waits longer for the other to take or give a piece
COPY_TIMEOUT_S = 600.0  # how long the leader's state machine may take to write the copy
INCOMING_NAME = "incoming.snapshot"
_OFFSET_BYTES = 8


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    stands: Applied
    size: int


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    offset: int
    data: bytes
    checksum: int


class End(msgspec.Struct, frozen=True, tag="end"):
    digest: bytes


_PARTS = msgspec.msgpack.Decoder(Begin | Piece | End)


class TransferFailed(Exception):
    """The copy did not come through; the follower tries again."""


def clear(folder: Path) -> None:
    """Removes what transfers of an earlier life left behind."""
    for left in sorted(folder.glob("*.snapshot*")):
        left.unlink()


def serve(sock: socket.socket, machine: StateMachine, path: Path) -> None:
    """Writes a copy to `path`, sends it, removes it. Blocks; for a thread of its own. OSError when the follower is gone."""
    try:
        stands = machine.snapshot(path)
        sock.settimeout(STALL_TIMEOUT_S)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            sock.sendall(wire.frame(Begin(stands, size)))
            digest, offset = hashlib.sha256(), 0
            while data := file.read(PIECE_BYTES):
                digest.update(data)
                sock.sendall(wire.frame(Piece(offset, data, _checksum(offset, data))))
                offset += len(data)
            sock.sendall(wire.frame(End(digest.digest())))
        sock.shutdown(socket.SHUT_WR)
    finally:
        sock.close()
        path.unlink(missing_ok=True)


def fetch(own: wire.Credentials, leader: NodeId, address: str, path: Path) -> Applied:
    """The leader's copy in `path`, checked and synced, and where it stands. Blocks; raises TransferFailed or OSError."""
    try:
        with _open(address) as sock:
            frames = wire.Frames()
            _greet(sock, frames, wire.Dialling(own, leader, wire.Purpose.SNAPSHOT))
            sock.settimeout(COPY_TIMEOUT_S)
            return _receive(_parts(sock, frames), path)
    except (wire.WireError, msgspec.DecodeError, TimeoutError, ValueError) as problem:
        raise TransferFailed(f"no snapshot from {leader}: {problem}") from problem


def _open(address: str) -> socket.socket:
    family, place = look_up(address)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_TIMEOUT_S)
        sock.connect(place)
    except OSError:
        sock.close()
        raise
    return sock


def _greet(sock: socket.socket, frames: wire.Frames, hello: wire.Dialling) -> None:
    sock.sendall(hello.opening)
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


def _parts(sock: socket.socket, frames: wire.Frames) -> Iterator[Begin | Piece | End]:
    while True:
        yield _PARTS.decode(_body(sock, frames))
        sock.settimeout(STALL_TIMEOUT_S)


def _receive(parts: Iterator[Begin | Piece | End], path: Path) -> Applied:
    begin = next(parts)
    if not isinstance(begin, Begin):
        raise wire.WireError(f"a {type(begin).__name__} where a Begin was due")
    digest, offset = hashlib.sha256(), 0
    with path.open("wb") as file:
        while isinstance(part := next(parts), Piece):
            if part.offset != offset or part.checksum != _checksum(offset, part.data) or offset + len(part.data) > begin.size:
                raise wire.WireError(f"a piece at byte {part.offset} is damaged or out of order")
            file.write(part.data)
            digest.update(part.data)
            offset += len(part.data)
        if offset != begin.size or not isinstance(part, End) or part.digest != digest.digest():
            raise wire.WireError(f"{offset} bytes of {begin.size} came, or their checksum differs")
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)
    return begin.stands


def _checksum(offset: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(offset.to_bytes(_OFFSET_BYTES, "big")))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
