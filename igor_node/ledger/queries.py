"""What can be asked of the ledger: functions of a read-only connection, each one consistent answer.

Called inside `Reads.query` (reads.py), which opens one read transaction around each call. Two families: structs for the leader, the hub and
the audit (times as Instants), and JSON in the shapes of the HTTP API (times as RFC 3339, `lateness_s` and `cpu_s` as numbers). Nothing here
writes, reads a clock or decides; where "now" matters it is an argument. Lists are bounded by `limit`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from igor_node.definitions.jobs import Job, Stage, decode_job
from igor_node.ledger.schema import attempt_id, span_of, split_attempt
from igor_node.rules.graph import spared
from igor_node.rules.overlap import Earlier, start_blocked
from igor_node.words import (
    MILLISECOND,
    SECOND,
    Conflict,
    Malformed,
    NotFound,
    RunState,
    StageState,
    format_instant,
    parse_instant,
)

RUNS_PER_PAGE = 1_000  # CONTRACT: `limit` is at most this
EVENTS_PER_QUERY = 1_000
RECENT_RUNS = 20  # the row of small marks in the list of jobs
AUDIT_ROWS = 200_000  # runs of one job that one audit looks at; more must be asked for in shorter spans
ID_SLACK = 60 * SECOND  # a run's id carries its proposer's clock, `created_at` the ledger's: they differ by less


class Row(msgspec.Struct, frozen=True, kw_only=True):
    pass


# --- where the ledger stands


class Position(Row, frozen=True, kw_only=True):
    index: int
    term: int
    time: int
    last_event: int


class ClusterInfo(Row, frozen=True, kw_only=True):
    cluster: str
    tzdata: str
    wanted_voters: int
    founded_at: int


def position(connection: sqlite3.Connection) -> Position:
    """Index, term and ledger time of this very snapshot; `last_event` is the highest number in the events so far."""
    index, term, time, last = connection.execute("SELECT applied_index, applied_term, ledger_time, last_event FROM position WHERE one = 1").fetchone()
    return Position(index=index, term=term, time=time, last_event=last)


def cluster(connection: sqlite3.Connection) -> ClusterInfo | None:
    """None before FoundCluster was applied."""
    found = dict(connection.execute("SELECT name, value FROM meta ORDER BY name").fetchall())
    if "cluster" not in found:
        return None
    return ClusterInfo(cluster=found["cluster"], tzdata=found["tzdata"], wanted_voters=found["wanted_voters"], founded_at=found["founded_at"])


# --- nodes and tokens


class NodeRow(Row, frozen=True, kw_only=True):
    """`used`: slots of its attempts that have not ended; `running`: how many those are."""

    node: str
    name: str
    address: str
    labels: dict[str, str]
    slots: int
    version: str
    state: str
    reason: str
    changed_at: int
    registered_at: int
    used: int
    running: int


class TokenRow(Row, frozen=True, kw_only=True):
    token: str
    role: str
    name: str
    project: str | None
    node: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    def good_at(self, now: int) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


_NODES = """
SELECT node, name, address, labels, slots, version, state, reason, changed_at, registered_at,
  (SELECT coalesce(sum(slots), 0) FROM attempts WHERE attempts.node = nodes.node AND ended_at IS NULL),
  (SELECT count(*) FROM attempts WHERE attempts.node = nodes.node AND ended_at IS NULL)
FROM nodes WHERE removed_at IS NULL {} ORDER BY name, node"""


def nodes(connection: sqlite3.Connection) -> list[NodeRow]:
    """All nodes that have not left, by name."""
    return [_node(row) for row in connection.execute(_NODES.format(""))]


def node(connection: sqlite3.Connection, name_or_id: str) -> NodeRow:
    """Raises NotFound."""
    row = connection.execute(_NODES.format("AND (node = ? OR name = ?)"), (name_or_id, name_or_id)).fetchone()
    if row is None:
        raise NotFound(f'no node is named "{name_or_id}"', hint="igor nodes lists them")
    return _node(row)


def _node(row: Sequence[Any]) -> NodeRow:
    return NodeRow(
        node=row[0], name=row[1], address=row[2], labels=msgspec.json.decode(row[3]), slots=row[4], version=row[5], state=row[6], reason=row[7],
        changed_at=row[8], registered_at=row[9], used=row[10], running=row[11],
    )  # fmt: skip


_TOKENS = "SELECT token, role, name, project, node, created_at, expires_at, revoked_at FROM tokens"


def token_by_hash(connection: sqlite3.Connection, token_hash: str, now: int) -> TokenRow | None:
    """The token with this hex SHA-256, unless it is revoked or has expired at `now`."""
    row = connection.execute(f"{_TOKENS} WHERE hash = ?", (token_hash,)).fetchone()
    token = _token(row) if row is not None else None
    return token if token is not None and token.good_at(now) else None


def tokens(connection: sqlite3.Connection) -> list[TokenRow]:
    return [_token(row) for row in connection.execute(f"{_TOKENS} ORDER BY token")]


def _token(row: Sequence[Any]) -> TokenRow:
    return TokenRow(token=row[0], role=row[1], name=row[2], project=row[3], node=row[4], created_at=row[5], expires_at=row[6], revoked_at=row[7])


# --- projects


class VersionRow(Row, frozen=True, kw_only=True):
    """One push that changed something. `jobs`: how many there were after it."""

    project: str
    version: int
    pushed_at: int
    actor: str
    source: str
    created: list[str]
    changed: list[str]
    removed: list[str]
    jobs: int


class ProjectRow(Row, frozen=True, kw_only=True):
    project: str
    version: int
    last: VersionRow
    sources: dict[str, str]
    jobs: list[Job]


_VERSIONS = "SELECT project, version, pushed_at, actor, source, created, changed, removed, jobs FROM versions"


def projects(connection: sqlite3.Connection) -> list[VersionRow]:
    """The current version of every project, by name."""
    statement = f"{_VERSIONS} WHERE (project, version) IN (SELECT project, version FROM projects) ORDER BY project"
    return [_version(row) for row in connection.execute(statement)]


def project(connection: sqlite3.Connection, name: str) -> ProjectRow | None:
    """The current version with its sources and jobs; None where nothing was ever pushed under this name."""
    row = connection.execute(f"{_VERSIONS} WHERE (project, version) = (SELECT project, version FROM projects WHERE project = ?)", (name,)).fetchone()
    if row is None:
        return None
    last = _version(row)
    sources = connection.execute("SELECT sources FROM versions WHERE project = ? AND version = ?", (name, last.version)).fetchone()[0]
    return ProjectRow(project=name, version=last.version, last=last, sources=msgspec.json.decode(sources), jobs=project_jobs(connection, name))


def project_jobs(connection: sqlite3.Connection, name: str) -> list[Job]:
    """The definitions in force, by name: what a plan compares with."""
    first, behind = span_of(name)
    rows = connection.execute(
        "SELECT definitions.spec FROM jobs JOIN definitions ON definitions.job = jobs.job AND definitions.version = jobs.spec_version "
        "WHERE jobs.job >= ? AND jobs.job < ? AND jobs.removed_at IS NULL ORDER BY jobs.job",
        (first, behind),
    )
    return [spec_of(row[0]) for row in rows]


def project_history(connection: sqlite3.Connection, name: str, limit: int = 100) -> list[VersionRow]:
    """Newest first."""
    return [_version(row) for row in connection.execute(f"{_VERSIONS} WHERE project = ? ORDER BY version DESC LIMIT ?", (name, limit))]


def _version(row: Sequence[Any]) -> VersionRow:
    return VersionRow(
        project=row[0], version=row[1], pushed_at=row[2], actor=row[3], source=row[4], created=msgspec.json.decode(row[5]),
        changed=msgspec.json.decode(row[6]), removed=msgspec.json.decode(row[7]), jobs=row[8],
    )  # fmt: skip


# --- jobs


class JobRow(Row, frozen=True, kw_only=True):
    """A job as the ledger knows it. The fires loop asks for those with `schedulable`, people for one or a page.

    `version`: its project's; `spec_version`: where its own definition last changed. Give either as FireRuns.versions.
    `paused_until`: None while paused means "until resumed". `resumed_at`: the end of the last pause, kept after it. `live`: runs that have not
    ended, None where they were not counted.
    """

    job: str
    project: str
    name: str
    version: int
    spec_version: int
    spec: Job
    decided_until: int
    paused: bool
    paused_at: int | None
    paused_until: int | None
    pause_reason: str
    paused_by: str
    resumed_at: int | None
    created_at: int
    changed_at: int
    live: int | None


_COUNT_LIVE = "(SELECT count(*) FROM runs WHERE runs.job = jobs.job AND runs.ended_at IS NULL)"
_JOBS = f"""
SELECT jobs.job, jobs.project, jobs.name, jobs.version, jobs.spec_version, definitions.spec, jobs.decided_until, jobs.paused_at, jobs.paused_until,
  jobs.pause_reason, jobs.paused_by, jobs.resumed_at, jobs.created_at, jobs.changed_at,
  {_COUNT_LIVE}
FROM jobs JOIN definitions ON definitions.job = jobs.job AND definitions.version = jobs.spec_version
WHERE jobs.removed_at IS NULL {{}} ORDER BY jobs.job LIMIT ?"""


def jobs(connection: sqlite3.Connection, *, project: str | None = None, after: str = "", limit: int = RUNS_PER_PAGE) -> list[JobRow]:
    """Jobs by id, of one project or of all; `after` is the id of the last one of the page before."""
    first, behind = span_of(project) if project is not None else ("", "\U0010ffff")
    rows = connection.execute(_JOBS.format("AND jobs.job > ? AND jobs.job >= ? AND jobs.job < ?"), (after, first, behind, limit))
    return [_job(row) for row in rows]


def schedulable(connection: sqlite3.Connection) -> list[JobRow]:
    """Every job that has a schedule, paused ones too, for the fires loop. Bounded by what pushes may hold."""
    return [row for row in jobs(connection, limit=-1) if row.spec.schedules]


def job(connection: sqlite3.Connection, name_or_id: str, *, count_live: bool = True) -> JobRow:
    """By `project/name`, or by the name alone where only one project has it. Raises NotFound, or Conflict where it is ambiguous.

    Whoever only acts on the job spares the ledger a count of its thousands of live runs.
    """
    statement = _JOBS if count_live else _JOBS.replace(_COUNT_LIVE, "NULL")
    return _job(connection.execute(statement.format("AND jobs.job = ?"), (resolve_job(connection, name_or_id), 1)).fetchone())


def resolve_job(connection: sqlite3.Connection, name_or_id: str, *, removed: bool = False) -> str:
    """The id of a job that a person named. `removed`: also one that is no longer defined (its history stays)."""
    column = "job" if "/" in name_or_id else "name"
    rows = connection.execute(
        f"SELECT job, removed_at FROM jobs WHERE {column} = ? AND (removed_at IS NULL OR ?) ORDER BY removed_at IS NOT NULL, job",
        (name_or_id, removed),
    ).fetchall()
    found = [row[0] for row in rows if row[1] is None] or [row[0] for row in rows]
    if not found:
        raise NotFound(f'no job is named "{name_or_id}"', hint="igor jobs lists them")
    if len(found) > 1:
        raise Conflict(f'"{name_or_id}" names {len(found)} jobs: {", ".join(found[:5])}', hint="write project/name")
    return str(found[0])


def spec_at(connection: sqlite3.Connection, job_id: str, spec_version: int) -> Job:
    """The definition that a run was made with."""
    row = connection.execute("SELECT spec FROM definitions WHERE job = ? AND version = ?", (job_id, spec_version)).fetchone()
    if row is None:
        raise NotFound(f"job {job_id} has no definition of version {spec_version}")
    return spec_of(row[0])


@lru_cache(maxsize=4_096)
def spec_of(text: bytes) -> Job:
    """A definition's text decoded; the same text gives the same object."""
    return decode_job(text)


def _job(row: Sequence[Any]) -> JobRow:
    return JobRow(
        job=row[0], project=row[1], name=row[2], version=row[3], spec_version=row[4], spec=spec_of(row[5]), decided_until=row[6],
        paused=row[7] is not None, paused_at=row[7], paused_until=row[8], pause_reason=row[9], paused_by=row[10], resumed_at=row[11],
        created_at=row[12], changed_at=row[13], live=row[14],
    )  # fmt: skip


# --- runs, as JSON of the API


class RunPage(Row, frozen=True, kw_only=True):
    items: list[dict[str, Any]]
    next: str | None  # the cursor of the page behind


_RUNS = """
SELECT id, job, project, version, scheduled_at, state, reason, created_at, started_at, ended_at, lateness_ns, trigger, params, due_at, spec_version,
  cancel, begun, beside FROM runs"""
_TROUBLES = frozenset({"failed", "timed_out", "cancelled", "lost", "skipped", "missed"})
_LIVE = ("scheduled", "queued", "running", "waiting")


def runs(
    connection: sqlite3.Connection,
    *,
    job: str | None = None,
    states: Sequence[str] = (),
    since: int | None = None,
    limit: int = 100,
    cursor: str | None = None,
    with_stages: bool = True,
) -> RunPage:
    """Newest first (by creation). `job`: an id; `states`: any of words.RunState, or `live` for all that have not ended. Raises Malformed."""
    limit = max(1, min(limit, RUNS_PER_PAGE))
    wanted = _states(states)
    if wanted and not wanted - _TROUBLES:
        ids = _trouble_ids(connection, job, sorted(wanted), since, limit + 1, cursor)
    elif wanted and wanted <= set(_LIVE):
        ids = _live_ids(connection, job, wanted, since, limit + 1, cursor)
    else:
        ids = _ids(connection, job, wanted, since, limit + 1, cursor)
    items = [run(connection, one, with_stages=with_stages) for one in ids[:limit]]
    return RunPage(items=items, next=ids[limit - 1] if len(ids) > limit else None)


def _states(states: Sequence[str]) -> frozenset[str]:
    known = {str(state) for state in RunState} | {"live"}
    for state in states:
        if state not in known:
            raise Malformed(f'"{state}" is not a state of a run', hint=f"expected one of {', '.join(sorted(known))}")
    return frozenset(one for state in states for one in (_LIVE if state == "live" else (state,)))


def _bounds(since: int | None, cursor: str | None) -> tuple[str, int, str]:
    """Ids from, created from, ids below."""
    created = 0 if since is None else max(0, since)
    return new_id_floor(created - ID_SLACK), created, cursor or "~"


def new_id_floor(instant: int) -> str:
    """No id of words.new_id made at or after this instant sorts before it."""
    millis = max(0, instant) // MILLISECOND
    return "".join("0123456789abcdefghijklmnopqrstuv"[millis >> shift & 31] for shift in range(45, -1, -5))


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
    connection: sqlite3.Connection, job: str | None, wanted: frozenset[str], since: int | None, limit: int, cursor: str | None
) -> list[str]:
    """Runs that have not ended: read from the small index of live runs whole, then sorted."""
    low, created, high = _bounds(since, cursor)
    marks = ",".join("?" * len(wanted))
    statement = (
        "SELECT id FROM runs INDEXED BY runs_live WHERE ended_at IS NULL "
        f"AND id >= ? AND id < ? AND created_at >= ? AND state IN ({marks}) {'AND job = ?' if job is not None else ''} ORDER BY id DESC LIMIT ?"
    )
    arguments = (low, high, created, *sorted(wanted), *((job,) if job is not None else ()), limit)
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


def find_run(connection: sqlite3.Connection, words: str) -> str:
    """The id behind an id, a prefix of one, `JOB@latest`, `JOB@failed` or `JOB@TIME`. Raises NotFound, Conflict (ambiguous) or Malformed."""
    if "@" in words:
        return _run_of_job(connection, *words.rsplit("@", 1))
    if not words:
        raise Malformed("a run is named by an id, a prefix of one, JOB@latest, JOB@failed or JOB@TIME")
    rows = connection.execute("SELECT id FROM runs WHERE id >= ? AND id < ? ORDER BY id LIMIT 3", (words, words + "~")).fetchall()
    if not rows:
        raise NotFound(f'no run has the id "{words}"', hint="igor runs lists them; ended runs are pruned after a time")
    if len(rows) > 1 and rows[0][0] != words:
        raise Conflict(f'"{words}" begins the ids of several runs: {", ".join(row[0] for row in rows)}', hint="write more of the id")
    return str(rows[0][0])


def _run_of_job(connection: sqlite3.Connection, name: str, which: str) -> str:
    job_id = resolve_job(connection, name, removed=True)
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


def recent_runs(connection: sqlite3.Connection, job_id: str, limit: int = RECENT_RUNS) -> list[dict[str, Any]]:
    """The job's last runs without their stages, newest first: `id, state, scheduled_time, started_at, ended_at, …`."""
    rows = connection.execute("SELECT id FROM runs WHERE job = ? ORDER BY id DESC LIMIT ?", (job_id, limit)).fetchall()
    return [run(connection, row[0], with_stages=False) for row in rows]


class Why(Row, frozen=True, kw_only=True):
    """Why a run is where it is. `ahead`: runs of the job that it waits for, begun ones first. `stages`: (name, state, reason)."""

    run: str
    state: str
    reason: str
    blocked: str | None
    ahead: list[str]
    stages: list[tuple[str, str, str]]


def why(connection: sqlite3.Connection, run_id: str) -> Why:
    """What the ledger can say about a run's waiting or its end. Raises NotFound."""
    row = connection.execute("SELECT job, state, reason, spec_version, ended_at, started_at FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f'no run has the id "{run_id}"', hint="igor runs lists them; ended runs are pruned after a time")
    job_id, state, reason, spec_version, ended_at, started_at = row
    stages = connection.execute("SELECT name, state, reason FROM stages WHERE run = ? ORDER BY position", (run_id,)).fetchall()
    blocked: str | None = None
    ahead: list[str] = []
    if ended_at is None and started_at is None:
        blocked, ahead = _blocked(live_runs(connection, job_id), run_id, spec_at(connection, job_id, spec_version))
    return Why(run=run_id, state=state, reason=reason, blocked=blocked, ahead=ahead, stages=[tuple(stage) for stage in stages])


def _text(instant: int | None) -> str | None:
    return None if instant is None else format_instant(instant)


def _seconds(span: int | None) -> float | None:
    return None if span is None else span / SECOND


# --- scheduling and placement, for the leader


class LiveRun(Row, frozen=True, kw_only=True):
    """A run of a job that has not ended, in the order of rules.overlap.order_key. `begun`: its first stage was placed."""

    run: str
    begun: bool
    beside: bool
    order_at: int
    due_at: int

    def earlier(self) -> Earlier:
        return Earlier(self.run, self.begun)


def live_runs(connection: sqlite3.Connection, job_id: str) -> list[LiveRun]:
    """What rules.overlap.admit and start_blocked look at."""
    return live_runs_by_job(connection, (job_id,)).get(job_id, [])


def live_runs_by_job(connection: sqlite3.Connection, job_ids: Sequence[str] | None = None) -> dict[str, list[LiveRun]]:
    """All live runs of these jobs (None: of all) by job, each list in the order of rules.overlap.order_key."""
    columns = "SELECT job, id, begun, beside, order_at, due_at FROM runs WHERE ended_at IS NULL"
    if job_ids is None:
        rows = connection.execute(f"{columns} ORDER BY job, order_at, id").fetchall()
    else:
        rows = [row for one in job_ids for row in connection.execute(f"{columns} AND job = ? ORDER BY order_at, id", (one,))]
    found: dict[str, list[LiveRun]] = {}
    for job_id, run_id, begun, beside, order_at, due_at in rows:
        found.setdefault(job_id, []).append(LiveRun(run=run_id, begun=bool(begun), beside=bool(beside), order_at=order_at, due_at=due_at))
    return found


def _blocked(live: Sequence[LiveRun], run_id: str, spec: Job) -> tuple[str | None, list[str]]:
    """Why the run may not begin, and the runs it waits for."""
    begun = [one.run for one in live if one.begun and one.run != run_id]
    ahead: list[str] = []
    beside = False
    for one in live:
        if one.run == run_id:
            beside = one.beside
            break
        if not (one.begun or one.beside):
            ahead.append(one.run)
    reason = start_blocked(spec.overlap, max_parallel=spec.max_parallel, begun=begun, ahead=ahead, beside=beside)
    return reason, [*begun, *ahead] if reason else []


def stage_of(spec: Job, name: str) -> Stage:
    """Raises NotFound; the ledger makes stages from the same definition, so that this is our own mistake."""
    for stage in spec.stages:
        if stage.name == name:
            return stage
    raise NotFound(f"job {spec.id} has no stage {name}")


# --- attempts, for the hub


class OpenAttempt(Row, frozen=True, kw_only=True):
    """An attempt that has not ended, with everything that stream.Assignment needs but the put-in of values and the renewal token.

    `cancel` and `revoke`: the reason, where the node is to end it or not to start it. `last_seq`: the highest event committed.
    """

    attempt: str
    run: str
    job: str
    project: str
    stage: str
    n: int
    node: str
    state: str
    fence: int
    trigger: str
    due_at: int
    scheduled_at: int | None
    created_at: int
    params: dict[str, str]
    spec: Job
    stage_spec: Stage
    version: int
    placed_at: int
    started_at: int | None
    last_seq: int
    cancel: str | None
    revoke: str | None
    renew_hash: str
    lease_ns: int
    on_node_loss: str


_OPEN = """
SELECT attempts.run, attempts.stage, attempts.n, attempts.node, attempts.state, attempts.fence, attempts.placed_at, attempts.started_at,
  attempts.last_seq, attempts.revoke, attempts.renew_hash, runs.job, runs.project, runs.trigger, runs.due_at, runs.scheduled_at, runs.created_at,
  runs.params, runs.cancel, runs.version, definitions.spec
FROM attempts {} JOIN runs ON runs.id = attempts.run
JOIN definitions ON definitions.job = runs.job AND definitions.version = runs.spec_version
WHERE attempts.ended_at IS NULL {} ORDER BY attempts.run, attempts.stage, attempts.n"""


def open_attempts(connection: sqlite3.Connection, node: str | None = None) -> list[OpenAttempt]:
    """Attempts that have not ended, of one node or of all, in the order of run, stage and number."""
    if node is None:
        rows = connection.execute(_OPEN.format("INDEXED BY attempts_open", ""))
    else:
        rows = connection.execute(_OPEN.format("INDEXED BY attempts_open", "AND attempts.node = ?"), (node,))
    return [_open(row) for row in rows]


def open_attempt(connection: sqlite3.Connection, attempt: str) -> OpenAttempt | None:
    """One attempt, or None where it is not known or has ended."""
    parts = split_attempt(attempt)
    if parts is None:
        return None
    row = connection.execute(_OPEN.format("", "AND attempts.run = ? AND attempts.stage = ? AND attempts.n = ?"), parts).fetchone()
    return None if row is None else _open(row)


def _open(row: Sequence[Any]) -> OpenAttempt:
    run_id, stage, n, node_id, state, fence, placed_at, started_at, last_seq, revoke, renew_hash = row[:11]
    job_id, project_name, trigger, due_at, scheduled_at, created_at, params, cancel, version, text = row[11:]
    spec = spec_of(text)
    stage_spec = stage_of(spec, stage)
    return OpenAttempt(
        attempt=attempt_id(run_id, stage, n), run=run_id, job=job_id, project=project_name, stage=stage, n=n, node=node_id, state=state,
        fence=fence, trigger=trigger, due_at=due_at, scheduled_at=scheduled_at, created_at=created_at, params=msgspec.json.decode(params), spec=spec,
        stage_spec=stage_spec, version=version, placed_at=placed_at, started_at=started_at, last_seq=last_seq,
        cancel=None if spared(always=stage_spec.always, needs=stage_spec.needs, cancel=cancel) else cancel, revoke=revoke, renew_hash=renew_hash,
        lease_ns=spec.lease_ns, on_node_loss=stage_spec.on_node_loss,
    )  # fmt: skip


class AttemptRow(Row, frozen=True, kw_only=True):
    """What is known of one attempt, ended or not: for renewals, for `forget`, and for finding its log."""

    attempt: str
    run: str
    stage: str
    n: int
    node: str
    state: str
    last_seq: int
    ended: bool
    renew_hash: str
    lease_ns: int
    on_node_loss: str


def attempt(connection: sqlite3.Connection, attempt_name: str) -> AttemptRow | None:
    """None where the ledger does not know it (never placed, or pruned)."""
    parts = split_attempt(attempt_name)
    row = None if parts is None else connection.execute(_ATTEMPT, parts).fetchone()
    if row is None:
        return None
    run_id, stage, n, node_id, state, last_seq, ended_at, renew_hash, text = row
    spec = spec_of(text)
    return AttemptRow(
        attempt=attempt_name, run=run_id, stage=stage, n=n, node=node_id, state=state, last_seq=last_seq, ended=ended_at is not None,
        renew_hash=renew_hash, lease_ns=spec.lease_ns, on_node_loss=stage_of(spec, stage).on_node_loss,
    )  # fmt: skip


_ATTEMPT = """
SELECT attempts.run, attempts.stage, attempts.n, attempts.node, attempts.state, attempts.last_seq, attempts.ended_at, attempts.renew_hash,
  definitions.spec
FROM attempts JOIN runs ON runs.id = attempts.run JOIN definitions ON definitions.job = runs.job AND definitions.version = runs.spec_version
WHERE attempts.run = ? AND attempts.stage = ? AND attempts.n = ?"""


# --- audit


class Segment(Row, frozen=True, kw_only=True):
    """What a job's schedule was for scheduled times with after < t <= until (until None: still so). `spec` None in a `removed` segment."""

    after: int
    until: int | None
    state: str  # active | paused | removed
    reason: str
    spec_version: int
    spec: Job | None


class FireRecord(Row, frozen=True, kw_only=True):
    """A scheduled run. Runs that never started have state `skipped` or `missed`."""

    scheduled_at: int
    due_at: int
    run: str
    state: str
    reason: str
    lateness_ns: int | None
    started_at: int | None


class StretchRecord(Row, frozen=True, kw_only=True):
    """Fires that had no run, as one record with first, last and count; outcome `skipped` or `missed`."""

    first: int
    last: int
    count: int
    outcome: str
    reason: str


class AuditJob(Row, frozen=True, kw_only=True):
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


def audit_jobs(connection: sqlite3.Connection, job_id: str | None = None) -> list[str]:
    """Ids of all jobs there ever were (removed ones too), or just this one; by id."""
    rows = connection.execute("SELECT job FROM jobs WHERE ? IS NULL OR job = ? ORDER BY job", (job_id, job_id))
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


def _segments(connection: sqlite3.Connection, job_id: str, start: int, end: int) -> list[Segment]:
    rows = connection.execute("SELECT after, state, spec_version, reason FROM history WHERE job = ? ORDER BY number", (job_id,)).fetchall()
    found = []
    for (after, state, spec_version, reason), following in zip(rows, [*rows[1:], None], strict=True):
        until = None if following is None else following[0]
        touches = after < end and (until is None or (until >= start and until > after))
        if touches:
            spec = None if state == "removed" else spec_at(connection, job_id, spec_version)
            found.append(Segment(after=after, until=until, state=state, reason=reason, spec_version=spec_version, spec=spec))
    return found


# --- events


class EventRow(Row, frozen=True, kw_only=True):
    """A visible change. `number` is the id of the event stream. `kind`: run, stage, job, project, node, token, cluster; `data` says what changed."""

    number: int
    at: int
    kind: str
    project: str | None
    job: str | None
    run: str | None
    stage: str | None
    node: str | None
    actor: str
    data: dict[str, Any]


def events_since(connection: sqlite3.Connection, number: int, limit: int = EVENTS_PER_QUERY) -> list[EventRow]:
    """Events later than `number`, in order. Ask `event_bounds` first whether that number is still kept."""
    rows = connection.execute(
        "SELECT number, at, kind, project, job, run, stage, node, actor, data FROM events WHERE number > ? ORDER BY number LIMIT ?", (number, limit)
    )
    return [
        EventRow(number=r[0], at=r[1], kind=r[2], project=r[3], job=r[4], run=r[5], stage=r[6], node=r[7], actor=r[8], data=msgspec.json.decode(r[9]))
        for r in rows
    ]


def event_bounds(connection: sqlite3.Connection) -> tuple[int, int]:
    """(first kept, last made). A reader can go on from `number` where number >= first - 1; else 410. Nothing kept: first = last + 1."""
    last = connection.execute("SELECT last_event FROM position WHERE one = 1").fetchone()[0]
    first = connection.execute("SELECT min(number) FROM events").fetchone()[0]
    return (last + 1 if first is None else first), last


# --- retention and figures


class Ages(Row, frozen=True, kw_only=True):
    """The oldest of what Prune forgets, so that its loop knows whether there is work. `runs` counts all runs kept."""

    oldest_run_created_at: int | None
    oldest_result: str | None
    oldest_event_at: int | None


def ages(connection: sqlite3.Connection) -> Ages:
    run_row = connection.execute("SELECT created_at FROM runs WHERE ended_at IS NOT NULL ORDER BY id LIMIT 1").fetchone()
    event_row = connection.execute("SELECT at FROM events ORDER BY number LIMIT 1").fetchone()
    return Ages(
        oldest_run_created_at=None if run_row is None else run_row[0],
        oldest_result=connection.execute("SELECT min(id) FROM results").fetchone()[0],
        oldest_event_at=None if event_row is None else event_row[0],
    )


def run_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many live runs are in each state, and how many stages wait: the gauges of /metrics and of the home page."""
    rows = connection.execute("SELECT state, count(*) FROM runs WHERE ended_at IS NULL GROUP BY state ORDER BY state")
    found = dict.fromkeys(_LIVE, 0) | dict(rows.fetchall())
    found["stages_queued"] = connection.execute("SELECT count(*) FROM stages WHERE state = 'queued'").fetchone()[0]
    return found


def nth_newest_ended(connection: sqlite3.Connection, keep: int) -> int | None:
    """`ended_at` of the run that is the `keep`th newest by creation, where there are more: what `runs_before` must be to keep so many."""
    row = connection.execute("SELECT created_at FROM runs ORDER BY id DESC LIMIT 1 OFFSET ?", (keep,)).fetchone()
    return None if row is None else row[0] + MILLISECOND


def stage_states(connection: sqlite3.Connection, run_id: str) -> dict[str, StageState]:
    """The states of a run's stages by name, in their order."""
    rows = connection.execute("SELECT name, state FROM stages WHERE run = ? ORDER BY position", (run_id,))
    return {name: StageState(state) for name, state in rows}
