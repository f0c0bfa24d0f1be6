"""Epochs: how a cluster whose majority is lost for ever goes on without it, and never meets what is left of it again.

`make_only_voter` makes this node the only voter of the same cluster in a new *epoch*. It runs offline, for `igor-node recover` (on a survivor) and
for `restore` (in an empty folder, beside a ledger from a backup). Every hello carries the epoch, and nodes of different epochs refuse each other:
the others may hold entries that the new epoch never had, so they rejoin empty, however they come back. A joiner learns the epoch when it joins and
gives it to `Replica.start`, which keeps it.

The epoch stands in the file `epoch` beside the journal, `{"epoch": 2, "unfinished": false}`; no file is epoch 0. Order, and what a crash leaves:

    1. epoch raised, unfinished   the node does not start; recovery is repeated and does not raise it again
    2. the list of members        one frame of the journal: there or not
    3. epoch finished             as wanted; repeated, it finds nothing to do

The epoch comes first: a single voter of the old epoch would lead, and take in nodes that remember another history.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import msgspec

from raft import membership
from raft.disk import Disk, RealDisk
from raft.engine import Engine
from raft.interface import Applied, Entry, Halted, Kind, Member, Members, NodeId, StateMachine, Term
from raft.journal import Journal, JournalFailed
from raft.segment import Damaged

EPOCH_NAME = "epoch"


class Epoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):  # a damaged name must not leave the default
    epoch: int = 0
    unfinished: bool = False  # a recovery has begun and not ended


class Recovered(msgspec.Struct, frozen=True):
    """`index` and `term` of the last entry: all up to there counts as committed now, also what was not. `applied`: where the ledger stood."""

    index: int
    term: Term
    epoch: int
    applied: Applied
    before: Members  # the list that was in force


def read_epoch(folder: Path) -> Epoch:
    """Raises Halted where the file cannot be read: to go on with a guess could mix two histories."""
    file = folder / EPOCH_NAME
    try:
        return msgspec.json.decode(file.read_bytes(), type=Epoch)
    except FileNotFoundError:
        return Epoch()
    except (OSError, ValueError) as problem:
        raise Halted(f"{file} cannot be read: {problem}; restore it, or empty this node's data directory and let it join again") from problem


def write_epoch(folder: Path, epoch: Epoch) -> None:
    """Atomic and synced. OSError where the disk says no."""
    part = folder / (EPOCH_NAME + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(epoch) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(part, folder / EPOCH_NAME)
    RealDisk().sync_folder(str(folder))


def take_epoch(folder: Path, told: int, *, empty: bool) -> int:
    """The epoch this node starts in: that of its folder, or the one it was told when it joined. Raises Halted where the two cannot be."""
    found = read_epoch(folder)
    if found.unfinished:
        raise Halted(f"a recovery into epoch {found.epoch} was begun in {folder} and not finished; run igor-node recover again")
    if told <= found.epoch:
        return found.epoch
    if not empty:
        raise Halted(f"this cluster was recovered: epoch {told}; the log in {folder} is of epoch {found.epoch}; rejoin empty: igor-node join --reset")
    try:
        write_epoch(folder, Epoch(told))
    except OSError as problem:
        raise Halted(f"{folder / EPOCH_NAME} cannot be written: {problem.strerror or problem}") from problem
    return told


class Stand(msgspec.Struct, frozen=True):
    """What a folder holds: the last entry of its journal, where its ledger stands, the list of members in force, its epoch."""

    index: int
    term: Term
    applied: Applied
    members: Members
    epoch: int


def look(folder: Path, machine: StateMachine, node: NodeId) -> Stand:
    """Offline. Raises Halted with one clear line."""
    journal, applied = _open(folder, RealDisk()), machine.applied()
    try:
        members = _members(journal, applied, node)
        return Stand(journal.last_index, journal.last_term, applied, members, read_epoch(folder).epoch)
    finally:
        journal.close()


def make_only_voter(folder: Path, machine: StateMachine, member: Member, *, above: int = -1, disk: Disk | None = None) -> Recovered:
    """The node of this folder and ledger as the only voter of a new epoch, higher than `above` (of a backup) and than its own.

    Offline: nobody else may use the folder. Repeated after a crash it ends where it would have; where this node is the only member already, in an
    epoch higher than `above`, nothing is changed. Raises Halted with one clear line.
    """
    journal = _open(folder, disk or RealDisk())
    try:
        return _recover(folder, journal, machine.applied(), member, above)
    except JournalFailed as problem:
        raise Halted(str(problem)) from problem
    except OSError as problem:
        raise Halted(f"{folder / EPOCH_NAME} cannot be written: {problem.strerror or problem}") from problem
    finally:
        journal.close()


def _open(folder: Path, disk: Disk) -> Journal:
    try:
        return Journal.open(disk, str(folder))
    except Damaged as problem:
        raise Halted(str(problem)) from problem
    except OSError as problem:
        raise Halted(f"the journal in {folder} cannot be opened: {problem.strerror or problem}") from problem


def _members(journal: Journal, applied: Applied, node: NodeId) -> Members:
    """The engine knows how a journal joins its ledger, and which list of members is in force."""
    return Engine(node=node, journal=journal, applied=applied, monotonic=time.monotonic, chance=random.Random(0)).members


def _recover(folder: Path, journal: Journal, applied: Applied, member: Member, above: int) -> Recovered:
    if journal.last_index == 0 and applied.index == 0:
        raise Halted(f"there is nothing to recover in {folder}: neither ledger nor journal holds an entry")
    found = read_epoch(folder)
    before = _members(journal, applied, member.id)
    alone = before.is_voter(member.id) and len(before.ids()) == 1
    if alone and not found.unfinished and found.epoch > above:
        return Recovered(journal.last_index, journal.last_term, found.epoch, applied, before)
    epoch = found.epoch if found.unfinished and found.epoch > above else max(found.epoch, above) + 1
    write_epoch(folder, Epoch(epoch, unfinished=True))
    if not alone:
        _append_members(journal, Members(voters=(member,)))
    journal.sync()  # also when only the engine has put it where the ledger stands
    write_epoch(folder, Epoch(epoch))
    return Recovered(journal.last_index, journal.last_term, epoch, applied, before)


def _append_members(journal: Journal, members: Members) -> None:
    """In a term that nobody led: every leader of the old epoch had a lower one, or is refused with its epoch."""
    term = max(journal.term, journal.last_term) + 1
    journal.set_vote(term, None)
    journal.append([Entry(journal.last_index + 1, term, Kind.MEMBERS, membership.encode(members))])
