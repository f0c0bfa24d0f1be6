"""Who did what, the newest first, by whom, what, to what, in which project and when."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec


class ActivityRow(msgspec.Struct, frozen=True, kw_only=True):
    """`before`, `after`: short values, None where there are none."""

    number: int
    at: int
    command: str
    actor: str
    token: str
    address: str
    action: str
    object: str
    project: str | None
    before: Any
    after: Any


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """`action` also as a beginning (`token` finds token.create). `projects`: what the asker is bound to; none: all there is."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    project: str | None = None
    since: int | None = None
    until: int | None = None
    projects: Sequence[str] = ()
    before: int | None = None  # number: where the page before ended


def activity(connection: sqlite3.Connection, sought: Sought, limit: int) -> list[ActivityRow]:
    wheres: list[str] = []
    values: list[Any] = []

    def where(condition: str, *given: Any) -> None:
        wheres.append(condition)
        values.extend(given)

    if sought.before is not None:
        where("number < ?", sought.before)
    if sought.actor is not None:
        where("(instr(actor, ?) > 0 OR token = ?)", sought.actor, sought.actor)
    if sought.action is not None:
        where("(action = ? OR substr(action, 1, ?) = ?)", sought.action, len(sought.action) + 1, f"{sought.action}.")
    if sought.object is not None:
        where("instr(object, ?) > 0", sought.object)
    if sought.project is not None:
        where("project = ?", sought.project)
    if sought.projects:
        where(f"project IN ({', '.join('?' * len(sought.projects))})", *sought.projects)
    if sought.since is not None:
        where("at >= ?", sought.since)
    if sought.until is not None:
        where("at < ?", sought.until)
    condition = f"WHERE {' AND '.join(wheres)}" if wheres else ""
    columns = "number, at, command, actor, token, address, action, object, project, before, after"
    rows = connection.execute(f"SELECT {columns} FROM activity {condition} ORDER BY number DESC LIMIT ?", (*values, limit))
    return [_row(row) for row in rows]


def _row(row: Sequence[Any]) -> ActivityRow:
    before, after = (None if text is None else msgspec.json.decode(text) for text in row[9:11])
    return ActivityRow(
        number=row[0], at=row[1], command=row[2], actor=row[3], token=row[4], address=row[5], action=row[6], object=row[7], project=row[8],
        before=before, after=after,
    )  # fmt: skip
