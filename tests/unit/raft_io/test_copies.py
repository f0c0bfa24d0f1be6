"""The copies a leader hands out: shared, kept for a while, and never more than one beside those in use."""

from __future__ import annotations

import hashlib
import threading

import pytest

from raft.copies import KEPT_S, Copies
from raft.interface import Applied, Members
from tests.unit.raft_io.machines import ListMachine


class World:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.now = 100.0
        self.machine = ListMachine()
        self.copies = Copies(folder, self.machine, lambda: self.now)
        self.stand(50)

    def stand(self, index: int) -> None:
        self.machine.stands = Applied(index, 1, Members())

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_several_share_one(world):
    """The second comes while the first is served: the state machine writes it once, and it is known by its digest."""
    first = world.copies.take(40)
    world.stand(60)
    second = world.copies.take(50)
    assert first is second and first.stands.index == 50
    assert first.id == hashlib.sha256(first.path.read_bytes()).hexdigest() and first.size == first.path.stat().st_size
    assert world.files() == ["outgoing-1.snapshot"]


def test_whoever_comes_while_one_is_made_waits_for_it(world):
    """Two threads, one copy."""
    made: list[int] = []
    entered, go_on = threading.Event(), threading.Event()
    original = world.machine.snapshot

    def slow(path):
        made.append(1)
        entered.set()
        assert go_on.wait(10)
        return original(path)

    world.machine.snapshot = slow
    taken: list[object] = []
    threads = [threading.Thread(target=lambda: taken.append(world.copies.take(0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert made == [1] and taken[0] is taken[1]


def test_one_that_the_log_does_not_join_is_made_anew(world):
    """The older one goes when its last user has done with it."""
    old = world.copies.take(40)
    world.stand(90)
    new = world.copies.take(51)
    assert new.stands.index == 90
    assert world.files() == ["outgoing-1.snapshot", "outgoing-2.snapshot"]
    world.copies.give_back(old)
    assert world.files() == ["outgoing-2.snapshot"]
    world.copies.give_back(new)
    assert world.files() == ["outgoing-2.snapshot"], "kept for who comes back"


def test_an_unused_one_goes_when_it_is_replaced(world):
    """At once."""
    world.copies.give_back(world.copies.take(40))
    world.stand(90)
    world.copies.take(51)
    assert world.files() == ["outgoing-2.snapshot"]


def test_it_is_dropped_when_its_time_is_over(world):
    """Not before, and not while it is in use."""
    copy = world.copies.take(40)
    world.now += 10 * KEPT_S
    world.copies.drop_old(40)
    assert world.files() == ["outgoing-1.snapshot"]
    world.copies.give_back(copy)
    world.now += KEPT_S - 1
    world.copies.drop_old(40)
    assert world.files() == ["outgoing-1.snapshot"]
    world.now += 2
    world.copies.drop_old(40)
    assert world.files() == []
    assert world.copies.take(40).stands.index == 50


def test_it_is_dropped_when_the_journal_has_gone_on_without_it(world):
    """It is of no use to anybody, whatever the time."""
    world.copies.give_back(world.copies.take(40))
    world.copies.drop_old(50)
    assert world.files() == ["outgoing-1.snapshot"]
    world.copies.drop_old(51)
    assert world.files() == []


def test_a_copy_that_fails_leaves_nothing(world):
    """The next one tries again."""
    original = world.machine.snapshot

    def fail(path):
        path.write_bytes(b"half")
        raise OSError("no room")

    world.machine.snapshot = fail
    with pytest.raises(OSError, match="no room"):
        world.copies.take(0)
    assert world.files() == []
    world.machine.snapshot = original
    assert world.copies.take(0).stands.index == 50
