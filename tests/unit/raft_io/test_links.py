"""Links over real loopback sockets, driven by hand: they come up, come back, answer a stranger's hello with silence, and never grow without bound."""

from __future__ import annotations

import random
import socket
import struct
import time

import pytest

from raft import connections, wire
from raft import links as links_module
from raft.addresses import look_up
from raft.interface import Entry
from raft.links import COMPLAINTS_KEPT, QUIET_S, Links
from raft.messages import Append, TimeoutNow

KEY = b"k" * 32


class Observed:
    """A node's links with a listener, and what its observer heard."""

    def __init__(self, node: str, key: bytes = KEY, epoch: int = 0, instance: str = "") -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.heard: list[tuple[str, str]] = []
        self.snapshots: list[tuple[str, socket.socket]] = []
        self.messages: list[tuple[str, object]] = []
        self.refusals: list[str] = []
        self.links = Links(wire.Credentials("cluster", node, self.address, key, epoch, instance), self, time.monotonic, random.Random(1))

    def connected(self, peer: str) -> None:
        self.heard.append(("connected", peer))

    def disconnected(self, peer: str) -> None:
        self.heard.append(("disconnected", peer))

    def snapshot_asked(self, peer: str, sock: socket.socket, frames: wire.Frames) -> None:
        self.snapshots.append((peer, sock))

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def turn(self) -> None:
        try:
            self.links.accept(self.listener.accept()[0])
        except BlockingIOError:
            pass
        self.messages += self.links.wait(0.001)
        self.links.flush()

    def close(self) -> None:
        self.links.close()
        self.listener.close()
        for _, sock in self.snapshots:
            sock.close()


@pytest.fixture
def nodes():
    made: list[Observed] = []

    def make(node: str, **options) -> Observed:
        made.append(Observed(node, **options))
        return made[-1]

    yield make
    for node in made:
        node.close()


def turn_until(condition, *nodes: Observed) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, [node.heard for node in nodes]
        for node in nodes:
            node.turn()


def test_a_member_is_dialled_and_dials_back(nodes):
    """A joiner that knows nobody has a way to answer as soon as the leader has said something."""
    leader, joiner = nodes("a"), nodes("b")
    leader.links.set_members({"a": leader.address, "b": joiner.address})
    turn_until(lambda: leader.links.is_connected("b"), leader, joiner)
    assert not joiner.links.is_connected("a")
    leader.links.send("b", wire.frame(TimeoutNow(7)))
    turn_until(lambda: joiner.links.is_connected("a"), leader, joiner)
    joiner.links.send("a", wire.frame(TimeoutNow(8)))
    turn_until(lambda: leader.messages and joiner.messages, leader, joiner)
    assert (joiner.messages, leader.messages) == ([("a", TimeoutNow(7))], [("b", TimeoutNow(8))])


def test_a_link_comes_back_by_itself_also_from_another_port(nodes):
    """The peer ends and starts elsewhere: its hello says where, and that goes before the list of members."""
    a, first = nodes("a"), nodes("b")
    a.links.set_members({"b": first.address})
    turn_until(lambda: a.links.is_connected("b"), a, first)
    first.close()
    turn_until(lambda: ("disconnected", "b") in a.heard, a)
    second = nodes("b")
    second.links.set_members({"a": a.address})
    turn_until(lambda: a.links.is_connected("b"), a, second)
    assert a.heard == [("connected", "b"), ("disconnected", "b"), ("connected", "b")]


def test_a_node_that_has_nothing_to_say_proves_itself_all_the_same(nodes):
    """A follower that came back on another port sends no message of its own; the leader must hear at once where it is."""
    leader, follower = nodes("a"), nodes("b")
    follower.links.flush = lambda: None
    follower.links.set_members({"a": leader.address})
    turn_until(lambda: "b" in leader.links._learned, leader, follower)


def test_a_peer_that_moved_unseen_is_found_where_somebody_says(nodes):
    """Both moved, so neither can tell the other: a hint to one is enough, and a wrong hint costs only a try."""
    a, b, stranger = nodes("a"), nodes("b"), nodes("c")
    a.links.set_members({"b": "127.0.0.1:1"})
    b.links.set_members({"a": "127.0.0.1:1"})
    a.links.hint({"b": stranger.address})
    turn_until(lambda: a.links._complaints.get("b", set()) >= {"b refuses: this is node c, not b"}, a, b, stranger)
    a.links.hint({"b": b.address})
    turn_until(lambda: a.links.is_connected("b") and b.links.is_connected("a"), a, b, stranger)
    assert (a.links.addresses(), b.links.addresses()) == ({"b": b.address}, {"a": a.address})


def test_a_copied_data_directory_is_refused_while_the_first_is_alive(nodes, monkeypatch):
    """Never two voters of one: who hears the first refuses the second, which is told for good; the first goes on."""
    monkeypatch.setattr(connections, "FINAL_AFTER_S", 0.1)
    leader, first, copy = nodes("a"), nodes("b", instance="1"), nodes("b", instance="2")
    for node in (first, copy):
        node.links.set_members({"a": leader.address})
    leader.links.set_members({"b": first.address})
    turn_until(lambda: first.links.is_connected("a"), leader, first)

    def talk_until(condition):
        def look() -> bool:
            first.links.send("a", wire.frame(TimeoutNow(1)))
            return condition()

        turn_until(look, leader, first, copy)

    talk_until(lambda: copy.refusals)
    assert "a data directory was copied" in copy.refusals[0]
    assert first.links.is_connected("a") and not copy.links.is_connected("a") and not first.refusals
    first.close()
    turn_until(lambda: copy.links.is_connected("a"), leader, copy)


def test_a_restarted_process_is_no_copy(nodes):
    """The one before it is dead, however lately it spoke."""
    leader, before = nodes("a"), nodes("b", instance="1")
    before.links.set_members({"a": leader.address})
    turn_until(lambda: before.links.is_connected("a"), leader, before)
    before.links.send("a", wire.frame(TimeoutNow(1)))
    before.turn()
    before.close()
    after = nodes("b", instance="2")
    after.links.set_members({"a": leader.address})
    turn_until(lambda: after.links.is_connected("a"), leader, after)
    assert not after.refusals


def test_a_node_of_an_older_epoch_hears_that_it_must_not_go_on(nodes, monkeypatch):
    monkeypatch.setattr(connections, "FINAL_AFTER_S", 0.1)
    recovered, old = nodes("a", epoch=1), nodes("b")
    old.links.set_members({"a": recovered.address})
    turn_until(lambda: old.refusals, recovered, old)
    assert "rejoin empty: igor-node join --reset" in old.refusals[0] and not recovered.refusals


def test_who_is_no_longer_a_member_is_no_longer_dialled(nodes):
    """Both ways; and as nothing is sent any more, neither dials back because the other did."""
    a, b = nodes("a"), nodes("b")
    a.links.set_members({"b": b.address})
    b.links.set_members({"a": a.address})
    turn_until(lambda: a.links.is_connected("b") and b.links.is_connected("a"), a, b)
    a.links.set_members({})
    b.links.set_members({})
    turn_until(lambda: not a.links._incoming and not b.links._incoming, a, b)
    assert a.links.next_deadline() == b.links.next_deadline() == float("inf")
    assert not a.links.is_connected("b") and not b.links.is_connected("a")


def test_a_snapshot_connection_is_handed_over_with_its_socket(nodes):
    """After the same proof as any other."""
    a = nodes("a")
    own = wire.Credentials("cluster", "b", "", KEY)
    hello = wire.Dialling(own, "a", wire.Purpose.SNAPSHOT)
    with socket.create_connection(a.listener.getsockname()) as dialler:
        dialler.sendall(hello.opening)
        dialler.setblocking(False)
        frames = wire.Frames()

        def challenged() -> bool:
            try:
                frames.feed(dialler.recv(4096))
            except BlockingIOError:
                return False
            return True

        turn_until(challenged, a)
        dialler.sendall(hello.receive(frames.next()))
        turn_until(lambda: a.snapshots, a)
    assert a.snapshots[0][0] == "b"


def framed(body: bytes) -> bytes:
    return wire.MAGIC + (len(body) + 1).to_bytes(4, "big") + bytes([wire.VERSION]) + body


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        wire.MAGIC + b"\xff" * 64,
        wire.MAGIC + wire.frame(["junk"]),
        pytest.param(framed(b"\x81\xa4type\xa1\xff"), id="no UTF-8"),
        pytest.param(framed(b"\x82\xa4type\xa5hello\xa1z" + b"\x91" * 4000 + b"\xc0"), id="nested too deep"),
    ],
)
def test_a_stranger_is_closed_and_changes_nothing(nodes, data):
    """Whatever it sends."""
    a = nodes("a")
    with socket.create_connection(a.listener.getsockname()) as stranger:
        stranger.sendall(data)
        stranger.setblocking(False)

        def closed() -> bool:
            try:
                return stranger.recv(4096) == b""
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True

        turn_until(closed, a)
    assert a.messages == [] and a.heard == []


def test_a_stranger_writes_no_line_of_its_own_into_the_log(nodes, caplog):
    """What it calls its cluster is said, in the line that belongs to it."""
    a = nodes("a")
    own = wire.Credentials("other\nraft link with b: all is lost", "b", "", KEY)
    with socket.create_connection(a.listener.getsockname()) as stranger:
        stranger.sendall(wire.Dialling(own, "a", wire.Purpose.MESSAGES).opening)
        turn_until(lambda: caplog.messages, a)
    assert "not to other?raft link with b" in caplog.messages[0] and "\n" not in caplog.messages[0]


def test_who_is_gone_before_it_is_answered_changes_nothing(nodes):
    """Killed behind its hello: what it sent can still be read, and nothing can be sent to it."""
    a = nodes("a")
    hello = wire.Dialling(wire.Credentials("cluster", "b", "", KEY), "a", wire.Purpose.MESSAGES)
    with socket.create_connection(a.listener.getsockname()) as dialler:
        a.links.accept(a.listener.accept()[0])
        dialler.sendall(hello.opening)
        dialler.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the end is a reset
    turn_until(lambda: not a.links._incoming, a)
    assert a.messages == [] and a.heard == []


def test_nobody_without_the_key_can_tell_a_node_not_to_go_on(nodes, monkeypatch):
    """Whoever listens where a member was: its refusal is a reason to try again, as any other."""
    monkeypatch.setattr(connections, "FINAL_AFTER_S", 0.0)
    a = nodes("a")
    refusal = wire.frame(wire.Refused("another process is in service as a", wire.Final.COPIED, b"p" * 32))
    with socket.create_server(("127.0.0.1", 0)) as false:
        false.settimeout(10)
        a.links.set_members({"b": f"127.0.0.1:{false.getsockname()[1]}"})
        a.turn()
        for _ in range(2):
            with false.accept()[0] as sock:
                sock.sendall(refusal)
                turn_until(lambda: a.links._outgoing["b"]._sock is None, a)
            turn_until(lambda: a.links._outgoing["b"]._sock is not None, a)
    assert a.links._complaints["b"] == {"b refuses: another process is in service as a"} and a.refusals == []


def test_silent_strangers_keep_nobody_out(nodes, monkeypatch):
    """Whoever waits longest for its hello makes room: a member says its own at once."""
    monkeypatch.setattr(connections, "HELLO_TIMEOUT_S", 60.0)
    a, b = nodes("a"), nodes("b")
    strangers = [socket.create_connection(a.listener.getsockname()) for _ in range(links_module.STRANGERS_LIMIT)]
    try:
        for _ in strangers:
            a.turn()
        b.links.set_members({"a": a.address})
        turn_until(lambda: b.links.is_connected("a"), a, b)
        assert len(a.links._incoming) == links_module.STRANGERS_LIMIT  # the member and all but one of them
    finally:
        for sock in strangers:
            sock.close()


def test_silent_strangers_are_bounded_and_given_up(nodes, monkeypatch):
    """At most STRANGERS_LIMIT connections wait for a hello, none longer than HELLO_TIMEOUT_S."""
    monkeypatch.setattr(connections, "HELLO_TIMEOUT_S", 0.05)
    a = nodes("a")
    strangers = [socket.create_connection(a.listener.getsockname()) for _ in range(links_module.STRANGERS_LIMIT + 5)]
    try:
        for _ in strangers:
            a.turn()
        assert len(a.links._incoming) <= links_module.STRANGERS_LIMIT
        turn_until(lambda: not a.links._incoming, a)
    finally:
        for sock in strangers:
            sock.close()


def test_a_peer_that_takes_nothing_is_disconnected_at_the_limit(nodes):
    """16 MiB wait for it at most; then the link is closed, and it starts over."""
    a, b = nodes("a"), nodes("b")
    a.links.set_members({"b": b.address})
    turn_until(lambda: a.links.is_connected("b"), a, b)
    big = wire.frame(Append(1, 1, 0, 0, 0, [Entry(1, 1, 0, bytes(1024 * 1024))]))
    for _ in range(64):  # b does not turn: it takes what its kernel buffers, no more
        a.links.send("b", big)
        a.links.flush()
        if not a.links.is_connected("b"):
            break
    assert not a.links.is_connected("b")
    assert a.heard[-1] == ("disconnected", "b")
    turn_until(lambda: a.heard[-1] == ("connected", "b"), a, b)


def test_a_node_with_another_key_never_connects(nodes, caplog):
    """Neither direction; the reason is logged once, not at every try."""
    a, b = nodes("a"), nodes("b", key=b"x" * 32)
    a.links.set_members({"b": b.address})
    refused = "raft link with b: b refuses: it does not hold this cluster's key, or this node does not hold it yet"

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.getMessage() == refused]

    turn_until(said, a, b)
    until = time.monotonic() + 0.4
    turn_until(lambda: time.monotonic() > until, a, b)
    assert a.heard == [] and b.heard == [] and len(said()) == 1


def test_a_name_is_resolved_without_blocking(nodes):
    """`localhost` is asked of the system in a thread of its own."""
    a, b = nodes("a"), nodes("b")
    a.links.set_members({"b": b.address.replace("127.0.0.1", "localhost")})
    turn_until(lambda: a.links.is_connected("b"), a, b)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", "127.0.0.1:http", "", "127.0.0.1:²", "127.0.0.1:65536", "127.0.0.1:" + "9" * 30])
def test_what_is_no_address_is_said_so(address):
    """HOST:PORT, with a number."""
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        look_up(address, numeric=True)


def test_wake_ends_a_wait(nodes):
    """And many wakes are as good as one."""
    a = nodes("a")
    for _ in range(100_000):
        a.links.wake()
    began = time.monotonic()
    a.links.wait(5.0)
    assert time.monotonic() - began < 4.0


def test_an_opening_that_nobody_answers_is_begun_anew_soon(nodes) -> None:
    """The other side takes no connection (its queue is full, so the kernel drops what opens one); nobody waits for the kernel to repeat it."""
    one, other = nodes("one"), nodes("other")
    other.listener.close()
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    address = f"127.0.0.1:{deaf.getsockname()[1]}"
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(deaf.getsockname())
    one.links.set_members({"other": address})
    begun = time.monotonic()
    one.turn()
    assert begun < one.links.next_deadline() <= time.monotonic() + connections.CONNECT_TIMEOUT_S
    for sock in (deaf, *fillers):
        sock.close()


def test_a_connection_for_messages_is_dead_when_nobody_acknowledges(nodes) -> None:
    one, other = nodes("one"), nodes("other")
    one.links.set_members({"other": other.address})
    turn_until(lambda: ("connected", "other") in one.heard, one, other)
    (link,) = one.links._outgoing.values()
    assert link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == connections.UNHEARD_MS


def test_a_stranger_that_says_something_else_each_time_does_not_fill_the_log(nodes, caplog):
    """So many reasons in a minute, and no more; then it is told of again."""
    (a,) = [nodes("a")]
    now = [1_000.0]
    a.links.monotonic = lambda: now[0]
    for number in range(500):
        a.links.complain("a stranger", f"it is of cluster {number}")
    assert len(caplog.records) == COMPLAINTS_KEPT
    now[0] += QUIET_S
    for number in range(500, 1_000):
        a.links.complain("a stranger", f"it is of cluster {number}")
    assert len(caplog.records) == 2 * COMPLAINTS_KEPT
