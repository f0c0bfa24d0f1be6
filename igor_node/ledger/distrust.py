"""A ledger that was found to differ from the majority's: the word for it on disk, and how a copy of another member takes its place.

A node whose digest is wrong stops; this mark stands beside its ledger, with what the next start needs. Only the ledger is given up, never the
journal: what the journal holds was acknowledged to a leader and may be the copy that a majority counts on, and it is checked by checksums of its own;
so are the node's term and vote. The next start fetches a copy *before* consensus begins (raft/reinstall.py), so until then the node is simply down:
it neither votes nor acknowledges. Then it starts like a node that was stopped between the install of a snapshot and the reset of its journal, which
every start knows how to mend. docs/consensus.md tells why the other ways are worse.

Order: the copy is complete and checked, takes the ledger's place by a rename, and only then the mark goes. A crash in between fetches once more.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from igor_node.ledger.files import PART, SUMS, clear, current_file, sync_file, sync_folder, take_place
from igor_node.ledger.ledger import Ledger, check_file, read_members
from raft.interface import Halted, Members

MARK = ".distrusted"


class Distrusted(msgspec.Struct, frozen=True):
    """The first wrong entry is one of `after + 1` to `upto`, or `damage` says what is wrong. `members`: whom to ask for a copy."""

    after: int
    upto: int
    members: Members
    damage: str = ""

    def __str__(self) -> str:
        return self.damage or f"differs from the majority's, by an entry from {self.after + 1} to {self.upto}"


def distrust(ledger: Ledger, after: int, upto: int) -> Distrusted:
    """Durable when it returns. The caller stops the node."""
    return _put_mark(ledger.path, Distrusted(after, upto, ledger.applied().members))


def distrust_damaged(path: Path, node: str, damage: Halted, members: Members | None = None) -> Distrusted:
    """The same for a ledger that was found damaged (pages.py). Without `members` nobody has it open, and they are read from it; the file alone is
    as old as its last checkpoint. Raises Halted where there is nobody else to take a copy from."""
    try:
        members = read_members(current_file(path)) if members is None else members
    except (sqlite3.Error, msgspec.DecodeError) as problem:
        raise Halted(f"{damage}; who the other members are cannot be read from it either: join this node anew (--reset)") from problem
    if not [member for member in (*members.voters, *members.learners) if member.id != node]:
        raise Halted(f"{damage}; there is no other member to take a copy from: restore a backup, or, to go on with it as it is, remove "
                     f"{current_file(path)}{SUMS}") from damage  # fmt: skip
    return _put_mark(path, Distrusted(0, 0, members, str(damage)))


def _put_mark(path: Path, found: Distrusted) -> Distrusted:
    part = _mark(path).with_name(_mark(path).name + PART)
    part.write_bytes(msgspec.json.encode(found))
    sync_file(part)
    os.rename(part, _mark(path))
    sync_folder(path.parent)
    return found


def distrusted(path: Path) -> Distrusted | None:
    """What stands beside the ledger at `path`. Raises Halted where it cannot be read: the ledger must not be used as if it were not there."""
    mark = _mark(path)
    try:
        return msgspec.json.decode(mark.read_bytes(), type=Distrusted)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as problem:
        raise Halted(f"{mark} cannot be read: {problem}; the ledger beside it is not to be trusted: join this node anew (--reset)") from problem


def install(path: Path, copy: Path) -> None:
    """The copy takes the place of the distrusted ledger at `path`. Raises Halted where it is damaged; then nothing has changed."""
    check_file(copy)
    fresh = path.with_name(path.name + PART)
    if copy != fresh:
        clear(fresh)
        os.rename(copy, fresh)
    sync_file(fresh)
    take_place(path, fresh)
    with closing(Ledger(path)):  # opens it, and removes what it replaced
        trust(path)


def trust(path: Path) -> None:
    """Takes the mark away: after an install, or because a person decides to go on with this ledger (`igor-node recover`)."""
    _mark(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def _mark(path: Path) -> Path:
    return path.with_name(path.name + MARK)
