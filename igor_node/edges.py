"""The edges of the machine as small interfaces: clock, chance. Tests and the simulator bring their own.

Whatever needs the time takes a `Clock`; rules and apply take the time itself as an argument. Sockets, disks and processes have their interfaces
where they are used (`raft/disk.py`, `wrapper/`), because those packages import nothing of Igor.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from igor_node.words import Instant


class Clock(Protocol):
    def now(self) -> Instant:
        """The wall clock, in nanoseconds since the epoch."""

    def monotonic_ns(self) -> int:
        """A clock that never steps; CLOCK_BOOTTIME on Linux, so that it goes on while the machine is suspended."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Instant:
        return Instant(time.time_ns())

    def monotonic_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
