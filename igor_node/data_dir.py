"""The data directory of a node: who it is, its keys, and the lock that keeps a second process out.

    address         one line, the URL under which the node serves; written when it is in service
    node.json       {"name","id","cluster","pid","address","founder"}; the folder is "empty" as long as this file is not there
    peers           one URL a line: other nodes as last known, for a node or a client that has nobody else to ask
    admin.token     on the founder: a token of role admin, mode 0600 like every secret here
    join.token      on the founder: a token of role node
    node.token      this node's own
    recovered.json  what a recovery or restore left to the next start (recovery.py)
    cluster.key     the cluster's keys, 32 bytes in hex each: links of Raft, sessions and renewals are signed with them, secrets sealed
    ca.crt          in a cluster with TLS: the CAs to trust, for nodes, `igor`, curl and browsers; node.crt and node.key are this node's own
    ledger.sqlite, raft/, attempts/, lock

Every file is written to a side name, synced and renamed, so a crash leaves the old or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path

import msgspec

from igor_node.trust.keys import KeyRing, parse_ring, write_ring
from igor_node.words import IgorError
from wrapper import protocol


class DataDirProblem(IgorError):
    """Exit code 3 of `igor-node`: the directory is damaged, in use, or not to be used by this node."""

    exit_code, title = 3, "The data directory cannot be used"


class Identity(msgspec.Struct, frozen=True, omit_defaults=False):
    name: str
    id: str
    cluster: str
    address: str  # HOST:PORT, as others reach it
    founder: bool = False
    listen: str = ""  # HOST:PORT, where it listens; "": as `address`
    tls: bool = False  # whether its cluster has TLS
    pid: int = 0
    labels: dict[str, str] = {}
    slots: int = 1
    ephemeral: bool = False  # it leaves when it stops


class DataDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._made = missing(path)  # by this process

    # --- the lock

    def lock(self) -> None:
        """Held until the process ends, however it ends. Raises DataDirProblem where another process has it."""
        try:
            make_folder(self.path)
            self._made += missing(self.path / "lock")
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirProblem(
                f"data directory {self.path} is in use by another igor-node{self._who()}", hint="stop that one, or choose another with --data-dir"
            ) from None
        except OSError as problem:
            raise unusable(self.path, problem) from None

    def unmake(self) -> None:
        """For whoever locked it and has no use for it after all: what was made of it goes again, as far as nothing else is in it."""
        for path in sorted(self._made, reverse=True):
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:
                return

    def _who(self) -> str:
        try:
            return f" (pid {json.loads((self.path / 'node.json').read_text())['pid']})"
        except (OSError, ValueError, KeyError):
            return ""

    # --- files

    def read_identity(self) -> Identity | None:
        """None where no node founded or joined here yet. Raises DataDirProblem where the file cannot be read."""
        file = self.path / "node.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Identity)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as problem:
            raise DataDirProblem(f"{file} cannot be read: {problem}", hint="restore it from a backup, or join anew with an empty folder") from None

    def write_identity(self, identity: Identity) -> None:
        self.write("node.json", msgspec.json.encode(identity).decode() + "\n")

    def write(self, name: str, text: str, *, secret: bool = False) -> None:
        """Atomic and durable. Raises DataDirProblem (a full disk, …) with one clear line."""
        side = self.path / f".{name}.new"
        try:
            descriptor = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600 if secret else 0o644)
            try:
                os.fchmod(descriptor, 0o600 if secret else 0o644)
                os.write(descriptor, text.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(side, self.path / name)
            self._sync()
        except OSError as problem:
            raise unusable(self.path, problem) from None

    def read(self, name: str) -> str | None:
        try:
            return (self.path / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as problem:
            raise DataDirProblem(f"{self.path / name} cannot be read: {problem}") from None

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def reset(self, keep: Collection[str] = ("node.toml", "lock")) -> None:
        """Gives up the cluster that this directory belonged to; what the owner wrote stays. Raises DataDirProblem while commands are running."""
        running = [folder.name for folder in (self.path / "attempts" / protocol.OPEN).glob("*") if protocol.lock_holder(str(folder / protocol.LOCK))]
        if running:
            raise DataDirProblem(
                f"data directory {self.path}: {len(running)} commands of its cluster are still running", hint="let them end, or end them first"
            )
        for entry in sorted(self.path.iterdir()):
            if entry.name in keep:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self._sync()

    def peers(self) -> list[str]:
        return [line for line in (self.read("peers") or "").splitlines() if line]

    def write_peers(self, urls: Sequence[str]) -> None:
        if list(urls) != self.peers():
            self.write("peers", "".join(f"{url}\n" for url in urls))

    def ring(self) -> KeyRing | None:
        """None where the file is not there. Raises DataDirProblem."""
        text = self.read("cluster.key")
        try:
            return None if text is None else parse_ring(text)
        except ValueError as problem:
            raise DataDirProblem(f"{self.path / 'cluster.key'} is damaged: {problem}", hint="restore it, or join anew with an empty folder") from None

    def write_ring(self, ring: KeyRing) -> None:
        self.write("cluster.key", write_ring(ring), secret=True)

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def missing(folder: Path) -> list[Path]:
    """Of a folder and its parents those that are not there, the innermost first."""
    return list(takewhile(lambda one: not os.path.exists(one), (folder, *folder.parents)))


def make_folder(folder: Path) -> None:
    """With its parents, each synced into the one above: a directory whose name a power cut takes was of no use to sync files in."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True, mode=0o700)
    descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unusable(path: Path, problem: OSError) -> DataDirProblem:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataDirProblem(
            f"data directory {path}: no space is left on its disk", hint="a node needs room for its journal before it may promise anything"
        )
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DataDirProblem(f"data directory {path} is not writable", hint="choose another one with --data-dir, or change its owner")
    return DataDirProblem(f"data directory {path} cannot be used: {problem.strerror or problem}")
