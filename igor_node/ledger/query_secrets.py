"""Secrets as the ledger has them: names, versions, who set them when; and the sealed values, for whoever holds the cluster's key."""

from __future__ import annotations

import sqlite3

import msgspec

from igor_node.ledger.query_attempts import open_attempt
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


def _current(connection: sqlite3.Connection, project: str, name: str) -> SealedSecret | None:
    row = connection.execute("SELECT version, sealed FROM secrets WHERE project = ? AND name = ? AND ended_at IS NULL", (project, name)).fetchone()
    return None if row is None else SealedSecret(project=project, name=name, version=row[0], sealed=row[1])


def _row(row: tuple[str, str, int, int, str, int | None]) -> SecretRow:
    return SecretRow(project=row[0], name=row[1], version=row[2], set_at=row[3], set_by=row[4], ended_at=row[5])
