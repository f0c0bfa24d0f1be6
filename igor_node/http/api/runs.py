"""Runs: lists, one with everything in it, cancel, and what a person decides about a lost one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Literal

from igor_node.http.dispatch import Call
from igor_node.http.limits import QUERY_DEFAULT
from igor_node.http.permissions import Reach
from igor_node.http.routes import RUN, Route, Struct, Where
from igor_node.ledger import commands, query_jobs, query_runs
from igor_node.words import Instant, Role


class RunsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`state`: one or several, with commas; `live` for all that have not ended."""

    job: str | None = None
    state: str | None = None
    since: Instant | None = None
    limit: int = QUERY_DEFAULT
    cursor: str | None = None


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


ROUTES = (
    Route(method="GET", path="/v1/runs", handler=list_runs, summary="Runs, the latest first", query=RunsQuery, reach=Reach.LIST),
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
)  # fmt: skip
