"""What the ledger knows of the cluster's keys, and what is still sealed or signed with one that was replaced."""

from __future__ import annotations

import sqlite3

import msgspec


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """`mark` names the key (trust/keys.py)."""

    generation: int
    mark: bytes
    made_at: int
    used_at: int | None
    dropped_at: int | None


class KeyRows(msgspec.Struct, frozen=True):
    """Newest first; none in a ledger that is still empty."""

    rows: tuple[KeyRow, ...]

    @property
    def in_force(self) -> KeyRow | None:
        return next((row for row in self.rows if row.used_at is not None), None)

    @property
    def to_come(self) -> KeyRow | None:
        return self.rows[0] if self.rows and self.rows[0].used_at is None else None

    @property
    def oldest(self) -> int:
        """The oldest generation that is not dropped."""
        return min((row.generation for row in self.rows if row.dropped_at is None), default=0)


def keys(connection: sqlite3.Connection) -> KeyRows:
    found = connection.execute("SELECT generation, mark, made_at, used_at, dropped_at FROM cluster_keys ORDER BY generation DESC")
    return KeyRows(tuple(KeyRow(generation=row[0], mark=row[1], made_at=row[2], used_at=row[3], dropped_at=row[4]) for row in found))


def oldest_open_attempt(connection: sqlite3.Connection) -> int | None:
    """When the oldest attempt that has not ended was placed: its wrapper renews its lease by a token of the key of then."""
    oldest: int | None = connection.execute("SELECT min(placed_at) FROM attempts INDEXED BY attempts_open WHERE ended_at IS NULL").fetchone()[0]
    return oldest
