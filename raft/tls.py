"""What TLS adds to a connection of consensus: whose certificate it is, and sockets that read and write in records.

In a cluster with TLS a connection begins with the eight bytes of MAGIC in clear, by which the acceptor of the one port knows it; then comes the TLS
handshake, in which both sides show a certificate, and inside it everything that `wire.py` tells, the hello with the proof of the key included. The
certificate must be that of the node that the hello names. `Tls` says who may come: the certificate of a node that was taken out is good for nothing.

An SSLSocket is no plain socket: it has no `sendmsg`, it may want to read in order to write and the other way round, and a record that was begun must
be offered again from its first byte on, never less of it. All of that is dealt with here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from raft.interface import NodeId

RECORD_BYTES = 16 * 1024  # the most that a record of TLS holds
PARTS_IN_A_RECORD = 256
NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class NotAdmitted(Exception):
    """The certificate is good, but its node must not take part (any more); the text is for the log of both sides."""


class Tls(Protocol):
    """What a cluster with TLS brings. Asked anew for each connection, in any thread."""

    def accepting(self) -> ssl.SSLContext: ...

    def dialling(self) -> ssl.SSLContext: ...

    def admit(self, sock: ssl.SSLSocket) -> NodeId:
        """The node whose certificate the other side has shown. Raises NotAdmitted."""


def wrap(context: ssl.SSLContext, sock: socket.socket, *, accepted: bool) -> ssl.SSLSocket:
    """The same connection, and the same descriptor, with TLS begun; `do_handshake` is the caller's. The given socket is of no use any more."""
    return context.wrap_socket(sock, server_side=accepted, do_handshake_on_connect=False)


def receive(sock: socket.socket, limit: int) -> bytes | None:
    """What has come, about `limit` bytes at most; None: nothing now; empty: the end. Raises OSError.

    Of TLS whole records alone are taken: what is left of one that was begun would be where epoll does not see it.
    """
    if not isinstance(sock, ssl.SSLSocket):
        try:
            return sock.recv(limit)
        except NOT_NOW:
            return None
    parts: list[bytes] = []
    size = 0
    while size < limit or sock.pending():
        try:
            data = sock.recv(RECORD_BYTES)
        except NOT_NOW:
            break
        if not data:
            return b"".join(parts)
        parts.append(data)
        size += len(data)
    return b"".join(parts) if parts else None


def send(sock: socket.socket, parts: Sequence[bytes | memoryview], buffers: int) -> int:
    """How many bytes of `parts` it took. Raises NOT_NOW, or OSError."""
    if isinstance(sock, ssl.SSLSocket):
        return sock.send(_record(parts))
    if len(parts) == 1:
        return sock.send(parts[0])
    return sock.sendmsg(list(islice(parts, buffers)))


def _record(parts: Sequence[bytes | memoryview]) -> bytes | memoryview:
    """As much as one record holds: what is offered again after NOT_NOW begins with the same bytes and is never shorter."""
    first = parts[0]
    if len(first) >= RECORD_BYTES or len(parts) == 1:
        return first[:RECORD_BYTES]
    return b"".join(islice(parts, PARTS_IN_A_RECORD))[:RECORD_BYTES]


def peek_end(sock: socket.socket) -> bool:
    """Whether the other side has closed and nothing else waits to be read; looks beneath TLS. Raises OSError."""
    try:
        return socket.socket.recv(sock, 1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def cut(sock: socket.socket) -> None:
    """Ends a connection that another thread reads or writes; closing it is that thread's."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not the SSLSocket's own, which would take TLS off and let the thread go on in clear
    except OSError:
        pass  # over already


def in_words(problem: OSError) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return f"TLS: {(problem.reason or str(problem)).lower().replace('_', ' ')}"
    return str(problem.strerror or problem)
