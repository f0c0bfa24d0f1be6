"""The audit: what the schedules demanded beside what the ledger holds; and what changes of the clock do to the jobs of a year."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from typing import Any

import msgspec

from igor_node.definitions.clock_changes import notes
from igor_node.definitions.jobs import Job
from igor_node.http.dispatch import Call
from igor_node.http.permissions import Reach
from igor_node.http.routes import Route, Struct
from igor_node.ledger import query_audit, query_jobs
from igor_node.rules import audit as rule
from igor_node.rules.timetable import JobTimetable
from igor_node.words import SECOND, Instant, Malformed, TooLarge, format_instant

AUDIT_SPAN = 24 * 3600 * SECOND  # without `from`: the last day
YEARS = (1970, 2200)  # about which it can be asked what the clocks do
NOTES_LIMIT = 100_000
NEVER = JobTimetable(Job(project="", name="", stages=()))  # of a job that is not defined


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`from` inclusive, `to` exclusive; without them the last day."""

    job: str | None = None
    start: Instant | None = msgspec.field(default=None, name="from")
    to: Instant | None = None


class ClockQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`year`: in UTC, this one without it."""

    year: int | None = None
    job: str | None = None


async def audit(call: Call) -> Any:
    query: AuditQuery = call.query
    now = call.now()
    until = query.to if query.to is not None else now
    since = query.start if query.start is not None else Instant(until - AUDIT_SPAN)
    if since > until:
        raise Malformed('query parameter "from" is later than "to"')

    def records(connection: sqlite3.Connection) -> list[query_audit.AuditJob]:
        job = query_jobs.resolve_job(connection, query.job, removed=True, projects=call.projects) if query.job is not None else None
        return [query_audit.audit_job(connection, one, since, until) for one in query_audit.audit_jobs(connection, job, call.projects)]

    jobs = await call.read(records)
    since = Instant(max([since, *(job.pruned_before for job in jobs)]))  # what is older was pruned: nobody can speak for it
    found = await asyncio.to_thread(rule.audit, [job_records(job) for job in jobs], since, until, now)
    return await asyncio.to_thread(found.as_json, since, until)


def audit_of(connection: sqlite3.Connection, jobs: list[str], since: int, until: int, now: int) -> rule.Audit:
    return rule.audit([job_records(query_audit.audit_job(connection, job, since, until)) for job in jobs], since, until, now)


def job_records(job: query_audit.AuditJob) -> rule.JobRecords:
    """The ledger's rows as the rule sees them."""
    periods = [
        rule.Period(segment.after, segment.state, JobTimetable(segment.spec) if segment.spec is not None else NEVER) for segment in job.segments
    ]
    runs = [
        rule.RunRecord(
            run=record.run,
            scheduled_at=record.scheduled_at,
            due_at=record.scheduled_at if record.started_at is None or record.lateness_ns is None else record.started_at - record.lateness_ns,
            state=record.state,
            reason=record.reason,
            started_at=record.started_at,
        )
        for record in job.records
    ]
    stretches = [rule.StretchRecord(one.first, one.last, one.count, one.outcome, one.reason) for one in job.stretches]
    return rule.JobRecords(job.job, job.decided_until, periods, runs, stretches)


# --- changes of the clock


async def clock_changes(call: Call) -> Any:
    """Fires of a year that do not exist, or come twice, by the local time that their schedules name."""
    query: ClockQuery = call.query
    year = query.year if query.year is not None else datetime.fromtimestamp(call.now() // SECOND, UTC).year
    if not YEARS[0] <= year <= YEARS[1]:
        raise Malformed(f"year is {year}", hint=f"expected {YEARS[0]} to {YEARS[1]}")

    def found(connection: sqlite3.Connection) -> list[query_jobs.JobRow]:
        if query.job is None:
            return query_jobs.jobs(connection, limit=-1, projects=call.projects)
        return [query_jobs.job(connection, query.job, count_live=False, projects=call.projects)]

    jobs = [row.spec for row in await call.read(found)]
    return {"year": year, "items": await asyncio.to_thread(noted, jobs, year), "next": None}


def noted(jobs: list[Job], year: int) -> list[dict[str, Any]]:
    """By job, then by time."""
    begin, end = (Instant(int(datetime(each, 1, 1, tzinfo=UTC).timestamp()) * SECOND) for each in (year, year + 1))
    items: list[dict[str, Any]] = []
    for job in jobs:
        rows = {one.scheduled_at: one for one in notes(job, begin, end)}
        items += [
            {"job": job.id, "scheduled_time": format_instant(at), "timezone": one.zone, "kind": one.kind, "note": one.note}
            for at, one in sorted(rows.items())
        ]
        if len(items) > NOTES_LIMIT:
            raise TooLarge(f"the answer has more than {NOTES_LIMIT} rows", hint="ask for one job")
    return items


ROUTES = (
    Route(method="GET", path="/v1/audit", handler=audit, summary="What the schedules demanded beside what the ledger holds", query=AuditQuery,
          reach=Reach.LIST),
    Route(method="GET", path="/v1/dst", handler=clock_changes, summary="What the changes of the clock do to the jobs in a year", query=ClockQuery,
          reach=Reach.LIST),
)  # fmt: skip
