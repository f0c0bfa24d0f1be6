"""Some 2,000 requests that are not as they should be, against one real node: it goes on, grows by little, changes nothing, and says what is wrong.

Most are made from the page that describes the API (each route, its parameters and its body, spoiled in every way of a list), the others by hand as
bytes on the socket. Whoever sends them holds an admin's token, which opens every door behind which something could break.
"""

from __future__ import annotations

import gzip
import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from raft import wire
from tests.harness.cluster import Cluster, Node
from tests.harness.processes import wait_for

pytestmark = pytest.mark.cluster

GROWTH_LIMIT_BYTES = 150 * 1024 * 1024
ANSWERED_S = 15.0
HEARD_S = 0.2  # whoever waits for more bytes than there are says nothing until then

SPOILED_PARTS = ("%00", "%FF%FE", "..", "a" * 3_000, "-1", quote("💥"), "a%2Fb", quote("' OR 1=1 --"), "%0d%0aX:%20y", "%25s", "${{x}}")
SPOILED_QUERIES = (
    "limit=-1", "limit=0", "limit=1e9", "limit=99999999999999999999", "limit=", "limit=1&limit=2", "cursor=garbage", "cursor=%FF", "unknown=1",
    "since=yesterday",
    "since=9999999999999999999999", "until=%00", "from=x&to=y", "hours=-5", "hours=nan", "after=x", "last=-1", "try=0", "offset=-1", "state=asleep",
    "consistent=maybe",
    "stage=%00", "follow=2", "job=" + "j" * 3_000, "&&&=&", "%=%",
)  # fmt: skip
SPOILED_BODIES: tuple[bytes, ...] = (
    b"", b"{", b"nonsense", b"[]", b"null", b'"text"', b"17", b"NaN", b'{"a": NaN}', b"\xff\xfe{}", b"\x00", b'{"unknown_field": 1}', b"[" * 100_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b'{"x": 1e999}', b'{"x": ' + b"9" * 5_000 + b"}", b'{"\\ud800": 1}', b"{}" * 3, b"\xef\xbb\xbf{}",
    b"---\na: &a [*a]\n",
)  # fmt: skip
SPOILED_VALUES: tuple[Any, ...] = (None, True, -1, 1.5, 2**70, "", "\0", "x" * 20_000, [], [[[]]], {}, {"": None}, "💥")
SPOILED_HEADERS: tuple[dict[str, str], ...] = (
    {"Authorization": "Bearer"}, {"Authorization": "Bearer " + "x" * 4_000}, {"Authorization": "Basic YTpi"},
    {"Authorization": "Bearer igor1.none.a.b"}, {"Authorization": "\xff"},
    {"Cookie": "igor=" + "x" * 3_000}, {"Cookie": "=;;==;"}, {"Igor-Index": "-1"}, {"Igor-Index": "x"}, {"Igor-Index": "9" * 30},
    {"Last-Event-ID": "x"}, {"Last-Event-ID": "9" * 30},
    {"Host": "evil.example"}, {"Host": ""}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Igor-Forwarded": "x"},
    {"Igor-Client": "\x01"}, {"If-None-Match": '"' * 100},
    {"Range": "bytes=5-1"}, {"Accept": "\xfe/\xff"}, {"Expect": "the unexpected"}, {"Upgrade": "websocket"},
    {"TE": "trailers"}, {"Igor-Command": "../../x"},
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as started:
        started.push("shop", {"name": "idle", "command": "true"})
        yield started


class Stranger:
    """Who sends it, and what came back that should not have."""

    def __init__(self, cluster: Cluster) -> None:
        self.node: Node = cluster.nodes[0]
        self.token = cluster.token
        self.sent = 0
        self.wrong: list[str] = []
        host, _, port = self.node.address.partition("://")[2].rpartition(":")
        self.where = (host, int(port))

    def bytes(self, what: str, data: bytes, *, silent: bool = False) -> None:
        """As they are; `silent`: that nothing is answered is right too, and so is a connection that is closed."""
        self.sent += 1
        answer = b""
        with closing(socket.create_connection(self.where, timeout=ANSWERED_S)) as sock:
            try:
                sock.sendall(data)
                if silent and not select.select([sock], [], [], HEARD_S)[0]:
                    sock.shutdown(socket.SHUT_WR)
                while part := sock.recv(65536):
                    answer += part
            except TimeoutError:
                self.wrong.append(f"{what}: neither answered nor closed within {ANSWERED_S:g} s")
                return
            except ConnectionError:
                pass
        head, _, body = answer.partition(b"\r\n\r\n")
        if silent and (not answer or data.startswith(wire.MAGIC)):
            return
        self.judge(what, head.decode("latin-1"), body)

    def judge(self, what: str, head: str, body: bytes) -> None:
        status = int(head.split(" ")[1]) if head.startswith("HTTP/1.") else 0
        lines = dict(line.lower().partition(": ")[::2] for line in head.split("\r\n")[1:])
        if 200 <= status < 300:
            return
        if not 400 <= status < 500:
            self.wrong.append(f"{what}: {status} {body[:200]!r}")
        elif "application/problem+json" not in lines.get("content-type", ""):
            self.wrong.append(f"{what}: {status} as {lines.get('content-type')!r}")
        elif lines.get("content-length") and body:
            problem = json.loads(body[: int(lines["content-length"])])
            if not problem.get("detail") or problem.get("status") != status:
                self.wrong.append(f"{what}: {problem}")

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        given = {"Host": f"{self.where[0]}:{self.where[1]}", "Authorization": f"Bearer {self.token}", "Connection": "close", **(headers or {})}
        if body or method in ("POST", "PUT"):
            given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **given}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items()) + "\r\n"
        self.bytes(f"{method} {path[:80]} {body[:60]!r} {str(headers or '')[:80]}", head.encode("latin-1") + body)


def routes(cluster: Cluster) -> list[tuple[str, str, dict[str, Any]]]:
    page = cluster.api("GET", "/v1/openapi.json")
    skipped = ("/v1/events", "/v1/backup", "/stream")  # their answers have no end, or are large: spoiled by hand
    found = [(method.upper(), path, about) for path, methods in page["paths"].items() for method, about in methods.items()]
    return [one for one in found if not one[1].endswith(skipped)]


def filled(path: str, value: str) -> str:
    for name in ("attempt", "job", "node", "project", "secret", "run", "token"):
        path = path.replace(f"{{{name}}}", value)
    return path


def test_malformed_requests_are_refused_in_words_and_change_nothing(cluster: Cluster) -> None:
    stranger, node = Stranger(cluster), cluster.nodes[0]
    assert node.process is not None
    before, began = psutil.Process(node.process.pid).memory_info().rss, cluster.stands()[0]["applied_index"]
    by_page(cluster, stranger)
    assert stranger.sent > 1_500
    by_hand(stranger)
    assert stranger.sent > 1_700
    assert not stranger.wrong, f"{len(stranger.wrong)} of {stranger.sent}:\n" + "\n".join(stranger.wrong[:40])
    assert node.running
    assert cluster.stands()[0]["applied_index"] == began, "something was changed"
    assert psutil.Process(node.process.pid).memory_info().rss - before < GROWTH_LIMIT_BYTES
    assert cluster.wait_run(cluster.api("POST", "/v1/jobs/idle/runs", {})["id"])["state"] == "succeeded"


def by_page(cluster: Cluster, stranger: Stranger) -> None:
    for number, (method, path, about) in enumerate(routes(cluster)):
        reads = method == "GET"
        if "{" in path:
            for part in SPOILED_PARTS:
                stranger.request(method, filled(path, part), b"" if reads else b"{}")
        if reads:
            for query in SPOILED_QUERIES:
                stranger.request(method, f"{filled(path, 'idle')}?{query}")
        elif "requestBody" in about:
            for body in SPOILED_BODIES:
                stranger.request(method, filled(path, "no-such-thing"), body)
        for other in ("PATCH", "DELETE", "PUT", "TRACE", "OPTIONS"):
            if number % 5 == 0 and other.lower() not in cluster_methods(cluster, path):
                stranger.request(other, filled(path, "idle"))
    for headers in SPOILED_HEADERS:
        stranger.request("GET", "/v1/jobs", headers=headers)


def cluster_methods(cluster: Cluster, path: str) -> set[str]:
    if not hasattr(cluster, "_page"):
        cluster._page = cluster.api("GET", "/v1/openapi.json")["paths"]  # type: ignore[attr-defined]
    return set(cluster._page[path])  # type: ignore[attr-defined]


def by_hand(stranger: Stranger) -> None:
    host, token = f"{stranger.where[0]}:{stranger.where[1]}", stranger.token
    good = f"Host: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
    post = f"POST /v1/tokens HTTP/1.1\r\n{good}Content-Type: application/json\r\n"
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    job = {"apiVersion": "igor/v1", "kind": "Job", "name": "bad", "command": "true"}
    cases: dict[str, bytes] = {
        "a line without an end": b"GET /" + b"a" * 100_000,
        "another version": f"GET /v1/jobs HTTP/9.9\r\n{good}\r\n".encode(),
        "no method": b" / HTTP/1.1\r\n\r\n",
        "a method that is none": f"G\x01T /v1/jobs HTTP/1.1\r\n{good}\r\n".encode(),
        "many headers": f"GET /v1/jobs HTTP/1.1\r\n{good}".encode() + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n",
        "a long header": f"GET /v1/jobs HTTP/1.1\r\n{good}X: ".encode() + b"y" * 50_000 + b"\r\n\r\n",
        "a header without a colon": f"GET /v1/jobs HTTP/1.1\r\n{good}nonsense\r\n\r\n".encode(),
        "a header that goes on": f"GET /v1/jobs HTTP/1.1\r\n{good}X: a\r\n b\r\n\r\n".encode(),
        "a NUL in a header": f"GET /v1/jobs HTTP/1.1\r\n{good}X: a\0b\r\n\r\n".encode(),
        "two hosts": f"GET /v1/jobs HTTP/1.1\r\n{good}Host: other\r\n\r\n".encode(),
        "no host": f"GET /v1/jobs HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode(),
        "both lengths": f"{post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
        "two lengths": f"{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}".encode(),
        "a negative length": f"{post}Content-Length: -2\r\n\r\n{{}}".encode(),
        "a length that is none": f"{post}Content-Length: two\r\n\r\n{{}}".encode(),
        "a huge length": f"{post}Content-Length: 99999999999999\r\n\r\n{{}}".encode(),
        "chunks that lie": f"{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{}}".encode(),
        "chunks without hex": f"{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n".encode(),
        "another transfer": f"{post}Transfer-Encoding: gzip\r\n\r\n{{}}".encode(),
        "too short": f"{post}Content-Length: 200\r\n\r\n{{}}".encode(),
        "a bomb": f"{post}Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb,
        "gzip that is none": f"{post}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
        "an encoding that is none": f"{post}Content-Encoding: nonsense\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
        "an absolute target": f"GET http://evil.example/v1/jobs HTTP/1.1\r\n{good}\r\n".encode(),
        "a target of a star": f"OPTIONS * HTTP/1.1\r\n{good}\r\n".encode(),
        "CONNECT": f"CONNECT evil.example:443 HTTP/1.1\r\n{good}\r\n".encode(),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS to a plain port": bytes.fromhex("16030100a5010000a10303") + bytes(150),
        "bytes at random": bytes(range(256)) * 8,
        "consensus: nothing behind its mark": wire.MAGIC,
        "consensus: garbage": wire.MAGIC + bytes(range(256)),
        "consensus: a length without end": wire.MAGIC + b"\xff\xff\xff\xff\x01",
        "consensus: another version": wire.MAGIC + b"\x00\x00\x00\x05\x63" + bytes(5),
        "consensus: a hello of nobody": wire.MAGIC + wire.Dialling(wire.Credentials("c", "x", "1:1", b"k" * 32), "y", wire.Purpose.MESSAGES).hello,
        "consensus: deep": wire.MAGIC + b"\x00\x00\x0f\x00\x01" + b"\x91" * 0xEFF,
        "consensus: half a mark": wire.MAGIC[:4],
    }
    for what, data in cases.items():
        stranger.bytes(what, data, silent=True)
    for name, value in ((name, value) for name in ("role", "name", "projects", "expires_in") for value in SPOILED_VALUES):
        if (name, value) not in (("name", ""), ("name", "💥"), ("projects", []), ("projects", None), ("name", None), ("expires_in", None)):
            body = {"role": "viewer", "name": "x", name: value} if name != "role" else {"role": value, "name": "x", "unknown": 1}
            stranger.request("POST", "/v1/tokens", json.dumps({**body, "unknown": 1}).encode())
    for field in (
        "name",
        "command",
        "schedule",
        "retries",
        "overlap",
        "timeout",
        "env",
        "params",
        "stages",
        "constraints",
        "secrets",
        "user",
        "lease",
        "kind",
    ):
        for value in SPOILED_VALUES[::2]:
            spoiled = {"objects": [{**job, field: value, "no_such_field": 1}]}
            stranger.request("PUT", "/v1/projects/spoiled", json.dumps(spoiled).encode(), {"If-Match": "*"})
    for cron in (
        "* * *",
        "61 * * * *",
        "0 0 31 2 *",
        "H/0 * * * *",
        "* * * * * * * *",
        "@never",
        "L-400 * * * *",
        "\0",
        "0 0 1-",
        "*/-1 * * * *",
        "9" * 2_000,
    ):
        stranger.request("POST", "/v1/schedule", json.dumps({"schedule": {"cron": cron}}).encode())


def test_slow_clients_hold_nobody_up(cluster: Cluster) -> None:
    """A head that never ends, a body that never ends, consensus that says nothing: each is closed in its time, others are served meanwhile."""
    node = cluster.nodes[0]
    stranger = Stranger(cluster)
    slow = [socket.create_connection(stranger.where, timeout=30) for _ in range(60)]
    try:
        for number, sock in enumerate(slow):
            kinds = (b"G", b"", b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{", wire.MAGIC)
            sock.sendall(kinds[number % 4])
        asked = time.monotonic()
        assert node.request("GET", "/v1/jobs")[0] == 200
        assert time.monotonic() - asked < 5
        half = [sock for number, sock in enumerate(slow) if number % 4 != 2]

        def closed(sock: socket.socket) -> bool:
            sock.setblocking(False)
            try:
                while sock.recv(65536):
                    pass
                return True
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        wait_for(lambda: all(map(closed, half)), 25, "those that said too little to be closed")
    finally:
        for sock in slow:
            sock.close()
    assert node.request("GET", "/v1/jobs")[0] == 200
