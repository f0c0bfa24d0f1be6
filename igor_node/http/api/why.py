"""Why a run is where it is, and what became, or becomes, of a job's scheduled time: sentences for people, from what the ledger holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from igor_node.definitions.clock_changes import note, why_not
from igor_node.definitions.jobs import Job
from igor_node.http.api.audit import job_records
from igor_node.http.dispatch import Call
from igor_node.http.permissions import Reach
from igor_node.http.routes import RUN, Route
from igor_node.ledger import query_audit, query_jobs, query_live, query_runs
from igor_node.ledger.query_audit import AuditJob, Segment
from igor_node.rules import audit as rule
from igor_node.rules import node_loss
from igor_node.rules.placement import grown
from igor_node.rules.timetable import JobTimetable
from igor_node.words import RUN_ENDS, SECOND, Instant, NotFound, format_instant, parse_instant

NOT_SCHEDULED = "not_scheduled"


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
    reasons += why.losses
    if not reasons:
        reasons = [f"the run ended: {why.state}" if why.state in RUN_ENDS else f"the run is {why.state}"]
    if why.waits_since is not None and (by_waiting := grown(0, now - why.waits_since)):
        reasons.append(f"its priority is {why.priority + by_waiting}, of which {by_waiting} grew with waiting")
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


# --- scheduled times without a run


def why_fire(connection: sqlite3.Connection, words: str, now: int, projects: Sequence[str]) -> dict[str, Any] | None:
    """What became, or becomes, of `JOB@TIME` where there is no run for it. None where that is not what was asked."""
    name, at, when = words.rpartition("@")
    try:
        scheduled_at = parse_instant(when)
    except ValueError:
        return None
    if not at:
        return None
    job = query_jobs.resolve_job(connection, name, removed=True, projects=projects)
    found = query_audit.audit_job(connection, job, scheduled_at, scheduled_at + 1)
    rows = rule.audit([job_records(found)], scheduled_at, scheduled_at + 1, now).rows
    if not rows:
        return _answer(job, scheduled_at, NOT_SCHEDULED, _absent(connection, found, scheduled_at))
    row, reason = rows[0], rows[0].reason or rows[0].outcome
    before, behind = _pause(connection, found, scheduled_at, row.outcome)
    return _answer(job, scheduled_at, row.outcome, [*before, reason, *behind, *_surroundings(found, scheduled_at, row.outcome)])


def _answer(job: str, at: Instant, state: str, reasons: list[str]) -> dict[str, Any]:
    first = reasons[0]
    return {
        "run": None,
        "job": job,
        "scheduled_time": format_instant(at),
        "state": state,
        "reason": first,
        "reasons": [f"{state.replace('_', ' ')}: {first}" if first != state else first, *reasons[1:]],
        "waits_for": [],
        "stages": [],
    }


def _surroundings(job: AuditJob, at: Instant, outcome: str) -> list[str]:
    """What the clock does then, and when it is due."""
    found = []
    segment = _segment(job, at)
    spec = segment.spec if segment is not None else None
    for schedule in spec.schedules if spec is not None else ():
        if spec is not None and (words := note(schedule, spec.id, at)):
            found.append(f"by its clock ({schedule.timezone}) {words}")
    if outcome == rule.PENDING and spec is not None:
        found += [f"with its jitter it is due at {format_instant(Instant(due))}" for due in _due(spec, at) if due != at]
    return found


def _due(spec: Job, at: Instant) -> list[int]:
    return [fire.due_at for fire in JobTimetable(spec).between(at - 1, at, 1)]


def _pause(connection: sqlite3.Connection, job: AuditJob, at: Instant, outcome: str) -> tuple[list[str], list[str]]:
    """What is to be said of a pause, before and behind all else: first where it covers the time."""
    segment = _segment(job, at)
    if segment is None or segment.state != "paused" or outcome not in (rule.SKIPPED, rule.PENDING):
        return [], []
    who = f" by {segment.actor}" if segment.actor else ""
    until = None if job.removed else query_jobs.job(connection, job.job, count_live=False).paused_until  # an end that was said beforehand
    if segment.until is None and until is not None and at >= until:
        return [], [f"the pause of the job{who} ends {format_instant(Instant(until))}, before this time"]
    end = ""
    if segment.until is not None:
        end = f", resumed at {format_instant(Instant(segment.until // SECOND * SECOND))}"
    elif until is not None:
        end = f", until {format_instant(Instant(until))}"
    why = f": {segment.reason}" if segment.reason else ""
    return [f"the job was paused{who} at {format_instant(Instant(segment.at // SECOND * SECOND))}{end}{why}"], []


def _segment(job: AuditJob, at: Instant) -> Segment | None:
    return next((one for one in reversed(job.segments) if one.after < at), None)


def _absent(connection: sqlite3.Connection, job: AuditJob, at: Instant) -> list[str]:
    """Why no schedule names the time."""
    segment = _segment(job, at)
    if segment is None:
        first = format_instant(Instant(query_audit.first_push(connection, job.job)))
        return [f"the job was pushed at {first}; a schedule speaks only for times after its push"]
    if segment.state == "removed" or segment.spec is None:
        who = f" by {segment.actor}" if segment.actor else ""
        return [f"the job was removed at {format_instant(Instant(segment.at))}{who}"]
    if not segment.spec.schedules:
        return ["the job has no schedule; it runs on demand"]
    several = len(segment.spec.schedules) > 1
    return [
        f"schedule {number}: {words}" if several else words
        for number, schedule in enumerate(segment.spec.schedules, 1)
        for words in [why_not(schedule, job.job, at)]
    ]


ROUTES = (
    Route(method="GET", path=f"/v1/runs/{RUN}/why", handler=why_run, summary="Why a run waits or ended so; or what became of JOB@TIME",
          reach=Reach.THING),
)  # fmt: skip
