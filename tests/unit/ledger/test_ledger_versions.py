"""Versions of the ledger: two builds on one log, a raise at the same index everywhere, halts instead of guesses (DESIGN §5, Versions)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from igor_node.ledger.apply import KNOWN
from igor_node.ledger.commands import CreateToken, Done, Envelope, RaiseLedgerVersion, Refused, RegisterNode
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.versions import TooNew
from raft.interface import Entry, Halted
from tests.unit.ledger.book import START, Book, job, make_id
from tests.unit.ledger.newer import NEWER, LeaveNote

NEXT = KNOWN.highest + 1


@pytest.fixture
def newer(tmp_path: Path) -> Iterator[Book]:
    """A replica of the newer build."""
    folder = tmp_path / "newer"
    folder.mkdir()
    with closing(Book(folder, known=NEWER)) as book:
        yield book


def test_a_newer_build_makes_the_ledger_of_the_older_one(book: Book, newer: Book) -> None:
    """Table for table, entry for entry, until the version is raised."""
    book.push(job())
    newer.ledger.apply(book.entries)
    assert newer.dump() == book.dump()
    assert newer.ledger.version == book.ledger.version == KNOWN.highest


def test_a_newer_command_is_not_even_encoded_before(newer: Book) -> None:
    """Whoever wants to propose it is told to wait; afterwards it goes through."""
    wanted = Envelope(id=make_id(START, 1), at=START, command=LeaveNote(text="hello"))  # type: ignore[arg-type]
    with pytest.raises(TooNew, match=f"needs version {NEXT} of the ledger; the cluster's is {KNOWN.highest} until every voter and learner runs"):
        NEWER.entry(wanted, newer.ledger.version)
    assert not NEWER.may_propose(LeaveNote, newer.ledger.version)
    newer.done(RaiseLedgerVersion(version=NEXT))
    assert NEWER.entry(wanted, newer.ledger.version)
    assert newer.done(LeaveNote(text="hello")) == {"note": "hello"}


def test_a_newer_command_that_is_in_the_log_too_early_is_refused(newer: Book) -> None:
    """By all who know it, also when the version is raised in the same batch; under another id it goes through then."""
    early = newer.entry(LeaveNote(text="x"))
    raised = newer.entry(RaiseLedgerVersion(version=NEXT))
    raised = Entry(raised.index + 1, raised.term, raised.kind, raised.data)
    answers = newer.ledger.apply([early, raised])
    assert isinstance(answers[0], Refused) and answers[0].error == "Conflict"
    assert isinstance(answers[1], Done)
    assert newer.done(LeaveNote(text="x")) == {"note": "x"}


def test_a_raise_migrates_in_its_entry(newer: Book) -> None:
    """What was said before in the same batch stands in the tables as they were; a second raise changes nothing."""
    said = newer.entry(RegisterNode(node="n", name="n", address="127.0.0.1:1"))
    raised = newer.entry(RaiseLedgerVersion(version=NEXT))
    raised = Entry(raised.index + 1, raised.term, raised.kind, raised.data)
    newer.ledger.apply([said, raised])
    assert newer.ledger.version == NEXT
    assert newer.sql("SELECT count(*) FROM notes") == [(0,)]
    assert [row[0] for row in newer.sql("SELECT kind FROM events ORDER BY number")] == ["node", "cluster"]
    assert newer.done(RaiseLedgerVersion(version=NEXT)) == {"version": NEXT, "changed": False}
    assert newer.done(RaiseLedgerVersion(version=KNOWN.highest)) == {"version": NEXT, "changed": False}


def test_a_raise_is_undone_with_its_batch(newer: Book) -> None:
    """A batch that halts leaves version and tables as they were."""
    raised = newer.entry(RaiseLedgerVersion(version=NEXT))
    with pytest.raises(Halted):
        newer.ledger.apply([raised, raised])
    assert newer.ledger.version == KNOWN.highest
    assert newer.sql("SELECT name FROM sqlite_schema WHERE name = 'notes'") == []
    newer.ledger.apply([raised])
    assert newer.ledger.version == NEXT


def test_an_older_build_halts_at_the_raise(book: Book) -> None:
    """It says which entry, which version, and what to do; nothing of the batch is kept."""
    good = book.entry(CreateToken(token="t", hash="h", role="viewer"))
    raised = book.entry(RaiseLedgerVersion(version=NEXT))
    raised = Entry(2, raised.term, raised.kind, raised.data)
    expected = (
        f"ledger entry 2: it needs version {NEXT} of the ledger; this igor-node knows versions up to {KNOWN.highest}; install a newer igor-node"
    )
    with pytest.raises(Halted, match=expected):
        book.ledger.apply([good, raised])
    assert book.ledger.applied().index == 0


def test_an_older_build_halts_at_a_newer_command(book: Book) -> None:
    """Should one ever be in the log: its replicas that know it change their ledgers by it."""
    entry = book.entry(LeaveNote(text="x"))
    with pytest.raises(Halted, match=r'ledger entry 1: a command "leave_note" that this igor-node does not know .* install a newer igor-node'):
        book.ledger.apply([entry])


def test_a_downgrade_ends_where_the_version_was_raised(newer: Book, tmp_path: Path) -> None:
    """The older build opens the newer one's ledger until then; afterwards neither the file nor a snapshot of it."""
    newer.push(job())
    newer.close()
    Ledger(newer.path).close()
    newer.ledger = Ledger(newer.path, known=NEWER)
    newer.done(RaiseLedgerVersion(version=NEXT))
    newer.ledger.snapshot(tmp_path / "copy")
    newer.close()
    refused = f"has version {NEXT}, this igor-node knows versions up to {KNOWN.highest}; install a newer"
    with pytest.raises(Halted, match=refused):
        Ledger(newer.path)
    other = tmp_path / "other"
    other.mkdir()
    with closing(Ledger(other / "ledger.sqlite")) as older, pytest.raises(Halted, match=refused):
        older.restore(tmp_path / "copy")
    newer.ledger = Ledger(newer.path, known=NEWER)
    assert newer.ledger.version == NEXT


def test_a_ledger_from_before_the_first_release_is_refused(book: Book) -> None:
    """Its tables lack columns, so it must not get as far as a query."""
    book.close()
    with closing(sqlite3.connect(book.path)) as connection:
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'ledger_version'")
        connection.commit()
    book.path.with_name("ledger.sqlite-sums").unlink()
    with pytest.raises(Halted, match="has version 1, from before the first release"):
        Ledger(book.path)
    with closing(sqlite3.connect(book.path)) as connection:
        connection.execute("UPDATE meta SET value = 3 WHERE name = 'ledger_version'")
        connection.commit()
    book.path.with_name("ledger.sqlite-sums").unlink()
    book.ledger = Ledger(book.path)
