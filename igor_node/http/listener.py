"""The one port: accepts connections, looks at their first bytes, and gives Raft its own and HTTP the rest.

A Raft stream begins with eight fixed bytes. They are looked at (MSG_PEEK), not read, so that whoever gets the socket finds it untouched. A connection
that says nothing for 10 s is closed, so is one that does not finish a request's head in 10 s; past `CONNECTIONS`, or half of the files that the
process may open, new ones are closed at once. In a cluster with TLS what is not Raft's is HTTPS: `serving` gives the context for each connection,
whatever speaks in clear is closed. A connection of Raft begins its own TLS behind the eight bytes.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from igor_node.http import limits, problems
from igor_node.words import Conflict, Invalid, Malformed

log = logging.getLogger("igor.http")
TLS_CLOSE_S = 1.0
OUT_OF_FILES_S = 0.1  # accept fails while the process has no file left: do not spin


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Invalid for an address that is not this machine's, Conflict for a port in use, each one line for a person."""
    family, address = resolve(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(limits.BACKLOG)
    except OSError as problem:
        sock.close()
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if problem.errno == errno.EADDRINUSE:
            raise Conflict(f"{shown} is in use by another process", hint="choose another port with --listen, or 127.0.0.1:0 for any") from None
        raise Invalid(f"cannot listen on {shown}: {problem.strerror}", hint="choose another address with --listen") from None
    sock.setblocking(False)
    return sock


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """An address of this machine, by itself or by a name. Raises Invalid."""
    name = "127.0.0.1" if host == "localhost" else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise Invalid(f'"{host}" is no address to listen on', hint="expected an address of this machine, like 10.0.0.1:7946 or [::1]:7946") from None
    return found[0], (str(found[4][0]), port)


def is_loopback(host: str) -> bool:
    """Whether what is sent there cannot leave the machine. A name is looked up. Raises Invalid."""
    return ipaddress.ip_address(resolve(host, 0)[1][0].partition("%")[0]).is_loopback


def address_of(sock: socket.socket) -> str:
    """HOST:PORT, with the port that was picked."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listener:
    """`async with Listener(sock, app, magic, adopt):` serves until the block ends. Stopping closes idle connections at once, busy ones soon."""

    def __init__(
        self,
        sock: socket.socket,
        app: web.Application,
        magic: bytes,
        adopt: Callable[[socket.socket], None],
        serving: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._sock = sock
        self._serving = serving
        self._magic = magic
        self._adopt = adopt
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=limits.IDLE_S,
            max_line_size=limits.LINE_LIMIT_BYTES,
            max_field_size=limits.LINE_LIMIT_BYTES,
            max_headers=limits.HEADER_LINES,
            lingering_time=limits.LINGER_S,
            shutdown_timeout=1.0,
            handler_cancellation=True,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Listener:
        await self._runner.setup()
        self._own(self._accept())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._sock.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._runner.cleanup()

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as problem:  # the process is out of files, or the peer is gone already
                log.warning("cannot accept a connection: %s", problem)
                await asyncio.sleep(OUT_OF_FILES_S)
                continue
            if self._count() >= most_connections():
                sock.close()
                continue
            self._own(self._receive(sock))

    def _count(self) -> int:
        server = self._runner.server
        return len(self._tasks) + (len(server.connections) if server is not None else 0)

    async def _receive(self, sock: socket.socket) -> None:
        """One new connection, until it is known whose it is."""
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(limits.FIRST_BYTES_S):
                first = await peek(sock, self._magic)
            if first == self._magic:
                self._adopt(sock)
            elif first:
                await self._serve_http(sock)
            else:
                sock.close()
        except (TimeoutError, OSError):
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise

    async def _serve_http(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._serving is None:
            await loop.connect_accepted_socket(self._handler, sock)
            return
        await loop.connect_accepted_socket(
            self._handler, sock, ssl=self._serving(), ssl_handshake_timeout=limits.FIRST_BYTES_S, ssl_shutdown_timeout=TLS_CLOSE_S
        )

    def _handler(self) -> RequestHandler:
        server = self._runner.server
        assert server is not None
        return Connection(server, loop=asyncio.get_running_loop(), **server._kwargs)


def most_connections() -> int:
    """Half of the files are left to what would end the node without one: the journal's next segment, the ledger, the links to the others."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limits.CONNECTIONS if files == resource.RLIM_INFINITY else min(limits.CONNECTIONS, files // 2)


async def peek(sock: socket.socket, magic: bytes) -> bytes:
    """As many of the first bytes as tell: all of `magic`, or something that it does not begin with. Nothing: the peer has closed."""
    while True:
        await readable(sock)
        first = sock.recv(len(magic), socket.MSG_PEEK)
        if not first or first == magic or not magic.startswith(first):
            return first
        await asyncio.sleep(0.01)  # a part of the magic: the socket stays readable, so the next look has to wait by itself


async def readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, tell)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


class Connection(RequestHandler):
    """aiohttp's connection with two things it lacks: a time-out for a request's head, and problem+json where not even a request could be read."""

    __slots__ = ("_head_timer",)

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]
        self._head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_timer()
        elif self._head_timer is None and not self._request_in_progress and not self._messages and not self._upgraded:
            self._head_timer = asyncio.get_running_loop().call_later(limits.HEAD_S, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status < 500:
            self.force_close_after()
            return problems.answer(Malformed(f"this is not a request that can be read: {(message or '').splitlines()[0] if message else 'bad HTTP'}"))
        return super().handle_error(request, status, exc, message)

    def force_close_after(self) -> None:
        """What follows a malformed request on its connection cannot be trusted."""
        self.close()
