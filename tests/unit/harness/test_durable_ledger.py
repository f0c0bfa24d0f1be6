"""A ledger under power cuts: what it calls durable is there afterwards, and no page that the cut left is taken for damaged."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from igor_node.ledger.ledger import Ledger
from tests.harness.powerloss import Disk, Mode
from tests.harness.preload import built

PROGRAM = """
import os, sys, threading, time
from pathlib import Path
from tests.unit.ledger.book import Book, job
book = Book(Path(sys.argv[1]))
over = time.monotonic() + float(sys.argv[2])
def write():
    number = 0
    while time.monotonic() < over:
        number += 1
        book.push(job(f"job-{number % 7}", description="word " * (number % 200)), prune=True, source=f"push {number}")
writer = threading.Thread(target=write)
writer.start()
while writer.is_alive():
    book.ledger._checkpoints.checkpoint()
    sys.stdout.write(f"{book.ledger._durable}\\n")
sys.stdout.flush()
os._exit(0)  # the power goes: nothing is closed
"""


@pytest.mark.parametrize("mode", [Mode.NOTHING, Mode.TORN, Mode.WHOLE, Mode.ORDERED])
def test_what_is_called_durable_under_commits_survives_the_cut(tmp_path: Path, mode: Mode) -> None:
    """Checkpoints while the writer goes on: SQLite syncs its file only where it copied the log to its very end."""
    built("powerloss")
    disk = Disk(tmp_path / "root", tmp_path / "record")
    disk.arm()
    for seed in range(2):
        environment = {**os.environ, **disk.environment()}
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(disk.root), "0.6"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        durable = int(done.stdout.split()[-1])
        disk.cut(random.Random(seed), mode)
        ledger = Ledger(disk.root / "ledger.sqlite")
        assert ledger.applied().index >= durable > 0
        ledger.close()
        disk.arm()
