"""Jobs: what is defined, when it fires, pause and resume, and a run on demand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from igor_node.definitions.clock_changes import note
from igor_node.definitions.jobs import Job, Schedule
from igor_node.definitions.preview import describe, next_fires
from igor_node.definitions.values import check_params
from igor_node.http.dispatch import Call, part_id
from igor_node.http.limits import QUERY_DEFAULT, SCHEDULE_LIMIT, UPCOMING_LIMIT
from igor_node.http.permissions import Reach
from igor_node.http.routes import JOB, Reply, Route, Struct, Where
from igor_node.ledger import commands, query_durations, query_jobs, query_pools, query_runs
from igor_node.ledger.query_jobs import JobRow
from igor_node.rules.forecast import forecast
from igor_node.rules.pause import Pause
from igor_node.rules.timetable import JobTimetable
from igor_node.rules.upcoming import Upcoming, upcoming
from igor_node.words import SECOND, Instant, Invalid, Malformed, NotFound, Role, format_instant, new_id, parse_instant, parse_span

RECENT = 20  # the row of small bars
FIRES_SHOWN = 10
HOURS_LIMIT = 24 * 366
JOBS_A_COMMAND = 2_000  # paused or resumed by one entry: so many hold up others for some tens of milliseconds


class JobsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    project: str | None = None
    limit: int = QUERY_DEFAULT
    cursor: str | None = None


class RunBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`now`: beside an earlier run, whatever the overlap policy."""

    params: dict[str, Any] = {}
    now: bool = False


class PauseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`until` is RFC 3339; without it the job stays paused until it is resumed."""

    reason: str = ""
    until: str | None = None


class ResumeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


class PauseAllBody(PauseBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`scope` must be said, so that nobody pauses a cluster by an empty request."""

    scope: Literal["all"]


class ResumeAllBody(ResumeBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scope: Literal["all"]


class UpcomingQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hours: float = 24.0
    job: str | None = None
    limit: int = QUERY_DEFAULT


class ScheduleBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of `cron`, `every` (a duration), `at` (RFC 3339). `from`: fires strictly after it, now without it."""

    cron: str | None = None
    every: str | None = None
    at: str | None = None
    timezone: str = "UTC"
    job: str = ""
    n: int = FIRES_SHOWN
    after: str | None = msgspec.field(default=None, name="from")


# --- looking


async def list_jobs(call: Call) -> Any:
    query: JobsQuery = call.query
    now = call.now()

    def page(connection: sqlite3.Connection) -> dict[str, Any]:
        rows = query_jobs.jobs(connection, project=query.project, after=query.cursor or "", limit=query.limit + 1, projects=call.projects)
        shown = rows[: query.limit]
        return {
            "items": [job_json(row, now, recent(connection, row.job)) for row in shown],
            "next": shown[-1].job if len(rows) > query.limit else None,
        }

    return await call.read(page)


async def show_job(call: Call) -> Any:
    name, now = call.part("job"), call.now()

    def one(connection: sqlite3.Connection) -> dict[str, Any]:
        row = query_jobs.job(connection, name, projects=call.projects)
        return {
            **job_json(row, now, recent(connection, row.job)),
            "definition": msgspec.to_builtins(row.spec),
            "source_text": query_jobs.source_text(connection, row.project, row.spec.source_file),
        }

    return await call.read(one)


def job_json(row: JobRow, now: Instant, last_runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`last_runs` are oldest first. A paused job has fires too, that will be skipped; they are not shown as coming."""
    spec = row.spec
    fires = [] if row.paused and row.paused_until is None else coming(spec, max(now, row.paused_until or 0) if row.paused else now)
    return {
        "id": row.job,
        "project": row.project,
        "name": row.name,
        "description": spec.description,
        "owner": spec.owner,
        "tags": spec.tags,
        "links": spec.links,
        "severity": spec.severity,
        "version": row.version,
        "changed_in": row.spec_version,
        "schedule": [describe(schedule, row.job) for schedule in spec.schedules],
        "next_fire": fires[0] if fires else None,
        "next_fires": fires,
        "paused": row.paused,
        "pause_reason": row.pause_reason,
        "paused_by": row.paused_by,
        "paused_at": text(row.paused_at),
        "paused_until": text(row.paused_until),
        "overlap": spec.overlap,
        "deadline_s": None if spec.deadline_ns is None else spec.deadline_ns / SECOND,
        "stages": [stage.name for stage in spec.stages],
        "params": {name: msgspec.structs.asdict(param) for name, param in spec.params.items()},
        "live_runs": row.live,
        "last_run": last_runs[-1] if last_runs else None,
        "last_runs": last_runs,
        "decided_until": text(row.decided_until),
        "source": f"{spec.source_file}:{spec.source_line}" if spec.source_file else None,
    }


def text(instant: int | None) -> str | None:
    return None if instant is None else format_instant(instant)


def coming(spec: Job, after: int, count: int = FIRES_SHOWN) -> list[str]:
    return [format_instant(fire.scheduled_at) for fire in JobTimetable(spec).between(after, 1 << 70, count)]


RECENT_RUNS = "SELECT id, state, scheduled_at, created_at, started_at, ended_at, lateness_ns FROM runs WHERE job = ? ORDER BY id DESC LIMIT ?"


def recent(connection: sqlite3.Connection, job: str) -> list[dict[str, Any]]:
    """Just what a bar needs: a page of a thousand jobs has twenty thousand of them."""
    rows = connection.execute(RECENT_RUNS, (job, RECENT)).fetchall()
    return [
        {
            "id": row[0],
            "state": row[1],
            "scheduled_time": text(row[2]),
            "created_at": text(row[3]),
            "started_at": text(row[4]),
            "ended_at": text(row[5]),
            "lateness_s": None if row[6] is None else row[6] / SECOND,
        }
        for row in reversed(rows)
    ]


async def list_upcoming(call: Call) -> Any:
    query: UpcomingQuery = call.query
    if not 0 < query.hours <= HOURS_LIMIT:
        raise Malformed(f'query parameter "hours" is {query.hours}', hint=f"expected more than 0 and at most {HOURS_LIMIT}")
    now = call.now()

    def rows(connection: sqlite3.Connection) -> list[JobRow]:
        if query.job is not None:
            return [query_jobs.job(connection, query.job, projects=call.projects)]
        return [row for row in query_jobs.schedulable(connection) if call.caller.sees(row.project)]

    jobs = await call.read(rows)
    timetables = [(row.job, JobTimetable(row.spec), pause_of(row)) for row in jobs]
    until = now + int(query.hours * 3600) * SECOND
    found = await asyncio.to_thread(upcoming, timetables, now, until, min(query.limit, UPCOMING_LIMIT))
    specs = {row.job: row.spec for row in jobs if row.job in {fire.job for fire in found}}
    expected, pools = await call.read(lambda connection: (query_durations.expected(connection, specs), query_pools.pools(connection)))
    slots = {name: view.slots for name, view in pools.items() if view.slots is not None}
    notes = forecast(found, expected, slots, now)
    return {"items": [upcoming_json(fire, expected[fire.job].lasts, note) for fire, note in zip(found, notes, strict=True)]}


def upcoming_json(fire: Upcoming, lasts: int | None, note: str) -> dict[str, Any]:
    """`expected_s`: how long the job's last runs took, null where none succeeded; `note`: what will probably be in its way."""
    return {
        "job": fire.job,
        "scheduled_time": format_instant(fire.scheduled_at),
        "due_time": format_instant(fire.due_at),
        "paused": fire.paused,
        "expected_s": None if lasts is None else round(lasts / SECOND, 3),
        "note": note,
    }


def pause_of(row: JobRow) -> Pause:
    return Pause(paused=row.paused, until=row.paused_until, resumed_at=row.resumed_at, reason=row.pause_reason)


async def explain_schedule(call: Call) -> Any:
    body: ScheduleBody = call.body
    if not 1 <= body.n <= SCHEDULE_LIMIT:
        raise Malformed(f"n is {body.n}", hint=f"expected 1 to {SCHEDULE_LIMIT}")
    after = read_instant("from", body.after) if body.after is not None else call.now()
    try:
        schedule = schedule_of(body)
        fires = await asyncio.to_thread(next_fires, schedule, body.job, after, body.n)
        words = describe(schedule, body.job)
    except ValueError as fault:
        raise Invalid("this is not a schedule", faults=[f"schedule: {fault}"]) from None
    notes = {format_instant(fire): said for fire in fires if (said := note(schedule, body.job, fire))}
    shown = [format_instant(fire) for fire in fires]
    return {"words": words, "timezone": body.timezone, "from": format_instant(after), "fires": shown, "notes": notes}


def schedule_of(body: ScheduleBody) -> Schedule:
    given = [name for name in ("cron", "every", "at") if getattr(body, name) is not None]
    if len(given) != 1:
        raise ValueError(f"{' and '.join(given) or 'none'} of cron, every, at is given; expected exactly one")
    return Schedule(
        cron=body.cron,
        every_ns=None if body.every is None else parse_span(body.every),
        at=None if body.at is None else parse_instant(body.at),
        timezone=body.timezone,
    )


def read_instant(field: str, value: str) -> Instant:
    try:
        return parse_instant(value)
    except ValueError as fault:
        raise Malformed(f"{field}: {fault}") from None


# --- acting


async def resolve(call: Call) -> JobRow:
    """The job of the path. One of a project that is not the caller's is not there."""
    name = call.part("job")
    return await call.read(lambda connection: query_jobs.job(connection, name, count_live=False, projects=call.projects))


async def run_job(call: Call) -> Any:
    body: RunBody = call.body
    row = await resolve(call)
    params = check_params(row.spec, body.params)
    made = await call.propose(
        commands.CreateRun(job=row.job, run=new_id(call.now()), params=params, key=idempotency_key(call), beside=body.now),
    )
    run = await call.read(lambda connection: query_runs.run(connection, made["run"]))
    return Reply(run, status=200 if made["known"] else 201, headers={"Location": f"/v1/runs/{made['run']}"})


def idempotency_key(call: Call) -> str | None:
    key = call.request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= 256:
        raise Malformed("header Idempotency-Key has more than 256 characters, or none")
    return key


async def pause_job(call: Call) -> Any:
    until = pause_end(call)
    row = await resolve(call)
    done = await call.propose(commands.PauseJobs(jobs=(row.job,), reason=call.body.reason, until=until))
    return await answer_pause(call, row.job, done)


def pause_end(call: Call) -> Instant | None:
    body: PauseBody = call.body
    until = read_instant("until", body.until) if body.until is not None else None
    if until is not None and until <= call.now():
        raise Invalid("a pause cannot end in the past", faults=[f"until: {body.until} is in the past; expected a time to come"])
    return until


async def pause_many(call: Call) -> Any:
    """All jobs that there are now, of a project or of the cluster."""
    until = pause_end(call)
    done = await propose_for_all(call, lambda jobs: commands.PauseJobs(jobs=jobs, reason=call.body.reason, until=until))
    handed_out = handed_out_json([fire for answer in done for fire in answer["handed_out"]])
    return {"paused": sum(len(answer["paused"]) for answer in done), "handed_out": handed_out, "warnings": warnings(handed_out)}


async def resume_many(call: Call) -> Any:
    done = await propose_for_all(call, lambda jobs: commands.ResumeJobs(jobs=jobs))
    return {"resumed": sum(len(answer["resumed"]) for answer in done)}


async def propose_for_all(call: Call, command: Callable[[tuple[str, ...]], commands.AnyCommand]) -> list[Any]:
    project = call.request.match_info.get("project")
    jobs = await call.read(lambda connection: query_jobs.job_ids(connection, project))
    if project is not None and not jobs:
        raise NotFound(f'no project is named "{project}", or it has no jobs', hint="igor jobs lists them")
    parts = [tuple(jobs[start : start + JOBS_A_COMMAND]) for start in range(0, len(jobs), JOBS_A_COMMAND)]
    return [await call.propose(command(part), command_id=part_id(call.command_id, number)) for number, part in enumerate(parts)]


async def resume_job(call: Call) -> Any:
    row = await resolve(call)
    done = await call.propose(commands.ResumeJobs(jobs=(row.job,)))
    return await answer_pause(call, row.job, done)


async def answer_pause(call: Call, job: str, done: Any) -> dict[str, Any]:
    """The job as it is now, and which fires a node holds already: those may still start."""
    now = call.now()
    handed_out = handed_out_json(done.get("handed_out", ()))

    def shown(connection: sqlite3.Connection) -> dict[str, Any]:
        return job_json(query_jobs.job(connection, job), now, recent(connection, job))

    return {
        **await call.read(shown),
        "handed_out": handed_out,
        "warnings": warnings(handed_out),
    }


def handed_out_json(fires: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fires that a node holds already: it was asked to give them back, and decides."""
    return [{**fire, "due_at": text(fire["due_at"])} for fire in fires]


def warnings(handed_out: Sequence[dict[str, Any]]) -> list[str]:
    return [f"run {fire['run']} of {fire['job']}, due at {fire['due_at']}, is with node {fire['node']} and may start" for fire in handed_out]


ROUTES = (
    Route(method="GET", path="/v1/jobs", handler=list_jobs, summary="Jobs, by project and name", query=JobsQuery, reach=Reach.LIST),
    Route(method="GET", path=f"/v1/jobs/{JOB}", handler=show_job, summary="One job: schedule, next fires, last runs, definition",
          reach=Reach.THING),
    Route(
        method="POST",
        path=f"/v1/jobs/{JOB}/runs",
        handler=run_job,
        summary="Run a job on demand",
        role=Role.OPERATOR,
        reach=Reach.THING,
        where=Where.WRITE,
        body=RunBody,
        statuses=(201, 200),
        keyed=False,  # the ledger keeps this key itself, and says whether it was known
    ),
    Route(
        method="POST", path=f"/v1/jobs/{JOB}/pause", handler=pause_job, summary="Let a job's schedule make no more runs", role=Role.OPERATOR,
        reach=Reach.THING, where=Where.WRITE, body=PauseBody,
    ),
    Route(
        method="POST", path=f"/v1/jobs/{JOB}/resume", handler=resume_job, summary="Let a paused job's schedule go on", role=Role.OPERATOR,
        reach=Reach.THING, where=Where.WRITE, body=ResumeBody,
    ),
    Route(
        method="POST", path="/v1/projects/{project}/pause", handler=pause_many, summary="Pause all jobs of a project", role=Role.OPERATOR,
        reach=Reach.PROJECT, where=Where.WRITE, body=PauseBody,
    ),
    Route(
        method="POST", path="/v1/projects/{project}/resume", handler=resume_many, summary="Resume all jobs of a project", role=Role.OPERATOR,
        reach=Reach.PROJECT, where=Where.WRITE, body=ResumeBody,
    ),
    Route(method="POST", path="/v1/pause", handler=pause_many, summary="Pause all jobs", role=Role.OPERATOR, where=Where.WRITE, body=PauseAllBody),
    Route(method="POST", path="/v1/resume", handler=resume_many, summary="Resume all jobs", role=Role.OPERATOR, where=Where.WRITE,
          body=ResumeAllBody),
    Route(method="GET", path="/v1/upcoming", handler=list_upcoming, summary="Fires that are to come", query=UpcomingQuery, reach=Reach.LIST),
    Route(
        method="POST", path="/v1/schedule", handler=explain_schedule, summary="What a schedule means: in words, and its next fires",
        where=Where.HERE, body=ScheduleBody, reach=Reach.OPEN,
    ),
)  # fmt: skip
