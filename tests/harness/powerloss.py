"""Power cuts under real processes: a disk that forgets what was not synced.

    disk = Disk(root, side)              # everything below `root` is on it
    disk.arm()                           # what is there now is durable; from here on everything is on record
    … run processes with disk.environment(); kill them all …
    loss = disk.cut(chance)              # `root` is now what a power cut could have left; armed again

`powerloss.c`, loaded into the processes, writes down each operation and each sync, in an order that all processes share. `cut` makes the folder
anew from what was there and from the record: what a sync covers is kept, of everything else chance decides. The rules are those of
`raft/disk.py`, harsher than most file systems:

* bytes written since the file's last fsync or fdatasync are lost in any part, sector by sector; the size may have grown over them;
* a name made, renamed or removed since its folder's last fsync is as before or as after, each by itself; a rename is whole or not at all;
* a sync of a file says nothing of its name, nor one of a folder of its files' contents.

What was never seen (stores into mappings, files of the jobs' commands) is lost. So are pipes: who needs one makes it. The machine comes back with
another boot id.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from pathlib import Path

from tests.harness.preload import built

SECTORS = (512, 4096)  # bytes that are written whole or not at all; each cut takes one of them
MAGIC = 0x31524C50
HEAD = struct.Struct("<IIHHHHQQQQQ")
MAPPED = "-shm"  # SQLite's index of its write-ahead log: shared memory that happens to have a name


class Kind(IntEnum):
    WRITE = 1
    TRUNCATE = 2
    SYNC = 3
    CREATE = 4
    MKDIR = 5
    RENAME = 6
    UNLINK = 7
    RMDIR = 8
    LINK = 9
    SYMLINK = 10
    AMEND = 11
    EXTEND = 12


class Mode(StrEnum):
    """What becomes of what was not synced."""

    NOTHING = "none of it is left"
    EVERYTHING = "all of it is left"
    ORDERED = "what came first is left"
    WHOLE = "some operations are left, each whole"
    TORN = "some sectors and some names are left"


@dataclass(frozen=True)
class Record:
    """As powerloss.c writes it; `a` and `b` are offsets, sizes, modes, inodes or sequence numbers, by kind."""

    seq: int
    kind: Kind
    inode: int
    inode2: int
    a: int
    b: int
    name: str
    name2: str
    data: bytes


@dataclass(eq=False)
class Node:
    """A file, a folder or a symbolic link, whatever it is called."""

    mode: int = 0o600
    folder: bool = False
    target: str | None = None
    content: bytes = b""
    entries: dict[str, Node] = field(default_factory=dict)  # of a folder: what is on the disk
    seen: dict[str, Node] = field(default_factory=dict)  # of a folder: what processes saw last
    steps: list[Record] = field(default_factory=list)  # of a file: what was done to its content
    covered: int = 0  # the begin of its last sync: every lower number is durable


@dataclass(frozen=True)
class NameStep:
    """`node` loses the name `old` in `of` and gets the name `new` in `to`, as far as they are given."""

    seq: int
    node: Node
    of: Node | None = None
    old: str = ""
    to: Node | None = None
    new: str = ""

    @property
    def durable(self) -> bool:
        """A rename between folders is one transaction of the file system: it is durable with either of them."""
        return any(folder is not None and self.seq < folder.covered for folder in (self.of, self.to))

    def do(self) -> None:
        """On the disk. Where an earlier step was lost this one may have nothing to do, unless it is durable itself."""
        if self.of is not None:
            if self.of.entries.get(self.old) is self.node:
                if self.to is None and self.node.entries:
                    return  # a folder whose files' removal was lost
                del self.of.entries[self.old]
            elif not self.durable:
                return
        if self.to is not None:
            self.to.entries[self.new] = self.node


@dataclass(frozen=True)
class Loss:
    """What a cut took: for the story of a test."""

    mode: Mode
    writes: int
    writes_lost: int
    names: int
    names_lost: int

    def __str__(self) -> str:
        return f"{self.mode}: lost {self.writes_lost} of {self.writes} unsynced writes, {self.names_lost} of {self.names} unsynced names"


class Disk:
    """One machine's disk. `side`: a folder elsewhere, for the record."""

    def __init__(self, root: Path, side: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self.side = side
        self._known: dict[int, Node] = {}  # inode -> what bears it
        self._top = Node()

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(built("powerloss")), "HARNESS_DISK_ROOT": str(self.root), "HARNESS_DISK_SIDE": str(self.side)}

    def arm(self) -> None:
        """No process may be running on it."""
        shutil.rmtree(self.side, ignore_errors=True)
        self.side.mkdir(parents=True)
        (self.side / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self._known = {}
        self._top = self._read(self.root)

    def cut(self, chance: random.Random, mode: Mode | None = None) -> Loss:
        """Every process on it must be dead."""
        names = self._replay()
        verdict = _Verdict(mode or chance.choice(list(Mode)), chance, max((step.seq for step in names), default=0))
        for step in names:
            if verdict.keeps_name(step):
                step.do()
        fresh = self.root.with_name(self.root.name + ".cut")
        _write(self._top, fresh, verdict, {})
        shutil.rmtree(self.root)
        fresh.rename(self.root)
        self.arm()
        return verdict.loss()

    def _read(self, path: Path) -> Node:
        found = path.lstat()
        node = Node(mode=stat.S_IMODE(found.st_mode), folder=stat.S_ISDIR(found.st_mode))
        self._known[found.st_ino] = node
        if node.folder:
            kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
            names = [one for one in sorted(os.listdir(path)) if any(kind((path / one).lstat().st_mode) for kind in kinds)]
            node.entries = {name: self._known.get((path / name).lstat().st_ino) or self._read(path / name) for name in names}
            node.seen = dict(node.entries)
        elif stat.S_ISLNK(found.st_mode):
            node.target = os.readlink(path)
        else:
            node.content = path.read_bytes()
        return node

    # --- the record

    def _replay(self) -> list[NameStep]:
        """Gives every file its steps and every folder its syncs; returns the changes of names, in order."""
        names: list[NameStep] = []
        for record in records(self.side):
            node = self._known.get(record.inode)
            if node is None:
                continue  # made by somebody who was not watched
            if record.kind == Kind.SYNC:
                node.covered = max(node.covered, record.a)
            elif record.kind in (Kind.WRITE, Kind.TRUNCATE, Kind.EXTEND):
                node.steps.append(record)
            elif (step := self._name_step(node, record)) is not None:
                names.append(step)
                _show(step)
        return names

    def _name_step(self, folder: Node, record: Record) -> NameStep | None:
        match record.kind:
            case Kind.UNLINK | Kind.RMDIR | Kind.RENAME:
                node = self._known.get(record.a)
                to = self._known.get(record.inode2) if record.kind == Kind.RENAME else None
                if node is None or (record.kind == Kind.RENAME and to is None):
                    return None
                return NameStep(record.seq, node, of=folder, old=record.name, to=to, new=record.name2)
            case Kind.LINK:
                node = self._known.get(record.inode2)
                return None if node is None else NameStep(record.seq, node, to=folder, new=record.name)
        if folder.seen.get(record.name) is not None and folder.seen[record.name] is self._known.get(record.inode2):
            return None  # two processes made it at once, one of them did
        target = record.name2 if record.kind == Kind.SYMLINK else None
        node = self._known[record.inode2] = Node(mode=record.a or 0o600, folder=record.kind == Kind.MKDIR, target=target)
        return NameStep(record.seq, node, to=folder, new=record.name)


def _show(step: NameStep) -> None:
    if step.of is not None and step.of.seen.get(step.old) is step.node:
        del step.of.seen[step.old]
    if step.to is not None:
        step.to.seen[step.new] = step.node


def records(side: Path) -> list[Record]:
    """What all processes wrote down, in order, without what failed."""
    found: dict[int, Record] = {}
    amended: dict[int, int] = {}
    for path in sorted(side.glob("*.log")):
        for record in _parse(path.read_bytes()):
            if record.kind == Kind.AMEND:
                amended[record.seq] = record.a
            else:
                found[record.seq] = record
    for seq, done in amended.items():
        if seq in found:
            record = found.pop(seq)
            if done and record.kind == Kind.WRITE:
                found[seq] = replace(record, data=record.data[:done])
    return [found[seq] for seq in sorted(found)]


def _parse(data: bytes) -> Iterator[Record]:
    """The last record of a killed process may be torn: what it tells had not begun."""
    at = 0
    while at + HEAD.size <= len(data):
        magic, length, kind, name_length, name2_length, zeros, seq, inode, inode2, a, b = HEAD.unpack_from(data, at)
        assert magic == MAGIC, "powerloss.c and powerloss.py do not agree"
        start = at + HEAD.size
        names, end = start + name_length + name2_length, start + name_length + name2_length + length
        if end > len(data):
            return
        name, name2 = os.fsdecode(data[start : start + name_length]), os.fsdecode(data[start + name_length : names])
        yield Record(seq, Kind(kind), inode, inode2, a, b, name, name2, bytes(b) if zeros else data[names:end])
        at = end


# --- what a cut leaves


class _Verdict:
    def __init__(self, mode: Mode, chance: random.Random, last: int) -> None:
        self.mode = mode
        self.chance = chance
        self.sector = chance.choice(SECTORS)
        self.kept_share = chance.uniform(0.05, 0.95)
        self.moment = chance.randint(0, last)
        self.writes = self.writes_lost = self.names = self.names_lost = 0

    def keeps_name(self, step: NameStep) -> bool:
        if step.durable:
            return True
        kept = self._keeps(step.seq)
        self.names += 1
        self.names_lost += not kept
        return kept

    def content(self, node: Node) -> bytes:
        data = bytearray(node.content)
        for step in node.steps:
            self._do(data, step, durable=step.seq < node.covered)
        return bytes(data)

    def loss(self) -> Loss:
        return Loss(self.mode, self.writes, self.writes_lost, self.names, self.names_lost)

    def _keeps(self, seq: int) -> bool:
        match self.mode:
            case Mode.NOTHING:
                return False
            case Mode.EVERYTHING:
                return True
            case Mode.ORDERED:
                return seq <= self.moment
        return self.chance.random() < self.kept_share

    def _do(self, data: bytearray, step: Record, *, durable: bool) -> None:
        if step.kind == Kind.WRITE and not durable and self.mode == Mode.TORN:
            self.writes += 1
            self.writes_lost += not self._write_torn(data, step)
            return
        kept = durable or self._keeps(step.seq)
        self.writes += not durable
        self.writes_lost += not kept
        if not kept:
            return
        match step.kind:
            case Kind.TRUNCATE:
                del data[step.a :]
                data.extend(bytes(step.a - len(data)))
            case Kind.EXTEND:
                data.extend(bytes(max(0, step.a - len(data))))
            case _:
                _put(data, step.a, step.data)

    def _write_torn(self, data: bytearray, step: Record) -> bool:
        """Whether all of it was kept."""
        end, at, whole = step.a + len(step.data), step.a, True
        if self.chance.random() < 0.5:
            data.extend(bytes(max(0, end - len(data))))
        while at < end:
            stop = min(end, at - at % self.sector + self.sector)
            if self.chance.random() < self.kept_share:
                _put(data, at, step.data[at - step.a : stop - step.a])
            else:
                whole = False
            at = stop
        return whole


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if piece:
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(piece)] = piece


def _write(node: Node, path: Path, verdict: _Verdict, written: dict[int, Path]) -> None:
    if id(node) in written and not node.folder:
        os.link(written[id(node)], path)
        return
    written[id(node)] = path
    if node.folder:
        path.mkdir()
        for name, child in node.entries.items():
            if not name.endswith(MAPPED):
                _write(child, path / name, verdict, written)
    elif node.target is not None:
        path.symlink_to(node.target)
        return
    else:
        path.write_bytes(verdict.content(node))
    path.chmod(node.mode)
