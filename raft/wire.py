"""The bytes between nodes: frames, their limits, and the hello in which two nodes prove to each other that they hold the cluster's key.

Sans I/O: bytes in, bytes out; `pump.py` and `snapshot.py` own the sockets. A connection is simplex: whoever opened it sends, the other side only
answers the hello. It begins with the eight bytes of MAGIC, by which the acceptor of the one port knows it from HTTP, then

    length u32 (of what follows) | version u8 | MessagePack

in both directions. The hello, before which nothing else is read and frames are at most 4 KiB:

    dialler   Hello      cluster and epoch, its id and address, whom it wants, what for, a nonce, which of the cluster's keys it holds
    answerer  Challenge  which key, a nonce of its own, and the proof that it holds that one; or Refused with the reason and what for, and the
                         end. That the dialler must not go on counts only with that proof: anybody may listen where a member was
    dialler   Proof      that it holds the key too; messages follow at once

A proof is HMAC-SHA256 with the cluster's key over everything in the hello, both nonces and the side, so it can be neither replayed nor reflected.
While the key is replaced some nodes hold two: the newest that both hold counts. `mark_of` names a key without telling it.
The address lets the answerer dial back: a joiner knows nobody, and a node that comes back on another port is found again.
Nodes of different epochs refuse each other: `recovery.py` tells why. `instance` is drawn anew at each start: two of one id that both live are a
copied data directory, and whoever hears the first of them refuses the second. The link itself is neither secret nor sealed here; off loopback it runs
inside TLS (`tls.py`), and then the certificate must be the sender's.

    WireError        the other side does not speak as it should; the connection is closed
    └── Refusal      the two do not belong together (cluster, epoch, id, key, version); the text is for the log, `final` for those that
                     must not go on: nothing that they can wait for will change it
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from raft import tls
from raft.interface import NodeId

MAGIC = b"IGORAFT\x01"
VERSION = 1  # of the frames and of what is in them
HELLO_LIMIT_BYTES = 4 * 1024  # before the other side has proved anything
FRAME_LIMIT_BYTES = 4 * 1024 * 1024  # above the largest append: one entry of 1 MiB, or a batch
QUEUE_LIMIT_BYTES = 16 * 1024 * 1024  # a peer further behind is disconnected, and catches up by walking back
NONCE_BYTES = 32
MARK_BYTES = 8
BUFFERS_PER_SEND = 64  # well under IOV_MAX

_HEAD = struct.Struct(">IB")
_ENCODER = msgspec.msgpack.Encoder()


class WireError(Exception):
    pass


class Refusal(WireError):
    def __init__(self, reason: str, *, final: Final | None = None) -> None:
        super().__init__(reason)
        self.final = final


class Final(StrEnum):
    OLD_EPOCH = "old epoch"  # the cluster was recovered without the dialler
    COPIED = "copied"  # another process with the dialler's id is in service


class Purpose(StrEnum):
    MESSAGES = "messages"
    SNAPSHOT = "snapshot"


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    cluster: str
    sender: NodeId
    address: str  # where the sender listens, HOST:PORT
    wanted: NodeId
    purpose: str
    nonce: bytes
    epoch: int = 0
    instance: str = ""
    keys: tuple[bytes, ...] = ()  # marks of those that the sender holds, newest first


class Challenge(msgspec.Struct, frozen=True, tag="challenge"):
    nonce: bytes
    proof: bytes
    key: bytes = b""  # mark of the one that counts between these two


class Proof(msgspec.Struct, frozen=True, tag="proof"):
    proof: bytes


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    reason: str
    final: str = ""
    proof: bytes = b""
    key: bytes = b""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # all that a decoder raises for bytes that are not what it expects
_HELLO = msgspec.msgpack.Decoder(Hello | Challenge | Proof | Refused)


def frame(value: Any) -> bytes:
    """The frame of one value (a struct, or anything msgspec encodes)."""
    buffer = bytearray(_HEAD.size)
    _ENCODER.encode_into(value, buffer, _HEAD.size)
    _HEAD.pack_into(buffer, 0, len(buffer) - _HEAD.size + 1, VERSION)
    return bytes(buffer)


class Frames:
    """Cuts a stream of bytes into the bodies of frames. `limit` may be raised when the other side is known."""

    def __init__(self, limit: int = HELLO_LIMIT_BYTES) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def __len__(self) -> int:
        return len(self._buffer)

    def next(self) -> bytes | None:
        """The next whole body; None until more bytes come. A length above the limit is an error before its bytes are awaited."""
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return None
        length, version = _HEAD.unpack_from(buffer)
        if version != VERSION:
            raise Refusal(f"it speaks version {version} of the wire, this node speaks {VERSION}")
        if not 1 < length <= self.limit:
            raise WireError(f"a frame of {length} bytes; the limit is {self.limit}")
        end = _HEAD.size - 1 + length
        if len(buffer) < end:
            return None
        body = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        return body

    def __iter__(self) -> Iterator[bytes]:
        """Every whole body that is there; bytes of the last, unfinished one stay. One cut of the buffer for all of them."""
        buffer, start, limit = self._buffer, 0, self.limit
        try:
            while len(buffer) - start >= _HEAD.size:
                length, version = _HEAD.unpack_from(buffer, start)
                if version != VERSION or not 1 < length <= limit:
                    del buffer[:start]
                    start = 0
                    self.next()  # says what is wrong
                end = start + _HEAD.size - 1 + length
                if len(buffer) < end:
                    return
                body = bytes(memoryview(buffer)[start + _HEAD.size : end])
                start = end
                yield body
        finally:
            del buffer[:start]


class Credentials(msgspec.Struct, frozen=True):
    """Who this node is, where others reach it, and the key that says it belongs here: one, or a function that gives those of now, newest first."""

    cluster: str
    node: NodeId
    address: str
    key: bytes | Callable[[], Sequence[bytes]]
    epoch: int = 0
    instance: str = ""
    on_missing: Callable[[], None] = lambda: None  # a node that may belong here holds none of the same keys

    def keys(self) -> dict[bytes, bytes]:
        """By their marks, newest first."""
        return {mark_of(key): key for key in (self.key() if callable(self.key) else (self.key,))}

    def shared_with(self, hello: Hello) -> bytes | None:
        """The newest key that both hold."""
        return next((key for mark, key in self.keys().items() if mark in hello.keys), None)


def mark_of(key: bytes) -> bytes:
    """Names a key without telling it."""
    return hmac.digest(key, b"igor key", "sha256")[:MARK_BYTES]


def prove(key: bytes, side: str, hello: Hello, nonce: bytes) -> bytes:
    return hmac.digest(key, _ENCODER.encode([side, VERSION, hello, nonce]), "sha256")


def prove_refusal(key: bytes, final: str, hello: Hello) -> bytes:
    return prove(key, "refuser", hello, final.encode())


class Dialling:
    """The side that opened the connection: send `opening`, give it each body, send what it gives back; `done` when that holds the proof."""

    def __init__(self, own: Credentials, wanted: NodeId, purpose: Purpose, chance: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._own = own
        self._keys = own.keys()
        self._hello = Hello(own.cluster, own.node, own.address, wanted, purpose, chance(NONCE_BYTES), own.epoch, own.instance, tuple(self._keys))
        self.hello = frame(self._hello)
        self.opening = MAGIC + self.hello
        self.done = False

    def receive(self, body: bytes) -> bytes:
        said = _decode_hello(body)
        key = self._keys.get(said.key) if isinstance(said, (Challenge, Refused)) else None
        if isinstance(said, Refused):
            known = key is not None and said.final in list(Final) and hmac.compare_digest(said.proof, prove_refusal(key, said.final, self._hello))
            raise Refusal(f"{self._hello.wanted} refuses: {said.reason[:200]}", final=Final(said.final) if known else None)
        if not isinstance(said, Challenge):
            raise WireError(f"a {type(said).__name__} where a Challenge was due")
        if key is None or not hmac.compare_digest(said.proof, prove(key, "answerer", self._hello, said.nonce)):
            raise Refusal(f"the node at the address of {self._hello.wanted} does not hold this cluster's key")
        self.done = True
        return frame(Proof(prove(key, "dialler", self._hello, said.nonce)))


class Answering:
    """The side that accepted: MAGIC is already read. After `done` the other side's `hello` can be believed.

    A Refusal carries in `answer` the frame to send before closing. `is_taken` says whether another instance of the hello's sender is alive.
    `certified`, set before the first body: the node whose certificate the other side has shown; None without TLS.
    """

    def __init__(
        self, own: Credentials, chance: Callable[[int], bytes] = secrets.token_bytes, is_taken: Callable[[Hello], bool] = lambda hello: False
    ) -> None:
        self._own = own
        self._is_taken = is_taken
        self._nonce = chance(NONCE_BYTES)
        self._hello: Hello | None = None
        self._key = b""
        self.certified: NodeId | None = None
        self.answer = b""
        self.done = False

    @property
    def hello(self) -> Hello:
        assert self._hello is not None and self.done
        return self._hello

    def receive(self, body: bytes) -> bytes:
        said = _decode_hello(body)
        if self._hello is None and isinstance(said, Hello):
            return self._challenge(said)
        if self._hello is not None and isinstance(said, Proof):
            if not hmac.compare_digest(said.proof, prove(self._key, "dialler", self._hello, self._nonce)):
                raise self.refuse("it does not hold this cluster's key")
            self.done = True
            return b""
        raise WireError(f"a {type(said).__name__} out of turn")

    def _challenge(self, hello: Hello) -> bytes:
        own = self._own
        if self.certified is not None and hello.sender != self.certified:
            raise self.refuse(f"its certificate is that of {self.certified}, it calls itself {hello.sender[:100]}")
        if hello.cluster != own.cluster:
            raise self.refuse(f"this node belongs to cluster {own.cluster}, not to {hello.cluster[:100]}")
        if hello.epoch < own.epoch:
            raise self._refuse_for_good(_other_epoch(own.epoch, hello.sender[:100], hello.epoch), Final.OLD_EPOCH, hello)
        if hello.epoch > own.epoch:
            raise self.refuse(_other_epoch(hello.epoch, own.node, own.epoch))
        if hello.wanted != own.node:
            raise self.refuse(f"this is node {own.node}, not {hello.wanted[:100]}")
        if hello.sender == own.node:
            raise self._refuse_for_good(f"both sides call themselves {own.node}: a data directory was copied", Final.COPIED, hello)
        if hello.purpose not in list(Purpose):
            raise self.refuse(f"a connection for {hello.purpose[:100]!r} is not known here")
        if len(hello.nonce) != NONCE_BYTES:
            raise self.refuse("a nonce of the wrong length")
        if self._is_taken(hello):
            raise self._refuse_for_good(f"another process is in service as {hello.sender[:100]}: a data directory was copied", Final.COPIED, hello)
        key = own.shared_with(hello)
        if key is None:
            own.on_missing()
            raise self.refuse("it does not hold this cluster's key, or this node does not hold it yet")
        self._hello, self._key = hello, key
        return frame(Challenge(self._nonce, prove(key, "answerer", hello, self._nonce), mark_of(key)))

    def refuse(self, reason: str) -> Refusal:
        self.answer = frame(Refused(reason))
        return Refusal(reason)

    def _refuse_for_good(self, reason: str, final: Final, hello: Hello) -> Refusal:
        key = self._own.shared_with(hello)
        self.answer = frame(Refused(reason) if key is None else Refused(reason, final, prove_refusal(key, final, hello), mark_of(key)))
        return Refusal(reason)


def _other_epoch(higher: int, node: NodeId, lower: int) -> str:
    return f"this cluster was recovered: epoch {higher}; {node} is of epoch {lower}; rejoin empty: igor-node join --reset"


def _decode_hello(body: bytes) -> Hello | Challenge | Proof | Refused:
    try:
        said: Hello | Challenge | Proof | Refused = _HELLO.decode(body)
    except UNREADABLE as problem:
        raise WireError(f"not a hello: {problem}") from None
    return said


class SendQueue:
    """Frames that wait for a non-blocking socket, at most QUEUE_LIMIT_BYTES of them."""

    def __init__(self, limit: int = QUEUE_LIMIT_BYTES) -> None:
        self._limit = limit
        self._parts: deque[bytes | memoryview] = deque()
        self.bytes = 0

    def push(self, data: bytes) -> bool:
        """False when that is more than the peer may be behind: disconnect it."""
        if self.bytes + len(data) > self._limit:
            return False
        self._parts.append(data)
        self.bytes += len(data)
        return True

    def flush(self, sock: socket.socket) -> bool:
        """Sends what the socket takes; True when nothing is left. OSError when the connection is gone."""
        parts = self._parts
        while parts:
            try:
                sent = tls.send(sock, parts, BUFFERS_PER_SEND)
            except tls.NOT_NOW:
                return False
            self._drop(sent)
        return True

    def _drop(self, sent: int) -> None:
        self.bytes -= sent
        parts = self._parts
        while sent:
            part = parts.popleft()
            if sent < len(part):
                parts.appendleft(memoryview(part)[sent:])
                return
            sent -= len(part)
