"""A ledger that is not trusted any more: the mark beside it, and the copy that takes its place (docs/decisions/0007)."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from igor_node.ledger import distrust, files, query_jobs
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.reads import ReadsSync
from raft.interface import Entry, Halted, Kind, Member, Members
from tests.unit.ledger.book import Book, job

MEMBERS = Members(voters=(Member("a", "127.0.0.1:1"), Member("b", "127.0.0.1:2")))


@pytest.fixture
def wrong(book: Book) -> Path:
    """The path of a closed ledger that is marked; it holds a job `mine`."""
    book.push(job("mine"))
    book.ledger.apply([Entry(2, 1, Kind.MEMBERS, msgspec.msgpack.encode(MEMBERS))])
    distrust.distrust(book.ledger, 1_000, 2_000)
    book.close()
    return book.path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A good copy from another member; it holds a job `right`."""
    other = tmp_path / "other"
    other.mkdir()
    book = Book(other)
    book.push(job("right"))
    book.ledger.snapshot(tmp_path / "copy.part")
    book.close()
    return tmp_path / "copy.part"


def names(path: Path) -> list[str]:
    reads = ReadsSync(path)
    try:
        return [row.name for row in reads.query(query_jobs.jobs)]
    finally:
        reads.close()


def test_the_mark_says_what_the_next_start_needs(wrong: Path) -> None:
    """Between which entries it differs, and whom to ask; a restart finds it, and no ledger is mistaken for it."""
    found = distrust.distrusted(wrong)
    assert found == distrust.Distrusted(1_000, 2_000, MEMBERS)
    assert str(found) == "differs from the majority's, by an entry from 1001 to 2000"
    assert files.generations(wrong) == [0]


def test_without_a_mark_the_ledger_is_trusted(tmp_path: Path) -> None:
    """Also where there is none yet."""
    assert distrust.distrusted(tmp_path / "ledger.sqlite") is None


def test_a_mark_that_cannot_be_read_forbids_the_start(wrong: Path) -> None:
    """The ledger must not be used as if it were not there."""
    mark = wrong.with_name("ledger.sqlite.distrusted")
    mark.write_text("{")
    with pytest.raises(Halted, match=r"ledger\.sqlite\.distrusted cannot be read: .* join this node anew"):
        distrust.distrusted(wrong)


def test_a_copy_takes_its_place(wrong: Path, copy: Path) -> None:
    """The mark and the old file go."""
    distrust.install(wrong, copy)
    assert names(wrong) == ["right"]
    assert distrust.distrusted(wrong) is None
    assert files.generations(wrong) == [1]
    assert not copy.exists()


def test_a_damaged_copy_changes_nothing(wrong: Path, copy: Path) -> None:
    """Whatever its checksum on the way was: each page is looked at."""
    damaged = bytearray(copy.read_bytes())
    damaged[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    copy.write_bytes(damaged)
    with pytest.raises(Halted, match=r"damaged|cannot be read"):
        distrust.install(wrong, copy)
    assert distrust.distrusted(wrong) is not None
    assert names(wrong) == ["mine"]


def test_a_crash_before_the_mark_goes_costs_another_copy(wrong: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new ledger stands in its place already; a second one takes that."""
    again = shutil.copy(copy, copy.with_name("again.part"))
    with monkeypatch.context() as patch:
        patch.setattr(distrust, "trust", lambda path: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            distrust.install(wrong, copy)
    assert distrust.distrusted(wrong) is not None
    distrust.install(wrong, Path(again))
    assert distrust.distrusted(wrong) is None
    ledger = Ledger(wrong)
    assert ledger.applied().index == 1
    ledger.close()
