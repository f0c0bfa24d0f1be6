"""A ledger on a disk that fails under it: it says so once, calls nothing durable any more, and does not ask the disk again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.failing_disks import FailingDisk

CHECKPOINT = """
import json, logging, sys, time
from pathlib import Path
from tests.harness.failing_disks import FailingDisk
from tests.unit.ledger.book import Book, job
logging.basicConfig()
side, folder, where = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
book, told = Book(folder), []
book.ledger.on_damage = lambda problem: told.append(str(problem))
book.push(job("one"))
book.ledger._checkpoints.checkpoint()
before = book.ledger.durable_index()
book.push(job("one", description="another"))
disk = FailingDisk(side)
disk.fail("sync", folder / where)
until = time.monotonic() + 20
while not told and disk.failed < 2 and time.monotonic() < until:
    book.ledger.durable_index()  # asks for a checkpoint
    time.sleep(0.01)
failed = disk.failed
book.ledger.close()
print(json.dumps({"told": told, "failed": failed, "before": before, "durable": book.ledger._durable}))
"""


COMMIT = """
import json, sqlite3, sys
from pathlib import Path
from tests.harness.failing_disks import FailingDisk
from tests.unit.ledger.book import Book, job
side, folder = Path(sys.argv[1]), Path(sys.argv[2])
book = Book(folder)
book.push(job("one"))
book.ledger._checkpoints.checkpoint()
disk, raised = FailingDisk(side), []
disk.fail("sync", folder / sys.argv[3])  # the log begins anew with the next commit: then its head is synced
try:
    book.push(job("one", description="another"))
except sqlite3.Error as problem:
    raised.append(str(problem))
failed = disk.failed
disk.mend()
book.ledger.close()
print(json.dumps({"told": raised, "failed": failed, "ill": str(book.ledger._checkpoints.ill)}))
"""


def run(program: str, folder: Path, where: str) -> dict[str, Any]:
    disk = FailingDisk(folder / "side" / "orders")
    command = [sys.executable, "-c", program, str(folder / "side" / "orders"), str(folder), where]
    done = subprocess.run(command, env={**os.environ, **disk.environment()}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("where", ["ledger.sqlite", "ledger.sqlite-wal"])
def test_a_sync_that_fails_is_told_and_never_tried_again(tmp_path: Path, where: str) -> None:
    """Of the file and of its log: the next sync would say that all is well, and the pages be lost all the same."""
    found = run(CHECKPOINT, tmp_path, where)
    assert (found["failed"], len(found["told"])) == (1, 1), found
    assert str(tmp_path / "ledger.sqlite") in found["told"][0]
    assert found["durable"] == found["before"] > 0


def test_after_a_commit_that_failed_nothing_is_copied(tmp_path: Path) -> None:
    """Not at the end either: what the log holds is not known."""
    found = run(COMMIT, tmp_path, "ledger.sqlite-wal")
    assert (found["failed"], found["told"]) == (1, ["disk I/O error"])
    assert found["ill"] == f"{tmp_path / 'ledger.sqlite'}: disk I/O error"
