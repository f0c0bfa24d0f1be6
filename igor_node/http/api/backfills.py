"""Backfills: runs for past times of a job's schedule, asked for by a person."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import msgspec

from igor_node.http.api.jobs import read_instant, resolve, text
from igor_node.http.dispatch import Call
from igor_node.http.permissions import Reach
from igor_node.http.routes import JOB, Reply, Route, Struct, Where
from igor_node.ledger import commands, query_backfills
from igor_node.ledger.apply_backfills import PARALLEL_LIMIT, TIMES_LIMIT
from igor_node.ledger.query_backfills import BackfillRow
from igor_node.rules.timetable import JobTimetable
from igor_node.words import RUN_ENDS, Instant, Invalid, Role, TooLarge, format_instant, new_id


class BackfillBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[`from`, `to`), RFC 3339, both past. `again`: also times whose run succeeded. `parallel`: runs at once; `reverse`: the latest first.
    `dry_run`: only say for which times."""

    start: str = msgspec.field(name="from")
    to: str
    again: bool = False
    parallel: int = 1
    reverse: bool = False
    dry_run: bool = False
    reason: str = ""


class CancelBackfillBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


async def create_backfill(call: Call) -> Any:
    """By the job's definition as it is now, also for times before its push."""
    body: BackfillBody = call.body
    row = await resolve(call)
    start, end = read_instant("from", body.start), read_instant("to", body.to)
    check(body, start, end, call.now(), scheduled=bool(row.spec.schedules))
    due = await asyncio.to_thread(JobTimetable(row.spec).between, start - 1, end - 1, TIMES_LIMIT + 1)
    if len(due) > TIMES_LIMIT:
        raise TooLarge(f"there are more than {TIMES_LIMIT} times in that range", hint="ask for a shorter one")
    done = await call.read(lambda connection: query_backfills.done(connection, row.job, start, end))
    times = [fire.scheduled_at for fire in due if body.again or fire.scheduled_at not in done]
    left_out = len(due) - len(times)
    if body.reverse:
        times.reverse()
    if body.dry_run or not times:
        return {"id": None, "job": row.job, "total": len(times), "left_out": left_out, "times": [format_instant(at) for at in times]}
    backfill = new_id(call.now())
    await call.propose(commands.CreateBackfill(backfill=backfill, job=row.job, times=tuple(times), parallel=body.parallel, reason=body.reason))
    made = await call.read(lambda connection: query_backfills.backfill(connection, backfill))
    return Reply({**backfill_json(made), "left_out": left_out}, status=201, headers={"Location": f"/v1/backfills/{backfill}"})


def check(body: BackfillBody, start: Instant, end: Instant, now: int, *, scheduled: bool) -> None:
    faults = []
    if start >= end:
        faults.append("from: it is not before to; expected an earlier time")
    if end > now:
        faults.append(f"to: {body.to} is to come; expected a past time")
    if not 1 <= body.parallel <= PARALLEL_LIMIT:
        faults.append(f"parallel: {body.parallel} is not possible; expected 1 to {PARALLEL_LIMIT}")
    if not scheduled:
        faults.append("job: it has no schedule, so no past times; expected one that has")
    if faults:
        raise Invalid("this backfill cannot be", faults=faults)


async def list_backfills(call: Call) -> Any:
    rows = await call.read(lambda connection: query_backfills.backfills(connection, call.projects))
    return {"items": [backfill_json(row) for row in rows], "next": None}


async def show_backfill(call: Call) -> Any:
    return backfill_json(await call.read(find(call)))


async def cancel_backfill(call: Call) -> Any:
    found = await call.read(find(call))
    await call.propose(commands.CancelBackfill(backfill=found.backfill, reason=call.body.reason))
    return backfill_json(await call.read(find(call)))


def find(call: Call) -> Any:
    backfill = call.part("backfill")

    def ask(connection: sqlite3.Connection) -> BackfillRow:
        return query_backfills.backfill(connection, backfill, call.projects)

    return ask


def backfill_json(row: BackfillRow) -> dict[str, Any]:
    """`state`: running until the last of its runs has ended, then ended; or cancelled."""
    live = sum(count for state, count in row.states.items() if state not in RUN_ENDS)
    return {
        "id": row.backfill,
        "job": row.job,
        "state": row.state if row.state == "cancelled" else "running" if row.ended_at is None or live else "ended",
        "reason": row.reason,
        "from": format_instant(Instant(row.first)),
        "to": format_instant(Instant(row.last)),
        "parallel": row.parallel,
        "total": row.total,
        "made": row.made,
        "runs": row.states,
        "created_at": text(row.created_at),
        "created_by": row.actor,
    }


ROUTES = (
    Route(method="POST", path=f"/v1/jobs/{JOB}/backfill", handler=create_backfill, summary="Make runs for past times", role=Role.OPERATOR,
          reach=Reach.THING, where=Where.WRITE, body=BackfillBody, statuses=(201, 200)),
    Route(method="GET", path="/v1/backfills", handler=list_backfills, summary="Backfills, the latest first", reach=Reach.LIST),
    Route(method="GET", path="/v1/backfills/{backfill}", handler=show_backfill, summary="A backfill, and what became of its runs",
          reach=Reach.THING),
    Route(method="POST", path="/v1/backfills/{backfill}/cancel", handler=cancel_backfill, summary="Make no more runs of it, and end those that go on",
          role=Role.OPERATOR, reach=Reach.THING, where=Where.WRITE, body=CancelBackfillBody),
)  # fmt: skip
