"""The sockets of consensus: one outgoing connection to each peer, and whatever connections came in.

The tick thread alone calls it. `send` queues, `flush` writes what the sockets take, `wait` sleeps in epoll until a socket or `wake` has something
and gives back the messages that came. Outgoing connections are opened again by themselves, with growing pauses and jitter; one whose peer is
QUEUE_LIMIT_BYTES behind is closed. Incoming ones are only read, and only after the hello of `wire.py`; of one sender the newest counts.

A single connection is the matter of `connections.py`. A peer is dialled where its last hello said it listens, where the list of members
says, and where somebody told this node (`hint`), in turn until one answers: the hello proves who is there, so a wrong address costs only a try.
"""

from __future__ import annotations

import logging
import random
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Protocol

from raft import tls, wire
from raft.addresses import Names
from raft.connections import READ_BYTES, Incoming, Outgoing, prepare
from raft.interface import NodeId
from raft.messages import Message

STRANGERS_LIMIT = 64  # connections that have not proved anything yet; for one more the one that waits longest is closed
INCOMING_LIMIT = 256

COMPLAINTS_KEPT = 16  # reasons of one peer that are not said again
QUIET_S = 60.0  # in which no more than so many are told

log = logging.getLogger("raft")


class Observer(Protocol):
    """Who is told, in the tick thread."""

    def connected(self, peer: NodeId) -> None: ...

    def disconnected(self, peer: NodeId) -> None: ...

    def snapshot_asked(self, peer: NodeId, sock: socket.socket, frames: wire.Frames) -> None:
        """A peer proved itself and wants a snapshot on this socket, which is no longer ours; `frames` holds what was read of it already."""

    def refused(self, reason: str) -> None:
        """A peer says that this node must not take part, now or later."""


class _Connection(Protocol):
    @property
    def sock(self) -> socket.socket: ...

    def ready(self, mask: int) -> None: ...


class Links:
    def __init__(
        self, own: wire.Credentials, observer: Observer, monotonic: Callable[[], float], chance: random.Random, trust: tls.Tls | None = None
    ) -> None:
        self.own = own
        self.tls = trust
        self.observer = observer
        self.monotonic = monotonic
        self.chance = chance
        self.received: list[tuple[NodeId, Message]] = []
        self.names = Names()
        self.read_bytes = READ_BYTES
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._wake_end, selectors.EVENT_READ, None)
        self._outgoing: dict[NodeId, Outgoing] = {}
        self._incoming: set[Incoming] = set()
        self._members: dict[NodeId, str] = {}
        self._learned: dict[NodeId, str] = {}  # addresses from hellos
        self._hints: dict[NodeId, str] = {}  # and what somebody said
        self._unflushed: set[Outgoing] = set()
        self._complaints: dict[NodeId, set[str]] = {}
        self._quiet_until: dict[NodeId, float] = {}
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

    def check_members(self) -> None:
        """Somebody was taken out: what it has open is closed now, and it is admitted no more."""
        if self.tls is not None:
            for incoming in list(self._incoming):
                incoming.check_member()
            for outgoing in list(self._outgoing.values()):
                outgoing.check_member()

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
        if self._closed or len(self._incoming) >= INCOMING_LIMIT:
            sock.close()
            return
        try:
            prepare(sock)
        except OSError:  # gone already
            sock.close()
            return
        strangers = [one for one in self._incoming if one.peer is None]
        if len(strangers) >= STRANGERS_LIMIT:
            min(strangers, key=lambda one: one.begun_at).close()
        connection = Incoming(self, sock)
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

    def admit(self, sock: socket.socket) -> NodeId:
        """The node at the other end, by its certificate. Raises NotAdmitted."""
        assert self.tls is not None and isinstance(sock, ssl.SSLSocket)
        return self.tls.admit(sock)

    def note_unflushed(self, link: Outgoing) -> None:
        self._unflushed.add(link)

    def forget_incoming(self, connection: Incoming) -> None:
        self._incoming.discard(connection)
        if not self._closed:
            self._match_outgoing()

    def welcome(self, connection: Incoming, hello: wire.Hello) -> None:
        """It has proved itself: a link to it goes where it listens now; an older connection of the same sender is forgotten."""
        for other in [other for other in self._incoming if other is not connection and other.peer == hello.sender]:
            other.close()
        self._learned[hello.sender] = hello.address
        self._match_outgoing()

    def spoke(self) -> None:
        self._match_outgoing()

    def complain(self, peer: NodeId, reason: str) -> None:
        """Once a reason, not once a try; a stranger that says something else each time is not told of for ever."""
        said = self._complaints.setdefault(peer, set())
        if reason not in said:
            if len(said) >= COMPLAINTS_KEPT:
                if self.monotonic() < self._quiet_until.get(peer, 0.0):
                    return
                said.clear()
            if not said:
                self._quiet_until[peer] = self.monotonic() + QUIET_S
            said.add(reason)
            log.warning("raft link with %s: %s", peer, "".join(letter if letter.isprintable() else "?" for letter in reason))

    def content(self, peer: NodeId) -> None:
        self._complaints.pop(peer, None)
        self._quiet_until.pop(peer, None)

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
            self._outgoing[peer] = Outgoing(self, peer)
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
