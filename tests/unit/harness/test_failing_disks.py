"""The harness's failing disk fails the calls it was told to, for the files it was told of, counts them, and leaves everything else alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.harness.failing_disks import FailingDisk

PROGRAM = """
import json, os, sys
def tried(function, *arguments):
    try:
        function(*arguments)
    except OSError as problem:
        return problem.errno
ill, well = (os.open(name, os.O_RDWR | os.O_CREAT) for name in sys.argv[1:3])
calls = ((os.write, b"x"), (os.pwrite, b"x", 0), (os.fsync,), (os.fdatasync,))
print(json.dumps([[tried(function, file, *rest) for function, *rest in calls] for file in (ill, well)]))
"""
EIO = 5


def run(disk: FailingDisk, folder: Path) -> list[list[int | None]]:
    command = [sys.executable, "-c", PROGRAM, str(folder / "ill"), str(folder / "well")]
    done = subprocess.run(command, env={**os.environ, **disk.environment()}, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_it_fails_what_it_was_told_to(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path / "side" / "orders")
    assert run(disk, tmp_path) == [[None] * 4, [None] * 4]
    disk.fail("write", tmp_path / "ill")
    assert run(disk, tmp_path) == [[EIO, EIO, None, None], [None] * 4]
    assert disk.failed == 2
    disk.fail("sync", tmp_path / "ill")
    assert run(disk, tmp_path) == [[None, None, EIO, EIO], [None] * 4]
    assert disk.failed == 2, "counted anew"
    disk.mend()
    assert run(disk, tmp_path) == [[None] * 4, [None] * 4]
