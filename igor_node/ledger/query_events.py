"""The stream of visible changes, by number, for the event streams of the API.

Called inside `Reads.query`. A reader first asks `event_bounds` whether what it wants is still kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

EVENTS_PER_QUERY = 1_000
LOOKED_THROUGH = 100_000  # events, the latest, for the last few of some projects
SHARED = ("node", "cluster")  # kinds that are of no project, and for everybody


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
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
    return [_event(row) for row in rows]


def _event(row: Sequence[Any]) -> EventRow:
    return EventRow(
        number=row[0], at=row[1], kind=row[2], project=row[3], job=row[4], run=row[5], stage=row[6], node=row[7], actor=row[8],
        data=msgspec.json.decode(row[9]),
    )  # fmt: skip


def last_events(connection: sqlite3.Connection, count: int, projects: Sequence[str]) -> list[EventRow]:
    """The last few, in order, that whoever is bound to these projects may see."""
    _, newest = event_bounds(connection)
    rows = connection.execute(
        "SELECT number, at, kind, project, job, run, stage, node, actor, data FROM events "
        f"WHERE number > ? AND (kind IN (?, ?) OR project IN ({','.join('?' * len(projects))})) ORDER BY number DESC LIMIT ?",
        (newest - LOOKED_THROUGH, *SHARED, *projects, count),
    )
    return [_event(row) for row in reversed(rows.fetchall())]


def is_seen(event: EventRow, projects: Sequence[str]) -> bool:
    """Whether it is for somebody who is bound to these projects (to none: for all)."""
    return not projects or event.project in projects or (event.project is None and event.kind in SHARED)


def event_bounds(connection: sqlite3.Connection) -> tuple[int, int]:
    """(first kept, last made). A reader can go on from `number` where number >= first - 1; else 410. Nothing kept: first = last + 1."""
    last = connection.execute("SELECT last_event FROM position WHERE one = 1").fetchone()[0]
    first = connection.execute("SELECT min(number) FROM events").fetchone()[0]
    return (last + 1 if first is None else first), last
