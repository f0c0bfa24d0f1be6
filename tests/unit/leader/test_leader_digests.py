"""The leader compares digests of all members and tells whoever differs: also itself, never anybody without a majority against it."""

from __future__ import annotations

from pathlib import Path

import pytest

from igor_node import stream
from igor_node.ledger import digest
from igor_node.ledger.commands import PauseJobs
from raft.interface import Member, Members
from tests.unit.leader.world import FakeNode, World

THREE = Members(voters=tuple(Member(f"id-n{number}", f"n{number}:1") for number in (1, 2, 3)))


@pytest.fixture(autouse=True)
def _marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "MARK_EVERY", 10)


async def three(world: World) -> list[FakeNode]:
    nodes = [await world.join(name) for name in ("n1", "n2", "n3")]
    await world.lead(THREE)
    return nodes


def go_on(world: World, entries: int) -> digest.Mark:
    for number in range(entries):
        world.propose(PauseJobs(jobs=("shop/report",), reason=str(number)))
    assert world.log.ledger.mark is not None
    return world.log.ledger.mark


def told(node: FakeNode) -> list[stream.Differs]:
    return [message for message in node.received if isinstance(message, stream.Differs)]


async def test_who_differs_is_told_between_which_entries(tmp_path: Path) -> None:
    """From the last index at which it agreed; the others hear nothing."""
    async with World(tmp_path) as world:
        nodes = await three(world)
        first = go_on(world, 10)
        for node in nodes[1:]:
            node.mark = first
        await world.run(5)
        assert [told(node) for node in nodes] == [[], [], []]
        second = go_on(world, 20)
        nodes[1].mark, nodes[2].mark = second, digest.Mark(second.entry, b"else")
        await world.run(5)
        assert told(nodes[2])[0] == stream.Differs(term=world.replica._log.term, after=first.entry, upto=second.entry, digest=second.digest)
        assert [told(node) for node in nodes[:2]] == [[], []]


async def test_who_agrees_later_agreed_before(tmp_path: Path) -> None:
    """So the voters need not be seen at the same index."""
    async with World(tmp_path) as world:
        nodes = await three(world)
        first = go_on(world, 10)
        nodes[2].mark = digest.Mark(first.entry, b"else")
        await world.run(3)
        assert told(nodes[2]) == []
        nodes[1].mark = go_on(world, 20)
        await world.run(3)
        assert told(nodes[2])[0].upto == first.entry


async def test_a_leader_that_differs_from_the_others_is_told_itself(tmp_path: Path) -> None:
    """By the word on its own stream; it is the majority that decides."""
    async with World(tmp_path) as world:
        nodes = await three(world)
        mark = go_on(world, 10)
        for node in nodes[1:]:
            node.mark = digest.Mark(mark.entry, b"right")
        await world.run(3)
        assert told(nodes[0])[0].digest == b"right"
        assert [told(node) for node in nodes[1:]] == [[], []]


async def test_without_a_majority_nobody_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It stands in the log, once."""
    async with World(tmp_path) as world:
        nodes = await three(world)
        mark = go_on(world, 10)
        for node in nodes[1:]:
            node.mark = digest.Mark(mark.entry, node.name.encode())
        await world.run(10)
        assert [told(node) for node in nodes] == [[], [], []]
        assert sum("no majority agrees" in record.getMessage() for record in caplog.records) == 1


async def test_a_mark_that_the_leader_does_not_have_is_passed_over(tmp_path: Path) -> None:
    """Of a follower that is ahead in applying, or far behind."""
    async with World(tmp_path) as world:
        nodes = await three(world)
        mark = go_on(world, 10)
        nodes[1].mark = digest.Mark(mark.entry + 10, b"later")
        nodes[2].mark = digest.Mark(mark.entry - 5, b"no multiple")
        await world.run(5)
        assert [told(node) for node in nodes] == [[], [], []]
