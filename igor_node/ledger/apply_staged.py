"""Pushes that are larger than an entry of the log: their pieces are kept until the last one is there, then the push is applied as one decision.

Whoever pushes sends the pieces one after the other, each a command with an id of its own, and repeats what it got no answer for. A staging that is
not completed within an hour of ledger time is forgotten, at the next piece of any push or the next Prune.
"""

from __future__ import annotations

import msgspec

from igor_node.ledger import schema
from igor_node.ledger.apply_pushes import push_project
from igor_node.ledger.commands import Done, Refused, Result, StagePush, decode_push
from igor_node.ledger.transaction import Transaction
from igor_node.words import SECOND

STAGED_LIMIT_BYTES = 64 * 1024 * 1024  # of one push: all of it is held in memory when it takes effect
PART_BYTES = 960 * 1024  # an entry holds 1 MiB, with the envelope
PARTS_LIMIT = STAGED_LIMIT_BYTES // PART_BYTES + 1
STAGINGS_LIMIT = 8  # at once, of all projects
STAGED_KEPT_NS = 3600 * SECOND  # of ledger time, after its newest piece


def stage_push(tx: Transaction, command: StagePush) -> Result:
    """`staged` of `parts`, or, with the last piece, what push_project says."""
    if not (1 <= command.parts <= PARTS_LIMIT and 0 <= command.part < command.parts and 0 < len(command.data) <= PART_BYTES):
        return Refused("Malformed", f"part {command.part} of {command.parts}, {len(command.data)} bytes, is no part of a push")
    forget_stagings(tx)
    staged, parts = tx.one(schema.COUNT_STAGED, command.push)
    if staged and parts != command.parts:
        return Refused("Conflict", f"push {command.push} was begun with {parts} parts, this is one of {command.parts}")
    if not staged and tx.one(schema.COUNT_STAGINGS)[0] >= STAGINGS_LIMIT:
        return Refused("TooMany", f"{STAGINGS_LIMIT} large pushes are under way already", "try again when one of them is done")
    there = tx.one(schema.SELECT_STAGED_PART, command.push, command.part)
    if there is not None and bytes(there[0]) != command.data:
        return Refused("Conflict", f"part {command.part} of push {command.push} was sent before with another content")
    if there is None:
        tx.execute(schema.INSERT_STAGED, (command.push, command.part, command.parts, tx.time, command.data))
        staged += 1
    return _take_effect(tx, command.push) if staged == command.parts else Done({"staged": staged, "parts": command.parts})


def forget_stagings(tx: Transaction) -> int:
    """How many pieces are gone."""
    return tx.execute(schema.EXPIRE_STAGED, (tx.time - STAGED_KEPT_NS,)).rowcount


def _take_effect(tx: Transaction, push: str) -> Result:
    """The pieces are done with, whatever becomes of the push: who was refused begins anew."""
    data = b"".join(row[0] for row in tx.all(schema.SELECT_STAGED, push))
    tx.execute(schema.DELETE_STAGED, (push,))
    try:
        command = decode_push(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refused("Malformed", f"the {len(data)} bytes of push {push} are not a push of a project")
    done = push_project(tx, command)
    return Done({**done.value, "project": command.project}) if isinstance(done, Done) else done
