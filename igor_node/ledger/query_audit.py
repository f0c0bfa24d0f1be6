"""What an audit compares: what a job's schedule was over time, and what the ledger holds of its fires.

The comparison is rules/audit.py's. The fires loop asks too, for the segments that it has yet to decide. Called inside `Reads.query`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from igor_node.definitions.jobs import Job
from igor_node.ledger.query_jobs import spec_at, within
from igor_node.words import NotFound

AUDIT_ROWS = 200_000  # runs of one job that one audit looks at; more must be asked for in shorter spans


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's schedule was for scheduled times with after < t <= until (until None: still so). `spec` None in a `removed` segment.
    `at`, `actor`: when it became so, and by whom."""

    after: int
    until: int | None
    state: str  # active | paused | removed
    reason: str
    at: int
    actor: str
    spec_version: int
    spec: Job | None


class FireRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduled run. Runs that never started have state `skipped` or `missed`."""

    scheduled_at: int
    due_at: int
    run: str
    state: str
    reason: str
    lateness_ns: int | None
    started_at: int | None


class StretchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Fires that had no run, as one record with first, last and count; outcome `skipped` or `missed`."""

    first: int
    last: int
    count: int
    outcome: str
    reason: str


class AuditJob(msgspec.Struct, frozen=True, kw_only=True):
    """All that an audit of one job needs to compare what its schedule demanded with what the ledger holds.

    `segments`: its schedule over time; the first one begins at the job's first push. A scheduled time <= `decided_until` must have a record,
    a later one is pending. `records` and `stretches`: those that touch [from, to), in order.
    `pruned_before`: runs and stretches older than this may be gone (0: nothing was ever pruned).
    """

    job: str
    project: str
    decided_until: int
    removed: bool
    segments: list[Segment]
    records: list[FireRecord]
    stretches: list[StretchRecord]
    pruned_before: int


def audit_jobs(connection: sqlite3.Connection, job_id: str | None = None, projects: Sequence[str] = ()) -> list[str]:
    """Ids of all jobs there ever were (removed ones too), or just this one; by id. `projects`: only of these."""
    statement = f"SELECT job FROM jobs WHERE (? IS NULL OR job = ?) {within(projects)} ORDER BY job"
    rows = connection.execute(statement, (job_id, job_id, *projects))
    return [row[0] for row in rows]


def audit_job(connection: sqlite3.Connection, job_id: str, start: int, end: int) -> AuditJob:
    """What the ledger holds of one job for scheduled times in [start, end). Raises NotFound."""
    row = connection.execute("SELECT project, decided_until, removed_at FROM jobs WHERE job = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFound(f'no job is named "{job_id}"', hint="igor jobs lists them")
    records = connection.execute(
        "SELECT scheduled_at, id, state, reason, lateness_ns, started_at, due_at FROM runs "
        "WHERE job = ? AND scheduled_at >= ? AND scheduled_at < ? AND trigger = 'schedule' ORDER BY scheduled_at LIMIT ?",
        (job_id, start, end, AUDIT_ROWS),
    )
    stretches = connection.execute(
        "SELECT first, last, count, outcome, reason FROM stretches WHERE job = ? AND first < ? AND last >= ? ORDER BY first", (job_id, end, start)
    )
    pruned = connection.execute("SELECT value FROM meta WHERE name = 'pruned_before'").fetchone()
    return AuditJob(
        job=job_id, project=row[0], decided_until=row[1], removed=row[2] is not None, segments=_segments(connection, job_id, start, end),
        records=[FireRecord(scheduled_at=r[0], run=r[1], state=r[2], reason=r[3], lateness_ns=r[4], started_at=r[5], due_at=r[6]) for r in records],
        stretches=[StretchRecord(first=s[0], last=s[1], count=s[2], outcome=s[3], reason=s[4]) for s in stretches],
        pruned_before=0 if pruned is None else pruned[0],
    )  # fmt: skip


def first_push(connection: sqlite3.Connection, job_id: str) -> int:
    """When the job was there for the first time."""
    return int(connection.execute("SELECT min(at) FROM history WHERE job = ?", (job_id,)).fetchone()[0])


def _segments(connection: sqlite3.Connection, job_id: str, start: int, end: int) -> list[Segment]:
    rows = connection.execute("SELECT after, state, spec_version, reason, at, actor FROM history WHERE job = ? ORDER BY number", (job_id,)).fetchall()
    found = []
    for (after, state, spec_version, reason, at, actor), following in zip(rows, [*rows[1:], None], strict=True):
        until = None if following is None else following[0]
        touches = after < end and (until is None or (until >= start and until > after))
        if touches:
            spec = None if state == "removed" else spec_at(connection, job_id, spec_version)
            found.append(Segment(after=after, until=until, state=state, reason=reason, at=at, actor=actor, spec_version=spec_version, spec=spec))
    return found
