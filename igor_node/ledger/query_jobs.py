"""What can be asked about projects and jobs: their versions, the definitions in force, and which job a person means by a name.

Structs with times as Instants, for the fires loop, for plans and for the API's handlers, which make JSON of them. Called inside `Reads.query`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from igor_node.definitions.jobs import Job, Stage, decode_job
from igor_node.ledger.schema import span_of
from igor_node.words import Conflict, NotFound

JOBS_PER_PAGE = 1_000  # CONTRACT: `limit` is at most this


def within(projects: Sequence[str], column: str = "project") -> str:
    """A condition for what a token that is bound to projects may see; it takes these as parameters. Empty for all."""
    return f"AND {column} IN ({','.join('?' * len(projects))})" if projects else ""


# --- projects


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
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


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
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


def source_text(connection: sqlite3.Connection, name: str, file: str) -> str | None:
    """One file of the current version, found by SQLite: decoding all sources and jobs of a large project takes ten times as long."""
    row = connection.execute(
        "SELECT files.value FROM projects JOIN versions USING (project, version) JOIN json_each(versions.sources) AS files "
        "WHERE projects.project = ? AND files.key = ? ORDER BY files.id LIMIT 1",
        (name, file),
    ).fetchone()
    return None if row is None else str(row[0])


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


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
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


def jobs(
    connection: sqlite3.Connection, *, project: str | None = None, after: str = "", limit: int = JOBS_PER_PAGE, projects: Sequence[str] = ()
) -> list[JobRow]:
    """Jobs by id, of one project or of all; `after` is the id of the last one of the page before. `projects`: only of these."""
    first, behind = span_of(project) if project is not None else ("", "\U0010ffff")
    condition = f"AND jobs.job > ? AND jobs.job >= ? AND jobs.job < ? {within(projects, 'jobs.project')}"
    rows = connection.execute(_JOBS.format(condition), (after, first, behind, *projects, limit))
    return [_job(row) for row in rows]


def job_ids(connection: sqlite3.Connection, project: str | None = None) -> list[str]:
    """All that are defined, of one project or of all."""
    rows = connection.execute("SELECT job FROM jobs WHERE removed_at IS NULL AND (?1 IS NULL OR project = ?1) ORDER BY job", (project,))
    return [row[0] for row in rows]


def schedulable(connection: sqlite3.Connection) -> list[JobRow]:
    """Every job that has a schedule, paused ones too, for the fires loop. Bounded by what pushes may hold."""
    return [row for row in jobs(connection, limit=-1) if row.spec.schedules]


def job(connection: sqlite3.Connection, name_or_id: str, *, count_live: bool = True, projects: Sequence[str] = ()) -> JobRow:
    """By `project/name`, or by the name alone where only one project has it. Raises NotFound, or Conflict where it is ambiguous.

    Whoever only acts on the job spares the ledger a count of its thousands of live runs.
    """
    statement = _JOBS if count_live else _JOBS.replace(_COUNT_LIVE, "NULL")
    return _job(connection.execute(statement.format("AND jobs.job = ?"), (resolve_job(connection, name_or_id, projects=projects), 1)).fetchone())


def resolve_job(connection: sqlite3.Connection, name_or_id: str, *, removed: bool = False, projects: Sequence[str] = ()) -> str:
    """The id of a job that a person named. `removed`: also one that is no longer defined (its history stays). `projects`: as if there were no other
    ones, so that nothing can be learned of those."""
    column = "job" if "/" in name_or_id else "name"
    rows = connection.execute(
        f"SELECT job, removed_at FROM jobs WHERE {column} = ? AND (removed_at IS NULL OR ?) {within(projects)} ORDER BY removed_at IS NOT NULL, job",
        (name_or_id, removed, *projects),
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


def stage_of(spec: Job, name: str) -> Stage:
    """Raises NotFound; the ledger makes stages from the same definition, so that this is our own mistake."""
    for stage in spec.stages:
        if stage.name == name:
            return stage
    raise NotFound(f"job {spec.id} has no stage {name}")


def _job(row: Sequence[Any]) -> JobRow:
    return JobRow(
        job=row[0], project=row[1], name=row[2], version=row[3], spec_version=row[4], spec=spec_of(row[5]), decided_until=row[6],
        paused=row[7] is not None, paused_at=row[7], paused_until=row[8], pause_reason=row[9], paused_by=row[10], resumed_at=row[11],
        created_at=row[12], changed_at=row[13], live=row[14],
    )  # fmt: skip
