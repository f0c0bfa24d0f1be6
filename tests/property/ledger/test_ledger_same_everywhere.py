"""The ledger is the same everywhere: one log gives one ledger and the same answers, however it is cut into batches and wherever a snapshot falls.

What is compared is the SQL dump, which holds the rolling digest and its marks. On their way the histories raise the version and stage pushes.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from igor_node.ledger import digest
from igor_node.ledger.commands import Done, Refused
from igor_node.ledger.ledger import Ledger
from raft.interface import Entry
from tests.property.ledger.histories import History
from tests.unit.ledger.newer import NEWER

STEPS = 150
MARK_EVERY = 20  # entries: a history shall meet some marks
seeds = st.integers(min_value=0, max_value=2**32)
few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "MARK_EVERY", MARK_EVERY)


def dump(ledger: Ledger) -> list[str]:
    with closing(sqlite3.connect(ledger.file)) as connection:
        return list(connection.iterdump())


def written(folder: Path, seed: int) -> tuple[list[Entry], list[Any], list[str]]:
    """A history's log, its answers, and the ledger after it."""
    history = History(folder, seed)
    for _ in range(STEPS):
        history.step()
    with closing(history.book):
        # The entries of nodes registered by the history stand in the book's list, their answers do not.
        return history.book.entries, history.results, dump(history.book.ledger)


def replay(ledger: Ledger, entries: list[Entry], chance: random.Random, largest: int) -> list[Any]:
    results, position = [], 0
    while position < len(entries):
        size = chance.randint(1, largest)
        results += ledger.apply(entries[position : position + size])
        position += size
    return results


def plain(results: list[Any]) -> list[Any]:
    """Answers as they are on the wire: there a tuple is a list."""
    return [msgspec.to_builtins(result) for result in results if isinstance(result, Done | Refused)]


@few
@given(seeds, st.sampled_from([1, 7, 400]))
def test_batch_sizes_do_not_matter(seed: int, largest: int) -> None:
    """Nor does it matter that it is another process's file."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        entries, results, expected = written(Path(one), seed)
        with closing(Ledger(Path(two) / "ledger.sqlite", known=NEWER)) as again:
            answers = replay(again, entries, random.Random(seed), largest)
            assert plain(answers)[-len(results) :] == plain(results)
            assert dump(again) == expected


@few
@given(seeds, st.floats(min_value=0, max_value=1))
def test_a_snapshot_in_the_middle_does_not_matter(seed: int, share: float) -> None:
    """A replica that got a copy half-way ends up with the same ledger; so does one that was started again there."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two, tempfile.TemporaryDirectory() as three:
        entries, _, expected = written(Path(one), seed)
        middle = int(len(entries) * share)
        first = Ledger(Path(two) / "ledger.sqlite", known=NEWER)
        for start in range(0, middle, 50):
            first.apply(entries[start : min(middle, start + 50)])
        copy = Path(three) / "copy"
        assert first.snapshot(copy).index == middle
        first.close()
        for path, snapshot in ((Path(two) / "ledger.sqlite", None), (Path(three) / "ledger.sqlite", copy)):
            with closing(Ledger(path, known=NEWER)) as again:
                if snapshot is not None:
                    again.restore(snapshot)
                for start in range(middle, len(entries), 50):
                    again.apply(entries[start : start + 50])
                assert dump(again) == expected
