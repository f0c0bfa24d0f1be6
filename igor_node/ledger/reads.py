"""Reading the ledger while the Raft thread writes it: read-only connections in a few threads, one consistent snapshot a query.

    page = await reads.query(lambda connection: queries.runs(connection, limit=100))
    index, page = await reads.indexed(lambda connection: queries.runs(connection, limit=100))     # for the header Igor-Index

Readers never block the writer nor it them (WAL). A query that runs longer than its limit is ended with TooMany, so that nobody can occupy the
threads for good or keep the write-ahead log from being cut. After a restore the next query opens the new file by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from igor_node.ledger import queries
from igor_node.ledger.files import Identity, current_file, identity_of
from igor_node.words import TooMany, Unavailable

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]

THREADS = 3  # readers beside the Raft thread; SQLite gives the interpreter's lock away while it works
QUERY_LIMIT_S = 10.0  # of one query; an audit of a busy month takes about one
STEPS_BETWEEN_CHECKS = 20_000  # of SQLite's machine: about a millisecond
CACHED_STATEMENTS = 256


class ReadsSync:
    """One read-only connection, for one thread at a time. Raises Unavailable where there is no ledger (yet)."""

    def __init__(self, path: Path, limit_s: float = QUERY_LIMIT_S) -> None:
        self._path = path
        self._limit_s = limit_s
        self._file = path
        self._identity: Identity | None = None
        self._connection: sqlite3.Connection | None = None
        self._deadline = 0.0

    def query(self, function: Query[T]) -> T:
        """Runs `function` in one read transaction."""
        connection = self._current()
        self._deadline = time.monotonic() + self._limit_s
        try:
            connection.execute("BEGIN")
            try:
                return function(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError as problem:
            if "interrupted" in str(problem):
                raise TooMany(f"the query took longer than {self._limit_s:g} s and was ended", hint="ask for less at a time") from None
            raise

    def indexed(self, function: Query[T]) -> tuple[int, T]:
        """The same, with the index of the snapshot that was read."""
        return self.query(lambda connection: (queries.position(connection).index, function(connection)))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _current(self) -> sqlite3.Connection:
        """A restore removes the file that it replaced, so as long as that stands under its name it is the one."""
        if self._connection is None or identity_of(self._file) != self._identity:
            self.close()
            self._file = current_file(self._path)
            self._connection = _open(self._file)
            self._connection.set_progress_handler(self._too_long, STEPS_BETWEEN_CHECKS)
            self._identity = identity_of(self._file)
        return self._connection

    def _too_long(self) -> bool:
        return time.monotonic() > self._deadline


def _open(file: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
        )
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA busy_timeout = 2000")
    except sqlite3.OperationalError as problem:
        raise Unavailable(f"the ledger {file} cannot be read: {problem}") from problem
    return connection


class Reads:
    """The same for asyncio: each thread of a small pool has a connection of its own."""

    def __init__(self, path: Path, *, threads: int = THREADS, limit_s: float = QUERY_LIMIT_S) -> None:
        self._path = path
        self._limit_s = limit_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="igor-read")
        self._mine = threading.local()
        self._all: list[ReadsSync] = []

    async def query(self, function: Query[T]) -> T:
        """Runs `function` with a read-only connection in a thread, in one read transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._reader().query(function))

    async def indexed(self, function: Query[T]) -> tuple[int, T]:
        """The same, with the index of the snapshot that was read."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._reader().indexed(function))

    def close(self) -> None:
        """Waits for queries under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for reader in self._all:
            reader.close()

    def _reader(self) -> ReadsSync:
        reader: ReadsSync | None = getattr(self._mine, "reader", None)
        if reader is None:
            reader = self._mine.reader = ReadsSync(self._path, self._limit_s)
            self._all.append(reader)
        return reader
