"""How old the oldest of what is kept is, for the retention loop, which proposes what apply_prune.py then forgets. Called inside `Reads.query`."""

from __future__ import annotations

import sqlite3

import msgspec

from igor_node.words import MILLISECOND

OLDEST_LOOKED_AT = 20_000  # runs: they are read from the file


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest of what Prune forgets, so that its loop knows whether there is work."""

    oldest_run_created_at: int | None
    oldest_result: str | None
    oldest_event_at: int | None
    oldest_staged_at: int | None
    oldest_activity_at: int | None = None


def ages(connection: sqlite3.Connection) -> Ages:
    run_row = connection.execute("SELECT created_at FROM runs WHERE ended_at IS NOT NULL ORDER BY id LIMIT 1").fetchone()
    event_row = connection.execute("SELECT at FROM events ORDER BY number LIMIT 1").fetchone()
    activity_row = connection.execute("SELECT at FROM activity ORDER BY number LIMIT 1").fetchone()
    return Ages(
        oldest_run_created_at=None if run_row is None else run_row[0],
        oldest_result=connection.execute("SELECT min(id) FROM results").fetchone()[0],
        oldest_event_at=None if event_row is None else event_row[0],
        oldest_activity_at=None if activity_row is None else activity_row[0],
        oldest_staged_at=connection.execute("SELECT min(at) FROM staged").fetchone()[0],
    )


def created_before(connection: sqlite3.Connection, keep: int) -> int | None:
    """What `Prune.created_before` must be on the way to `keep` runs; None where there are no more than that.

    Their number is counted by apply, and only the oldest are looked at: with millions of runs either would take seconds otherwise. Some of the oldest
    may be going on still, so more of them are offered than one command forgets.
    """
    excess = connection.execute("SELECT runs FROM position WHERE one = 1").fetchone()[0] - keep
    if excess <= 0:
        return None
    row = connection.execute("SELECT created_at FROM runs ORDER BY id LIMIT 1 OFFSET ?", (min(excess, OLDEST_LOOKED_AT) - 1,)).fetchone()
    return int(row[0]) + MILLISECOND  # ids tell milliseconds
