"""The sockets of consensus: one outgoing connection to each peer, and whatever connections came in.

The tick thread alone calls it. `send` queues, `flush` writes what the sockets take, `wait` sleeps in epoll until a socket or `wake` has something
and gives back the messages that came. Outgoing connections are opened again by themselves, with growing pauses and jitter; one whose peer is
QUEUE_LIMIT_BYTES behind is closed. Incoming ones are only read, and only after the hello of `wire.py`; of one sender the newest counts.

Nothing here blocks: names are resolved in a thread of their own. A peer is dialled where its last hello said it listens, where the list of members
says, and where somebody told this node (`hint`), in turn until one answers: the hello proves who is there, so a wrong address costs only a try.
"""

from __future__ import annotations

import logging
import os
import random
import selectors
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from raft import wire
from raft.interface import NodeId
from raft.messages import Message

HELLO_TIMEOUT_S = 5.0  # from the opening of a connection to its proof
PAUSE_MIN_S = 0.02  # before a connection is opened again, doubled at each failure; a third of it is chance
PAUSE_MAX_S = 0.5
STALLED_S = 10  # a connection that takes nothing for so long is dead, says the kernel (TCP_USER_TIMEOUT)
READ_BYTES = 256 * 1024  # from one socket in one turn, so that one peer cannot keep a tick to itself
STRANGERS_LIMIT = 64  # connections that have not proved anything yet; more are closed at once
INCOMING_LIMIT = 256

COMPLAINTS_KEPT = 16  # reasons of one peer that are not said again

ALIVE_S = 2.0  # a sender that said something so lately is alive: a leader hears ten answers a second
FINAL_AFTER_S = 1.0  # a refusal that is final counts when it is given for so long: a connection that just died may still look alive

LOOK_AGAIN_S = 0.05  # while a name is resolved
ANSWER_AGE_S = 5.0  # after which a name is resolved anew

Address = tuple[socket.AddressFamily, Any]

log = logging.getLogger("raft")
_MESSAGES = msgspec.msgpack.Decoder(Message)


class Observer(Protocol):
    """Who is told, in the tick thread."""

    def connected(self, peer: NodeId) -> None: ...

    def disconnected(self, peer: NodeId) -> None: ...

    def snapshot_asked(self, peer: NodeId, sock: socket.socket) -> None:
        """A peer proved itself and waits for a snapshot on this socket, which is no longer ours."""

    def refused(self, reason: str) -> None:
        """A peer says that this node must not take part, now or later."""


class _Connection(Protocol):
    @property
    def sock(self) -> socket.socket: ...

    def ready(self, mask: int) -> None: ...


class Links:
    def __init__(self, own: wire.Credentials, observer: Observer, monotonic: Callable[[], float], chance: random.Random) -> None:
        self.own = own
        self.observer = observer
        self.monotonic = monotonic
        self.chance = chance
        self.received: list[tuple[NodeId, Message]] = []
        self.names = Names()
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._wake_end, selectors.EVENT_READ, None)
        self._outgoing: dict[NodeId, _Outgoing] = {}
        self._incoming: set[_Incoming] = set()
        self._members: dict[NodeId, str] = {}
        self._learned: dict[NodeId, str] = {}  # addresses from hellos
        self._hints: dict[NodeId, str] = {}  # and what somebody said
        self._unflushed: set[_Outgoing] = set()
        self._complaints: dict[NodeId, set[str]] = {}
        self._closed = False

    # --- any thread

    def wake(self) -> None:
        """Ends a `wait` that sleeps, or the next one at once."""
        try:
            self._waker.send(b"\0")
        except (BlockingIOError, OSError):
            pass  # full: it is awake; closed: it is over

    # --- the tick thread

    def set_members(self, members: Mapping[NodeId, str]) -> None:
        """Whom to be connected to: id → address. Own id is left out; connections with who is gone from the list are closed, both ways."""
        gone = self._members.keys() - members.keys()
        self._members = {node: address for node, address in members.items() if node != self.own.node}
        for connection in [one for one in self._incoming if one.peer in gone]:
            connection.close()
        self._match_outgoing()

    def hint(self, addresses: Mapping[NodeId, str]) -> None:
        """Where peers may be found, if they are not where they were."""
        self._hints.update(addresses)

    def addresses(self) -> dict[NodeId, str]:
        """Where each member was reached last, or is said to be."""
        return {**{peer: self.address_of(peer) for peer in self._members}, **{peer: link.address for peer, link in self._outgoing.items() if link.up}}

    def send(self, peer: NodeId, data: bytes) -> None:
        """Dropped where there is no connection: consensus lives with loss."""
        link = self._outgoing.get(peer)
        if link is not None and link.up:
            link.send(data)

    def flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, set()
        for link in unflushed:
            link.flush()

    def is_connected(self, peer: NodeId) -> bool:
        link = self._outgoing.get(peer)
        return link is not None and link.up

    def next_deadline(self) -> float:
        """When `wait` must have returned so that something can be opened or given up."""
        deadlines = [link.deadline for link in self._outgoing.values() if link.deadline is not None]
        deadlines += [connection.deadline for connection in self._incoming if connection.deadline is not None]
        return min(deadlines, default=float("inf"))

    def wait(self, timeout_s: float) -> list[tuple[NodeId, Message]]:
        for key, mask in self._selector.select(timeout_s):
            if key.data is None:
                self._drain_wake()
            else:
                connection: _Connection = key.data
                connection.ready(mask)
        self._keep_deadlines()
        received, self.received = self.received, []
        return received

    def accept(self, sock: socket.socket) -> None:
        """An accepted socket that begins with MAGIC; it is ours from now on."""
        strangers = sum(1 for connection in self._incoming if connection.peer is None)
        if self._closed or strangers >= STRANGERS_LIMIT or len(self._incoming) >= INCOMING_LIMIT:
            sock.close()
            return
        try:
            _prepare(sock)
        except OSError:  # gone already
            sock.close()
            return
        connection = _Incoming(self, sock)
        self._incoming.add(connection)
        self.watch(connection, selectors.EVENT_READ)

    def close(self) -> None:
        self._closed = True
        for link in list(self._outgoing.values()):
            link.close()
        for connection in list(self._incoming):
            connection.close()
        self._outgoing.clear()
        self._selector.close()
        self._waker.close()
        self._wake_end.close()

    # --- for the connections

    def watch(self, connection: _Connection, mask: int) -> None:
        self._selector.register(connection.sock, mask, connection)

    def watch_again(self, connection: _Connection, mask: int) -> None:
        self._selector.modify(connection.sock, mask, connection)

    def unwatch(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)

    def note_unflushed(self, link: _Outgoing) -> None:
        self._unflushed.add(link)

    def forget_incoming(self, connection: _Incoming) -> None:
        self._incoming.discard(connection)
        if not self._closed:
            self._match_outgoing()

    def welcome(self, connection: _Incoming, hello: wire.Hello) -> None:
        """It has proved itself: a link to it goes where it listens now; an older connection of the same sender is forgotten."""
        for other in [other for other in self._incoming if other is not connection and other.peer == hello.sender]:
            other.close()
        self._learned[hello.sender] = hello.address
        self._match_outgoing()

    def spoke(self) -> None:
        self._match_outgoing()

    def complain(self, peer: NodeId, reason: str) -> None:
        """Once a reason, not once a try."""
        said = self._complaints.setdefault(peer, set())
        if reason not in said:
            if len(said) >= COMPLAINTS_KEPT:
                said.clear()
            said.add(reason)
            log.warning("raft link with %s: %s", peer, reason)

    def content(self, peer: NodeId) -> None:
        self._complaints.pop(peer, None)

    def is_known(self, peer: NodeId) -> bool:
        return peer in self._learned or peer in self._members

    def address_of(self, peer: NodeId, after: int = 0) -> str:
        """The likeliest, or after so many failures the next one."""
        known = dict.fromkeys(book[peer] for book in (self._learned, self._members, self._hints) if peer in book)
        return list(known)[after % len(known)]

    def is_taken(self, hello: wire.Hello) -> bool:
        """Whether another process with the sender's id is alive, as far as this node hears."""
        now = self.monotonic()
        return any(one.peer == hello.sender and one.instance != hello.instance and one.is_alive(now) for one in self._incoming)

    # --- its own

    def _match_outgoing(self) -> None:
        """One link to each member, and to whoever has said anything: a joiner has no list of members yet and must answer its leader."""
        wanted = self._members.keys() | {connection.peer for connection in self._incoming if connection.peer is not None and connection.has_spoken}
        for peer in self._outgoing.keys() - wanted:
            link = self._outgoing.pop(peer)
            was_up = link.up
            link.close()
            self._learned.pop(peer, None)
            if was_up:
                self.observer.disconnected(peer)
        for peer in sorted(wanted - self._outgoing.keys()):
            self._outgoing[peer] = _Outgoing(self, peer)
        for peer, link in self._outgoing.items():
            link.moved(self.address_of(peer))

    def _keep_deadlines(self) -> None:
        now = self.monotonic()
        for link in list(self._outgoing.values()):
            if link.deadline is not None and link.deadline <= now:
                link.due()
        for connection in [one for one in self._incoming if one.deadline is not None and one.deadline <= now]:
            connection.close()

    def _drain_wake(self) -> None:
        try:
            while len(self._wake_end.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass


class _Outgoing:
    """The connection this node opened to a peer: idle until its deadline, dialling, in the hello, then up."""

    def __init__(self, links: Links, peer: NodeId) -> None:
        self._links = links
        self.peer = peer
        self._likeliest = self.address = links.address_of(peer)
        self.up = False
        self.deadline: float | None = links.monotonic()  # idle: dial then; dialling: give up then; up: none
        self._sock: socket.socket | None = None
        self._connecting = False
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
            self._fail("no answer to the hello in time")

    def send(self, data: bytes) -> None:
        if not self._queue.push(data):
            self._fail(f"more than {wire.QUEUE_LIMIT_BYTES >> 20} MiB behind")
        elif not self._blocked:
            self._links.note_unflushed(self)

    def flush(self) -> None:
        if self._sock is None or self._connecting:
            return
        try:
            empty = self._queue.flush(self._sock)
        except OSError as problem:
            self._fail(str(problem.strerror))
            return
        if empty == self._blocked:  # ask for writability only while something waits for it
            self._blocked = not empty
            self._links.watch_again(self, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._blocked else 0))

    def ready(self, mask: int) -> None:
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
            self.deadline = now + HELLO_TIMEOUT_S
            self._connect(addresses[0])
        except (OSError, ValueError) as problem:
            self._fail(f"{self.address}: {problem}")

    def _connect(self, address: Address) -> None:
        family, place = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _prepare(sock)
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
        self._blocked = True  # EVENT_WRITE is asked for; the flush that follows takes it back
        self._queue.push(self._hello.opening)
        return True

    def _read(self) -> None:
        """Only answers to the hello come this way; after it, nothing but the end."""
        try:
            data = self.sock.recv(4096)
            if not data:
                self._fail("the other side closed the connection")
                return
            self._frames.feed(data)
            for body in self._frames:
                if self._hello.done:
                    raise wire.WireError("it sends on a connection that is only ours to send on")
                self._queue.push(self._hello.receive(body))
                self._come_up()
        except BlockingIOError:
            return
        except OSError as problem:
            self._fail(str(problem.strerror))
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
        self._connecting = False
        self._start_clean()


class _Incoming:
    """A connection that came in: the hello, then messages of one peer."""

    def __init__(self, links: Links, sock: socket.socket) -> None:
        self._links = links
        self.sock = sock
        self.peer: NodeId | None = None
        self.instance = ""
        self.has_spoken = False  # a message came, not only the hello
        self._heard_at = float("-inf")
        self.deadline: float | None = links.monotonic() + HELLO_TIMEOUT_S
        self._frames = wire.Frames()
        self._answering = wire.Answering(links.own, is_taken=links.is_taken)
        self._magic_left = len(wire.MAGIC)
        self._open = True

    def ready(self, mask: int) -> None:
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        self._heard_at = self._links.monotonic()
        try:
            self._take(data)
        except (wire.WireError, msgspec.DecodeError) as problem:
            self._refuse(str(problem))

    def is_alive(self, now: float) -> bool:
        """It spoke a moment ago, and its end is not waiting to be read."""
        if now - self._heard_at > ALIVE_S:
            return False
        try:
            return self.sock.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _take(self, data: bytes) -> None:
        if self._magic_left:
            data = self._take_magic(data)
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

    def _take_magic(self, data: bytes) -> bytes:
        begun = len(wire.MAGIC) - self._magic_left
        head = data[: self._magic_left]
        if head != wire.MAGIC[begun : begun + len(head)]:
            raise wire.WireError("it does not begin as a Raft connection")
        self._magic_left -= len(head)
        return data[len(head) :]

    def _take_hello(self) -> None:
        while not self._answering.done and (body := self._frames.next()) is not None:
            answer = self._answering.receive(body)
            if answer and self.sock.send(answer) != len(answer):  # some 100 bytes into an empty buffer
                raise wire.WireError("it does not read the answer to its hello")
        if not self._answering.done:
            return
        hello = self._answering.hello
        if hello.purpose == wire.Purpose.SNAPSHOT:
            self._release()
            self._links.observer.snapshot_asked(hello.sender, self.sock)
            return
        self.peer, self.instance, self.deadline = hello.sender, hello.instance, None
        self._frames.limit = wire.FRAME_LIMIT_BYTES
        self._links.welcome(self, hello)

    def _refuse(self, reason: str) -> None:
        self._links.complain(self.peer or "a stranger", reason)
        try:
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


class Names:
    """Addresses behind HOST:PORT. Numbers at once; names are asked of the system in a thread, anew when an answer is old."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, list[Address] | OSError]] = {}
        self._asking: set[str] = set()

    def find(self, address: str, now: float) -> list[Address] | None:
        """None while the answer is awaited. Raises OSError where there is none, ValueError where it is no address."""
        try:
            return look_up(address, numeric=True)
        except socket.gaierror:
            pass
        asked_at, answer = self._answers.get(address, (float("-inf"), []))
        if now - asked_at < ANSWER_AGE_S:
            if isinstance(answer, OSError):
                raise answer
            return answer
        if address not in self._asking:
            self._asking.add(address)
            threading.Thread(target=self._ask, args=(address, now), name="raft-names", daemon=True).start()
        return None

    def _ask(self, address: str, now: float) -> None:
        try:
            answer: list[Address] | OSError = look_up(address)
        except OSError as problem:
            answer = problem
        self._answers = {**self._answers, address: (now, answer)}
        self._asking.discard(address)


def look_up(address: str, *, numeric: bool = False) -> list[Address]:
    """All places of HOST:PORT, [::1]:PORT too. With `numeric` it never asks anybody. At least one, or OSError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    flags = socket.AI_NUMERICHOST if numeric else 0
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=flags)
    return [(family, place) for family, _, _, _, place in found]


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_S * 1000)
