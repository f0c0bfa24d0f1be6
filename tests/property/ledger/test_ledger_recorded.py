"""What the ledger makes of a log is written down: the same today as when it was recorded, with any Python, SQLite or library beneath it.

Two replicas of one cluster may run different builds on different Pythons, and must compute the same. So where a digest in `recorded.json` is no
longer met, ask first which replicas would halt: after a change of `apply` that old logs feel, the answer is a new version of the ledger
(`igor_node/ledger/versions.py`), not a new record. The history itself may change, too: then record anew, `RECORD=1 pytest tests/property/ledger`.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.property.ledger.histories import History

RECORD = Path(__file__).with_name("recorded.json")
STEPS = 250
SEEDS = range(4)


def story(folder: Path, seed: int) -> dict[str, str]:
    """A sum of the log, and the rolling digest of what the ledger made of it: answers and events of every entry."""
    history = History(folder, seed)
    with closing(history.book) as book:
        for _ in range(STEPS):
            history.step()
        log = hashlib.sha256(b"".join(entry.data for entry in book.entries)).hexdigest()[:32]
        return {"log": log, "digest": book.ledger._stand.digest.hex()}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_log_makes_what_it_made_when_it_was_recorded(tmp_path: Path, seed: int) -> None:
    found = story(tmp_path, seed)
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if os.environ.get("RECORD"):
        RECORD.write_text(json.dumps({**recorded, str(seed): found}, indent=1, sort_keys=True) + "\n")
    assert found == recorded.get(str(seed)), __doc__
