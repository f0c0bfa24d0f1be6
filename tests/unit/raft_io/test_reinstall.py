"""Where a node that does not trust its state machine takes a copy from: any other member that reaches its journal, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raft import reinstall, snapshot
from raft.disk import RealDisk
from raft.interface import Applied, Entry, Halted, Member, Members
from raft.journal import Journal

MEMBERS = Members(voters=tuple(Member(name, f"127.0.0.1:{number}") for number, name in enumerate("abc", 1)), learners=(Member("d", "127.0.0.1:4"),))
BASE = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a node whose journal begins behind entry 40."""
    journal = Journal.open(RealDisk(), str(tmp_path / "raft"))
    journal.reset(BASE, 1)
    journal.append([Entry(index, 1, 0, b"x") for index in range(BASE + 1, BASE + 10)])
    journal.sync()
    journal.close()
    return tmp_path / "raft"


def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Callable[[], int]]) -> tuple[Applied, list[str]]:
    """What came of it, and who was asked. An answer is the index of the copy, or raises."""
    asked: list[str] = []

    def fetch(own: Any, member: str, address: str, path: Path, trust: Any) -> Applied:
        assert (own.node, own.cluster, own.key, trust) == ("a", "c", b"k", None)
        asked.append(member)
        return Applied(answers[member](), 1, MEMBERS)

    monkeypatch.setattr(snapshot, "fetch", fetch)
    found = reinstall.fetch_copy(node="a", address="127.0.0.1:1", cluster="c", key=b"k", folder=folder, members=MEMBERS, path=folder / "copy")
    return found, asked


def away() -> int:
    raise ConnectionRefusedError("nobody there")


def busy() -> int:
    raise snapshot.TransferFailed("too many at once")


def test_the_first_member_that_reaches_the_journal_gives_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never this node itself; one that is away, busy or behind is passed over; the journal is as it was."""
    before = sorted((file.name, file.read_bytes()) for file in folder.iterdir() if file.is_file())
    found, asked = ask(folder, monkeypatch, {"b": away, "c": lambda: BASE - 1, "d": lambda: BASE})
    assert (found.index, asked) == (BASE, ["b", "c", "d"])
    assert sorted((file.name, file.read_bytes()) for file in folder.iterdir() if file.is_file()) == before


def test_where_nobody_can_it_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its reason, so that the caller asks again later."""
    with pytest.raises(
        snapshot.TransferFailed, match=r"b at 127\.0\.0\.1:2: nobody there; c at .*: too many at once; d stands at 7, .* begins behind 40"
    ):
        ask(folder, monkeypatch, {"b": away, "c": busy, "d": lambda: 7})


def test_a_member_whose_address_is_none_is_passed_over(folder: Path) -> None:
    """As any other that cannot be reached."""
    members = Members(voters=(Member("b", "nowhere"), Member("c", "127.0.0.1:" + "9" * 30)))
    with pytest.raises(snapshot.TransferFailed, match=r"b at nowhere: 'nowhere' is not HOST:PORT; c at .* is not HOST:PORT"):
        reinstall.fetch_copy(node="a", address="127.0.0.1:1", cluster="c", key=b"k", folder=folder, members=members, path=folder / "copy")


def test_a_journal_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say: a start needs room for a segment."""
    (tmp_path / "raft").write_text("a file, where a folder should be")
    with pytest.raises(Halted, match=r"the journal in .* cannot be opened: "):
        ask(tmp_path / "raft" / "deep", monkeypatch, {})


def test_a_damaged_journal_forbids_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then this node has nothing left to keep, and a person decides."""
    segment = max(file for file in folder.iterdir() if file.is_file() and file.stat().st_size > 4096)
    data = bytearray(segment.read_bytes())
    data[40] ^= 0xFF
    segment.write_bytes(data)
    with pytest.raises(Halted):
        ask(folder, monkeypatch, {})
