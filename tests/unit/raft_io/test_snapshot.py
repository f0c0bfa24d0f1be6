"""The transfer of a snapshot: whole and checked, or not at all."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest

from raft import snapshot, wire
from raft.interface import Applied, Member, Members
from tests.unit.raft_io.machines import ListMachine

KEY = b"k" * 32
LEADER = wire.Credentials("cluster", "a", "", KEY)
FOLLOWER = wire.Credentials("cluster", "b", "", KEY)
STANDS = Applied(77, 3, Members(voters=(Member("a", "127.0.0.1:1"),)))


@pytest.fixture
def machine():
    found = ListMachine()
    found.stands, found.commands = STANDS, [bytes([number % 251]) * 1000 for number in range(1000)]
    return found


class Leader:
    """Answers one hello, then gives the socket to `serve`, or to whatever the test puts in its place."""

    def __init__(self, serve) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.serve = serve
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        sock, _ = self.listener.accept()
        answering, frames = wire.Answering(LEADER), wire.Frames()
        frames.feed(sock.recv(4096)[len(wire.MAGIC) :])
        sock.sendall(answering.receive(frames.next()))
        frames.feed(sock.recv(4096))
        answering.receive(frames.next())
        assert answering.hello.purpose == wire.Purpose.SNAPSHOT
        try:
            self.serve(sock)
        except OSError:
            pass  # the follower had enough
        sock.close()

    def close(self) -> None:
        self.listener.close()
        self.thread.join(10)


def fetched(tmp_path, serve) -> Applied:
    leader = Leader(serve)
    try:
        return snapshot.fetch(FOLLOWER, "a", leader.address, tmp_path / "in.snapshot")
    finally:
        leader.close()


def test_a_copy_comes_through_whole(tmp_path, machine):
    """Megabytes, in pieces; the leader's temporary copy is gone afterwards."""
    outgoing = tmp_path / "outgoing-1.snapshot"
    assert fetched(tmp_path, lambda sock: snapshot.serve(sock, machine, outgoing)) == STANDS
    received = ListMachine()
    received.restore(tmp_path / "in.snapshot")
    assert (received.stands, received.commands) == (STANDS, machine.commands)
    assert not outgoing.exists()


def parts(tmp_path, machine) -> list[object]:
    """What `serve` sends, as structs."""
    near, far = socket.socketpair()
    sent = bytearray()
    reader = threading.Thread(target=lambda: sent.extend(b"".join(iter(lambda: far.recv(65536), b""))))
    reader.start()
    snapshot.serve(near, machine, tmp_path / "parts.snapshot")
    reader.join()
    far.close()
    frames = wire.Frames(wire.FRAME_LIMIT_BYTES)
    frames.feed(bytes(sent))
    decode = msgspec.msgpack.Decoder(snapshot.Begin | snapshot.Piece | snapshot.End).decode
    return [decode(body) for body in frames]


@pytest.mark.parametrize(
    "spoil, reason",
    [
        pytest.param(lambda sent: sent[:-1], "ended early", id="no end"),
        pytest.param(lambda sent: [sent[0], *sent[2:]], "out of order", id="a piece is missing"),
        pytest.param(lambda sent: [sent[0], sent[2], sent[1], *sent[3:]], "out of order", id="pieces swapped"),
        pytest.param(lambda sent: [sent[0], msgspec.structs.replace(sent[1], data=b"x" * 9), *sent[2:]], "damaged", id="a piece damaged"),
        pytest.param(lambda sent: [*sent[:-2], sent[-1]], "their checksum differs", id="the last piece is missing"),
        pytest.param(lambda sent: [*sent[:-1], snapshot.End(b"x" * 32)], "their checksum differs", id="another digest"),
        pytest.param(lambda sent: [sent[0], *sent], "their checksum differs", id="a second beginning"),
        pytest.param(lambda sent: sent[1:], "where a Begin was due", id="no beginning"),
        pytest.param(lambda sent: [[1, 2, 3]], "no snapshot from a", id="something else"),
    ],
)
def test_a_copy_that_is_not_whole_is_refused(tmp_path, machine, spoil, reason):
    """Nothing is installed of it; the follower asks again."""
    sent = spoil(parts(tmp_path, machine))

    def serve(sock: socket.socket) -> None:
        for part in sent:
            sock.sendall(wire.frame(part))

    with pytest.raises(snapshot.TransferFailed, match=reason):
        fetched(tmp_path, serve)


def test_a_leader_that_is_silent_is_given_up(tmp_path, monkeypatch):
    """Within the named time; the thread does not hang for ever."""
    monkeypatch.setattr(snapshot, "COPY_TIMEOUT_S", 0.1)
    done = threading.Event()
    with pytest.raises(snapshot.TransferFailed, match="timed out"):
        try:
            leader = Leader(lambda sock: done.wait(10))
            snapshot.fetch(FOLLOWER, "a", leader.address, tmp_path / "in.snapshot")
        finally:
            done.set()
            leader.close()


def test_what_a_crash_left_is_cleared(tmp_path):
    """Half copies of an earlier life; nothing else."""
    for name in ("incoming.snapshot", "outgoing-4.snapshot", "outgoing-5.snapshot-journal", "0000000000000001.log"):
        (tmp_path / name).write_bytes(b"x")
    snapshot.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000000000001.log"]
