"""The leader raises the ledger's version when every member's program knows the next one, and not before; until then nothing newer is proposed."""

from __future__ import annotations

from pathlib import Path

import pytest

from igor_node.ledger.apply import KNOWN
from igor_node.ledger.versions import CommandSet, TooNew
from igor_node.rules.versions import ANNOUNCED_FOR
from igor_node.words import SECOND
from raft.interface import Member, Members
from tests.unit.leader.world import World
from tests.unit.ledger.newer import NEWER, LeaveNote

MINUTES_S = ANNOUNCED_FOR / SECOND
OLDER = CommandSet(KNOWN._apply)
THREE = Members(voters=tuple(Member(f"id-n{number}", f"n{number}:1") for number in (1, 2, 3)))


async def test_the_version_is_raised_when_all_have_known_it_for_ten_minutes(tmp_path: Path) -> None:
    """One node of the older program, also one that is away, holds it back; until then whoever would propose a newer command is refused."""
    async with World(tmp_path, known=NEWER) as world:
        nodes = [await world.join(name) for name in ("n1", "n2", "n3")]
        for node in nodes[:2]:
            node.ledger_version = NEWER.highest
        await world.lead(THREE)
        reign = world.leader.streams._hub.reign
        await world.run(2 * MINUTES_S)
        assert world.log.ledger.version == OLDER.highest
        assert not reign.may_propose(LeaveNote)
        with pytest.raises(TooNew):
            await reign.propose(LeaveNote(text="too early"))

        nodes[2].disconnect()
        nodes[2].ledger_version = NEWER.highest
        await world.run(2 * MINUTES_S)
        assert world.log.ledger.version == OLDER.highest
        nodes[2].connected = True
        await world.run(MINUTES_S - 5)
        assert world.log.ledger.version == OLDER.highest
        await world.run(10)
        assert world.log.ledger.version == NEWER.highest
        assert reign.may_propose(LeaveNote)
        assert (await reign.propose(LeaveNote(text="in time"))).value == {"note": "in time"}


async def test_a_short_break_of_a_stream_does_not_start_the_wait_anew(tmp_path: Path) -> None:
    """What comes back as it was has known it all the time."""
    async with World(tmp_path, known=NEWER) as world:
        nodes = [await world.join(name) for name in ("n1", "n2", "n3")]
        for node in nodes:
            node.ledger_version = NEWER.highest
        await world.lead(THREE)
        await world.run(MINUTES_S - 20)
        nodes[1].disconnect()
        await world.run(5)
        nodes[1].connected = True
        await world.run(20)
        assert world.log.ledger.version == NEWER.highest


async def test_an_older_program_does_not_become_a_member(tmp_path: Path) -> None:
    """It would halt at its first look into the ledger."""
    async with World(tmp_path, wanted_voters=3, known=NEWER) as world:
        await world.join("n1")
        await world.lead()
        await world.run(5)
        assert world.log.ledger.version == NEWER.highest
        older, newer = await world.join("n2"), await world.join("n3")
        newer.ledger_version = NEWER.highest
        newer.disconnect()
        await world.run(1)
        newer.connected = True
        await world.run(30)
        assert [step for step in world.replica.steps if step[1] == older.id] == []
        assert ("learner", newer.id) in world.replica.steps
