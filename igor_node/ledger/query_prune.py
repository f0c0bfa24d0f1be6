"""How old the oldest of what is kept is, for the retention loop, which proposes what apply_prune.py then forgets. Called inside `Reads.query`."""

from __future__ import annotations

import sqlite3

import msgspec

from igor_node.words import MILLISECOND


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest of what Prune forgets, so that its loop knows whether there is work."""

    oldest_run_created_at: int | None
    oldest_result: str | None
    oldest_event_at: int | None


def ages(connection: sqlite3.Connection) -> Ages:
    run_row = connection.execute("SELECT created_at FROM runs WHERE ended_at IS NOT NULL ORDER BY id LIMIT 1").fetchone()
    event_row = connection.execute("SELECT at FROM events ORDER BY number LIMIT 1").fetchone()
    return Ages(
        oldest_run_created_at=None if run_row is None else run_row[0],
        oldest_result=connection.execute("SELECT min(id) FROM results").fetchone()[0],
        oldest_event_at=None if event_row is None else event_row[0],
    )


def nth_newest_ended(connection: sqlite3.Connection, keep: int) -> int | None:
    """`ended_at` of the run that is the `keep`th newest by creation, where there are more: what `runs_before` must be to keep so many."""
    row = connection.execute("SELECT created_at FROM runs ORDER BY id DESC LIMIT 1 OFFSET ?", (keep,)).fetchone()
    return None if row is None else row[0] + MILLISECOND
