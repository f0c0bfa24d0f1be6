"""Links inside TLS: members know each other by certificate and key; whoever else comes gets nothing, costs little, and leaves the others alone."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import ssl
import struct
import threading
import time

import pytest

from raft import connections, snapshot, tls, wire
from raft import links as links_module
from raft.interface import Applied, Entry, Members
from raft.links import Links
from raft.messages import Append, TimeoutNow
from raft.pace import Pace
from raft.transfers import Transfers
from tests.unit.raft_io.certified import Certified, authority
from tests.unit.raft_io.machines import ListMachine
from tests.unit.raft_io.test_links import KEY, Observed, turn_until

CLUSTER = authority()
FOREIGN = authority()


class Certain(Observed):
    """A node with a certificate of its own, unless another `trust` is given."""

    def __init__(self, node: str, trust: Certified | None = None, *, plain: bool = False) -> None:
        super().__init__(node)
        self.links.close()
        self.trust = None if plain else trust or Certified(CLUSTER, node)
        own = wire.Credentials("cluster", node, self.address, KEY)
        self.links = Links(own, self, time.monotonic, random.Random(1), self.trust)


@pytest.fixture
def nodes():
    made: list[Observed] = []

    def make(node: str, trust: Certified | None = None, **options) -> Certain:
        made.append(Certain(node, trust, **options))
        return made[-1]

    yield make
    for node in made:
        node.close()


def connect(one: Observed, other: Observed) -> None:
    one.links.set_members({"b": other.address})
    other.links.set_members({"a": one.address})
    turn_until(lambda: one.links.is_connected("b") and other.links.is_connected("a"), one, other)


def complaints(node: Observed, peer: str) -> str:
    return " | ".join(sorted(node.links._complaints.get(peer, set())))


def test_members_hear_each_other(nodes) -> None:
    a, b = nodes("a"), nodes("b")
    connect(a, b)
    a.links.send("b", wire.frame(TimeoutNow(7)))
    b.links.send("a", wire.frame(TimeoutNow(8)))
    turn_until(lambda: a.messages and b.messages, a, b)
    assert (a.messages, b.messages) == ([("b", TimeoutNow(8))], [("a", TimeoutNow(7))])
    (link,) = a.links._outgoing.values()
    assert isinstance(link.sock, ssl.SSLSocket) and link.sock.version() == "TLSv1.3"


def test_what_is_sent_arrives_whole_and_in_order(nodes) -> None:
    """Small and large ones, faster than the other side reads: records that were begun are offered again, from moved buffers."""
    a, b = nodes("a"), nodes("b")
    connect(a, b)
    chance = random.Random(2)
    sizes = [chance.choice((0, 1, 100, 16_383, 16_384, 16_385, 300_000)) for _ in range(300)]
    sent = [Append(1, number, 0, 0, 0, [Entry(1, 1, 0, chance.randbytes(size))]) for number, size in enumerate(sizes)]
    waiting = list(sent)

    def all_came() -> bool:
        for _ in range(chance.randrange(20)):
            if waiting and a.links._outgoing["b"]._queue.bytes < 8 * 1024 * 1024:
                a.links.send("b", wire.frame(waiting.pop(0)))
        a.links.flush()
        return len(b.messages) == len(sent)

    turn_until(all_came, a, b)
    assert [message for _, message in b.messages] == sent


def test_a_peer_that_takes_nothing_is_disconnected_at_the_limit(nodes) -> None:
    a, b = nodes("a"), nodes("b")
    connect(a, b)
    big = wire.frame(Append(1, 1, 0, 0, 0, [Entry(1, 1, 0, bytes(1024 * 1024))]))
    for _ in range(64):
        a.links.send("b", big)
        a.links.flush()
        if not a.links.is_connected("b"):
            break
    assert not a.links.is_connected("b")
    turn_until(lambda: a.links.is_connected("b"), a, b)


def test_a_link_comes_back_when_the_other_side_was_away(nodes) -> None:
    a, first = nodes("a"), nodes("b")
    connect(a, first)
    first.close()
    turn_until(lambda: not a.links.is_connected("b"), a)
    connect(a, nodes("b"))


@pytest.mark.parametrize(
    "trust, word_here, word_there",
    [
        pytest.param(
            lambda: Certified(FOREIGN, "b", trusts=CLUSTER), "its certificate is not good: unable to get local issuer certificate", "unknown ca",
            id="a certificate of another CA",
        ),
        pytest.param(lambda: Certified(CLUSTER, "b", days=-1), "not good: certificate has expired", "certificate expired", id="expired"),
        pytest.param(
            lambda: Certified(CLUSTER, "c"), "the certificate of the node there is that of c", "its certificate is that of c, it calls itself b",
            id="another node's certificate",
        ),
    ],
)  # fmt: skip
def test_a_certificate_that_is_not_its_own_and_good_gets_nowhere(nodes, trust, word_here: str, word_there: str) -> None:
    """In either direction, and both sides say why."""
    a, b = nodes("a"), nodes("b", trust())
    a.links.set_members({"b": b.address})
    b.links.set_members({"a": a.address})
    turn_until(lambda: word_here in complaints(a, "b") and word_there in complaints(b, "a"), a, b)
    assert not a.heard and not b.heard and not a.messages


def test_without_a_certificate_nobody_gets_to_the_hello(nodes) -> None:
    trust = Certified(CLUSTER, "b")
    trust.with_certificate = False
    a, b = nodes("a"), nodes("b", trust)
    b.links.set_members({"a": a.address})
    turn_until(lambda: "certificate" in complaints(a, "a stranger"), a, b)
    assert not a.heard and not b.heard


def test_a_certificate_alone_is_not_enough(nodes) -> None:
    """The key of the cluster is proved inside TLS as it is outside."""
    a, b = nodes("a"), nodes("b")
    b.links.own = wire.Credentials("cluster", "b", b.address, b"x" * 32)
    b.links.set_members({"a": a.address})
    turn_until(lambda: "does not hold this cluster's key" in complaints(b, "a"), a, b)
    assert not a.heard and not b.heard


def test_a_node_that_was_taken_out_is_cut_at_once_and_admitted_no_more(nodes) -> None:
    a, b = nodes("a"), nodes("b")
    connect(a, b)
    a.trust.gone.add("b")
    a.links.check_members()
    assert not a.links.is_connected("b") and not a.links._incoming
    turn_until(lambda: "no member of this cluster any more" in complaints(b, "a"), a, b)
    until = time.monotonic() + 0.5
    turn_until(lambda: time.monotonic() > until, a, b)
    assert not a.links.is_connected("b") and not b.links.is_connected("a")


@pytest.mark.parametrize(
    "said", [wire.Dialling(wire.Credentials("cluster", "b", "", KEY), "a", wire.Purpose.MESSAGES).opening, wire.MAGIC + bytes(64)]
)
def test_plain_bytes_to_a_port_with_tls_are_closed(nodes, said: bytes) -> None:
    a = nodes("a")
    with socket.create_connection(a.listener.getsockname()) as stranger:
        stranger.sendall(said)
        turn_until(lambda: complaints(a, "a stranger").startswith("TLS: "), a)
    assert not a.links._incoming and not a.heard


class Tap:
    """A machine between two nodes that keeps what the one who dials says."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.captured = bytearray()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), self._listener.accept()[0] as dialler, socket.create_connection(self._target) as answerer:
            threading.Thread(target=self._carry, args=(answerer, dialler), daemon=True).start()
            self._carry(dialler, answerer, self.captured)

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket, kept: bytearray | None = None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if kept is not None:
                    kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("plain", [True, False], ids=["in clear", "with TLS"])
def test_a_stream_that_was_captured_is_worth_nothing(nodes, plain: bool) -> None:
    """Said again byte for byte, the whole of it, with the proof and the messages that were believed once: the connection is closed."""
    a, b = nodes("a", plain=plain), nodes("b", plain=plain)
    tap = Tap(b.listener.getsockname())
    a.links.set_members({"b": tap.address})
    b.links.set_members({"a": a.address})
    turn_until(lambda: a.links.is_connected("b") and b.links.is_connected("a"), a, b)
    a.links.send("b", wire.frame(TimeoutNow(7)))
    turn_until(lambda: b.messages == [("a", TimeoutNow(7))], a, b)
    tap.close()
    a.close()
    turn_until(lambda: not b.links._incoming, b)
    b.messages.clear()
    b.heard.clear()
    with socket.create_connection(b.listener.getsockname()) as stranger:
        stranger.sendall(tap.captured)
        stranger.settimeout(0.01)
        turn_until(lambda: _is_closed(stranger), b)
    assert not b.messages and ("connected", "a") not in b.heard and not b.links._incoming


def _is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_plain_cluster_and_one_with_tls_do_not_meet(nodes) -> None:
    """Whoever dials: both say that they could not understand, nobody waits for ever."""
    a, b = nodes("a"), nodes("b", plain=True)
    a.links.set_members({"b": b.address})
    b.links.set_members({"a": a.address})
    turn_until(lambda: complaints(b, "a stranger") and complaints(a, "b") and complaints(a, "a stranger").startswith("TLS: "), a, b)
    assert not a.heard and not b.heard


def test_strangers_that_stop_in_the_middle_of_a_handshake_are_bounded_and_given_up(nodes, monkeypatch) -> None:
    """So is what they make this node hold: MAGIC and a part of a ClientHello that never ends."""
    monkeypatch.setattr(connections, "HELLO_TIMEOUT_S", 0.5)
    a = nodes("a")
    part = wire.MAGIC + b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb" + bytes(12_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    strangers = [socket.create_connection(a.listener.getsockname()) for _ in range(links_module.STRANGERS_LIMIT + 20)]
    for sock in strangers:
        sock.sendall(part)
        a.turn()
    assert len(a.links._incoming) <= links_module.STRANGERS_LIMIT
    turn_until(lambda: not a.links._incoming, a)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB
    for sock in strangers:
        sock.close()


def test_what_comes_before_the_proof_is_bounded(nodes) -> None:
    """A node with a good certificate that is no member of ours by its key: a frame above the hello's limit ends it, whatever its length says."""
    a = nodes("a")
    plain = socket.create_connection(a.listener.getsockname())
    plain.sendall(wire.MAGIC)
    closed: list[object] = []

    def flood() -> None:
        try:
            with Certified(CLUSTER, "b").dialling().wrap_socket(plain) as sock:
                while True:
                    sock.sendall(struct.pack(">IB", wire.FRAME_LIMIT_BYTES, wire.VERSION) + bytes(1 << 20))
        except OSError as problem:
            closed.append(problem)

    thread = threading.Thread(target=flood)
    thread.start()
    turn_until(lambda: closed, a)
    thread.join()
    assert "the limit is 4096" in complaints(a, "a stranger") and not a.links._incoming


@pytest.mark.parametrize("plain", [True, False])
def test_a_stranger_that_breaks_off_after_its_hello_harms_nobody(nodes, plain: bool, monkeypatch) -> None:
    """The answer to it fails; that is the stranger's end, not this node's."""
    a = nodes("a", plain=plain)

    def broken(sock: socket.socket, *rest: object) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    with socket.create_connection(a.listener.getsockname()) as stranger:
        hello = wire.Dialling(wire.Credentials("cluster", "b", "", KEY), "a", wire.Purpose.MESSAGES)
        if plain:
            stranger.sendall(hello.opening)
            a.listener.setblocking(True)
            a.links.accept(a.listener.accept()[0])
            a.listener.setblocking(False)
        else:
            stranger.sendall(wire.MAGIC)
            with_tls = tls.wrap(Certified(CLUSTER, "b").dialling(), stranger, accepted=False)
            with_tls.setblocking(False)

            def shaken() -> bool:
                return connections.shake_hands(with_tls) == 0

            turn_until(shaken, a)
            with_tls.send(hello.hello)
        monkeypatch.setattr(socket.socket, "send", broken)
        monkeypatch.setattr(ssl.SSLSocket, "send", broken)
        turn_until(lambda: not a.links._incoming, a)
    assert not a.heard


# --- copies


class Turned:
    """A leader's end of transfers, whose tick thread is the test's."""

    def __init__(self, folder, trust: Certified) -> None:
        folder.mkdir()
        machine = ListMachine()
        machine.stands, machine.commands = Applied(77, 3, Members()), [random.Random(1).randbytes(1_000) for _ in range(3_000)]
        self.calls: list = []
        self.transfers = Transfers(
            own=wire.Credentials("cluster", "a", "", KEY), folder=folder, machine=machine, call=self.calls.append, install=lambda path, stands: None,
            monotonic=time.monotonic, trust=trust,
        )  # fmt: skip


def serve_copies(a: Certain, turned: Turned, over: threading.Event) -> None:
    while not over.is_set():
        a.turn()
        while a.snapshots:
            peer, sock = a.snapshots.pop()
            turned.transfers.serve(peer, sock, wire.Frames(), 0)
        while turned.calls:
            turned.calls.pop(0)()


@pytest.fixture
def leader(nodes, tmp_path):
    a = nodes("a")
    turned, over = Turned(tmp_path / "leader", a.trust), threading.Event()
    thread = threading.Thread(target=serve_copies, args=(a, turned, over))
    thread.start()
    yield a, turned
    over.set()
    thread.join()


def test_a_copy_comes_through_tls(leader, tmp_path) -> None:
    a, _ = leader
    own = wire.Credentials("cluster", "b", "", KEY)
    assert snapshot.fetch(own, "a", a.address, tmp_path / "in.snapshot", Certified(CLUSTER, "b")).index == 77
    received = ListMachine()
    received.restore(tmp_path / "in.snapshot")
    assert len(received.commands) == 3_000


@pytest.mark.parametrize(
    "trust, wanted, word",
    [
        pytest.param(lambda: Certified(FOREIGN, "b", trusts=CLUSTER), "a", "unknown ca|reset|pipe|early|eof", id="a certificate of another CA"),
        pytest.param(lambda: Certified(CLUSTER, "b", trusts=FOREIGN), "a", "its certificate is not good", id="the leader's is of another CA"),
        pytest.param(lambda: Certified(CLUSTER, "c"), "a", "its certificate is that of c", id="another node's certificate"),
        pytest.param(lambda: Certified(CLUSTER, "b"), "x", "the certificate of the node there is that of a", id="somebody else is there"),
    ],
)
def test_no_copy_without_the_right_certificate(leader, tmp_path, trust, wanted: str, word: str) -> None:
    a, _ = leader
    with pytest.raises((snapshot.TransferFailed, OSError), match=f"(?i){word}"):
        snapshot.fetch(wire.Credentials("cluster", "b", "", KEY), wanted, a.address, tmp_path / "in.snapshot", trust())


def test_a_copy_under_way_is_cut_when_its_taker_is_taken_out(leader, tmp_path, monkeypatch) -> None:
    a, turned = leader
    monkeypatch.setattr(Pace, "spend", lambda self, size: time.sleep(0.05))
    monkeypatch.setattr(snapshot, "PIECE_BYTES", 4_096)
    timer = threading.Timer(0.3, lambda: (a.trust.gone.add("b"), turned.calls.append(turned.transfers.check_members)))
    timer.start()
    with pytest.raises((snapshot.TransferFailed, OSError)):
        snapshot.fetch(wire.Credentials("cluster", "b", "", KEY), "a", a.address, tmp_path / "in.snapshot", Certified(CLUSTER, "b"))
    timer.join()
