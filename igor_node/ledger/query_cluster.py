"""What can be asked about the cluster itself: where the ledger stands, its nodes and its tokens.

Like all of query_*.py these are functions of a read-only connection, called inside `Reads.query` (reads.py), which opens one read transaction around
each call. They write nothing, read no clock and decide nothing; where "now" matters it is an argument.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from igor_node.words import NotFound


class Position(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    term: int
    time: int
    last_event: int


class ClusterInfo(msgspec.Struct, frozen=True, kw_only=True):
    cluster: str
    tzdata: str
    wanted_voters: int
    founded_at: int
    ledger_version: int


def position(connection: sqlite3.Connection) -> Position:
    """Index, term and ledger time of this very snapshot; `last_event` is the highest number in the events so far."""
    index, term, time, last = connection.execute("SELECT applied_index, applied_term, ledger_time, last_event FROM position WHERE one = 1").fetchone()
    return Position(index=index, term=term, time=time, last_event=last)


def cluster(connection: sqlite3.Connection) -> ClusterInfo | None:
    """None before FoundCluster was applied."""
    found = dict(connection.execute("SELECT name, value FROM meta ORDER BY name").fetchall())
    if "cluster" not in found:
        return None
    return ClusterInfo(
        cluster=found["cluster"], tzdata=found["tzdata"], wanted_voters=found["wanted_voters"], founded_at=found["founded_at"],
        ledger_version=found["ledger_version"],
    )  # fmt: skip


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
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
    ephemeral: bool
    used: int
    running: int


_NODES = """
SELECT node, name, address, labels, slots, version, state, reason, changed_at, registered_at, ephemeral,
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
        changed_at=row[8], registered_at=row[9], ephemeral=bool(row[10]), used=row[11], running=row[12],
    )  # fmt: skip


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    role: str
    name: str
    projects: tuple[str, ...]
    node: str | None
    subject: str | None
    made_by: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    hash: str
    last_used_at: int | None = None  # to the minute

    def good_at(self, now: int) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


_TOKENS = "SELECT token, role, name, projects, node, subject, made_by, created_at, expires_at, revoked_at, hash, last_used_at FROM tokens"


def tokens(connection: sqlite3.Connection) -> list[TokenRow]:
    return [_token(row) for row in connection.execute(f"{_TOKENS} ORDER BY token")]


def _token(row: Sequence[Any]) -> TokenRow:
    return TokenRow(
        token=row[0], role=row[1], name=row[2], projects=tuple(msgspec.json.decode(row[3])), node=row[4], subject=row[5], made_by=row[6],
        created_at=row[7], expires_at=row[8], revoked_at=row[9], hash=row[10], last_used_at=row[11],
    )  # fmt: skip
