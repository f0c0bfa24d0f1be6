"""A wall clock of its own for each node: `set` moves it for all processes that were started with `environment()`, at once.

libfaketime 0.9.10 moves more than that and so breaks `time.sleep` of Python 3.11; `wallclock.c` moves what `time.time` shows, alone.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.harness.preload import built


class WallClock:
    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(8))

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(built("wallclock")), "HARNESS_CLOCK_FILE": str(self._file)}

    def set(self, seconds: float) -> None:
        """So much ahead of the true time from now on."""
        with open(self._file, "r+b", buffering=0) as file:
            file.write(struct.pack("=q", int(seconds * 1_000_000_000)))
