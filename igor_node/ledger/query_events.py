"""The stream of visible changes, by number, for the event streams of the API.

Called inside `Reads.query`. A reader first asks `event_bounds` whether what it wants is still kept.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

EVENTS_PER_QUERY = 1_000


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
    return [
        EventRow(number=r[0], at=r[1], kind=r[2], project=r[3], job=r[4], run=r[5], stage=r[6], node=r[7], actor=r[8], data=msgspec.json.decode(r[9]))
        for r in rows
    ]


def event_bounds(connection: sqlite3.Connection) -> tuple[int, int]:
    """(first kept, last made). A reader can go on from `number` where number >= first - 1; else 410. Nothing kept: first = last + 1."""
    last = connection.execute("SELECT last_event FROM position WHERE one = 1").fetchone()[0]
    first = connection.execute("SELECT min(number) FROM events").fetchone()[0]
    return (last + 1 if first is None else first), last
