"""Runs: lists, one with everything in it, why it is where it is, and cancel; and the audit of what the schedules demanded."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from igor_node.definitions.jobs import Job
from igor_node.http.dispatch import Call
from igor_node.http.limits import QUERY_DEFAULT
from igor_node.http.permissions import Reach
from igor_node.http.routes import RUN, Route, Struct, Where
from igor_node.ledger import commands, query_audit, query_jobs, query_live, query_runs
from igor_node.rules import audit as rule
from igor_node.rules import node_loss
from igor_node.rules.timetable import JobTimetable
from igor_node.words import RUN_ENDS, SECOND, Instant, Malformed, NotFound, Role, parse_instant

AUDIT_SPAN = 24 * 3600 * SECOND  # without `from`: the last day
NEVER = JobTimetable(Job(project="", name="", stages=()))  # of a job that is not defined


class RunsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`state`: one or several, with commas; `live` for all that have not ended."""

    job: str | None = None
    state: str | None = None
    since: Instant | None = None
    limit: int = QUERY_DEFAULT
    cursor: str | None = None


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`from` inclusive, `to` exclusive; without them the last day."""

    job: str | None = None
    start: Instant | None = msgspec.field(default=None, name="from")
    to: Instant | None = None


class LostBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    decision: Literal["rerun", "fail"]
    reason: str = ""


class CancelBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


async def list_runs(call: Call) -> Any:
    query: RunsQuery = call.query
    states = tuple(part.strip() for part in query.state.split(",") if part.strip()) if query.state else ()

    def page(connection: sqlite3.Connection) -> query_runs.RunPage:
        job = query_jobs.resolve_job(connection, query.job, removed=True, projects=call.projects) if query.job is not None else None
        return query_runs.runs(connection, job=job, states=states, since=query.since, limit=query.limit, cursor=query.cursor,
                               projects=call.projects)  # fmt: skip

    return await call.read(page)


async def show_run(call: Call) -> Any:
    words = call.part("run")
    return await call.read(lambda connection: query_runs.run(connection, query_runs.find_run(connection, words, projects=call.projects)))


async def why_run(call: Call) -> Any:
    words, now = call.part("run"), call.now()

    def ask(connection: sqlite3.Connection) -> dict[str, Any]:
        try:
            run = query_runs.find_run(connection, words, projects=call.projects)
        except NotFound:
            fire = why_fire(connection, words, now, call.projects)
            if fire is None:
                raise
            return fire
        return why_json(query_live.why(connection, run), query_runs.run(connection, run, with_stages=False), unheard, now)

    unheard = {view.node: int(view.heard_s * SECOND) for view in await call.front.live_views()}
    return await call.read(ask)


def why_json(why: query_live.Why, run: dict[str, Any], unheard: dict[str, int], now: int) -> dict[str, Any]:
    """`reasons` are sentences for people, the one that decides first. `unheard`: for how long the leader has not heard of a node,
    in nanoseconds; empty where no leader says."""
    reasons = [why.reason] if why.reason else []
    if why.blocked:
        reasons.append(f"{why.blocked} (waits for {', '.join(why.ahead[:5])})" if why.ahead else why.blocked)
    several = len(why.stages) > 1
    reasons += [f"stage {name} is {state}: {reason}" if several else reason for name, state, reason in why.stages if reason]
    reasons += [
        node_loss.unheard_in_words(holder.name, unheard.get(holder.node), now, holder.lease_ns, holder.then)
        for holder in why.holders
        if unheard and unheard.get(holder.node, node_loss.UNHEARD_AFTER) >= node_loss.UNHEARD_AFTER
    ]
    if not reasons:
        reasons = [f"the run ended: {why.state}" if why.state in RUN_ENDS else f"the run is {why.state}"]
    return {
        "run": why.run,
        "job": run["job"],
        "scheduled_time": run["scheduled_time"],
        "state": why.state,
        "reason": why.reason,
        "reasons": list(dict.fromkeys(reasons)),
        "waits_for": why.ahead,
        "stages": [{"name": name, "state": state, "reason": reason} for name, state, reason in why.stages],
    }


def why_fire(connection: sqlite3.Connection, words: str, now: int, projects: Sequence[str]) -> dict[str, Any] | None:
    """What became of `JOB@TIME` where no run was made for it: one row of its audit. None where that is not what was asked."""
    name, at, when = words.rpartition("@")
    try:
        scheduled_at = parse_instant(when)
    except ValueError:
        return None
    if not at:
        return None
    job = query_jobs.resolve_job(connection, name, removed=True, projects=projects)
    rows = audit_of(connection, [job], scheduled_at, scheduled_at + 1, now).rows
    if not rows:
        raise NotFound(f"no schedule of {job} names {when}", hint=f"igor upcoming --job {job} shows the next fires")
    row = rows[0].as_json()
    reason = row["reason"] or row["outcome"]
    return {
        "run": None,
        "job": job,
        "scheduled_time": row["scheduled_time"],
        "state": row["outcome"],
        "reason": reason,
        "reasons": [f"{row['outcome']}: {reason}" if reason != row["outcome"] else reason],
        "waits_for": [],
        "stages": [],
    }


async def cancel_run(call: Call) -> Any:
    return await act(call, lambda run: commands.CancelRun(run=run, reason=call.body.reason))


async def decide_lost(call: Call) -> Any:
    """A person's word on attempts that are waited for on a node that is not heard."""
    return await act(call, lambda run: commands.DecideLost(run=run, decision=call.body.decision, reason=call.body.reason))


async def act(call: Call, command: Callable[[str], commands.AnyCommand]) -> dict[str, Any]:
    """Proposes it for the run of the path; the run as it is then."""
    words = call.part("run")
    run = await call.read(lambda connection: query_runs.find_run(connection, words, projects=call.projects))
    await call.propose(command(run))
    return await call.read(lambda connection: query_runs.run(connection, run))


# --- audit


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


ROUTES = (
    Route(method="GET", path="/v1/runs", handler=list_runs, summary="Runs, the latest first", query=RunsQuery, reach=Reach.LIST),
    Route(method="GET", path=f"/v1/runs/{RUN}/why", handler=why_run, summary="Why a run waits or ended so; or what became of JOB@TIME",
          reach=Reach.THING),
    Route(
        method="POST", path=f"/v1/runs/{RUN}/cancel", handler=cancel_run, summary="End a run: TERM, then KILL", role=Role.OPERATOR,
        reach=Reach.THING, where=Where.WRITE, body=CancelBody,
    ),
    Route(
        method="POST", path=f"/v1/runs/{RUN}/lost", handler=decide_lost, summary="Decide about a run that waits for a lost node", role=Role.OPERATOR,
        reach=Reach.THING, where=Where.WRITE, body=LostBody,
    ),
    # Last, because a name of a run may have a slash in it: `project/job@latest`.
    Route(method="GET", path=f"/v1/runs/{RUN}", handler=show_run, summary="One run with its stages, attempts and tries", reach=Reach.THING),
    Route(method="GET", path="/v1/audit", handler=audit, summary="What the schedules demanded beside what the ledger holds", query=AuditQuery,
          reach=Reach.LIST),
)  # fmt: skip
