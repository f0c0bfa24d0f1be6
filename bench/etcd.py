"""etcd beside Igor: three local processes of Debian's `etcd-server`, and a client that costs little, so that etcd is measured and not Python.

The client speaks gRPC over HTTP/2 as far as one unary call needs it: prebuilt headers, one data frame a put, and an answer counts when it brought a
message. Used by `bench/commit.py`. etcd syncs its log before it answers, as Igor does. `versions` says which etcd it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PUTS_A_CONNECTION = 100  # at once: HTTP/2's first window takes so many without asking
READY_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 30.0

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4


def version() -> str | None:
    """None where etcd is not installed."""
    if shutil.which("etcd") is None:
        return None
    return subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]


@contextlib.contextmanager
def cluster_in(folder: Path) -> Iterator[str]:
    """Three members in that folder; gives the HOST:PORT at which the leader serves clients."""
    names = ["e1", "e2", "e3"]
    ports = dict(zip(names, _free_ports(2 * len(names)), strict=True))
    peers = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, (_, peer) in ports.items())
    processes = [_start(folder, name, client, peer, peers) for name, (client, peer) in ports.items()]
    try:
        yield f"127.0.0.1:{_leader([client for client, _ in ports.values()])}"
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _start(folder: Path, name: str, client: int, peer: int, peers: str) -> subprocess.Popen[bytes]:
    command = ["etcd", "--name", name, "--data-dir", str(folder / name), "--initial-cluster", peers, "--logger", "zap", "--log-level", "error"]
    for flag, port in (("client", client), ("peer", peer)):
        command += [f"--listen-{flag}-urls", f"http://127.0.0.1:{port}"]
    command += ["--advertise-client-urls", f"http://127.0.0.1:{client}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _free_ports(count: int) -> Iterator[tuple[int, int]]:
    """In pairs. Another process may take one before etcd does; then etcd does not come up, and the wait says so."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return iter(list(zip(ports[::2], ports[1::2], strict=True)))


def _leader(clients: list[int]) -> int:
    until = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < until:
        for port in clients:
            with contextlib.suppress(OSError, ValueError):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/maintenance/status", data=b"{}")
                with urllib.request.urlopen(request, timeout=1) as answer:
                    status: dict[str, Any] = json.load(answer)
                if status.get("leader") == status["header"]["member_id"]:
                    return port
        time.sleep(0.05)
    raise SystemExit(f"etcd has no leader after {READY_TIMEOUT_S:.0f} s")


def load(address: str, in_flight: int, seconds: float, size: int) -> dict[str, float]:
    """Puts of new keys, so many at a time, for so long: as `load` of `bench/raft_node.py` does with Igor."""
    return asyncio.run(_load(address, in_flight, seconds, size))


async def _load(address: str, in_flight: int, seconds: float, size: int) -> dict[str, float]:
    connections = [await _Connection.open(address) for _ in range(-(-in_flight // PUTS_A_CONNECTION))]
    took: list[float] = []
    begun = time.perf_counter()
    until = begun + seconds

    async def one_after_another(number: int) -> None:
        connection, count = connections[number % len(connections)], 0
        while (start := time.perf_counter()) < until:
            count += 1
            await connection.put(b"%d/%d" % (number, count), bytes(size))
            took.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(one_after_another(number))
    elapsed = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    took.sort()
    return {
        "answered": len(took),
        "seconds": elapsed,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
    }


class _Connection(asyncio.Protocol):
    """One HTTP/2 connection; every put is a stream of its own."""

    def __init__(self, address: str) -> None:
        self._headers = _headers(address)
        self._buffer = bytearray()
        self._next = 1
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._answered: set[int] = set()
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, address: str) -> _Connection:
        host, _, port = address.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(address), host, int(port))
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"") + _frame(8, 0, 0, struct.pack(">I", 1 << 30)))

    async def put(self, key: bytes, value: bytes) -> None:
        stream, self._next = self._next, self._next + 2
        answer = self._waiting[stream] = asyncio.get_running_loop().create_future()
        message = b"\x0a%c%b\x12%c%b" % (len(key), key, len(value), value) if len(value) < 128 else _long_put(key, value)
        data = b"\0" + struct.pack(">I", len(message)) + message
        self._transport.write(_frame(_HEADERS, _END_HEADERS, stream, self._headers) + _frame(_DATA, _END_STREAM, stream, data))
        await answer

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) >= start + 9:
            length = int.from_bytes(buffer[start : start + 3], "big")
            if len(buffer) < start + 9 + length:
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            self._take(kind, flags, int.from_bytes(buffer[start + 5 : start + 9], "big"), bytes(buffer[start + 9 : start + 9 + length]))
            start += 9 + length
        del buffer[:start]

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == _DATA and body:
            self._answered.add(stream)
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, body if kind == _PING else b""))
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._end(stream)

    def _end(self, stream: int) -> None:
        answer = self._waiting.pop(stream)
        if stream in self._answered:
            self._answered.discard(stream)
            answer.set_result(None)
        else:
            answer.set_exception(OSError("etcd refused a put"))

    def connection_lost(self, problem: Exception | None) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(problem or OSError("etcd closed the connection"))

    def close(self) -> None:
        self._transport.close()


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def _headers(address: str) -> bytes:
    """HPACK (RFC 7541) without its tables of the connection: two fields of the static table, the rest as literals."""
    literals = ((b"\x04", "/etcdserverpb.KV/Put"), (b"\x01", address), (b"\x0f\x10", "application/grpc"), (b"\x00\x02te", "trailers"))
    return b"\x83\x86" + b"".join(name + bytes((len(value),)) + value.encode() for name, value in literals)


def _long_put(key: bytes, value: bytes) -> bytes:
    length, size = bytearray(), len(value)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"\x0a%c%b\x12%b%b" % (len(key), key, bytes(length), value)
