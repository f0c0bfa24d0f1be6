"""Backfills: which can go on now, how far each is, and for which times a run would be made. Called inside `Reads.query`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from igor_node.ledger.query_jobs import spec_at, within
from igor_node.rules.overlap import backfill_room
from igor_node.words import NotFound


class BackfillRow(msgspec.Struct, frozen=True, kw_only=True):
    """`states`: of the runs that were made, by how many; those that are pruned are in none. `first`, `last`: the earliest and the latest time."""

    backfill: str
    job: str
    parallel: int
    total: int
    made: int
    state: str
    reason: str
    actor: str
    created_at: int
    ended_at: int | None
    first: int
    last: int
    states: dict[str, int]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Of a backfill that has room: how many runs may be made now. 0: its job is removed, and it is to end."""

    backfill: str
    runs: int


_COLUMNS = "backfill, job, parallel, total, made, state, reason, actor, created_at, ended_at"
_STATES = """
SELECT runs.state, count(*) FROM backfill_times JOIN runs ON runs.id = backfill_times.run WHERE backfill_times.backfill = ?
GROUP BY runs.state ORDER BY runs.state"""
_SPAN = "SELECT min(scheduled_at), max(scheduled_at) FROM backfill_times WHERE backfill = ?"
_OPEN = """
SELECT min(backfills.backfill), backfills.job, backfills.parallel, backfills.total - backfills.made, jobs.spec_version, jobs.removed_at
FROM backfills JOIN jobs ON jobs.job = backfills.job WHERE backfills.ended_at IS NULL GROUP BY backfills.job ORDER BY backfills.job"""
_LINE = "SELECT count(*), coalesce(sum(begun = 0), 0), coalesce(sum(trigger = 'backfill'), 0) FROM runs WHERE job = ? AND ended_at IS NULL"
_DONE_BY_SCHEDULE = """
SELECT scheduled_at FROM runs WHERE job = ? AND scheduled_at >= ? AND scheduled_at < ? AND trigger = 'schedule'
AND (state = 'succeeded' OR ended_at IS NULL)"""
_DONE_BY_BACKFILL = """
SELECT backfill_times.scheduled_at FROM backfills JOIN backfill_times ON backfill_times.backfill = backfills.backfill
LEFT JOIN runs ON runs.id = backfill_times.run
WHERE backfills.job = ? AND backfill_times.scheduled_at >= ? AND backfill_times.scheduled_at < ?
AND (runs.state = 'succeeded' OR (runs.id IS NOT NULL AND runs.ended_at IS NULL) OR (backfill_times.run IS NULL AND backfills.ended_at IS NULL))"""


def steps(connection: sqlite3.Connection) -> list[Step]:
    """One backfill of each job, the first; only those that can go on."""
    found = []
    for backfill, job, parallel, left, spec_version, removed_at in connection.execute(_OPEN).fetchall():
        if removed_at is not None:
            found.append(Step(backfill=backfill, runs=0))
            continue
        spec = spec_at(connection, job, spec_version)
        live, waiting, own = connection.execute(_LINE, (job,)).fetchone()
        room = backfill_room(spec.overlap, parallel=parallel, own=own, live=live, waiting=waiting, max_queued=spec.max_queued)
        if room:
            found.append(Step(backfill=backfill, runs=min(room, left)))
    return found


def done(connection: sqlite3.Connection, job: str, start: int, end: int) -> frozenset[int]:
    """Times in [start, end) whose run succeeded, or has not ended, or is to be made by another backfill."""
    return frozenset(row[0] for query in (_DONE_BY_SCHEDULE, _DONE_BY_BACKFILL) for row in connection.execute(query, (job, start, end)))


def backfills(connection: sqlite3.Connection, projects: Sequence[str] = (), limit: int = 100) -> list[BackfillRow]:
    """The latest first."""
    condition = within(projects, "(SELECT project FROM jobs WHERE jobs.job = backfills.job)")
    rows = connection.execute(f"SELECT {_COLUMNS} FROM backfills WHERE 1 {condition} ORDER BY backfill DESC LIMIT ?", (*projects, limit))
    return [_row(connection, row) for row in rows.fetchall()]


def backfill(connection: sqlite3.Connection, backfill_id: str, projects: Sequence[str] = ()) -> BackfillRow:
    """Raises NotFound."""
    condition = within(projects, "(SELECT project FROM jobs WHERE jobs.job = backfills.job)")
    row = connection.execute(f"SELECT {_COLUMNS} FROM backfills WHERE backfill = ? {condition}", (backfill_id, *projects)).fetchone()
    if row is None:
        raise NotFound(f'no backfill has the id "{backfill_id}"', hint="igor backfills lists them")
    return _row(connection, row)


def _row(connection: sqlite3.Connection, row: Sequence[object]) -> BackfillRow:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    first, last = connection.execute(_SPAN, (row[0],)).fetchone()
    states = dict(connection.execute(_STATES, (row[0],)).fetchall())
    return BackfillRow(**fields, first=first, last=last, states=states)  # type: ignore[arg-type]
