"""The digests of this ledger, for comparing it with those of other nodes: by the leader all the time, by `igor verify` when somebody asks."""

from __future__ import annotations

import sqlite3

import msgspec


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """`now` is the digest at `index`, the end of the ledger; `marks` those at the last multiples of 1,000. In hex."""

    index: int
    now: str
    marks: dict[int, str]


def digests(connection: sqlite3.Connection) -> Digests:
    index, now = connection.execute("SELECT applied_index, digest FROM position WHERE one = 1").fetchone()
    marks = {entry: rolling.hex() for entry, rolling in connection.execute("SELECT entry, digest FROM digests ORDER BY entry")}
    return Digests(index=index, now=now.hex(), marks=marks)
