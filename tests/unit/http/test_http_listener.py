"""The one port: first bytes decide whose a connection is; slow, silent and malformed ones are ended; addresses off loopback are refused."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from igor_node.http import limits, problems
from igor_node.http.listener import Listener, address_of, is_loopback, open_port
from igor_node.words import Conflict, Invalid

MAGIC = b"\x00igor\x00r1"


class Served:
    def __init__(self, sock: socket.socket) -> None:
        self.port = sock.getsockname()[1]
        self.adopted: list[socket.socket] = []
        self.handed_over = asyncio.Event()

    def adopt(self, sock: socket.socket) -> None:
        self.adopted.append(sock)
        self.handed_over.set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> bytes:
        reader, writer = await self.connect()
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello", headers={"Connection": "close"})

    app = web.Application(middlewares=[problems.middleware])
    app.router.add_get("/", hello)
    sock = open_port("127.0.0.1", 0)
    found = Served(sock)
    async with Listener(sock, app, MAGIC, found.adopt):
        yield found
    for one in found.adopted:
        one.close()


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_http_is_answered(served: Served) -> None:
    assert (await served.ask(GET)).endswith(b"hello")


async def test_http_whose_first_bytes_come_one_by_one(served: Served) -> None:
    """A slow start is no fault, as long as the head is whole in time."""
    reader, writer = await served.connect()
    for byte in GET:
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"hello")
    writer.close()


async def test_raft_gets_its_socket_untouched(served: Served) -> None:
    """The magic was looked at, not read: whoever adopts the socket reads it from the first byte on."""
    _, writer = await served.connect()
    for part in (MAGIC[:3], MAGIC[3:] + b"rest"):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.03)
    await asyncio.wait_for(served.handed_over.wait(), 5)
    assert served.adopted[0].recv(64) == MAGIC + b"rest"
    writer.close()


async def test_what_only_begins_like_raft_is_http(served: Served) -> None:
    """Something that leaves the magic half-way is answered as what it is: not a request."""
    answer = await served.ask(MAGIC[:3] + b"nonsense\r\n\r\n")
    assert b" 400 " in answer.splitlines()[0]
    assert served.adopted == []


async def test_a_malformed_request_gets_a_problem(served: Served) -> None:
    answer = await served.ask(b"NO SUCH THING\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0] and b"application/problem+json" in head
    assert json.loads(body)["status"] == 400


async def test_a_silent_connection_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing for 10 s is not waited for."""
    monkeypatch.setattr(limits, "FIRST_BYTES_S", 0.1)
    reader, writer = await served.connect()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_head_that_does_not_end_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's head must be whole within 10 s."""
    monkeypatch.setattr(limits, "HEAD_S", 0.1)
    reader, writer = await served.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: local")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_connections_past_the_limit_are_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 0)
    reader, writer = await served.connect()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_connections_take_half_of_the_files_at_most(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other half is for what would end the node: the next segment of the journal, the ledger, the links to the others."""
    monkeypatch.setattr(resource, "getrlimit", lambda what: (4, 1024))
    first = [await served.connect() for _ in range(2)]
    reader, writer = await served.connect()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    for _, other in (*first, (reader, writer)):
        other.close()


async def test_a_head_that_is_too_large_is_refused(served: Served) -> None:
    answer = await served.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n")
    assert b" 400 " in answer.splitlines()[0] or b" 431 " in answer.splitlines()[0]


async def test_stopping_ends_everything() -> None:
    """After the block the port is free and no connection is left."""
    sock = open_port("127.0.0.1", 0)
    port = sock.getsockname()[1]
    async with Listener(sock, web.Application(), MAGIC, lambda sock: None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    open_port("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["192.0.2.5", "no-such-host.invalid", "2001:db8::1"])
def test_an_address_that_is_not_this_machines_is_refused(host: str) -> None:
    with pytest.raises(Invalid, match="listen on"):
        open_port(host, 0)


@pytest.mark.parametrize(("host", "is_so"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("192.0.2.5", False)])
def test_what_cannot_leave_the_machine(host: str, is_so: bool) -> None:
    assert is_loopback(host) == is_so


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.5"])
def test_loopback_is_served(host: str) -> None:
    """`:0` picks a port, and the address tells which."""
    sock = open_port(host, 0)
    name, _, port = address_of(sock).rpartition(":")
    assert name.startswith("127.") and int(port) > 0
    sock.close()


def test_a_port_in_use_is_named() -> None:
    taken = open_port("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(Conflict, match=f"127.0.0.1:{port} is in use"):
        open_port("127.0.0.1", port)
    taken.close()
