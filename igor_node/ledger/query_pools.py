"""Pools: how many slots each has, and which runs hold them. Called inside `Reads.query`, and by `AssignStages` about the ledger as it is then."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from igor_node.ledger import schema
from igor_node.rules.placement import PoolView


def pools(connection: sqlite3.Connection) -> dict[str, PoolView]:
    """All that are defined, and those of which a slot is held, by PROJECT/NAME."""
    return pool_views(connection.execute(schema.SELECT_POOLS), connection.execute(schema.SELECT_POOLED))


def pool_views(rows: Iterable[Sequence[Any]], held: Iterable[Sequence[Any]]) -> dict[str, PoolView]:
    """`rows`: SELECT_POOLS; `held`: SELECT_POOLED."""
    slots: dict[str, int] = dict(rows)  # type: ignore[arg-type]
    holders: dict[str, list[str]] = {}
    for names, run in held:
        for name in msgspec.json.decode(names):
            holders.setdefault(name, []).append(run)
    return {name: PoolView(slots.get(name), tuple(holders.get(name, ()))) for name in sorted({*slots, *holders})}
