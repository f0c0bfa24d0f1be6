"""Disks that answer with an input/output error: writes or syncs of some files of one node fail from a moment on, until the disk is mended.

    failing = FailingDisk(side / "orders")
    node.environment = failing.environment()             # counts from its next start
    failing.fail("sync", node.folder / "raft" / "*.log")
    … failing.failed …                                   # how many calls have ended so
    failing.mend()

A process that has seen a sync fail must not sync again: the kernel would say yes to pages that it lost. So `failed` of a node that stopped as it
should is 1.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from tests.harness.preload import built

SIZE = 512
CALLS = {"write": 1, "sync": 2}


class FailingDisk:
    def __init__(self, orders: Path) -> None:
        self._orders = orders
        if not orders.exists():
            orders.parent.mkdir(parents=True, exist_ok=True)
            orders.write_bytes(bytes(SIZE))

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(built("failing")), "HARNESS_FAIL_FILE": str(self._orders)}

    def fail(self, call: Literal["write", "sync"], files: Path) -> None:
        """`files` may have the wildcards of a shell."""
        name = str(files.resolve()).encode()
        assert len(name) < SIZE - 16
        self._put(8, struct.pack("=q", 0) + name + b"\0")
        self._put(0, struct.pack("=q", CALLS[call]))  # last: from here on it counts

    def mend(self) -> None:
        self._put(0, struct.pack("=q", 0))

    @property
    def failed(self) -> int:
        return int(struct.unpack_from("=q", self._orders.read_bytes(), 8)[0])

    def _put(self, offset: int, data: bytes) -> None:
        with open(self._orders, "r+b", buffering=0) as file:
            file.seek(offset)
            file.write(data)
