"""The rolling digest: one value for all entries of the log up to an index and everything they were answered and said in the ledger's events.

Two ledgers that applied the same log have the same digest at the same index, however the entries were cut into batches and through snapshots. Where
two differ, one of them was damaged or computes differently, and shows it as soon as an answer or an event depends on what differs. The digest stands
in the ledger's position, written in the transaction of the batch; the value at every `MARK_EVERY`th index is kept in the table `digests`, and the
leader compares those of all members (leader/digests.py).

It does not read the tables: what lies there damaged and is never asked for shows in `content` alone, which hashes every row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

import msgspec

from raft.interface import Entry

MARK_EVERY = 1_000  # entries
MARKS_KEPT = 100  # at 20,000 entries a second five seconds: a member's heartbeat tells its newest once a second
DIGEST_BYTES = 16
EMPTY = bytes(DIGEST_BYTES)

_head = Struct(">QQBqI").pack
_pack = msgspec.msgpack.Encoder().encode


class Mark(NamedTuple):
    """The digest at an index that is a multiple of MARK_EVERY."""

    entry: int
    digest: bytes


def chain(before: bytes, entry: Entry, time: int, answer: bytes, events: Sequence[Any]) -> bytes:
    """The digest after this entry. `time`: the ledger's after it."""
    parts = [before, _head(entry.index, entry.term, entry.kind, time, len(entry.data)), entry.data, answer]
    if events:
        parts.append(_pack(events))
    return blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest()


def content(connection: sqlite3.Connection) -> bytes:
    """Of every row of every table, in the order of its key. Reads the whole file: about 3 s a million rows."""
    whole = blake2b(digest_size=DIGEST_BYTES)
    tables = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name").fetchall()
    for table, text in tables:
        whole.update(_pack((table, text)))
        keys = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,))]
        for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY {", ".join(f"{chr(34)}{key}{chr(34)}" for key in keys)}'):
            whole.update(_pack(row))
    return whole.digest()
