"""Runs for people: pages of them, one with its stages, attempts and tries, and the run that somebody means by a few letters or `JOB@latest`.

Everything is JSON in the shapes of the HTTP API: times as RFC 3339, `lateness_s` and `cpu_s` as numbers. Lists are bounded by `limit`, and read from
an index that is small or in the order of the page, however many runs are kept. Called inside `Reads.query`.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from igor_node.ledger.query_jobs import resolve_job, within
from igor_node.ledger.schema import attempt_id
from igor_node.words import RUN_ENDS, RUN_LIVE, SECOND, Conflict, Malformed, NotFound, RunState, format_instant, id_floor, parse_instant

RUNS_PER_PAGE = 1_000  # CONTRACT: `limit` is at most this
ID_SLACK = 60 * SECOND  # a run's id carries its proposer's clock, `created_at` the ledger's: they differ by less


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[dict[str, Any]]
    next: str | None  # the cursor of the page behind


_RUNS = """
SELECT id, job, project, version, scheduled_at, state, reason, created_at, started_at, ended_at, lateness_ns, trigger, params, due_at, spec_version,
  cancel, begun, beside FROM runs"""
_TROUBLES = RUN_ENDS - {RunState.SUCCEEDED}


def runs(
    connection: sqlite3.Connection,
    *,
    job: str | None = None,
    states: Sequence[str] = (),
    since: int | None = None,
    limit: int = 100,
    cursor: str | None = None,
    with_stages: bool = True,
    projects: Sequence[str] = (),
) -> RunPage:
    """Newest first (by creation). `job`: an id; `states`: any of words.RunState, or `live` for all that have not ended. `projects`: only of these.
    Raises Malformed."""
    limit = max(1, min(limit, RUNS_PER_PAGE))
    wanted = _states(states)
    if wanted and wanted <= set(RUN_LIVE):
        ids = _live_ids(connection, job, wanted, since, limit + 1, cursor, projects)
    else:

        def of(one: str | None) -> list[str]:
            if wanted and not wanted - _TROUBLES:
                return _trouble_ids(connection, one, sorted(wanted), since, limit + 1, cursor)
            return _ids(connection, one, wanted, since, limit + 1, cursor)

        ids = _of_projects(connection, projects, of, limit + 1) if projects and job is None else of(job)
    items = [run(connection, one, with_stages=with_stages) for one in ids[:limit]]
    return RunPage(items=items, next=ids[limit - 1] if len(ids) > limit else None)


def _of_projects(connection: sqlite3.Connection, projects: Sequence[str], of: Callable[[str], list[str]], limit: int) -> list[str]:
    """Each job's latest, merged: as quick as the projects have jobs, however many runs there are of others."""
    jobs = connection.execute(f"SELECT job FROM jobs WHERE 1 {within(projects)} ORDER BY job", tuple(projects)).fetchall()
    return heapq.nlargest(limit, (run for (job,) in jobs for run in of(job)))


def _states(states: Sequence[str]) -> frozenset[str]:
    known = {str(state) for state in RunState} | {"live"}
    for state in states:
        if state not in known:
            raise Malformed(f'"{state}" is not a state of a run', hint=f"expected one of {', '.join(sorted(known))}")
    return frozenset(one for state in states for one in (RUN_LIVE if state == "live" else (state,)))


def _bounds(since: int | None, cursor: str | None) -> tuple[str, int, str]:
    """Ids from, created from, ids below."""
    created = 0 if since is None else max(0, since)
    return id_floor(created - ID_SLACK), created, cursor or "~"


def _trouble_ids(
    connection: sqlite3.Connection, job: str | None, wanted: Sequence[str], since: int | None, limit: int, cursor: str | None
) -> list[str]:
    """Runs that ended otherwise than well: few, so each state is read from its own index and merged."""
    low, created, high = _bounds(since, cursor)
    where = "job = ? AND trouble = ?" if job is not None else "trouble = ?"
    found: list[str] = []
    for state in wanted:
        arguments = (*((job,) if job is not None else ()), state, low, high, created, limit)
        statement = f"SELECT id FROM runs WHERE {where} AND id >= ? AND id < ? AND created_at >= ? ORDER BY id DESC LIMIT ?"
        found += [row[0] for row in connection.execute(statement, arguments)]
    return sorted(found, reverse=True)[:limit]


def _live_ids(
    connection: sqlite3.Connection,
    job: str | None,
    wanted: frozenset[str],
    since: int | None,
    limit: int,
    cursor: str | None,
    projects: Sequence[str],
) -> list[str]:
    """Runs that have not ended: read from the small index of live runs whole, then sorted."""
    low, created, high = _bounds(since, cursor)
    marks = ",".join("?" * len(wanted))
    statement = (
        "SELECT id FROM runs INDEXED BY runs_live WHERE ended_at IS NULL "
        f"AND id >= ? AND id < ? AND created_at >= ? AND state IN ({marks}) {'AND job = ?' if job is not None else ''} {within(projects)} "
        "ORDER BY id DESC LIMIT ?"
    )
    arguments = (low, high, created, *sorted(wanted), *((job,) if job is not None else ()), *projects, limit)
    return [row[0] for row in connection.execute(statement, arguments)]


def _ids(connection: sqlite3.Connection, job: str | None, wanted: frozenset[str], since: int | None, limit: int, cursor: str | None) -> list[str]:
    low, created, high = _bounds(since, cursor)
    states = f"AND state IN ({','.join('?' * len(wanted))})" if wanted else ""
    where = "job = ? AND id >= ? AND id < ?" if job is not None else "id >= ? AND id < ?"
    statement = f"SELECT id FROM runs WHERE {where} AND created_at >= ? {states} ORDER BY id DESC LIMIT ?"
    arguments = (*((job,) if job is not None else ()), low, high, created, *sorted(wanted), limit)
    return [row[0] for row in connection.execute(statement, arguments)]


def run(connection: sqlite3.Connection, run_id: str, *, with_stages: bool = True) -> dict[str, Any]:
    """One run in the shape of the API, by its whole id. Raises NotFound. Use `find_run` for what a person wrote."""
    row = connection.execute(f"{_RUNS} WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f'no run has the id "{run_id}"', hint="igor runs lists them; ended runs are pruned after a time")
    found = {
        "id": row[0], "job": row[1], "project": row[2], "version": row[3], "scheduled_time": _text(row[4]), "state": row[5], "reason": row[6],
        "created_at": _text(row[7]), "started_at": _text(row[8]), "ended_at": _text(row[9]), "lateness_s": _seconds(row[10]), "trigger": row[11],
        "params": msgspec.json.decode(row[12]), "due_at": _text(row[13]), "cancel": row[15], "beside": bool(row[17]),
    }  # fmt: skip
    if with_stages:
        found["stages"] = _stages(connection, run_id)
    return found


def _stages(connection: sqlite3.Connection, run_id: str) -> list[dict[str, Any]]:
    tries = _tries(connection, run_id)
    attempts = _attempts(connection, run_id, tries)
    rows = connection.execute(
        "SELECT name, state, reason, queued_at, started_at, ended_at FROM stages WHERE run = ? ORDER BY position", (run_id,)
    ).fetchall()
    return [
        {
            "name": name, "state": state, "reason": reason, "queued_at": _text(queued), "started_at": _text(started), "ended_at": _text(ended),
            "attempts": attempts.get(name, []),
        }
        for name, state, reason, queued, started, ended in rows
    ]  # fmt: skip


def _attempts(connection: sqlite3.Connection, run_id: str, tries: dict[tuple[str, int], list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    rows = connection.execute(
        "SELECT stage, n, attempts.node, nodes.name, attempts.state, attempts.reason, fence, placed_at, started_at, ended_at, late, revoke, why "
        "FROM attempts LEFT JOIN nodes ON nodes.node = attempts.node WHERE run = ? ORDER BY stage, n",
        (run_id,),
    )
    for stage, n, node_id, name, state, reason, fence, placed, started, ended, late, revoke, why in rows:
        attempt = {
            "n": n, "id": attempt_id(run_id, stage, n), "node": name or node_id, "node_id": node_id, "state": state, "reason": reason, "fence": fence,
            "placed_at": _text(placed), "started_at": _text(started), "ended_at": _text(ended), "late_result": late, "revoke": revoke, "why": why,
            "tries": tries.get((stage, n), []),
        }  # fmt: skip
        found.setdefault(stage, []).append(attempt)
    return found


def _tries(connection: sqlite3.Connection, run_id: str) -> dict[tuple[str, int], list[dict[str, Any]]]:
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    rows = connection.execute(
        "SELECT stage, attempt, n, state, reason, started_at, ended_at, exit_code, signal, max_rss_bytes, cpu_ns, duration_ns FROM tries "
        "WHERE run = ? ORDER BY stage, attempt, n",
        (run_id,),
    )
    for stage, attempt, n, state, reason, started, ended, exit_code, signal, rss, cpu, duration in rows:
        one = {
            "n": n, "state": state, "reason": reason, "started_at": _text(started), "ended_at": _text(ended), "exit_code": exit_code,
            "signal": signal, "max_rss_bytes": rss, "cpu_s": _seconds(cpu), "duration_s": _seconds(duration),
        }  # fmt: skip
        found.setdefault((stage, attempt), []).append(one)
    return found


def find_run(connection: sqlite3.Connection, words: str, *, projects: Sequence[str] = ()) -> str:
    """The id behind an id, a prefix of one, `JOB@latest`, `JOB@failed` or `JOB@TIME`. `projects`: as if there were no runs of others. Raises
    NotFound, Conflict (ambiguous) or Malformed."""
    if "@" in words:
        name, which = words.rsplit("@", 1)
        return _run_of_job(connection, name, which, projects)
    if not words:
        raise Malformed("a run is named by an id, a prefix of one, JOB@latest, JOB@failed or JOB@TIME")
    statement = f"SELECT id FROM runs WHERE id >= ? AND id < ? {within(projects)} ORDER BY id LIMIT 3"
    rows = connection.execute(statement, (words, words + "~", *projects)).fetchall()
    if not rows:
        raise NotFound(f'no run has the id "{words}"', hint="igor runs lists them; ended runs are pruned after a time")
    if len(rows) > 1 and rows[0][0] != words:
        raise Conflict(f'"{words}" begins the ids of several runs: {", ".join(row[0] for row in rows)}', hint="write more of the id")
    return str(rows[0][0])


def _run_of_job(connection: sqlite3.Connection, name: str, which: str, projects: Sequence[str]) -> str:
    job_id = resolve_job(connection, name, removed=True, projects=projects)
    if which == "latest":
        statement, arguments = "SELECT id FROM runs WHERE job = ? ORDER BY id DESC LIMIT 1", (job_id,)
    elif which == "failed":
        found = _trouble_ids(connection, job_id, ["failed", "lost", "timed_out"], None, 1, None)
        if not found:
            raise NotFound(f"no run of job {job_id} has failed")
        return found[0]
    else:
        try:
            instant = parse_instant(which)
        except ValueError as problem:
            raise Malformed(f'"{name}@{which}": {problem}', hint="JOB@latest and JOB@failed work too") from None
        statement, arguments = "SELECT id FROM runs WHERE job = ? AND scheduled_at = ? AND trigger = 'schedule'", (job_id, instant)  # type: ignore[assignment]
    row = connection.execute(statement, arguments).fetchone()
    if row is None:
        raise NotFound(f"job {job_id} has no run {which}" if which != "latest" else f"job {job_id} has never run")
    return str(row[0])


def _text(instant: int | None) -> str | None:
    return None if instant is None else format_instant(instant)


def _seconds(span: int | None) -> float | None:
    return None if span is None else span / SECOND
