"""Going on without a majority: what `igor-node recover` and `restore` do, with no node running.

    recover    this data directory, a survivor's, becomes the only voter of its cluster in a new epoch (raft/recovery.py does the consensus part)
    restore    an empty data directory becomes that, from a backup

What is left to do needs a leader, so it is noted in `D/recovered.json` and done by the node at its next start (`node.py`): nodes that belong to the
past are called lost at once, which frees their names; this node registers, and gets an admin's and a join token if it has none. The note comes before
the new epoch and counts only in it, so a crash anywhere leaves either the old cluster or a recovery to be repeated.

A restored cluster has a new key: nodes of the old one cannot come back but empty. Tokens of people are hashes in the ledger and stay good. What the
ledger holds sealed (secrets, the CA's key) is opened by the key of then alone: put a voter's `cluster.key` into the directory before the restore, and
all of it is there; without it secrets are to be set anew, and a cluster with TLS gets a new CA, which the tokens of before do not name.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from igor_node import certified
from igor_node.backup import Header, check_file
from igor_node.data_dir import DataDir, DataDirProblem, Identity, unusable
from igor_node.ledger import distrust, query_cluster, query_keys
from igor_node.ledger.files import PART, clear, current_file, sync_file, sync_folder
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.ledger import check_file as check_ledger
from igor_node.ledger.reads import ReadsSync
from igor_node.settings import DEFAULT_LISTEN, default_slots
from igor_node.trust.keys import KEY_BYTES, KeyRing
from raft import recovery
from raft.interface import Halted, Member
from raft.recovery import Recovered, Stand

NOTE = "recovered.json"
RESTORING = "restoring"  # there while a restore is under way: what else is there is what it left
MAY_BE_THERE = frozenset({"node.toml", "lock", "cluster.key", RESTORING})


class Note(msgspec.Struct, frozen=True):
    """`above`: it counts in higher epochs than this. `gone`: nodes that were members; None: all but this one."""

    above: int
    gone: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Survivor:
    """A data directory as `recover` finds it. `names`: node -> name, as the ledger has them."""

    identity: Identity
    stand: Stand
    ledger_time: int
    names: dict[str, str]
    distrusted: str

    @property
    def others(self) -> list[str]:
        """The members that it would go on without."""
        return [self.names.get(member.id, member.id) for member in self._members if member.id != self.identity.id]

    @property
    def is_voter(self) -> bool:
        return self.stand.members.is_voter(self.identity.id)

    @property
    def _members(self) -> tuple[Member, ...]:
        return (*self.stand.members.voters, *self.stand.members.learners)


def look(data: DataDir) -> Survivor:
    """Raises DataDirProblem or Halted where there is nothing to recover."""
    identity = data.read_identity()
    ledger_file = data.path / "ledger.sqlite"
    if identity is None or not current_file(ledger_file).exists():
        raise DataDirProblem(f"data directory {data.path} holds no ledger: there is nothing to recover", hint="recover a voter, or restore a backup")
    found = distrust.distrusted(ledger_file)
    with closing(Ledger(ledger_file)) as ledger:
        stand = recovery.look(data.path / "raft", ledger, identity.id)
    with closing(ReadsSync(ledger_file)) as reads:
        position, nodes = reads.query(query_cluster.position), reads.query(query_cluster.nodes)
    return Survivor(identity, stand, position.time, {row.node: row.name for row in nodes}, "" if found is None else str(found))


def recover(data: DataDir) -> Recovered:
    """Makes it the only voter. Repeated after a crash it ends where it would have. Raises DataDirProblem or Halted."""
    survivor = look(data)
    me = survivor.identity
    if survivor.others:
        gone = tuple(sorted(survivor.stand.members.ids() - {me.id}))
        data.write(NOTE, msgspec.json.encode(Note(survivor.stand.epoch, gone)).decode() + "\n")
    if survivor.distrusted:
        distrust.trust(data.path / "ledger.sqlite")
    with closing(Ledger(data.path / "ledger.sqlite")) as ledger:
        return recovery.make_only_voter(data.path / "raft", ledger, Member(me.id, me.address))


def restore(file: Path, data: DataDir, name: str | None, default_name: str) -> tuple[Header, Identity, Recovered]:
    """The only voter of the backup's cluster in a new epoch. A name that the backup knows makes it that node again.

    Raises NotABackup, DataDirProblem or Halted; a directory that holds anything else is not touched.
    """
    had_key = data.ring()
    begin(data)
    try:
        header = _place_ledger(file, data.path / "ledger.sqlite")
        with closing(Ledger(data.path / "ledger.sqlite")) as ledger:
            identity = _identity(data, header, name, default_name)
            ring = _new_ring(data, had_key)
            data.write_ring(ring)
            with closing(ReadsSync(data.path / "ledger.sqlite")) as reads:
                named = certified.names(identity.address, identity.address)
                tls = reads.query(
                    lambda connection: certified.restore(
                        data, connection, ring, node=identity.id, cluster=identity.cluster, named=named, now_s=int(time.time())
                    )
                )
            identity = msgspec.structs.replace(identity, tls=tls)
            data.write(NOTE, msgspec.json.encode(Note(header.epoch)).decode() + "\n")
            recovered = recovery.make_only_voter(data.path / "raft", ledger, Member(identity.id, identity.address), above=header.epoch)
    except BaseException:
        _undo(data)
        if had_key is not None:
            data.write_ring(had_key)
        raise
    data.write_identity(identity)
    data.remove(RESTORING)
    sync_folder(data.path)
    return header, identity, recovered


def begin(data: DataDir) -> None:
    found = sorted(entry.name for entry in data.path.iterdir())
    if RESTORING in found:
        _undo(data)  # a restore that did not come to its end
    elif strangers := [name for name in found if name not in MAY_BE_THERE]:
        raise DataDirProblem(f"data directory {data.path} is not empty: it holds {', '.join(strangers[:5])}", hint="restore into an empty one")
    data.write(RESTORING, "")


def _undo(data: DataDir) -> None:
    data.reset(keep=MAY_BE_THERE - {RESTORING, "cluster.key"})


def _new_ring(data: DataDir, had: KeyRing | None) -> KeyRing:
    """With a new key in front of those that were given; of a generation that the ledger has not heard of."""
    with closing(ReadsSync(data.path / "ledger.sqlite")) as reads:
        known = [row.generation for row in reads.query(query_keys.keys).rows]
    generation = 1 + max([*known, *(had.by_generation if had is not None else ())], default=0)
    key = secrets.token_bytes(KEY_BYTES)
    return KeyRing(generation, {generation: key}) if had is None else had.with_key(generation, key).using(generation)


def _place_ledger(file: Path, path: Path) -> Header:
    """Checked by the backup's checksum as it is copied, then as a ledger."""
    part = path.with_name(path.name + PART)
    clear(part)
    try:
        with part.open("wb") as target:
            header = check_file(file, target.write)
        sync_file(part)
    except FileNotFoundError as problem:
        raise DataDirProblem(f"{file}: there is no such file") from problem
    except OSError as problem:
        raise unusable(path.parent, problem) from problem
    try:
        check_ledger(part)
    except Halted as problem:
        raise Halted(str(problem).replace(f"the snapshot {part}", str(file)).replace(str(part), str(file))) from None
    os.rename(part, path)
    sync_folder(path.parent)
    return header


def _identity(data: DataDir, header: Header, name: str | None, default_name: str) -> Identity:
    with closing(ReadsSync(data.path / "ledger.sqlite")) as reads:
        rows = {row.name: row for row in reads.query(query_cluster.nodes)}
    row = rows.get(name or default_name)
    if row is None:
        return Identity(
            name=name or default_name, id=secrets.token_hex(8), cluster=header.cluster, address=DEFAULT_LISTEN, slots=default_slots()
        )  # fmt: skip
    return Identity(name=row.name, id=row.node, cluster=header.cluster, address=row.address, labels=row.labels, slots=row.slots)
