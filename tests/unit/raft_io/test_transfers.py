"""Copies under way: how many at once, what is kept of one that broke, and for how long. The threads are real, the other nodes are not."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from raft import snapshot, wire
from raft.copies import KEPT_S
from raft.interface import Applied, Members
from raft.transfers import AT_ONCE, LATELY_S, RETRY_S, Transfers
from tests.unit.raft_io.machines import ListMachine

SECOND = 10.0
OWN = wire.Credentials("cluster", "a", "", b"k" * 32)


class World:
    """The tick thread is the test's: `turn` runs what the others called."""

    def __init__(self, folder) -> None:
        self.now = 1000.0
        self.folder = folder
        self.machine = ListMachine()
        self.machine.stands = Applied(50, 1, Members())
        self.calls: list = []
        self.installed: list[Applied] = []
        self.transfers = Transfers(
            own=OWN,
            folder=folder,
            machine=self.machine,
            call=self.calls.append,
            install=lambda path, stands: self.installed.append(stands),
            monotonic=lambda: self.now,
        )

    def turn(self) -> None:
        """Waits for the next call of a thread and runs it."""
        until = time.monotonic() + SECOND
        while not self.calls:
            assert time.monotonic() < until
            time.sleep(0.001)
        self.calls.pop(0)()

    def asked(self) -> socket.socket:
        """A follower that proved itself, at its end of the connection."""
        near, far = socket.socketpair()
        self.transfers.serve("b", near, wire.Frames(), 40)
        far.settimeout(SECOND)
        return far

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_third_follower_is_sent_away(world):
    """It comes again; when one of the first is done there is room."""
    first = [world.asked() for _ in range(AT_ONCE)]
    assert world.asked().recv(1) == b""
    first[0].close()
    world.turn()
    again = world.asked()
    again.sendall(wire.frame(snapshot.Want()))
    assert again.recv(4) != b""
    for sock in (*first, again):
        sock.close()
    for _ in range(AT_ONCE):
        world.turn()
    assert world.transfers.serving == 0


def test_the_log_is_kept_for_who_was_served_lately(world):
    """It has the copy and needs what follows."""
    assert not world.transfers.served_lately
    sock = world.asked()
    world.now += 10 * LATELY_S
    assert world.transfers.served_lately
    sock.close()
    world.turn()
    world.now += LATELY_S - 1
    assert world.transfers.served_lately
    world.now += 2
    assert not world.transfers.served_lately


def test_a_failed_fetch_is_tried_again_after_a_pause(world):
    """Nobody listens there."""
    closed = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    before = threading.active_count()
    world.transfers.fetch("b", address)
    world.turn()
    world.transfers.fetch("b", address)
    assert threading.active_count() <= before, "not at once"
    world.now += RETRY_S + 0.1
    world.transfers.fetch("b", address)
    world.turn()


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:" + "9" * 30])
def test_an_address_that_is_none_is_tried_again_too(world, address):
    """The leader may be found elsewhere in a moment."""
    world.transfers.fetch("b", address)
    world.turn()
    world.now += RETRY_S + 0.1
    world.transfers.fetch("b", address)
    world.turn()


def test_without_a_thread_both_ends_try_again(world, monkeypatch):
    """The machine has no process left: a moment, for whoever is not halted by it."""

    def none_left(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        assert world.asked().recv(1) == b""
        world.transfers.fetch("b", "127.0.0.1:1")
    assert world.transfers.serving == 0
    world.now += RETRY_S + 0.1
    world.transfers.fetch("b", "nowhere")
    world.turn()


def test_what_came_of_a_copy_is_kept_as_long_as_it_may_be_of_use(world):
    """Then no leader has that copy any more, and the log came after all."""
    incoming = snapshot.Incoming(world.folder / snapshot.INCOMING_NAME)
    incoming.path.write_bytes(bytes(100))
    incoming.note("x", 100)
    world.now += KEPT_S - 1
    world.transfers.look_after(0, hurry=False)
    assert world.files() == ["incoming.snapshot", "incoming.snapshot.note"]
    world.now += 2
    world.transfers.look_after(0, hurry=False)
    world.turn()
    assert world.files() == []


def test_the_tick_thread_removes_no_copy_itself(world, monkeypatch):
    """A file system takes a third of a second for a gigabyte, and nobody gets an answer meanwhile."""
    removed, real = {}, Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        real(path, missing_ok=missing_ok)
        removed[path.name] = threading.current_thread()

    snapshot.Incoming(world.folder / snapshot.INCOMING_NAME).path.write_bytes(bytes(100))
    copies = world.transfers._copies
    copies.give_back(copies.take(40))
    monkeypatch.setattr(Path, "unlink", unlink)
    world.now += KEPT_S + 1
    world.transfers.look_after(40, hurry=False)
    world.turn()
    until = time.monotonic() + SECOND
    while set(removed) < {"outgoing-1.snapshot", "incoming.snapshot"}:
        assert time.monotonic() < until
        time.sleep(0.001)
    assert world.files() == []
    assert threading.current_thread() not in removed.values()
