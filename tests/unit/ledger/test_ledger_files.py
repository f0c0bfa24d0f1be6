"""The ledger on disk: what a crash leaves at each step, snapshots and restores, checkpoints, and files that are none (DESIGN §5, "Snapshots")."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from igor_node.ledger import files, ledger, query_jobs, query_runs
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.reads import ReadsSync
from raft.interface import Halted
from raft.pace import Spread
from tests.harness.processes import wait_for
from tests.unit.ledger.book import Book, job


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder of another node."""
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


def power_cut(book: Book, folder: Path) -> Path:
    """The files as they are now, in another place: what a killed process leaves."""
    for name in os.listdir(book.folder):
        if (book.folder / name).is_file():
            shutil.copy(book.folder / name, folder / name)
    return folder / "ledger.sqlite"


def test_a_killed_process_loses_nothing(book: Book, other: Path) -> None:
    """Index and changes of a batch are one transaction: the next start goes on behind it."""
    book.push(job())
    run = book.create()
    again = Ledger(power_cut(book, other))
    assert again.applied() == book.ledger.applied()
    assert again._stand == book.ledger._stand
    again.close()
    reads = ReadsSync(other / "ledger.sqlite")
    assert reads.query(lambda c: query_runs.run(c, run))["state"] == "queued"
    reads.close()


def test_without_its_write_ahead_log_it_stands_at_the_durable_index_or_later(book: Book, other: Path) -> None:
    """The worst that a power cut can do: everything that was not synced is gone."""
    book.push(job())
    book.ledger._checkpoints.checkpoint()
    durable = book.ledger.durable_index()
    assert durable == book.ledger.applied().index
    for _ in range(3):
        book.create()
    assert book.ledger.durable_index() >= durable
    durable = book.ledger.durable_index()
    path = power_cut(book, other)
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink(missing_ok=True)
    again = Ledger(path)
    assert again.applied().index >= durable
    again.close()


def test_asking_for_the_durable_index_raises_it(book: Book) -> None:
    """The checkpoint thread does the work; the Raft thread never waits for it."""
    raised = threading.Event()
    before = book.ledger._checkpoints.checkpoint
    book.ledger._checkpoints.checkpoint = lambda: (before(), raised.set())[0]  # type: ignore[method-assign]
    book.push(job())
    assert book.ledger.durable_index() <= book.ledger.applied().index
    assert raised.wait(30)
    assert book.ledger.durable_index() == book.ledger.applied().index


def test_a_reader_that_holds_an_old_snapshot_holds_the_durable_index_back(book: Book) -> None:
    """What it still reads cannot be copied, so nothing beyond is vouched for; afterwards it is."""
    book.push(job())
    book.ledger._checkpoints.checkpoint()
    reader = sqlite3.connect(book.ledger.file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM position").fetchall()
    held = book.ledger.durable_index()
    book.create()
    assert book.ledger._checkpoints.checkpoint() is False
    assert book.ledger.durable_index() == held
    reader.execute("ROLLBACK")
    reader.close()
    assert book.ledger._checkpoints.checkpoint() is True
    assert book.ledger.durable_index() == book.ledger.applied().index


def test_a_long_write_ahead_log_begins_anew(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does not grow for ever under a steady stream of commits."""
    monkeypatch.setattr(ledger, "TRUNCATE_BYTES", 1)
    book.push(job())
    assert book.ledger.pages.log_bytes() > 0
    book.ledger._checkpoints.checkpoint()
    assert book.ledger.pages.log_bytes() == 0
    book.create()


# --- snapshots


def test_a_snapshot_is_the_same_ledger(book: Book, tmp_path: Path, other: Path) -> None:
    """Taken while the writer goes on; the copy stands where it says."""
    book.push(job())
    book.create()
    applied = book.ledger.snapshot(tmp_path / "copy")
    dump = book.dump()
    book.create()
    assert applied.index == 2
    fresh = Book(other)
    os.rename(tmp_path / "copy", other / "fetched")
    fresh.ledger.restore(other / "fetched")
    assert fresh.ledger.applied() == applied
    assert fresh.dump() == dump
    assert fresh.heard[-1] == (2, ledger.ALL_TOPICS)
    fresh.close()


def test_a_copy_is_written_step_by_step_and_never_begins_anew(book: Book, tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer commits between any two steps; the copy is the ledger as it stood at the first, and each page was copied once."""
    monkeypatch.setattr(ledger, "COPY_PAGES", 4)
    book.push(job())
    before, dump = book.ledger.applied(), book.dump()
    steps: list[int] = []

    class Interrupted(Spread):
        def wrote(self, end: int) -> None:
            steps.append(end)
            book.create()
            book.ledger._checkpoints.checkpoint()

    monkeypatch.setattr(ledger, "Spread", Interrupted)
    assert book.ledger.snapshot(tmp_path / "copy") == before
    assert len(steps) > 3 and steps == sorted(set(steps)) and steps[-1] == (tmp_path / "copy").stat().st_size
    os.rename(tmp_path / "copy", other / "fetched")
    fresh = Book(other)
    fresh.ledger.restore(other / "fetched")
    assert fresh.dump() == dump
    fresh.close()


def test_a_copy_that_fills_the_disk_leaves_nothing(book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up while there is room for the journal; the writer goes on."""

    class Full(Spread):
        def wrote(self, end: int) -> None:
            raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(ledger, "Spread", Full)
    with pytest.raises(OSError, match="no room"):
        book.ledger.snapshot(tmp_path / "copy")
    assert list(tmp_path.glob("copy*")) == []
    book.push(job())


def test_a_restored_ledger_goes_on(book: Book, tmp_path: Path, other: Path) -> None:
    """Entries follow, readers see it at once, another restart finds it, the old file is gone."""
    book.push(job())
    fresh = Book(other)
    fresh.push(job("mine"))
    reads = ReadsSync(fresh.path)
    assert [row.name for row in reads.query(query_jobs.jobs)] == ["mine"]
    book.ledger.snapshot(tmp_path / "copy")
    os.rename(tmp_path / "copy", other / "fetched")
    fresh.ledger.restore(other / "fetched")
    assert [row.name for row in reads.query(query_jobs.jobs)] == ["report"]
    run = fresh.create()
    assert fresh.run(run)["state"] == "queued"
    assert files.generations(fresh.path) == [1]
    assert fresh.ledger.durable_index() <= fresh.ledger.applied().index
    reads.close()
    fresh.close()
    again = Ledger(fresh.path)
    assert again.applied().index == 2
    again.close()


def test_the_ledger_that_was_replaced_is_removed_beside_the_work(book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system takes a third of a second for a gigabyte, and who restores must answer the leader. A start removes what a crash left of it."""
    removed, real = {}, Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        real(path, missing_ok=missing_ok)
        removed[path.name] = threading.current_thread()

    monkeypatch.setattr(Path, "unlink", unlink)
    book.push(job())
    book.ledger.snapshot(tmp_path / "copy")
    os.rename(tmp_path / "copy", book.folder / "fetched")
    book.ledger.restore(book.folder / "fetched")
    thread = wait_for(lambda: removed.get("ledger.sqlite.old"), 10.0, "the old ledger is removed")
    assert thread is not threading.current_thread()
    book.close()
    (book.folder / "ledger.sqlite.old").write_bytes(b"x")
    Ledger(book.path).close()
    assert not (book.folder / "ledger.sqlite.old").exists()


@pytest.mark.parametrize("renamed", [False, True], ids=["before the rename", "after the rename"])
def test_a_crash_in_a_restore_leaves_the_old_or_the_new(book: Book, tmp_path: Path, other: Path, renamed: bool) -> None:
    """Never the new file with the old write-ahead log: each generation has a name of its own."""
    book.push(job())
    fresh = Book(other)
    fresh.push(job("mine"))
    book.ledger.snapshot(tmp_path / "copy")
    lost = tmp_path / "after"
    lost.mkdir()
    path = power_cut(fresh, lost)
    shutil.copy(tmp_path / "copy", lost / "ledger.sqlite.part")
    if renamed:
        files.take_place(path, lost / "ledger.sqlite.part")
    again = Ledger(path)
    reads = ReadsSync(path)
    assert [row.name for row in reads.query(query_jobs.jobs)] == (["report"] if renamed else ["mine"])
    assert len(files.generations(path)) == 1
    reads.close()
    again.close()
    fresh.close()


def test_what_is_no_ledger_is_not_restored(book: Book, tmp_path: Path) -> None:
    """A damaged copy, another database, a text: nothing changes."""
    book.push(job())
    book.ledger.snapshot(tmp_path / "copy")
    damaged = bytearray((tmp_path / "copy").read_bytes())
    damaged[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    (tmp_path / "damaged").write_bytes(damaged)
    (tmp_path / "text").write_text("hello " * 10_000)
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE t(x)")
    foreign.close()
    before = book.dump()
    for name in ("damaged", "text", "foreign"):
        with pytest.raises(Halted):
            book.ledger.restore(tmp_path / name)
    assert book.dump() == before
    book.create()


# --- opening


def test_a_file_that_is_no_ledger_is_refused_in_one_line(tmp_path: Path) -> None:
    """It says which file, and what is wrong."""
    (tmp_path / "ledger.sqlite").write_text("something else entirely " * 100)
    with pytest.raises(Halted, match=r"ledger\.sqlite cannot be opened"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_ledger_of_a_later_version_is_refused(book: Book) -> None:
    """A downgrade ends where the version was raised."""
    book.close()
    connection = sqlite3.connect(book.path)
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'ledger_version'")
    connection.commit()
    connection.close()
    book.path.with_name("ledger.sqlite-sums").unlink()
    with pytest.raises(Halted, match=r"has version 99, this igor-node knows versions up to \d+; install a newer igor-node here"):
        Ledger(book.path)
    connection = sqlite3.connect(book.path)
    connection.execute("UPDATE meta SET value = 3 WHERE name = 'ledger_version'")
    connection.commit()
    connection.close()
    book.path.with_name("ledger.sqlite-sums").unlink()
    book.ledger = Ledger(book.path)


def test_generations_are_told_apart(tmp_path: Path) -> None:
    """Only whole files of the ledger's own name count."""
    path = tmp_path / "ledger.sqlite"
    for name in (
        "ledger.sqlite",
        "ledger.sqlite.2",
        "ledger.sqlite.10",
        "ledger.sqlite.10-wal",
        "ledger.sqlite.part",
        "ledger.sqlite.007",
        "x.sqlite",
    ):
        (tmp_path / name).touch()
    assert files.generations(path) == [0, 2, 10]
    assert files.current_file(path).name == "ledger.sqlite.10"
    files.remove_old(path)
    assert sorted(os.listdir(tmp_path)) == ["ledger.sqlite.007", "ledger.sqlite.10", "ledger.sqlite.10-wal", "ledger.sqlite.part", "x.sqlite"]
