"""What a node does when its ledger is found damaged beside the work: it stops in any case, and notes for the next start what it can."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from igor_node.ledger import distrust
from igor_node.node import Node
from raft.interface import Applied, Halted, Member, Members

MEMBERS = Members(voters=(Member("a", "127.0.0.1:1"), Member("b", "127.0.0.1:2")))
FOUND = Halted("ledger.sqlite: damaged at page 7")


@pytest.fixture
def node(tmp_path: Path) -> Any:
    """Node a, whose consensus has not begun yet; of its ledger nothing was ever copied into the file."""
    made = object.__new__(Node)
    made.identity = SimpleNamespace(id="a")  # type: ignore[assignment]
    made.data = SimpleNamespace(path=tmp_path)  # type: ignore[assignment]
    made.ledger = SimpleNamespace(applied=lambda: Applied(20, 3, MEMBERS))  # type: ignore[assignment]
    made.stop, made.halted = asyncio.Event(), None
    return made


def test_the_next_start_takes_a_copy_from_the_members_there_are_now(node: Any, tmp_path: Path) -> None:
    node._damaged(FOUND)
    assert node.stop.is_set() and "start this node again, and it takes a copy from another member" in node.halted
    assert distrust.distrusted(tmp_path / "ledger.sqlite") == distrust.Distrusted(0, 0, MEMBERS, str(FOUND))


def test_a_disk_that_does_not_take_the_note_stops_the_node_all_the_same(node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on with nothing that it knows to be wrong."""

    def ill(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", ill)
    node._damaged(FOUND)
    assert node.stop.is_set() and node.halted == f"{FOUND}; nor could that be noted: Input/output error"
    assert distrust.distrusted(tmp_path / "ledger.sqlite") is None
