"""The transfer of a snapshot: whole and checked, or not at all; a broken one goes on where it was."""

from __future__ import annotations

import errno
import hashlib
import random
import socket
import threading

import msgspec
import pytest

from raft import snapshot, wire
from raft.copies import Copies, Copy
from raft.interface import Applied, Member, Members
from raft.pace import Pace
from raft.snapshot import PIECE_BYTES, Begin, Incoming, Piece, Want
from tests.unit.raft_io.machines import ListMachine

KEY = b"k" * 32
LEADER = wire.Credentials("cluster", "a", "", KEY)
FOLLOWER = wire.Credentials("cluster", "b", "", KEY)
STANDS = Applied(77, 3, Members(voters=(Member("a", "127.0.0.1:1"),)))
FAST = Pace(1 << 40)
SECOND = 10.0


@pytest.fixture
def machine():
    found = ListMachine()
    chance = random.Random(1)
    found.stands, found.commands = STANDS, [chance.randbytes(1000) for _ in range(1000)]
    return found


@pytest.fixture
def copy(tmp_path, machine) -> Copy:
    """Of about a megabyte: four pieces."""
    (tmp_path / "leader").mkdir()
    return Copies(tmp_path / "leader", machine, lambda: 0.0).take(0)


class Leader:
    """Answers hellos, then gives the socket and what was asked for to the functions of the test, one after another."""

    def __init__(self, *serve) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.asked: list[Want] = []
        self.serve = serve
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for serve in self.serve:
            sock, _ = self.listener.accept()
            with sock:
                answering, frames = wire.Answering(LEADER), wire.Frames()
                frames.feed(sock.recv(4096)[len(wire.MAGIC) :])
                sock.sendall(answering.receive(frames.next()))
                while not answering.done:
                    frames.feed(sock.recv(4096))
                    answering.receive(frames.next())
                assert answering.hello.purpose == wire.Purpose.SNAPSHOT
                try:
                    self.asked.append(snapshot.wanted(sock, frames))
                    serve(sock, self.asked[-1])
                except OSError:
                    pass  # the follower had enough

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.thread.join(SECOND)
        self.listener.close()
        assert not self.thread.is_alive()


def fetched(tmp_path, leader: Leader) -> Applied:
    return snapshot.fetch(FOLLOWER, "a", leader.address, tmp_path / "in.snapshot")


def whole(copy: Copy):
    return lambda sock, want: snapshot.serve(sock, copy, want, FAST)


def pieces(copy: Copy, *, start: int = 0) -> list[Piece]:
    data = copy.path.read_bytes()
    found = [(offset, data[offset : offset + PIECE_BYTES]) for offset in range(start, len(data), PIECE_BYTES)]
    return [Piece(offset, part, snapshot._checksum(offset, part)) for offset, part in found]


def sending(parts):
    def serve(sock: socket.socket, want: Want) -> None:
        for part in parts:
            sock.sendall(wire.frame(part))

    return serve


def test_a_copy_comes_through_whole(tmp_path, copy, machine):
    """In pieces; of it nothing is left but the file."""
    with Leader(whole(copy)) as leader:
        assert fetched(tmp_path, leader) == STANDS
    received = ListMachine()
    received.restore(tmp_path / "in.snapshot")
    assert (received.stands, received.commands) == (STANDS, machine.commands)
    assert leader.asked == [Want()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.snapshot", "leader"]


def begin(copy: Copy, offset: int = 0, **changes) -> Begin:
    return msgspec.structs.replace(Begin(copy.id, copy.stands, copy.size, offset), **changes)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        pytest.param(lambda sent: sent[:-1], "ended early", id="no end"),
        pytest.param(lambda sent: [sent[0], *sent[2:]], "damaged or out of order", id="a piece is missing"),
        pytest.param(lambda sent: [sent[0], sent[2], sent[1], *sent[3:]], "damaged or out of order", id="pieces swapped"),
        pytest.param(lambda sent: [sent[0], msgspec.structs.replace(sent[1], data=b"x" * 9), *sent[2:]], "damaged", id="a piece damaged"),
        pytest.param(lambda sent: [sent[0], Piece(0, b"", snapshot._checksum(0, b"")), *sent[1:]], "damaged", id="an empty piece"),
        pytest.param(lambda sent: [msgspec.structs.replace(sent[0], size=9), *sent[1:]], "damaged", id="more than it said"),
        pytest.param(lambda sent: [msgspec.structs.replace(sent[0], copy="x"), *sent[1:]], "their checksum differs", id="another digest"),
        pytest.param(lambda sent: [sent[0], *sent], "damaged or out of order", id="a second beginning"),
        pytest.param(lambda sent: sent[1:], "where a Begin was due", id="no beginning"),
        pytest.param(lambda sent: [msgspec.structs.replace(sent[0], offset=5), *sent[1:]], "goes on at byte 5 of a copy", id="a part unasked"),
        pytest.param(lambda sent: [[1, 2, 3]], "no snapshot from a", id="something else"),
    ],
)
def test_a_copy_that_is_not_whole_is_refused(tmp_path, copy, spoil, reason):
    """Nothing is installed of it; the follower asks again."""
    with Leader(sending(spoil([begin(copy), *pieces(copy)]))) as leader, pytest.raises(snapshot.TransferFailed, match=reason):
        fetched(tmp_path, leader)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_broken_connection_costs_nothing_of_what_came(tmp_path, copy, machine, kept):
    """The follower says what it holds, the leader goes on there, as long as it has the same copy."""
    sent = pieces(copy)
    with Leader(sending([begin(copy), *sent[:kept]]), whole(copy)) as leader:
        with pytest.raises(snapshot.TransferFailed, match="ended early"):
            fetched(tmp_path, leader)
        assert fetched(tmp_path, leader) == STANDS
    assert leader.asked == [Want(), Want(copy.id, kept * PIECE_BYTES)]
    assert (tmp_path / "in.snapshot").read_bytes() == copy.path.read_bytes()


def test_another_copy_begins_anew(tmp_path, copy, machine):
    """Another leader, or the copy was replaced: the part that is there is of no use."""
    other = Copies(tmp_path, machine, lambda: 0.0)
    machine.commands.append(b"x" * 1000)
    newer = other.take(0)
    with Leader(sending([begin(copy), *pieces(copy)[:2]]), whole(newer)) as leader:
        with pytest.raises(snapshot.TransferFailed, match="ended early"):
            fetched(tmp_path, leader)
        fetched(tmp_path, leader)
    assert leader.asked[1] == Want(copy.id, 2 * PIECE_BYTES)
    assert hashlib.sha256((tmp_path / "in.snapshot").read_bytes()).hexdigest() == newer.id


def test_a_kill_costs_what_came_since_the_last_note(tmp_path, copy, monkeypatch):
    """What was written behind it may be whole or not: it is cut off and asked for again. A restart keeps the rest."""
    sent, path = pieces(copy), tmp_path / snapshot.INCOMING_NAME
    path.write_bytes(copy.path.read_bytes()[: 2 * PIECE_BYTES] + b"rubbish" * 9)
    Incoming(path).note(copy.id, 2 * PIECE_BYTES)
    snapshot.clear(tmp_path)
    with Leader(whole(copy)) as leader:
        snapshot.fetch(FOLLOWER, "a", leader.address, path)
    assert leader.asked == [Want(copy.id, 2 * PIECE_BYTES)]
    assert path.read_bytes() == copy.path.read_bytes() and len(sent) == 4


def test_notes_are_written_on_the_way(tmp_path, copy, monkeypatch):
    """Every so many bytes, and never of more than is synced."""
    monkeypatch.setattr(snapshot, "NOTE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(snapshot, "PORTION_BYTES", PIECE_BYTES)
    noted: list[tuple[int, int]] = []
    original = Incoming.note

    def note(self, copy_id, offset):
        noted.append((offset, self.path.stat().st_size))
        original(self, copy_id, offset)

    monkeypatch.setattr(Incoming, "note", note)
    with Leader(whole(copy)) as leader:
        fetched(tmp_path, leader)
    assert noted == [(offset, offset) for offset in [PIECE_BYTES, 2 * PIECE_BYTES, 3 * PIECE_BYTES, copy.size]]


@pytest.mark.parametrize("fails", ["write_out", "_sync"])
def test_of_what_a_disk_did_not_take_nothing_is_kept(tmp_path, copy, monkeypatch, fails):
    """Linux says it once, then the pages pass for written: a sync after it, and a look at the file, would find nothing wrong."""
    monkeypatch.setattr(snapshot, "NOTE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(snapshot, "PORTION_BYTES", PIECE_BYTES)
    real, calls = getattr(snapshot, fails), []

    def once(file):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return real(file)

    monkeypatch.setattr(snapshot, fails, once)
    with Leader(whole(copy), whole(copy)) as leader:
        with pytest.raises(OSError, match="Input/output error"):
            fetched(tmp_path, leader)
        fetched(tmp_path, leader)
    assert leader.asked == [Want(), Want()]


@pytest.mark.parametrize(
    "note, size",
    [
        pytest.param(b"", 100, id="an empty note"),
        pytest.param(b'{"copy":"\xff","offset":5}', 100, id="a note of other bytes"),
        pytest.param(b'{"copy":"x","offset":101}', 100, id="more than is there"),
        pytest.param(b'{"copy":"x","offset":0}', 100, id="nothing"),
        pytest.param(b'{"copy":"x","offset":-5}', 100, id="less than nothing"),
        pytest.param(b'{"copy":"x","offset":5}', None, id="no file"),
        pytest.param(None, 100, id="no note"),
    ],
)
def test_what_cannot_be_trusted_is_not_kept(tmp_path, note, size):
    """It is removed at the start, and asked for from the beginning."""
    incoming = Incoming(tmp_path / snapshot.INCOMING_NAME)
    if note is not None:
        (tmp_path / (snapshot.INCOMING_NAME + ".note")).write_bytes(note)
    if size is not None:
        incoming.path.write_bytes(bytes(size))
    assert incoming.held() == Want()
    snapshot.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_went_bad_on_this_disk_is_found_at_the_end(tmp_path, copy):
    """The whole is read once more before it is installed; all of it is fetched again."""
    path = tmp_path / "in.snapshot"
    path.write_bytes(bytes(PIECE_BYTES))
    Incoming(path).note(copy.id, PIECE_BYTES)
    with Leader(whole(copy), whole(copy)) as leader:
        with pytest.raises(snapshot.TransferFailed, match="their checksum differs"):
            fetched(tmp_path, leader)
        fetched(tmp_path, leader)
    assert leader.asked[1] == Want()


def test_a_leader_that_is_silent_is_given_up(tmp_path, monkeypatch):
    """Within the named time; the thread does not hang for ever."""
    monkeypatch.setattr(snapshot, "COPY_TIMEOUT_S", 0.1)
    done = threading.Event()
    with Leader(lambda sock, want: done.wait(SECOND)) as leader:
        with pytest.raises(snapshot.TransferFailed, match="timed out"):
            fetched(tmp_path, leader)
        done.set()


def test_the_leader_waits_until_the_follower_has_installed_it(tmp_path, copy):
    """So long it keeps the log that follows."""
    served = threading.Event()

    def serve(sock: socket.socket, want: Want) -> None:
        snapshot.serve(sock, copy, want, FAST)
        served.set()

    with Leader(serve) as leader:
        with snapshot.fetching(FOLLOWER, "a", leader.address, Incoming(tmp_path / "in.snapshot")):
            assert not served.wait(0.1)
        assert served.wait(SECOND)


def test_what_a_crash_left_is_cleared(tmp_path):
    """Copies that were handed out, and what is good for nothing; nothing else."""
    for name in ("incoming.snapshot", "outgoing-4.snapshot", "outgoing-5.snapshot-journal", "outgoing-6.snapshot.part", "0000000000000001.log"):
        (tmp_path / name).write_bytes(b"x")
    snapshot.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000000000001.log"]
