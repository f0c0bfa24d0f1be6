"""Who did what. Rows are written by the ledger itself (ledger/apply_activity.py); here they are only read."""

from __future__ import annotations

from typing import Any

from igor_node.http.api.jobs import text
from igor_node.http.dispatch import Call
from igor_node.http.limits import QUERY_DEFAULT, QUERY_LIMIT
from igor_node.http.permissions import Reach
from igor_node.http.routes import Route, Struct
from igor_node.ledger import query_activity
from igor_node.words import Instant, Malformed


class ActivityQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`since` inclusive, `until` exclusive, RFC 3339. `action`: `token.create`, or `token` for all about tokens."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    project: str | None = None
    since: Instant | None = None
    until: Instant | None = None
    limit: int = QUERY_DEFAULT
    cursor: str | None = None


async def list_activity(call: Call) -> Any:
    asked: ActivityQuery = call.query
    limit = min(max(asked.limit, 1), QUERY_LIMIT)
    if asked.cursor is not None and not (asked.cursor.isascii() and asked.cursor.isdigit() and len(asked.cursor) <= 18):
        raise Malformed(f'cursor is "{asked.cursor[:40]}"', hint="expected the one that an earlier answer gave as next")
    sought = query_activity.Sought(
        actor=asked.actor, action=asked.action, object=asked.object, project=asked.project,
        since=asked.since, until=asked.until, projects=call.caller.projects, before=None if asked.cursor is None else int(asked.cursor),
    )  # fmt: skip
    rows = await call.read(lambda connection: query_activity.activity(connection, sought, limit + 1))
    more = len(rows) > limit
    return {"items": [activity_json(row) for row in rows[:limit]], "next": str(rows[limit - 1].number) if more else None}


def activity_json(row: query_activity.ActivityRow) -> dict[str, Any]:
    return {
        "id": row.command,
        "at": text(row.at),
        "actor": row.actor,
        "token": row.token,
        "address": row.address,
        "action": row.action,
        "object": row.object,
        "project": row.project,
        "before": row.before,
        "after": row.after,
    }


ROUTES = (Route(method="GET", path="/v1/activity", handler=list_activity, summary="Who did what", reach=Reach.LIST, query=ActivityQuery),)
