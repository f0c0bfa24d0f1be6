"""One process with a Replica and a small ledger on SQLite, told what to do by JSON lines. For `bench/commit.py` and `tests/cluster/test_raft_*.py`.

    python bench/raft_node.py --node a --folder D --cluster c --key HEX [--found] [--listen 127.0.0.1:0] [--no-pickle] [--ledger]

The first line on stdout is {"address": "HOST:PORT"}, or {"failed": REASON} and exit code 3. Then each line in, {"id", "do", …}, is answered by a line
{"id", "ok": …} or {"id", "error": NAME, "text"}, in any order. It ends when stdin does, so that it never outlives who started it.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import os
import pickle
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from igor_node.trust.contexts import Trust
from raft.disk import File, RealDisk, RealFile
from raft.interface import Applied, Entry, Halted, Kind, Member, Members, NotLeader, Unknown
from raft.replica import Replica

SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS stand (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), number INTEGER, term INTEGER, members BLOB);
"""


class Notes:
    """A state machine that keeps every command under its index: one transaction a batch, WAL, synchronous NORMAL, as the real ledger does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._durable = 0
        self._open()

    def _open(self) -> None:
        self.connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.execute("PRAGMA wal_autocheckpoint=0")
        self.connection.executescript(SCHEMA)
        self._stands = self._read(self.connection)

    @staticmethod
    def _read(connection: sqlite3.Connection) -> Applied:
        row = connection.execute("SELECT number, term, members FROM stand").fetchone()
        return Applied(row[0], row[1], msgspec.msgpack.decode(row[2], type=Members)) if row else Applied(0, 0, Members())

    def apply(self, entries: Sequence[Entry]) -> list[Any]:
        members = self._stands.members
        for entry in entries:
            if entry.kind == Kind.MEMBERS:
                members = msgspec.msgpack.decode(entry.data, type=Members)
            if entry.data == b"raise":
                raise ValueError("asked to")
        self._stands = Applied(entries[-1].index, entries[-1].term, members)
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        rows = [(entry.index, entry.data) for entry in entries if entry.kind == Kind.COMMAND]
        self.connection.executemany("INSERT INTO notes VALUES (?, ?)", rows)
        stand = (self._stands.index, self._stands.term, msgspec.msgpack.encode(members))
        execute("INSERT OR REPLACE INTO stand VALUES (1, ?, ?, ?)", stand)
        execute("COMMIT")
        return [entry.index for entry in entries]

    def applied(self) -> Applied:
        return self._stands

    def durable_index(self) -> int:
        """A checkpoint syncs the WAL and the file; what was applied before it is durable when it is complete."""
        index = self._stands.index
        busy, pages, moved = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not busy and pages == moved:
            self._durable = index
        return self._durable

    def snapshot(self, path: Path) -> Applied:
        connection = sqlite3.connect(self.path)
        try:
            connection.execute("VACUUM INTO ?", (str(path),))
        finally:
            connection.close()
        copy = sqlite3.connect(path)
        try:
            return self._read(copy)
        finally:
            copy.close()

    def restore(self, path: Path) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()  # the last one: takes its WAL with it
        os.replace(path, self.path)
        self._open()

    def rows(self) -> list[bytes]:
        connection = sqlite3.connect(self.path)
        try:
            return [data for (data,) in connection.execute("SELECT data FROM notes ORDER BY number")]
        finally:
            connection.close()


def random_command(size: int) -> bytes:
    return os.urandom(size)


def ledger_command(_size: int) -> bytes:
    """A real command of a new id, of about 100 bytes."""
    from igor_node.ledger.commands import Envelope, RegisterNode, encode_envelope
    from igor_node.words import new_id, wall_now

    now = wall_now()
    return encode_envelope(Envelope(id=new_id(now), at=now, command=RegisterNode(node="bench", name="bench", address="127.0.0.1:1")))


def real_ledger(path: Path) -> Any:
    from igor_node.ledger.ledger import Ledger

    return Ledger(path, None)


class FullFile(RealFile):
    """Writes until the switch says that the disk is full."""

    def __init__(self, descriptor: int, disk: FullDisk) -> None:
        super().__init__(descriptor)
        self._disk = disk

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if self._disk.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(offset, data)


class FullDisk(RealDisk):
    full = False

    def open(self, path: str) -> File:
        return FullFile(os.open(path, os.O_RDWR | os.O_CLOEXEC), self)

    def create(self, path: str, size: int) -> File:
        super().create(path, size).close()
        return self.open(path)


class Process:
    """Answers the lines. Each method `do_X` is the command X."""

    def __init__(self, replica: Replica, notes: Notes, disk: FullDisk, command: Callable[[int], bytes]) -> None:
        self.replica = replica
        self.command = command
        self.notes = notes
        self.disk = disk
        self.terms: list[int] = []
        self.steady: Steady | None = None

    async def answer(self, line: dict[str, Any]) -> None:
        number, do = line.pop("id"), line.pop("do")
        try:
            say({"id": number, "ok": await getattr(self, f"do_{do}")(**line)})
        except Exception as problem:  # the edge of the process: whoever asked gets it
            say({"id": number, "error": type(problem).__name__, "text": str(problem), "leader": getattr(problem, "leader", None)})

    async def watch(self) -> None:
        async for term in self.replica.leadership():
            self.terms.append(term)

    async def do_propose(self, data: str, timeout: float = 5.0) -> int:
        return (await self.replica.propose(data.encode(), timeout)).index

    async def do_status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(msgspec.json.encode(self.replica.status()))
        return {**status, "is_leader": self.replica.is_leader(), "terms": self.terms}

    async def do_rows(self) -> list[str]:
        return [data.decode() for data in await asyncio.to_thread(self.notes.rows)]

    async def do_add_learner(self, node: str, address: str, timeout: float = 10.0) -> None:
        await self.replica.add_learner(Member(node, address), timeout)

    async def do_add_voter(self, node: str, timeout: float = 10.0) -> None:
        await self.replica.add_voter(node, timeout)

    async def do_remove(self, node: str, timeout: float = 10.0) -> None:
        await self.replica.remove(node, timeout)

    async def do_transfer(self, to: str | None = None, timeout: float = 5.0) -> bool:
        return await self.replica.transfer_leadership(to, timeout)

    async def do_barrier(self, timeout: float = 5.0) -> int:
        return await self.replica.read_barrier(timeout)

    async def do_fill_disk(self) -> None:
        self.disk.full = True

    async def do_close(self) -> None:
        await self.replica.close()

    async def do_load(self, in_flight: int, seconds: float, size: int) -> dict[str, Any]:
        """Proposals, so many at a time, for so long: how many were answered, and the time each took."""
        command, took, until = self.command, [], time.perf_counter() + seconds

        async def one_after_another() -> None:
            while (begun := time.perf_counter()) < until:
                await self.replica.propose(command(size), 10.0)
                took.append(time.perf_counter() - begun)

        begun, busy = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(one_after_another())
        elapsed = time.perf_counter() - begun
        took.sort()
        return {
            "answered": len(took),
            "seconds": elapsed,
            "p50_ms": took[len(took) // 2] * 1000,
            "p99_ms": took[len(took) * 99 // 100] * 1000,
            "fsync_p50_ms": self.replica.status().fsync_p50_ms,
            "cpu_share": (time.process_time() - busy) / elapsed,
        }

    async def do_begin_steady(self, rate: int, size: int) -> None:
        self.steady = Steady(self.replica, self.command, rate, size)

    async def do_end_steady(self) -> dict[str, Any]:
        """`took_ms` in the order in which they were proposed, and how many were never answered."""
        assert self.steady is not None
        return await self.steady.end()


class Steady:
    """So many proposals a second, one at a time, whether those before are answered or not: what a cluster in service sees."""

    def __init__(self, replica: Replica, command: Callable[[int], bytes], rate: int, size: int) -> None:
        self._replica, self._command, self._pause, self._size = replica, command, 1 / rate, size
        self._took_ms: list[float] = []
        self._failed: list[str] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        due = time.perf_counter()
        while True:
            task = asyncio.create_task(self._one())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            due += self._pause
            await asyncio.sleep(due - time.perf_counter())

    async def _one(self) -> None:
        begun = time.perf_counter()
        try:
            await self._replica.propose(self._command(self._size), 10.0)
            self._took_ms.append((time.perf_counter() - begun) * 1000)
        except (NotLeader, Unknown, Halted) as problem:
            self._failed.append(f"{type(problem).__name__}: {problem}")

    async def end(self) -> dict[str, Any]:
        self._task.cancel()
        await asyncio.gather(*self._under_way)
        return {"took_ms": self._took_ms, "failed": self._failed}


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def forbid_pickle() -> None:
    """PySyncObj imports pickle; nothing may ever read one."""

    def refuse(*_: object, **__: object) -> None:
        os.write(2, b"a pickle was read\n")
        os._exit(70)

    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        setattr(pickle, name, refuse)


async def accept(listener: socket.socket, replica: Replica) -> None:
    loop = asyncio.get_running_loop()
    while True:
        sock, _ = await loop.sock_accept(listener)
        replica.adopt(sock)


async def lines(loop: asyncio.AbstractEventLoop) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def serve(options: argparse.Namespace) -> int:
    host, _, port = options.listen.rpartition(":")
    listener = socket.create_server((host, int(port)))
    listener.setblocking(False)
    address = f"{host}:{listener.getsockname()[1]}"
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    notes = real_ledger(folder / "ledger.sqlite") if options.ledger else Notes(folder / "notes.sqlite")
    disk = FullDisk()
    try:
        replica = await Replica.start(
            node=options.node,
            address=address,
            folder=folder / "raft",
            machine=notes,
            cluster=options.cluster,
            key=bytes.fromhex(options.key),
            found=options.found,
            on_halt=lambda reason: print(f"{options.node} halted: {reason}", file=sys.stderr),
            disk=disk,
            trust=Trust(folder) if options.tls else None,
        )
    except Halted as problem:
        say({"failed": str(problem)})
        return 3
    say({"address": address})
    process = Process(replica, notes, disk, ledger_command if options.ledger else random_command)
    loop = asyncio.get_running_loop()
    reader = await lines(loop)
    tasks = {loop.create_task(accept(listener, replica)), loop.create_task(process.watch())}
    while line := await reader.readline():
        task = loop.create_task(process.answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await replica.close()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("node", "folder", "cluster", "key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--tls", action="store_true", help="links inside TLS, by the certificates in the folder")
    parser.add_argument("--found", action="store_true")
    parser.add_argument("--no-pickle", action="store_true")
    parser.add_argument("--ledger", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # to stderr
    if options.no_pickle:
        forbid_pickle()
    return asyncio.run(serve(options))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # tasks that still wait for a peer need not be waited for
