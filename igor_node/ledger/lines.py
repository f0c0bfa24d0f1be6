"""The line of runs before each job: how many have begun and how many wait, without reading them.

A job may have thousands of runs that have not ended, and each new one asks the overlap policy. So apply knows the two counts of a job from the
moment they are first asked for, and reads from the index `runs_live` only the few runs at the head that the rule needs (schema.py). The counts
are a cache of what the table `runs` says, kept over batches; they are forgotten with every batch that fails and every restored snapshot.
"""

from __future__ import annotations

import sqlite3

from igor_node.ledger import schema

LINES_KNOWN = 50_000  # jobs; about 200 bytes each


class Line:
    """Runs of one job that have not ended. Those made with `--now` are counted too."""

    __slots__ = ("begun", "waiting")

    def __init__(self, begun: int, waiting: int) -> None:
        self.begun = begun
        self.waiting = waiting

    def come(self) -> None:
        """A run was made that waits."""
        self.waiting += 1

    def begin(self) -> None:
        self.waiting -= 1
        self.begun += 1

    def give_back(self) -> None:
        """A run that had begun waits again."""
        self.begun -= 1
        self.waiting += 1

    def end(self, *, begun: bool) -> None:
        self.begun -= begun
        self.waiting -= not begun


class Lines:
    def __init__(self) -> None:
        self._known: dict[str, Line] = {}

    def get(self, connection: sqlite3.Connection, job: str) -> Line:
        line = self._known.get(job)
        if line is None:
            if len(self._known) >= LINES_KNOWN:
                self._known.clear()
            counts = dict(connection.execute(schema.COUNT_LIVE_RUNS, (job,)).fetchall())
            line = self._known[job] = Line(counts.get(1, 0), counts.get(0, 0))
        return line

    def forget(self) -> None:
        self._known.clear()

    def known(self) -> dict[str, tuple[int, int]]:
        """(begun, waiting) of each job that was asked for: what tests compare with the table."""
        return {job: (line.begun, line.waiting) for job, line in self._known.items()}
