"""The rolling digest: one value for all entries of the log up to an index and everything they were answered and said in the ledger's events.

Two ledgers that applied the same log have the same digest at the same index, however the entries were cut into batches and through snapshots. Where
two differ, one of them was damaged or computes differently, and shows it as soon as an answer or an event depends on what differs. The digest stands
in the ledger's position, written in the transaction of the batch; the value at every `MARK_EVERY`th index is kept in the table `digests`, and the
leader compares those of all members (leader/digests.py).

It does not read the tables: what lies there damaged shows when something depends on it, and a copy that is handed out is looked through page by page.
"""

from __future__ import annotations

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
