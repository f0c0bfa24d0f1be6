"""What the ledger holds of trust: the cluster's CAs, and the nodes that were taken out."""

from __future__ import annotations

import sqlite3

import msgspec


class AuthorityRow(msgspec.Struct, frozen=True, kw_only=True):
    """`certificates`: PEM, its own first. `sealed_key`: trust/sealing.py. Certificates of one that was dropped are believed no more."""

    generation: int
    certificates: str
    sealed_key: bytes
    set_at: int
    dropped_at: int | None


def authorities(connection: sqlite3.Connection) -> list[AuthorityRow]:
    """The newest first; none in a cluster without TLS."""
    found = connection.execute("SELECT generation, certificates, sealed_key, set_at, dropped_at FROM authorities ORDER BY generation DESC")
    return [AuthorityRow(generation=row[0], certificates=row[1], sealed_key=row[2], set_at=row[3], dropped_at=row[4]) for row in found]


def removed_nodes(connection: sqlite3.Connection) -> dict[str, int]:
    """Node -> when it was taken out. One that came back is none of them."""
    return dict(connection.execute("SELECT node, removed_at FROM nodes WHERE removed_at IS NOT NULL ORDER BY node").fetchall())
