"""The rolling digest: equal where the log was the same, whatever the batches; different as soon as a damaged row matters (DESIGN §5, Divergence)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from igor_node.ledger import digest
from igor_node.ledger.commands import CreateRun, NodeChanged, Refused
from igor_node.ledger.digest import Mark
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.query_digests import Digests, digests
from raft.interface import Entry, Kind
from tests.unit.ledger.book import Book, job


@pytest.fixture
def other(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


@pytest.fixture
def twin(book: Book, other: Path) -> Iterator[Ledger]:
    """Another replica's ledger, which the test gives the same log."""
    with closing(Ledger(other / "ledger.sqlite")) as ledger:
        yield ledger


def told(ledger: Ledger) -> Digests:
    with closing(sqlite3.connect(ledger.file)) as connection:
        return digests(connection)


def test_each_entry_moves_the_digest(book: Book) -> None:
    """Also one without a command, one that is refused and one that cannot be read."""
    seen = {book.ledger._stand.digest}
    book.push(job())
    seen.add(book.ledger._stand.digest)
    book.refused(CreateRun(job="shop/none", run=book.new_id()))
    seen.add(book.ledger._stand.digest)
    for number, (kind, data) in enumerate([(Kind.NOOP, b""), (Kind.COMMAND, b"\xc1")], 3):
        book.ledger.apply([Entry(number, 1, kind, data)])
        seen.add(book.ledger._stand.digest)
    assert len(seen) == 5


def test_the_same_log_gives_the_same_digest_in_any_batches(book: Book, twin: Ledger) -> None:
    """And what a restart reads is what was written."""
    book.push(job())
    for _ in range(5):
        book.create()
    twin.apply(book.entries[:4])
    twin.apply(book.entries[4:])
    assert told(twin) == told(book.ledger)
    assert told(twin).now == twin._stand.digest.hex()


def test_the_same_log_through_a_snapshot_gives_the_same_digest(book: Book, twin: Ledger, tmp_path: Path) -> None:
    """The digest and its marks are part of what is copied."""
    book.push(job())
    book.ledger.snapshot(tmp_path / "copy")
    shutil.move(tmp_path / "copy", twin.path.parent / "fetched")
    twin.restore(twin.path.parent / "fetched")
    for _ in range(3):
        book.create()
    twin.apply(book.entries[1:])
    assert told(twin) == told(book.ledger)


def test_a_different_answer_shows(book: Book, twin: Ledger) -> None:
    """One row of a real ledger file changed behind its back: the next decision that depends on it comes out otherwise."""
    book.push(job())
    twin.apply(book.entries)
    with closing(sqlite3.connect(twin.file)) as damaged:
        damaged.execute("UPDATE jobs SET removed_at = 1")
        damaged.commit()
    assert told(twin).now == told(book.ledger).now
    entry = book.entry(CreateRun(job="shop/report", run=book.new_id()))
    assert isinstance(twin.apply([entry])[0], Refused)
    book.ledger.apply([entry])
    assert told(twin).now != told(book.ledger).now


def test_a_different_event_shows(book: Book, twin: Ledger) -> None:
    """Where the answers are the same but what was said of it differs."""
    node = book.node()
    twin.apply(book.entries)
    with closing(sqlite3.connect(twin.file)) as damaged:
        damaged.execute("UPDATE nodes SET name = 'other'")
        damaged.commit()
    entry = book.entry(NodeChanged(node=node, state="silent"))
    answers = [ledger.apply([entry])[0] for ledger in (book.ledger, twin)]
    assert answers[0] == answers[1]
    assert told(twin).now != told(book.ledger).now


def test_the_last_marks_are_kept(book: Book, monkeypatch: pytest.MonkeyPatch, other: Path) -> None:
    """At every so many entries, as many as are named; the newest is known without a query, also after a restart."""
    monkeypatch.setattr(digest, "MARK_EVERY", 3)
    monkeypatch.setattr(digest, "MARKS_KEPT", 2)
    assert book.ledger.mark is None
    seen = {}
    for number in range(1, 12):
        book.ledger.apply([Entry(number, 1, Kind.NOOP, b"")])
        seen[number] = book.ledger._stand.digest
    assert told(book.ledger).marks == {6: seen[6].hex(), 9: seen[9].hex()}
    assert book.ledger.mark == Mark(9, seen[9])
    book.close()
    book.ledger = Ledger(book.path)
    assert book.ledger.mark == Mark(9, seen[9])
