"""A snapshot takes the ledger's place and the journal follows: whatever call a kill falls before, the node starts, as it was or with the snapshot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.unit.raft_io.installing import KILLED

ROOT = Path(__file__).resolve().parents[3]


def test_killed_at_any_step_it_starts_as_it_was_or_with_the_snapshot(tmp_path):
    """Ledger and journal agree at the next start, the new state stays once it is there, and term and vote survive all of it."""
    command = [sys.executable, "-m", "tests.unit.raft_io.installing", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert [life["code"] for life in lives] == [KILLED] * (len(lives) - 1) + [0], done.stderr
    ledgers = [life["ledger"] for life in lives]
    assert ledgers == sorted(ledgers) and set(ledgers) == {5, 500}
    assert ledgers.count(5) >= 3 and ledgers.count(500) >= 6, "kills before and behind the step that decides"
    for life in lives:
        assert life["engine"] == life["ledger"]
        assert (life["term"], life["vote"], life["voters"]) == (4, "a", ["a", "b"])
        old, new = {"base": 0, "last": 9, "term_there": 2}, {"base": 500, "last": 500, "term_there": 3}
        assert life.items() >= (old if life["ledger"] == 5 else new).items()
