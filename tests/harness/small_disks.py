"""A small file system for one node's data, to be filled up (a RAM disk; needs root), and single bytes of files to be turned over."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

PIECE = 64 * 1024


class SmallDisk:
    """`with SmallDisk(folder, megabytes=48) as disk:` mounts it there."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes

    def __enter__(self) -> SmallDisk:
        if os.geteuid() != 0:
            pytest.skip("needs root: it mounts a small file system")
        self.folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m,mode=700", "igor-small-disk", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"needs to mount a small file system: {done.stderr.strip()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """To the last byte."""
        with open(self._ballast, "ab", buffering=0) as file:
            size = PIECE
            while size:
                try:
                    if file.write(b"x" * size) < size:
                        size //= 2
                except OSError as problem:
                    assert problem.errno == errno.ENOSPC
                    size //= 2

    def free(self) -> None:
        self._ballast.unlink()


def turn_over(file: Path, offset: int) -> None:
    """All bits of one byte."""
    with open(file, "r+b", buffering=0) as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ 0xFF]))
