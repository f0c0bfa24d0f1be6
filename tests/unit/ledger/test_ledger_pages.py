"""The sums of a ledger's pages: whatever byte the disk changed is found, and no crash, reader or full disk makes a good page look bad."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from igor_node.ledger import distrust, pages
from igor_node.ledger import ledger as ledger_module
from igor_node.ledger.commands import RaiseLedgerVersion
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.pages import DamagedLedger, Pages
from raft.interface import Halted
from tests.harness.small_disks import turn_over
from tests.unit.ledger.book import Book, job
from tests.unit.ledger.newer import NEWER

PAGE = 4_096
LEFT_OUT = {*range(18, 20), *range(24, 28), *range(92, 100)}  # of the first page


def fill(book: Book, count: int = 20) -> None:
    for number in range(count):
        book.push(job(f"job-{number % 7}", description="word " * (50 + number)), prune=True, source=f"push {number}")


def reopen(path: Path) -> None:
    """Looks at all pages."""
    Ledger(path).close()


def copied(path: Path, to: Path) -> Path:
    """The folder as a kill would leave it now. By another process: this one would lose SQLite's locks with the first file that it closes."""
    to.mkdir()
    subprocess.run(["cp", *map(str, path.parent.glob("ledger.sqlite*")), str(to)], check=True)
    return to / path.name


@pytest.mark.parametrize("seed", range(8))
def test_a_byte_that_the_disk_changed_is_found_wherever_it_is(book: Book, seed: int, tmp_path: Path) -> None:
    fill(book)
    book.close()
    copy = copied(book.path, tmp_path / "copy")  # the book is closed once more after the test, and would not open what is damaged
    chance = random.Random(seed)
    offset = next(at for at in iter(lambda: chance.randrange(copy.stat().st_size), -1) if at not in LEFT_OUT)
    turn_over(copy, offset)
    before = copy.read_bytes()
    with pytest.raises(DamagedLedger, match=rf"ledger\.sqlite: damaged at page {offset // PAGE + 1} \(bytes "):
        Ledger(copy)
    assert copy.read_bytes() == before


def test_a_file_that_lost_its_end_is_found(book: Book, tmp_path: Path) -> None:
    fill(book)
    book.close()
    copy = copied(book.path, tmp_path / "copy")
    with open(copy, "r+b") as file:
        file.truncate(copy.stat().st_size - PAGE)
    with pytest.raises(DamagedLedger):
        Ledger(copy)


def test_a_page_that_a_checkpoint_left_torn_is_as_good_as_its_log(book: Book, tmp_path: Path) -> None:
    """The power went while the disk wrote it: whoever reads it gets what stands in the log, and the next checkpoint writes it again."""
    fill(book, 10)
    book.ledger._checkpoints.checkpoint()
    fill(book, 10)
    book.ledger.pages.note(book.ledger.pages.read_log())
    copy = copied(book.path, tmp_path / "copy")
    log = copy.with_name(copy.name + "-wal").read_bytes()
    for at in range(32, len(log), 24 + PAGE):
        page = int.from_bytes(log[at : at + 4], "big")
        with open(copy, "r+b") as file:
            file.seek((page - 1) * PAGE + PAGE // 2)
            file.write(log[at + 24 + PAGE // 2 : at + 24 + PAGE])
    reopen(copy)
    reopen(copy)


def test_a_page_that_was_never_written_back_is_found(book: Book) -> None:
    """The disk kept an old one, whole."""
    fill(book, 10)
    book.ledger._checkpoints.checkpoint()
    old = book.path.read_bytes()
    fill(book, 10)
    book.close()
    new = book.path.read_bytes()
    page = next(n for n in range(1, len(old) // PAGE) if old[n * PAGE : (n + 1) * PAGE] != new[n * PAGE : (n + 1) * PAGE])
    with open(book.path, "r+b") as file:
        file.seek(page * PAGE)
        file.write(old[page * PAGE : (page + 1) * PAGE])
    with pytest.raises(DamagedLedger, match=f"page {page + 1} "):
        Ledger(book.path)


@pytest.mark.parametrize("step", ["read_log", "note", "_copy_log", "settle", "_write_sums"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_step_of_a_checkpoint_leaves_pages_that_are_known(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    """Each time the step is reached the folder is copied as it is; every copy opens, and goes on."""
    owner = ledger_module if step == "_copy_log" else Pages
    real: Callable[..., object] = getattr(owner, step)
    copies: list[Path] = []

    def stepped(*arguments: object, **named: object) -> object:
        if not after:
            copies.append(copied(book.path, tmp_path / f"copy-{len(copies)}"))
        result = real(*arguments, **named)
        if after:
            copies.append(copied(book.path, tmp_path / f"copy-{len(copies)}"))
        return result

    monkeypatch.setattr(owner, step, stepped)
    for _ in range(3):
        fill(book, 4)
        book.ledger._checkpoints.checkpoint()
    monkeypatch.undo()
    assert copies
    for copy in copies:
        reopen(copy)
        reopen(copy)


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM jobs").fetchone()
print("reads", flush=True)
sys.stdin.read()
connection.close()
"""


def test_a_reader_that_holds_the_copying_back_does_no_harm(book: Book, tmp_path: Path) -> None:
    """Also where SQLite itself copies the rest, when the last connection is closed: here that of another process."""
    fill(book, 5)
    reader = subprocess.Popen([sys.executable, "-c", READER, str(book.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None and reader.stdin is not None and reader.stdout.readline() == "reads\n"
    for number in range(3):
        fill(book, 5)
        assert not book.ledger._checkpoints.checkpoint()
        reopen(copied(book.path, tmp_path / f"copy-{number}"))
    book.close()
    reopen(copied(book.path, tmp_path / "copy"))
    reader.stdin.close()
    assert reader.wait(10) == 0
    reader.stdout.close()
    for _ in range(3):
        reopen(book.path)


def test_of_the_log_only_what_is_new_is_read_while_the_writer_waits(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the first log of a life, and of one that began anew in the file of a longer one."""
    monkeypatch.setattr(pages, "READ_PAGES", 4)
    found = book.ledger.pages
    fill(book)
    assert len(found.read_log()) > found.log_bytes() - 4 * (24 + PAGE)
    found.note(found.read_log())
    assert len(found.read_log()) == 32
    book.ledger._checkpoints.checkpoint()
    long = found.log_bytes()
    fill(book, 1)
    assert found.log_bytes() == long > 100 * PAGE
    assert len(found.read_log()) < long / 4


def test_a_program_that_may_not_open_a_ledger_leaves_it_usable(tmp_path: Path) -> None:
    """Its connection is the last one to be closed, and would copy a log that nobody has noted: the right program would find damaged pages then."""
    book = Book(tmp_path, known=NEWER)
    fill(book, 5)
    book.ledger._checkpoints.checkpoint()
    book.done(RaiseLedgerVersion(version=NEWER.highest))
    fill(book, 5)
    copy = copied(book.path, tmp_path / "copy")
    book.close()
    for _ in range(2):
        with pytest.raises(Halted, match="install a newer igor-node here"):
            Ledger(copy)
        gc.collect()  # as the end of the process would
    for _ in range(2):
        Ledger(copy, known=NEWER).close()


@pytest.mark.parametrize("truncate_bytes", [0, 64 * 1024 * 1024])
def test_frames_that_a_power_cut_left_behind_a_torn_one_were_never_written(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truncate_bytes: int
) -> None:
    """The log's end came to the disk without a frame before it. SQLite goes on before that frame; what stands behind it looks like frames still."""
    fill(book, 10)
    log = copied(book.path, tmp_path / "copy").with_name("ledger.sqlite-wal")
    size = log.stat().st_size
    frame = 24 + PAGE
    for number, at in enumerate((size // frame * 3 // 4, size // frame // 2)):
        torn = tmp_path / f"torn-{number}"
        copy = copied(tmp_path / "copy" / "ledger.sqlite", torn)
        turn_over(copy.with_name("ledger.sqlite-wal"), 32 + at * frame + 24 + 100)
        monkeypatch.setattr("igor_node.ledger.ledger.TRUNCATE_BYTES", truncate_bytes)
        with closing(Book(torn)) as again:
            fill(again, 3)
            again.ledger._checkpoints.checkpoint()
        for _ in range(2):
            reopen(copy)


def test_a_kill_while_a_copy_takes_the_ledgers_place_leaves_pages_that_are_known(book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(book, 5)
    book.ledger.snapshot(tmp_path / "snapshot")
    fill(book, 5)
    copies: list[Path] = []
    real = ledger_module.take_place

    def stepped(*arguments: Path) -> Path:
        copies.append(copied(book.path, tmp_path / f"copy-{len(copies)}"))
        result = real(*arguments)
        copies.append(copied(book.path, tmp_path / f"copy-{len(copies)}"))
        return result

    monkeypatch.setattr(ledger_module, "take_place", stepped)
    book.ledger.restore(tmp_path / "snapshot")
    assert len(copies) == 2
    for copy in copies:
        reopen(copy)
        reopen(copy)


def test_a_checkpoint_that_finds_no_descriptor_is_tried_again(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing would ever be durable again, and the journal grow for ever, without a word."""
    monkeypatch.setattr("igor_node.ledger.ledger.CHECKPOINT_PAUSE_S", 0.01)
    failures = iter(["Too many open files"] * 2)
    real = Pages.read_log

    def short(self: Pages) -> bytes:
        for why in failures:
            raise OSError(24, why)
        return real(self)

    monkeypatch.setattr(Pages, "read_log", short)
    fill(book, 1)
    until = time.monotonic() + 10
    while book.ledger.durable_index() < book.ledger.applied().index and time.monotonic() < until:
        time.sleep(0.01)
    assert next(failures, None) is None
    assert book.ledger._durable == book.ledger.applied().index


def test_what_is_copied_while_the_writer_is_held_gets_its_sums(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is long, so it is to begin anew; between the two passes there was one more commit."""
    monkeypatch.setattr("igor_node.ledger.ledger.TRUNCATE_BYTES", 0)
    real = ledger_module._Checkpoints._copy

    def copy(*arguments: Any) -> Any:
        result = real(*arguments)
        fill(book, 1)
        return result

    for _ in range(3):
        fill(book, 3)
        monkeypatch.setattr(ledger_module._Checkpoints, "_copy", copy)
        assert book.ledger._checkpoints.checkpoint()
        monkeypatch.setattr(ledger_module._Checkpoints, "_copy", real)
    book.close()
    reopen(book.path)


def test_commits_during_checkpoints_do_no_harm(book: Book) -> None:
    """The checkpoint thread and the writer at once, and the log beginning anew again and again."""
    for _ in range(60):
        fill(book, 3)
        book.ledger._checkpoints.ask()
        if random.random() < 0.3:
            book.ledger._checkpoints.checkpoint()
    book.close()
    reopen(book.path)


def test_a_disk_that_does_not_take_the_sums_costs_nobody_a_commit(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("_write_sums",):
        fill(book, 3)
        monkeypatch.setattr(Pages, step, full)
        assert book.ledger._checkpoints.checkpoint()
        monkeypatch.undo()
    fill(book, 3)
    book.close()
    reopen(book.path)


def test_a_large_ledger_is_looked_through_beside_the_work(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(book)
    book.close()
    turn_over(book.path, book.path.stat().st_size - 10)
    monkeypatch.setattr(pages, "START_BYTES", PAGE)
    monkeypatch.setattr("igor_node.ledger.ledger.LOOK_PAUSE_S", 0.001)
    found: list[Halted] = []
    ledger = Ledger(book.path, on_damage=found.append)
    until = time.monotonic() + 10
    while not found and time.monotonic() < until:
        time.sleep(0.01)
    ledger.close()
    assert f"damaged at page {book.path.stat().st_size // PAGE} " in str(found[0])


def test_a_copy_of_another_member_gets_its_sums_when_it_is_looked_at(book: Book, tmp_path: Path) -> None:
    fill(book)
    book.ledger.snapshot(tmp_path / "snapshot")
    (tmp_path / "other").mkdir()
    other = Ledger(tmp_path / "other" / "ledger.sqlite")
    other.restore(tmp_path / "snapshot")
    file = other.file
    other.close()
    reopen(file.with_name("ledger.sqlite"))
    turn_over(file, PAGE + 1_000)
    with pytest.raises(DamagedLedger, match=r"ledger\.sqlite\.1: damaged at page 2 "):
        Ledger(file.with_name("ledger.sqlite"))


def test_a_damaged_ledger_without_other_members_is_refused_with_a_way_out(book: Book) -> None:
    fill(book)
    book.close()
    turn_over(book.path, PAGE + 1_000)
    with pytest.raises(DamagedLedger) as damage:
        Ledger(book.path)
    with pytest.raises(Halted, match=r"no other member to take a copy from: restore a backup, .* remove .*ledger\.sqlite-sums"):
        distrust.distrust_damaged(book.path, "n1", damage.value)
    assert distrust.distrusted(book.path) is None


def test_a_file_that_cannot_be_synced_is_told_and_nothing_more_is_called_durable(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync the next one would say that all is well, and the pages be lost all the same."""
    found: list[Halted] = []
    book.ledger.on_damage = found.append
    fill(book, 3)
    main, real = book.ledger.pages._main, os.fsync

    def ill(descriptor: int) -> None:
        if descriptor == main:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", ill)
    before = book.ledger._durable
    book.ledger.durable_index()
    until = time.monotonic() + 10
    while not found and time.monotonic() < until:
        time.sleep(0.01)
    assert "ledger.sqlite could not be synced: Input/output error" in str(found[0])
    monkeypatch.undo()
    with pytest.raises(Halted, match="could not be synced"):
        book.ledger._checkpoints.checkpoint()
    assert book.ledger._durable == before
