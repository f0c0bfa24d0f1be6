"""Reading beside the writer, and waiting for changes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from igor_node.ledger import query_cluster, query_jobs, query_runs
from igor_node.ledger.changes import Changes
from igor_node.ledger.files import current_file
from igor_node.ledger.reads import Reads, ReadsSync
from igor_node.words import NotFound, TooMany, Unavailable
from tests.unit.ledger.book import Book, job


async def test_a_query_comes_with_the_index_it_was_read_at(book: Book) -> None:
    """For the header Igor-Index."""
    book.push(job())
    reads = Reads(book.path)
    index, found = await reads.indexed(query_jobs.jobs)
    assert (index, len(found)) == (1, 1)
    book.create()
    assert (await reads.indexed(query_jobs.jobs))[0] == 2
    reads.close()


async def test_many_queries_at_once_share_a_few_threads(book: Book) -> None:
    """Each answer is whole."""
    book.push(*(job(f"j{number}") for number in range(50)))
    reads = Reads(book.path, threads=2)
    answers = await asyncio.gather(*(reads.query(query_jobs.jobs) for _ in range(40)))
    assert {len(answer) for answer in answers} == {50}
    reads.close()


async def test_a_query_sees_what_was_committed_before_it_was_asked(book: Book) -> None:
    """Also when the only thread is in the middle of an earlier moment then."""
    book.push(job())
    reads = Reads(book.path, threads=1)
    reading, go_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        index = query_cluster.position(connection).index
        reading.set()
        assert go_on.wait(10)
        return index

    first = asyncio.ensure_future(reads.query(slow))
    before = asyncio.ensure_future(reads.indexed(query_jobs.jobs))
    await asyncio.to_thread(reading.wait, 10)
    book.create()
    after = asyncio.ensure_future(reads.indexed(query_jobs.jobs))
    await asyncio.sleep(0)
    go_on.set()
    assert await first == 1
    assert (await before)[0] in (1, 2)
    assert (await after)[0] == 2
    reads.close()


async def test_a_long_query_holds_up_nobody_else(book: Book) -> None:
    """Another thread takes those behind it."""
    reads = Reads(book.path, threads=2)
    go_on = threading.Event()
    long = asyncio.ensure_future(reads.query(lambda c: go_on.wait(10)))
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(reads.query(query_cluster.position), 5)).index == 0
    assert not long.done()
    go_on.set()
    assert await long
    reads.close()


async def test_who_waits_no_more_is_not_answered(book: Book) -> None:
    """A cancelled query in the line is passed over; one under way when the reads are closed comes to its end."""
    reads = Reads(book.path, threads=1)
    go_on = threading.Event()
    long = asyncio.ensure_future(reads.query(lambda c: go_on.wait(10)))
    ran: list[int] = []
    waiting = asyncio.ensure_future(reads.query(lambda c: ran.append(1)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    go_on.set()
    assert await long
    assert (await reads.query(query_cluster.position)).index == 0
    assert ran == []
    reads.close()
    with pytest.raises(Unavailable):
        await reads.query(query_cluster.position)


async def test_errors_of_a_query_come_through(book: Book) -> None:
    """NotFound is an answer, and the connection stays good."""
    reads = Reads(book.path)
    with pytest.raises(NotFound):
        await reads.query(lambda c: query_runs.run(c, "none"))
    assert (await reads.query(query_cluster.position)).index == 0
    reads.close()


def test_a_reader_cannot_write(book: Book) -> None:
    """Whatever the query tries."""
    reads = ReadsSync(book.path)
    with pytest.raises(sqlite3.OperationalError):
        reads.query(lambda c: c.execute("DELETE FROM meta"))
    reads.close()


def test_one_query_sees_one_moment(book: Book) -> None:
    """A commit in between is not seen before the next query."""
    book.push(job())
    reads = ReadsSync(book.path)

    def twice(connection: sqlite3.Connection) -> tuple[int, int]:
        before = query_cluster.position(connection).index
        book.create()
        return before, query_cluster.position(connection).index

    assert reads.query(twice) == (1, 1)
    assert reads.query(query_cluster.position).index == 2
    reads.close()


def test_a_query_that_takes_too_long_is_ended(book: Book) -> None:
    """Nobody occupies a reader for good."""
    reads = ReadsSync(book.path, limit_s=0.05)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(TooMany, match="longer than"):
        reads.query(lambda c: c.execute(endless).fetchall())
    assert reads.query(query_cluster.position).index == 0
    reads.close()


def test_no_ledger_is_unavailable(book: Book) -> None:
    """A node that has none says so."""
    with pytest.raises(Unavailable):
        ReadsSync(book.folder / "none.sqlite").query(query_cluster.position)


# --- changes


async def test_a_change_wakes_those_who_wait_for_its_topic() -> None:
    """And only those."""
    changes = Changes()
    runs = asyncio.create_task(changes.wait(("runs", "stages"), 0))
    nodes = asyncio.create_task(changes.wait(("nodes",), 0))
    await asyncio.sleep(0)
    changes.notify(3, {"stages"})
    assert await runs == 3
    assert not nodes.done()
    changes.notify(4, frozenset({"nodes"}))
    assert await nodes == 4


async def test_what_changed_before_the_wait_is_not_missed() -> None:
    """Who names an older index is answered at once."""
    changes = Changes(5)
    changes.notify(7, {"jobs"})
    assert await changes.wait(("jobs",), 5) == 7
    assert await changes.wait(("jobs",), 7, timeout=0.01) == 7


async def test_waiting_for_an_index() -> None:
    """A client's Igor-Index: reached, or not within its time-out."""
    changes = Changes(1)
    waiting = asyncio.create_task(changes.reached(3, timeout=10))
    await asyncio.sleep(0)
    changes.notify(2, ())
    changes.notify(3, ())
    assert await waiting is True
    assert await changes.reached(4, timeout=0.01) is False


def test_the_folder_is_listed_once_and_again_after_a_restore(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which file counts is known until that file goes."""
    listed = []
    monkeypatch.setattr("igor_node.ledger.reads.current_file", lambda path: listed.append(path) or current_file(path))
    reads = ReadsSync(book.path)
    book.push(job())
    snapshot = book.folder / "snapshot"
    book.ledger.snapshot(snapshot)
    book.create()
    assert [reads.query(query_cluster.position).index for _ in range(5)] == [2] * 5
    assert len(listed) == 1
    book.ledger.restore(snapshot)
    assert [reads.query(query_cluster.position).index for _ in range(5)] == [1] * 5
    assert len(listed) == 2
    reads.close()
