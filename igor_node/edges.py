"""The edges of the machine as small interfaces: clock, chance. Tests and the simulator bring their own.

Whatever needs the time takes a `Clock`; rules and apply take the time itself as an argument. Sockets, disks and processes have their interfaces
where they are used (`raft/disk.py`, `wrapper/`), because those packages import nothing of Igor.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from igor_node.words import SECOND, Instant

JUMP = SECOND  # a step of the wall clock that is taken for an accident
LOOK_NS = 1_000_000  # two looks at two clocks that took longer say nothing: the process was held in between


class Clock(Protocol):
    def now(self) -> Instant:
        """The wall clock, in nanoseconds since the epoch; while it is guarded, without the steps that nobody has believed."""

    def guard(self, on: bool) -> None:
        """A leader's time goes into the ledger and never goes back there, so a step of more than JUMP must be believed first (timekeeping.py)."""

    def jump(self) -> int:
        """By how much the wall clock has stepped away from what `now` says."""

    def believe(self) -> None:
        """From here on `now` says what the wall clock says."""

    def monotonic_ns(self) -> int:
        """A clock that never steps; CLOCK_BOOTTIME on Linux, so that it goes on while the machine is suspended."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._guarded = False
        self._offset = self._wall_less_steady()[0]

    def now(self) -> Instant:
        offset, steady = self._wall_less_steady()
        if not self._guarded or abs(offset - self._offset) <= JUMP:
            self._offset = offset
        return Instant(steady + self._offset)

    def guard(self, on: bool) -> None:
        self.believe()
        self._guarded = on

    def jump(self) -> int:
        return self._wall_less_steady()[0] - self._offset

    def believe(self) -> None:
        self._offset = self._wall_less_steady()[0]

    def monotonic_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _wall_less_steady(self) -> tuple[int, int]:
        """And the steady clock itself."""
        while True:
            before, wall, after = self.monotonic_ns(), time.time_ns(), self.monotonic_ns()
            if after - before < LOOK_NS:
                return wall - after, after
