"""Reading the ledger while the Raft thread writes it: read-only connections in a few threads, one consistent snapshot a query.

    page = await reads.query(lambda connection: query_runs.runs(connection, limit=100))
    index, page = await reads.indexed(lambda connection: query_runs.runs(connection, limit=100))     # for the header Igor-Index

Readers never block the writer nor it them (WAL). A query that runs longer than its limit is ended with TooMany, so that nobody can occupy the
threads for good or keep the write-ahead log from being cut. After a restore the next query opens the new file by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from igor_node.ledger import query_cluster
from igor_node.ledger.files import Identity, current_file, identity_of
from igor_node.words import TooMany, Unavailable

T = TypeVar("T")
Query = Callable[[sqlite3.Connection], T]

THREADS = 3  # readers beside the Raft thread; SQLite gives the interpreter's lock away while it works
QUERY_LIMIT_S = 10.0  # of one query; an audit of a busy month takes about one
PATIENCE_S = 0.004  # a query that waits longer gets another thread
MOMENT_S = 0.005  # a read transaction takes up no further query after so long
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
        self._index: int | None = None  # of the moment that is held

    def query(self, function: Query[T]) -> T:
        """Runs `function` in one read transaction."""
        with self.moment() as connection:
            return self.within(connection, function)

    def indexed(self, function: Query[T]) -> tuple[int, T]:
        """The same, with the index of the snapshot that was read."""
        with self.moment() as connection:
            return self.index(connection), self.within(connection, function)

    @contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """One read transaction: whatever is read within it is read of one moment, which is not before this call."""
        connection = self._current()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            self._index = None
            connection.execute("ROLLBACK")

    def within(self, connection: sqlite3.Connection, function: Query[T]) -> T:
        """One query of a moment, with a time of its own."""
        self._deadline = time.monotonic() + self._limit_s
        try:
            return function(connection)
        except sqlite3.OperationalError as problem:
            if "interrupted" in str(problem):
                raise TooMany(f"the query took longer than {self._limit_s:g} s and was ended", hint="ask for less at a time") from None
            raise

    def index(self, connection: sqlite3.Connection) -> int:
        """Of the moment; read once in it."""
        if self._index is None:
            self._index = self.within(connection, query_cluster.position).index
        return self._index

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


class _Asked:
    """A query that waits for a thread. `number`: how many were asked before it."""

    __slots__ = ("at", "function", "future", "indexed", "number")

    def __init__(self, number: int, function: Query[Any], future: asyncio.Future[Any], *, indexed: bool) -> None:
        self.number = number
        self.function = function
        self.future = future
        self.indexed = indexed
        self.at = time.monotonic()


class Reads:
    """The same for asyncio, of one event loop: a few threads, each with a connection of its own, and one line of queries before them.

    Under load dozens of small queries come at once, and most of their cost is not SQLite's: it is waking threads, beginning transactions and waking
    the loop. So one thread takes what stands in the line in one read transaction, and the answers of a while wake the loop once. Another thread is
    woken only when a query has waited for `PATIENCE_S`, because the one before it is long. A moment that began before a query was asked never
    answers it, so that everybody sees what was committed before they asked.
    """

    def __init__(self, path: Path, *, threads: int = THREADS, limit_s: float = QUERY_LIMIT_S) -> None:
        self._lock = threading.Lock()
        self._line: deque[_Asked] = deque()
        self._asked = 0
        self._working = 0  # threads that are awake
        self._wake = threading.Semaphore(0)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: asyncio.TimerHandle | None = None
        self._answers: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told = False  # the loop has been told of answers and has not fetched them yet
        self._readers = [ReadsSync(path, limit_s) for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._serve, args=(reader,), name=f"igor-read_{number}", daemon=True)
            for number, reader in enumerate(self._readers)
        ]
        for thread in self._threads:
            thread.start()

    async def query(self, function: Query[T]) -> T:
        """Runs `function` with a read-only connection in a thread, in one read transaction."""
        return await self._ask(function, indexed=False)  # type: ignore[no-any-return]

    async def indexed(self, function: Query[T]) -> tuple[int, T]:
        """The same, with the index of the snapshot that was read."""
        return await self._ask(function, indexed=True)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Waits for queries under way; those in the line are cancelled."""
        with self._lock:
            self._closed = True
            left, self._line = list(self._line), deque()
        for asked in left:
            asked.future.cancel()
        if self._look is not None:
            self._look.cancel()
        for _ in self._threads:
            self._wake.release()
        for thread in self._threads:
            thread.join()
        for reader in self._readers:
            reader.close()

    # --- on the loop

    async def _ask(self, function: Query[Any], *, indexed: bool) -> Any:
        loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            if self._closed:
                raise Unavailable("the ledger of this node is closed")
            self._asked += 1
            self._line.append(_Asked(self._asked, function, future, indexed=indexed))
            sleeping = not self._working
            self._working += sleeping
        if sleeping:
            self._wake.release()
        elif self._look is None:
            self._look = loop.call_later(PATIENCE_S, self._look_at_line, loop)
        return await future

    def _look_at_line(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wakes another thread where the line does not move."""
        with self._lock:
            waits = bool(self._line)
            more = waits and self._working < len(self._threads) and time.monotonic() - self._line[0].at >= PATIENCE_S
            self._working += more
        if more:
            self._wake.release()
        self._look = loop.call_later(PATIENCE_S, self._look_at_line, loop) if waits else None

    def _fetch(self) -> None:
        """Gives the answers that there are to those who wait."""
        self._told = False  # before the look: an answer that comes behind it tells anew
        while self._answers:
            future, value, problem = self._answers.popleft()
            if future.done():
                continue
            if problem is not None:
                future.set_exception(problem)
            else:
                future.set_result(value)

    # --- on a thread

    def _serve(self, reader: ReadsSync) -> None:
        while True:
            self._wake.acquire()
            if self._closed:
                return
            while (asked := self._next()) is not None:
                self._moment(reader, asked)

    def _next(self, known: int | None = None) -> _Asked | None:
        """The next in the line, or the next that had been asked when `known` were; None makes a thread sleep, or ends its moment."""
        with self._lock:
            if self._line and (known is None or self._line[0].number <= known):
                return self._line.popleft()
            if known is None:
                self._working -= 1
            return None

    def _moment(self, reader: ReadsSync, first: _Asked) -> None:
        """Answers in one read transaction those that were asked before it began, for as long as it is short."""
        asked: _Asked | None = first
        known, end = self._asked, time.monotonic() + MOMENT_S
        try:
            with reader.moment() as connection:
                while asked is not None:
                    self._answer(reader, connection, asked)
                    asked = self._next(known) if time.monotonic() < end else None
        except Exception as problem:  # no ledger, or its file is ill: whoever was not answered hears of it
            if asked is not None:
                self._tell(asked.future, None, problem)

    def _answer(self, reader: ReadsSync, connection: sqlite3.Connection, asked: _Asked) -> None:
        if asked.future.cancelled():
            return
        try:
            index = reader.index(connection) if asked.indexed else 0
            found = reader.within(connection, asked.function)
        except Exception as problem:  # the caller's to judge
            self._tell(asked.future, None, problem)
        else:
            self._tell(asked.future, (index, found) if asked.indexed else found, None)

    def _tell(self, future: asyncio.Future[Any], value: Any, problem: BaseException | None) -> None:
        self._answers.append((future, value, problem))
        if self._told or self._loop is None:
            return
        self._told = True
        try:
            self._loop.call_soon_threadsafe(self._fetch)
        except RuntimeError:  # the loop is closed, and nobody waits
            pass
