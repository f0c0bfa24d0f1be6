"""The harness's wall clock moves what a program takes for the time, at once and for all its processes, and leaves everything else alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.harness.wallclock import WallClock

PROGRAM = """
import datetime, json, os, subprocess, sys, time
steady, boot = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
time.sleep(0.05)
print(json.dumps({
    "time": time.time(), "time_ns": time.time_ns() / 1e9, "date": datetime.datetime.now().timestamp(), "slept": time.monotonic() - steady,
    "boot": time.clock_gettime(time.CLOCK_BOOTTIME) - boot,
    "python": float(subprocess.run([sys.executable, "-c", "import time; print(time.time())"], env={}, capture_output=True).stdout),
    "command": float(subprocess.run(["/bin/date", "+%s"], env={}, capture_output=True).stdout),
}))
"""


def test_only_the_wall_clock_of_pythons_moves(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    clock.set(-3_600)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env={**os.environ, **clock.environment()}, capture_output=True, text=True, check=True)
    said, now = json.loads(done.stdout), time.time()
    assert all(abs(said[name] - (now - 3_600)) < 60 for name in ("time", "time_ns", "date", "python"))
    assert abs(said["command"] - now) < 60
    assert 0.05 <= said["slept"] < 60 and 0.05 <= said["boot"] < 60
