"""A build of Igor that knows one version of the ledger more: a command `leave_note`, a table for it, and an index on a table that was there."""

from __future__ import annotations

from igor_node.ledger.apply import APPLY, STEPS
from igor_node.ledger.commands import Command, Done, Result
from igor_node.ledger.transaction import Transaction
from igor_node.ledger.versions import CommandSet, Step


class LeaveNote(Command, frozen=True, kw_only=True, omit_defaults=True, tag="leave_note"):
    text: str


def leave_note(tx: Transaction, command: LeaveNote) -> Result:
    tx.execute("INSERT OR IGNORE INTO notes VALUES (?, ?)", (tx.time, command.text))
    return Done({"note": command.text})


NEWER_STEP = Step(
    commands={LeaveNote: leave_note},
    migration=(
        "CREATE TABLE notes(at INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (at, text)) STRICT, WITHOUT ROWID",
        "CREATE INDEX events_by_kind ON events(kind, number)",
    ),
)
NEWER = CommandSet(APPLY, (*STEPS, NEWER_STEP))
