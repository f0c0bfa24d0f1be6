"""Small nodes for the command line's tests: real sockets and HTTP, answers from a table, faults on demand.

A `FakeNode` answers what its table says for (method, path without query), writes down what it was asked, and can be told to break off. The shapes
of its answers are those of CONTRACT.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """`lines`: a stream instead of `value`; `cut`: the connection breaks where it would end. `drop`: it breaks before any answer."""

    value: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    lines: Callable[[Asked], Iterator[str]] | None = None
    cut: bool = False
    drop: bool = False


def problem(name: str, status: int, detail: str, **more: Any) -> Reply:
    return Reply({"type": f"urn:igor:{name}", "title": name, "status": status, "detail": detail, **more}, status)


class FakeNode:
    def __init__(self) -> None:
        self.table: dict[tuple[str, str], Reply | Callable[[Asked], Reply]] = {}
        self.asked: list[Asked] = []
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                node._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A connection that was broken on purpose."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def on(self, method: str, path: str, reply: Any) -> FakeNode:
        """`reply`: a Reply, a function of what was asked, or the value of a 200."""
        self.table[(method, path)] = reply if isinstance(reply, Reply) or callable(reply) else Reply(reply)
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        asked = Asked(handler.command, parts.path, query, {name.lower(): value for name, value in handler.headers.items()}, body)
        self.asked.append(asked)
        found = self.table.get((asked.method, asked.path), problem("NotFound", 404, f"there is no {asked.path}"))
        reply = found if isinstance(found, Reply) else found(asked)
        if reply.drop:
            self._break(handler)
        elif reply.lines is not None:
            self._stream(handler, reply, asked)
        else:
            self._whole(handler, reply)

    def _whole(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        body = b"" if reply.value is None else json.dumps(reply.value).encode()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def _stream(self, handler: BaseHTTPRequestHandler, reply: Reply, asked: Asked) -> None:
        assert reply.lines is not None
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in reply.lines(asked):
            data = f"{line}\n".encode()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            handler.wfile.flush()
        if reply.cut:
            self._break(handler)
        else:
            handler.wfile.write(b"0\r\n\r\n")

    def _break(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)


def dead_address() -> str:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
