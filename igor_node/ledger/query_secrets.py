"""Secrets as the ledger has them: names, versions, who set them when; and the sealed values, for whoever holds the cluster's key."""

from __future__ import annotations

import sqlite3

import msgspec

from igor_node.ledger.query_attempts import open_attempt
from igor_node.ledger.query_jobs import spec_of
from igor_node.words import NotFound


class SecretRow(msgspec.Struct, frozen=True, kw_only=True):
    project: str  # "": of the whole cluster
    name: str
    version: int
    set_at: int
    set_by: str
    ended_at: int | None = None  # replaced or removed


class SealedSecret(msgspec.Struct, frozen=True, kw_only=True):
    project: str
    name: str
    version: int
    sealed: bytes


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt is to be given. `by_variable`: name in the environment -> secret; `missing`: names of those that are not set."""

    node: str
    project: str
    by_variable: dict[str, SealedSecret]
    missing: tuple[str, ...]


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that began with the secret. `version`: the one that was set when it was placed; None: no longer known."""

    run: str
    job: str
    stage: str
    attempt: int
    node: str
    started_at: int
    version: int | None


USES_SHOWN = 20
RUNS_LOOKED_AT = 200  # of each job, the latest

_COLUMNS = "project, name, version, set_at, set_by, ended_at"


def secrets(connection: sqlite3.Connection, project: str) -> list[SecretRow]:
    """Those that are set."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM secrets WHERE project = ? AND ended_at IS NULL ORDER BY name", (project,))
    return [_row(row) for row in rows]


def versions(connection: sqlite3.Connection, project: str, name: str) -> list[SecretRow]:
    """All, the newest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM secrets WHERE project = ? AND name = ? ORDER BY version DESC", (project, name))
    return [_row(row) for row in rows]


def newest_version(connection: sqlite3.Connection, project: str, name: str) -> int:
    """0: it was never set."""
    return int(connection.execute("SELECT coalesce(max(version), 0) FROM secrets WHERE project = ? AND name = ?", (project, name)).fetchone()[0])


def sealed(connection: sqlite3.Connection) -> list[SealedSecret]:
    """All that are set."""
    rows = connection.execute("SELECT project, name, version, sealed FROM secrets WHERE ended_at IS NULL ORDER BY project, name")
    return [SealedSecret(project=row[0], name=row[1], version=row[2], sealed=row[3]) for row in rows]


def wanted_by(connection: sqlite3.Connection, attempt: str) -> Wanted:
    """For an attempt that has not ended: the project's secrets, else the cluster's. Raises NotFound."""
    row = open_attempt(connection, attempt)
    if row is None:
        raise NotFound(f"no attempt {attempt} is open")
    found: dict[str, SealedSecret] = {}
    missing = []
    for variable, name in row.stage_spec.secrets.items():
        secret = _current(connection, row.project, name) or _current(connection, "", name)
        if secret is None:
            missing.append(name)
        else:
            found[variable] = secret
    return Wanted(node=row.node, project=row.project, by_variable=found, missing=tuple(dict.fromkeys(missing)))


def names_set(connection: sqlite3.Connection, project: str) -> frozenset[str]:
    """What jobs of the project may name: its own and the cluster's."""
    rows = connection.execute("SELECT name FROM secrets WHERE ended_at IS NULL AND project IN ('', ?) ORDER BY name", (project,))
    return frozenset(row[0] for row in rows)


_USERS = """
SELECT jobs.job, definitions.spec FROM jobs JOIN definitions ON definitions.job = jobs.job AND definitions.version = jobs.spec_version
WHERE jobs.removed_at IS NULL AND (?1 = '' OR jobs.project = ?1) AND instr(definitions.spec, ?2)
  AND (?1 <> '' OR NOT EXISTS (SELECT 1 FROM secrets WHERE project = jobs.project AND name = ?3 AND ended_at IS NULL))
ORDER BY jobs.job"""
_EVER_NAMED = """
SELECT DISTINCT jobs.job, jobs.project FROM jobs JOIN definitions ON definitions.job = jobs.job
WHERE (?1 = '' OR jobs.project = ?1) AND instr(definitions.spec, ?2) ORDER BY jobs.job"""
_BEGUN = """
SELECT latest.id, attempts.stage, attempts.n, nodes.name, attempts.started_at, attempts.placed_at, definitions.spec
FROM (SELECT id, job, spec_version FROM runs WHERE job = ? ORDER BY id DESC LIMIT ?) AS latest
JOIN definitions ON definitions.job = latest.job AND definitions.version = latest.spec_version AND instr(definitions.spec, ?)
JOIN attempts ON attempts.run = latest.id AND attempts.started_at IS NOT NULL
JOIN nodes ON nodes.node = attempts.node ORDER BY attempts.started_at DESC, latest.id, attempts.stage, attempts.n"""


def users(connection: sqlite3.Connection, project: str, name: str) -> list[str]:
    """Jobs whose present definition names it; of a secret of the whole cluster those whose project has none of that name itself."""
    rows = connection.execute(_USERS, (project, _as_written(name), name))
    return [job for job, spec in rows if any(name in stage.secrets.values() for stage in spec_of(spec).stages)]


def uses(connection: sqlite3.Connection, project: str, name: str) -> list[Use]:
    """Attempts that were given it, the latest first."""
    own = versions(connection, project, name)
    found: list[Use] = []
    for job, owner in connection.execute(_EVER_NAMED, (project, _as_written(name))).fetchall():
        nearer = versions(connection, owner, name) if project == "" else []
        for run, stage, n, node, started_at, placed_at, spec in connection.execute(_BEGUN, (job, RUNS_LOOKED_AT, _as_written(name))):
            if _names(spec, stage, name) and _set_at(nearer, placed_at) is None:
                version = _set_at(own, placed_at)
                found.append(Use(run=run, job=job, stage=stage, attempt=n, node=node, started_at=started_at, version=version))
    return sorted(found, key=lambda use: (-use.started_at, use.run, use.stage, use.attempt))[:USES_SHOWN]


def _as_written(name: str) -> bytes:
    """In a definition's text; names have no character that JSON writes otherwise."""
    return f'"{name}"'.encode()


def _names(spec: bytes, stage: str, name: str) -> bool:
    return any(one.name == stage and name in one.secrets.values() for one in spec_of(spec).stages)


def _set_at(rows: list[SecretRow], at: int) -> int | None:
    return next((row.version for row in rows if row.set_at <= at and (row.ended_at is None or at < row.ended_at)), None)


def _current(connection: sqlite3.Connection, project: str, name: str) -> SealedSecret | None:
    row = connection.execute("SELECT version, sealed FROM secrets WHERE project = ? AND name = ? AND ended_at IS NULL", (project, name)).fetchone()
    return None if row is None else SealedSecret(project=project, name=name, version=row[0], sealed=row[1])


def _row(row: tuple[str, str, int, int, str, int | None]) -> SecretRow:
    return SecretRow(project=row[0], name=row[1], version=row[2], set_at=row[3], set_by=row[4], ended_at=row[5])
