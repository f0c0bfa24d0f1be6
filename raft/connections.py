"""One connection of consensus, in either direction: dialling, the hello of `wire.py`, then messages one way. `links.py` owns them all.

In a cluster with TLS the handshake comes before the hello (`tls.py`), step by step when epoll says so, within the same deadline. Nothing here
blocks, and nothing is decided but when to dial again. Methods are called in the tick thread, when epoll or a deadline says so.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
from typing import TYPE_CHECKING

import msgspec

from raft import tls, wire
from raft.addresses import Address
from raft.interface import NodeId
from raft.messages import Message

if TYPE_CHECKING:
    from raft.links import Links

HELLO_TIMEOUT_S = 5.0  # from a connection to its proof
PAUSE_MIN_S = 0.02  # before a connection is opened again, doubled at each failure; a third of it is chance
PAUSE_MAX_S = 0.25
# What is lost on its way is repeated by the kernel after ever longer pauses: in the end as long as the network was cut. Whoever waits for that is
# still out of reach long after it is healed, so an opening is given up and begun anew, and so is a connection whose bytes are not acknowledged.
# Peers that are further apart than this could not elect anyhow.
CONNECT_TIMEOUT_S = 0.5
UNHEARD_MS = 1_000  # TCP_USER_TIMEOUT of a connection for messages
STALLED_MS = 10_000  # and of one that came in, which may be a snapshot's: a disk may hold up its reader
ANSWER_BYTES = 4 * 1024  # of an answer to a hello, in one turn
READ_BYTES = 256 * 1024  # from one socket in one turn, so that one peer cannot keep a tick to itself
LOOK_AGAIN_S = 0.05  # while a name is resolved
ALIVE_S = 2.0  # a sender that said something so lately is alive: a leader hears ten answers a second
FINAL_AFTER_S = 1.0  # a refusal that is final counts when it is given for so long: a connection that just died may still look alive

_MESSAGES = msgspec.msgpack.Decoder(Message)


class Outgoing:
    """The connection this node opened to a peer: idle until its deadline, dialling, in the hello, then up."""

    def __init__(self, links: Links, peer: NodeId) -> None:
        self._links = links
        self.peer = peer
        self._likeliest = self.address = links.address_of(peer)
        self.up = False
        self.deadline: float | None = links.monotonic()  # idle: dial then; dialling: give up then; up: none
        self._sock: socket.socket | None = None
        self._connecting = False
        self._shaking = False  # hands, as TLS calls it
        self._failures = 0
        self._refused_at: float | None = None  # since when the peer says that this node must not go on
        self._start_clean()

    def _start_clean(self) -> None:
        self._queue = wire.SendQueue()
        self._frames = wire.Frames()
        self._hello = wire.Dialling(self._links.own, self.peer, wire.Purpose.MESSAGES)
        self._blocked = False

    @property
    def sock(self) -> socket.socket:
        assert self._sock is not None
        return self._sock

    def moved(self, address: str) -> None:
        """The peer listens elsewhere now: a connection that is not up yet is tried anew at once."""
        if address != self._likeliest:
            self._likeliest = self.address = address
            if not self.up:
                self._drop_socket()
                self._failures = 0
                self.deadline = self._links.monotonic()

    def due(self) -> None:
        if self._sock is None:
            self._dial()
        else:
            self._fail("no connection in time" if self._connecting else "no answer to the hello in time")

    def send(self, data: bytes) -> None:
        if not self._queue.push(data):
            self._fail(f"more than {wire.QUEUE_LIMIT_BYTES >> 20} MiB behind")
        elif not self._blocked:
            self._links.note_unflushed(self)

    def flush(self) -> None:
        if self._sock is None or self._connecting or self._shaking:
            return
        try:
            empty = self._queue.flush(self._sock)
        except OSError as problem:
            self._fail(tls.in_words(problem))
            return
        if empty == self._blocked:  # ask for writability only while something waits for it
            self._blocked = not empty
            self._links.watch_again(self, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._blocked else 0))

    def ready(self, mask: int) -> None:
        if self._shaking:
            self._shake_hands()
            return
        if mask & selectors.EVENT_WRITE:
            if self._connecting and not self._finish_connect():
                return
            self.flush()
        if mask & selectors.EVENT_READ and self._sock is not None:
            self._read()

    def close(self) -> None:
        self._drop_socket()
        self.deadline = None

    def _dial(self) -> None:
        now = self._links.monotonic()
        self.address = self._links.address_of(self.peer, self._failures)
        try:
            addresses = self._links.names.find(self.address, now)
            if addresses is None:
                self.deadline = now + LOOK_AGAIN_S
                return
            self.deadline = now + CONNECT_TIMEOUT_S
            self._connect(addresses[0])
        except (OSError, ValueError) as problem:
            self._fail(f"{self.address}: {problem}")

    def _connect(self, address: Address) -> None:
        family, place = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            prepare(sock, UNHEARD_MS)
            sock.connect(place)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            raise
        self._sock, self._connecting = sock, True
        self._links.watch(self, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _finish_connect(self) -> bool:
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(f"{self.address}: {os.strerror(error)}")
            return False
        self._connecting = False
        self.deadline = self._links.monotonic() + HELLO_TIMEOUT_S
        if self._links.tls is not None:
            self._begin_tls(self._links.tls)
            return False
        self._blocked = True  # EVENT_WRITE is asked for; the flush that follows takes it back
        self._queue.push(self._hello.opening)
        return True

    def _begin_tls(self, trust: tls.Tls) -> None:
        try:
            self.sock.send(wire.MAGIC)  # eight bytes into an empty buffer
            self._sock = tls.wrap(trust.dialling(), self.sock, accepted=False)
            self._shaking = True
        except OSError as problem:
            self._fail(f"{self.address}: {tls.in_words(problem)}")
            return
        self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            wanted = shake_hands(self.sock)
            if wanted:
                self._links.watch_again(self, wanted)
                return
            self._check_certificate()
        except (OSError, tls.NotAdmitted) as problem:
            self._fail(f"{self.address}: {tls.in_words(problem) if isinstance(problem, OSError) else problem}")
            return
        self._shaking = False
        self._links.watch_again(self, selectors.EVENT_READ)
        self._queue.push(self._hello.hello)
        self.flush()

    def _check_certificate(self) -> None:
        node = self._links.admit(self.sock)
        if node != self.peer:
            raise tls.NotAdmitted(f"the certificate of the node there is that of {node}")

    def check_member(self) -> None:
        """Somebody was taken out of the cluster: perhaps the node at the other end."""
        if self._sock is not None and not self._connecting and not self._shaking:
            try:
                self._links.admit(self._sock)
            except tls.NotAdmitted as problem:
                self._fail(str(problem))

    def _read(self) -> None:
        """Only answers to the hello come this way; after it, nothing but the end."""
        try:
            data = tls.receive(self.sock, ANSWER_BYTES)
            if data is None:
                return
            if not data:
                self._fail("the other side closed the connection")
                return
            self._frames.feed(data)
            for body in self._frames:
                if self._hello.done:
                    raise wire.WireError("it sends on a connection that is only ours to send on")
                self._queue.push(self._hello.receive(body))
                self._come_up()
                self.flush()  # the proof waits for no message: a follower may have none to send, and is known only by its proof
        except OSError as problem:
            self._fail(tls.in_words(problem))
        except wire.WireError as problem:
            self._fail(str(problem))
            if isinstance(problem, wire.Refusal) and problem.final is not None:
                self._refused_for_good(str(problem))

    def _refused_for_good(self, reason: str) -> None:
        """Not at the first time: the process before this one may have died a moment ago."""
        now = self._links.monotonic()
        self._refused_at = now if self._refused_at is None else self._refused_at
        if now - self._refused_at >= FINAL_AFTER_S:
            self._links.observer.refused(reason)

    def _come_up(self) -> None:
        self.up = True
        self.deadline = None
        self._failures = 0
        self._links.content(self.peer)
        self._refused_at = None
        self._links.note_unflushed(self)
        self._links.observer.connected(self.peer)

    def _fail(self, reason: str) -> None:
        was_up = self.up
        self._drop_socket()
        pause = min(PAUSE_MAX_S, PAUSE_MIN_S * 2 ** min(self._failures, 10))
        self._failures += 1
        self.deadline = self._links.monotonic() + pause * self._links.chance.uniform(2 / 3, 4 / 3)
        self._links.complain(self.peer, reason)
        if was_up:
            self._links.observer.disconnected(self.peer)

    def _drop_socket(self) -> None:
        self.up = False
        if self._sock is not None:
            self._links.unwatch(self)
            self._sock.close()
            self._sock = None
        self._connecting = self._shaking = False
        self._start_clean()


class Incoming:
    """A connection that came in: the hello, then messages of one peer."""

    def __init__(self, links: Links, sock: socket.socket) -> None:
        self._links = links
        self.sock = sock
        self.peer: NodeId | None = None
        self.instance = ""
        self.has_spoken = False  # a message came, not only the hello
        self._heard_at = float("-inf")
        self.begun_at = links.monotonic()
        self.deadline: float | None = self.begun_at + HELLO_TIMEOUT_S
        self._frames = wire.Frames()
        self._answering = wire.Answering(links.own, is_taken=links.is_taken)
        self._magic_left = len(wire.MAGIC)
        self._shaking = False
        self._open = True

    def ready(self, mask: int) -> None:
        try:
            if not self._is_open_to_read():
                return
            data = tls.receive(self.sock, self._links.read_bytes)
            if data is None:
                return
            if not data:
                self.close()
                return
            self._heard_at = self._links.monotonic()
            self._take(data)
        except (wire.WireError, *wire.UNREADABLE, tls.NotAdmitted) as problem:
            self._refuse(str(problem))
        except ssl.SSLError as problem:
            self._links.complain(self.peer or "a stranger", tls.in_words(problem))
            self.close()
        except OSError:
            self.close()

    def _is_open_to_read(self) -> bool:
        """Whether MAGIC, and with TLS the handshake, are through."""
        if self._magic_left and not self._take_magic():
            return False
        if self._shaking:
            wanted = shake_hands(self.sock)
            if wanted:
                self._links.watch_again(self, wanted)
                return False
            self._shaking = False
            self._links.watch_again(self, selectors.EVENT_READ)
            self._answering.certified = self._admit()
        return True

    def _admit(self) -> NodeId:
        try:
            return self._links.admit(self.sock)
        except tls.NotAdmitted as problem:
            raise self._answering.refuse(str(problem)) from None

    def check_member(self) -> None:
        """Somebody was taken out of the cluster: perhaps the node at the other end."""
        if self._answering.certified is not None:  # also one whose hello is not through: its certificate was looked at before
            try:
                self._links.admit(self.sock)
            except tls.NotAdmitted as problem:
                self._links.complain(self._answering.certified, str(problem))
                self.close()

    def is_alive(self, now: float) -> bool:
        """It spoke a moment ago, and its end is not waiting to be read."""
        if now - self._heard_at > ALIVE_S:
            return False
        try:
            return not tls.peek_end(self.sock)
        except OSError:
            return False

    def _take(self, data: bytes) -> None:
        self._frames.feed(data)
        if self.peer is None:
            self._take_hello()
        if self.peer is not None and self._open:
            received, peer, decode = self._links.received, self.peer, _MESSAGES.decode
            for body in self._frames:
                received.append((peer, decode(body)))
            if not self.has_spoken and received and received[-1][0] == peer:
                self.has_spoken = True
                self._links.spoke()

    def _take_magic(self) -> bool:
        """Nothing behind it is read yet: that may be TLS. True when it is whole. Raises what its end, or a stranger's beginning, is."""
        try:
            head = self.sock.recv(self._magic_left)
        except BlockingIOError:
            return False
        if not head:
            raise ConnectionResetError
        begun = len(wire.MAGIC) - self._magic_left
        if head != wire.MAGIC[begun : begun + len(head)]:
            raise wire.WireError("it does not begin as a Raft connection")
        self._magic_left -= len(head)
        if self._magic_left:
            return False
        if self._links.tls is not None:
            self.sock = tls.wrap(self._links.tls.accepting(), self.sock, accepted=True)
            self._shaking = True
        return True

    def _take_hello(self) -> None:
        while not self._answering.done and (body := self._frames.next()) is not None:
            answer = self._answering.receive(body)
            if answer:
                self._answer(answer)
        if not self._answering.done:
            return
        hello = self._answering.hello
        if hello.purpose == wire.Purpose.SNAPSHOT:
            self._release()
            self._links.observer.snapshot_asked(hello.sender, self.sock, self._frames)
            return
        self.peer, self.instance, self.deadline = hello.sender, hello.instance, None
        self._frames.limit = wire.FRAME_LIMIT_BYTES
        self._links.welcome(self, hello)

    def _answer(self, answer: bytes) -> None:
        """Some 100 bytes into an empty buffer."""
        try:
            sent = self.sock.send(answer)
        except OSError as problem:
            raise wire.WireError(f"it was gone before its hello was answered: {problem.strerror}") from None
        if sent != len(answer):
            raise wire.WireError("it does not read the answer to its hello")

    def _refuse(self, reason: str) -> None:
        self._links.complain(self.peer or "a stranger", reason)
        try:
            if self._answering.answer:
                self.sock.send(self._answering.answer)
        except OSError:
            pass  # it need not hear why
        self.close()

    def _release(self) -> None:
        self._open = False
        self.deadline = None
        self._links.unwatch(self)
        self._links.forget_incoming(self)

    def close(self) -> None:
        if self._open:
            self._release()
            self.sock.close()


def shake_hands(sock: socket.socket) -> int:
    """One step of the handshake: what to wait for, 0 when it is done. Raises OSError."""
    assert isinstance(sock, ssl.SSLSocket)
    try:
        sock.do_handshake()
    except ssl.SSLWantReadError:
        return selectors.EVENT_READ
    except ssl.SSLWantWriteError:
        return selectors.EVENT_READ | selectors.EVENT_WRITE
    return 0


def prepare(sock: socket.socket, stalled_ms: int = STALLED_MS) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled_ms)
