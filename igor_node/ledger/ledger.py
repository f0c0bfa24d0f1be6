"""The ledger as the replicated state machine that `raft` drives: batches of entries in, one SQLite transaction each.

Index, term, members, ledger time and all changes of a batch are committed together, so that a restart replays nothing twice. Called by the Raft
thread alone, but for `snapshot` (a thread of its own) and the checkpoint thread in here.

What a power cut leaves. Commits go to SQLite's write-ahead log without a sync (`synchronous=NORMAL`): a power cut may take the ledger back, to a
consistent earlier state, and the journal of consensus brings it forward again. How far back at most is `durable_index`: the checkpoint thread
copies the log into the file, which syncs both, and raises it to the index that was applied when it began. Consensus cuts its journal only there.

Readers (reads.py) have connections of their own and are never waited for. `on_commit(index, topics)` is called on the Raft thread after each commit
and must only pass the word on.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from igor_node.ledger import apply, digest, schema
from igor_node.ledger.apply import apply_entry, refuse_unfit
from igor_node.ledger.changes import TOPICS
from igor_node.ledger.commands import encode_result
from igor_node.ledger.digest import Mark
from igor_node.ledger.files import PART, clear, current_file, remove_old, set_old_aside, sync_file, sync_folder, take_place
from igor_node.ledger.lines import Lines
from igor_node.ledger.pages import SLICE_PAGES, Pages
from igor_node.ledger.transaction import BrokenInvariant, Specs, Stand, Transaction
from igor_node.ledger.versions import CommandSet
from raft.interface import Applied, Entry, Halted, Kind, Members
from raft.pace import Pace, Spread

CACHED_STATEMENTS = 512  # more than there are in schema.py: each is compiled once
CHECKPOINT_PAUSE_S = 1.0  # at least so long between two checkpoints: each costs two syncs
CHECKPOINT_BYTES = 8 * 1024 * 1024  # of write-ahead log: then a checkpoint is due without being asked for
TRUNCATE_BYTES = 64 * 1024 * 1024  # of write-ahead log: then the writer is held for a moment, so that the log begins anew
LEFT_FRAMES = 2_048  # of the log, 8 MiB: what is copied at most while the writer is held
LOOK_PAUSE_S = 0.1  # between two looks at SLICE_PAGES: 20 MB a second
PAGE_CACHE_KIB = 64 * 1024
COPY_BYTES_A_SECOND = 48 * 1024 * 1024  # of a copy that is written beside commits
COPY_PAGES = 64  # in one step of it: what is written to the disk at once, too

_log = logging.getLogger(__name__)
_decode_members = msgspec.msgpack.Decoder(Members).decode
_encode_members = msgspec.msgpack.Encoder().encode
OnCommit = Callable[[int, frozenset[str]], None]


class _Unfit(Exception):
    """A command holds a value that SQLite cannot store; the batch is done again without it."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class Ledger:
    """Implements raft.interface.StateMachine on the SQLite file at `path` (or a later generation of it: files.py). Raises Halted where it cannot.

    `known`: the commands and versions that this build knows; tests bring those of another build.
    """

    def __init__(
        self, path: Path, on_commit: OnCommit | None = None, *, known: CommandSet | None = None, on_damage: Callable[[Halted], None] | None = None
    ) -> None:
        self.known = apply.KNOWN if known is None else known
        self.path = path
        self.file = path
        self._on_commit = on_commit
        self.on_damage = on_damage
        self._writing = threading.Lock()  # the Raft thread's batch, or the moment in which the checkpoint thread truncates the log
        self._specs = Specs()
        self._lines = Lines()
        self._open(check=True)
        remove_old(path)
        sync_folder(path.parent)
        self._durable = 0  # what was read may come from the cache of a machine that only lost this process: the first checkpoint syncs it
        self._checkpoints = _Checkpoints(self)
        self._checkpoints.checkpoint()
        self._checkpoints.start()

    # --- StateMachine

    def apply(self, entries: Sequence[Entry]) -> list[Any]:
        """One transaction; an answer an entry (None for those without a command)."""
        unfit: set[int] = set()
        while True:
            try:
                with self._writing:
                    results, topics = self._apply(entries, unfit)
                break
            except _Unfit as found:
                unfit.add(found.index)
        if self._on_commit is not None:
            self._on_commit(self._applied.index, topics)
        self._checkpoints.written()
        return results

    def applied(self) -> Applied:
        return self._applied

    @property
    def version(self) -> int:
        """Of the ledger. In any thread."""
        return self._stand.version

    @property
    def mark(self) -> Mark | None:
        """The newest digest that replicas compare. In any thread."""
        return self._mark

    def durable_index(self) -> int:
        """Never more than a power cut now would leave. Asking makes the checkpoint thread raise it."""
        if self._durable < self._applied.index:
            self._checkpoints.ask()
        return self._durable

    def snapshot(self, path: Path) -> Applied:
        """A complete copy in one read transaction, synced. In any thread; the writer goes on meanwhile."""
        part = path.with_name(path.name + PART)
        clear(part)
        try:
            applied = self._copy(part)
            check_file(part, self.known)  # here, where nobody waits: damage in this file must not be passed on
            sync_file(part)
            os.rename(part, path)
        except BaseException:
            clear(part)
            raise
        sync_folder(path.parent)
        return applied

    def _copy(self, part: Path) -> Applied:
        with (
            closing(_connect_read_only(self.file)) as source,
            closing(_connect_new(part)) as target,
            Spread(part, Pace(COPY_BYTES_A_SECOND)) as spread,
        ):
            page_bytes = source.execute("PRAGMA page_size").fetchone()[0]
            source.execute("BEGIN")  # held over all steps: without it a stepped backup would start over at each commit
            applied = _position(source)[0]
            source.backup(target, pages=COPY_PAGES, progress=lambda _, left, pages: spread.wrote((pages - left) * page_bytes))
            target.execute("PRAGMA journal_mode = DELETE")
        return applied

    def restore(self, path: Path) -> None:
        """The snapshot takes the ledger's place. What is not a ledger changes nothing and raises Halted.

        A copy that came over the wire has the checksum of what its sender had looked through (`snapshot`), so its pages are not looked at again here:
        that takes seconds a gigabyte, in the thread that must answer the leader.
        """
        _check_header(path, self.known)
        fresh = self.path.with_name(self.path.name + PART)
        if path != fresh:
            os.rename(path, fresh)
        sync_file(fresh)
        with self._checkpoints.idle(), self._writing:  # in the order in which the checkpoint thread takes them
            self._connection.close()
            self.pages.close()
            take_place(self.path, fresh)
            self._specs.forget()
            self._lines.forget()
            self._open(check=False)
            self._durable = self._applied.index
            set_old_aside(self.path)
        self._checkpoints.checkpoint()
        self._checkpoints.remove_old()
        if self._on_commit is not None:
            self._on_commit(self._applied.index, ALL_TOPICS)

    def close(self) -> None:
        """Stops the checkpoint thread and leaves the file complete, if its disk is well."""
        self._checkpoints.stop()
        if self._checkpoints.ill is None:
            self._checkpoints.checkpoint()
            self.pages.end()
        with self._writing:
            self._connection.close()
        self.pages.close()

    # --- inside

    def _open(self, *, check: bool) -> None:
        self.file = current_file(self.path)
        self.pages = Pages(self.file)
        try:
            if check:
                self.pages.check_at_start()
            self._connection = _connect(self.file, self.known)
        except BaseException:
            self.pages.close()
            raise
        self.pages.begin()
        self._applied, self._stand = _position(self._connection)
        mark = self._connection.execute(schema.LAST_DIGEST).fetchone()
        self._mark = None if mark is None else Mark(*mark)
        self._newest_result: str = self._connection.execute(schema.NEWEST_RESULT).fetchone()[0] or ""

    def _apply(self, entries: Sequence[Entry], unfit: set[int]) -> tuple[list[Any], frozenset[str]]:
        connection = self._connection
        tx = Transaction(connection, self._specs, self._lines, self.known, self._stand)
        members, index, term, mark = self._applied.members, self._applied.index, self._applied.term, self._mark
        results: list[Any] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            for entry in entries:
                if entry.index != index + 1:
                    raise BrokenInvariant(f"it came after entry {index}")
                index, term = entry.index, entry.term
                if entry.kind == Kind.MEMBERS:
                    members = _decode_members(entry.data)
                result, encoded = self._apply_one(tx, entry, unfit) if entry.kind == Kind.COMMAND else (None, b"")
                results.append(result)
                tx.digest = digest.chain(tx.digest, entry, tx.time, encoded, tx.said)
                tx.said.clear()
                if index % digest.MARK_EVERY == 0:
                    mark = _write_mark(connection, Mark(index, tx.digest))
            tx.write_collected()
            position = (index, term, _encode_members(members), tx.time, tx.last_event, tx.digest, tx.runs)
            connection.execute(schema.UPDATE_POSITION, position)
            connection.execute("COMMIT")
        except BaseException as problem:
            self._lines.forget()
            if _is_of_the_disk(problem):
                self._checkpoints.ill = Halted(f"{self.file}: {problem}")
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(problem, BrokenInvariant):
                raise BrokenInvariant(f"ledger entry {entry.index}: {problem}") from problem
            raise
        self._applied, self._stand, self._mark = Applied(index, term, members), tx.stand, mark
        self._newest_result = max(self._newest_result, *tx.results) if tx.results else self._newest_result
        return results, frozenset(tx.topics)

    def _apply_one(self, tx: Transaction, entry: Entry, unfit: set[int]) -> tuple[Any, bytes]:
        if entry.index in unfit:
            refused = refuse_unfit(entry.data)
            return refused, encode_result(refused)
        try:
            return apply_entry(tx, entry.data, entry.term, self._newest_result)
        except (OverflowError, UnicodeEncodeError) as problem:
            # Raised by the values of this one entry, so on every replica: each does its batch again without it.
            raise _Unfit(entry.index) from problem


def _write_mark(connection: sqlite3.Connection, mark: Mark) -> Mark:
    connection.execute(schema.INSERT_DIGEST, mark)
    connection.execute(schema.PRUNE_DIGESTS, (mark.entry - digest.MARKS_KEPT * digest.MARK_EVERY,))
    return mark


ALL_TOPICS = frozenset(TOPICS)


class _Checkpoints:
    """The thread that copies the write-ahead log into the file, and knows from then on what a power cut leaves."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._busy = threading.Lock()
        self._has_old = False
        self.ill: Halted | None = None  # what the disk did not take: whatever it says afterwards is not believed
        self._thread = threading.Thread(target=self._serve, name="igor-checkpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def ask(self) -> None:
        self._wanted.set()

    def remove_old(self) -> None:
        """Soon, in this thread."""
        self._has_old = True
        self.ask()

    def written(self) -> None:
        """After each batch: a long log is copied without being asked for."""
        if not self._wanted.is_set() and self._ledger.pages.log_bytes() > CHECKPOINT_BYTES:
            self._wanted.set()

    def idle(self) -> threading.Lock:
        """Held while the files are changed: no checkpoint runs."""
        return self._busy

    def checkpoint(self) -> bool:
        """Copies what there is; True if all that was applied at the start is in the file and synced. Raises Halted where the disk fails, then and
        ever after: a second sync would say yes to pages that the first one lost."""
        with self._busy:
            if self.ill is not None:
                raise self.ill
            try:
                return self._checkpoint()
            except Halted as problem:
                self.ill = problem
                raise

    def _checkpoint(self) -> bool:
        ledger = self._ledger
        with closing(_connect_plain(ledger.file)) as connection:
            index, complete, left = self._copy(connection)
            if ledger.pages.log_bytes() > TRUNCATE_BYTES and left < LEFT_FRAMES:
                # The passive pass has done the most of it: what is left is short, and only now may the log begin anew. While somebody reads an
                # earlier state it cannot, and the writer is not held for nothing.
                with ledger._writing:
                    ledger.pages.note(ledger.pages.read_log())
                    done, _ = _copy_log(connection, ledger.file, "TRUNCATE")
                ledger.pages.sync()
                if done:
                    ledger.pages.settle()
                complete = done or complete
            if complete:
                ledger._durable = max(ledger._durable, index)
            return complete

    def _copy(self, connection: sqlite3.Connection) -> tuple[int, bool, int]:
        """Up to which index, whether all of that was copied, and how many frames were not. The reader keeps the log from beginning anew before its
        pages' sums are settled, and holds the copying to what was noted."""
        ledger = self._ledger
        with closing(_connect_plain(ledger.file)) as reader:
            with ledger._writing:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # only now the transaction has begun
                index, log = ledger._applied.index, ledger.pages.read_log()
            committed = ledger.pages.note(log)
            done, copied = _copy_log(connection, ledger.file, "PASSIVE")
            ledger.pages.sync()
            if done or copied >= committed:
                ledger.pages.settle()
        return index, done or copied >= committed, max(0, committed - copied)

    def look(self) -> None:
        """At some more of the pages, beside the work."""
        ledger = self._ledger
        with self._busy:
            try:
                ledger.pages.check(SLICE_PAGES)
            except Halted as problem:
                ledger.pages.give_up()
                self._tell(problem)

    def _tell(self, problem: Halted) -> None:
        _log.error("%s", problem)
        if self._ledger.on_damage is not None:
            self._ledger.on_damage(problem)

    def _serve(self) -> None:
        while not self._stopped.is_set():
            if not self._wanted.wait(None if self._ledger.pages.looked_through else LOOK_PAUSE_S):
                self.look()
                continue
            self._wanted.clear()
            if self._stopped.is_set():
                return
            try:
                self.checkpoint()
                if self._has_old:
                    self._has_old = False
                    with self._busy:
                        remove_old(self._ledger.path)
            except Halted as problem:
                self._tell(problem)
                return
            except (sqlite3.Error, OSError):
                # No room, say. Nothing is lost: the journal keeps what is not durable, and what was not written is written again.
                _log.exception("copying the write-ahead log into %s failed; it is tried again", self._ledger.file)
            self._stopped.wait(CHECKPOINT_PAUSE_S)


def _copy_log(connection: sqlite3.Connection, file: Path, mode: str) -> tuple[bool, int]:
    """Whether all of the log is in the file, and how many of its frames are. Raises Halted where a write or a sync failed."""
    try:
        busy, pages, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    except sqlite3.Error as problem:
        if not _is_of_the_disk(problem):
            raise
        raise Halted(f"the write-ahead log could not be copied into {file}: {problem}") from problem
    return not busy and pages == copied, copied


def _is_of_the_disk(problem: BaseException) -> bool:
    """A read, a write or a sync that failed; not a lack of room."""
    return isinstance(problem, sqlite3.OperationalError) and getattr(problem, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR


# --- opening


def _connect(file: Path, known: CommandSet) -> sqlite3.Connection:
    """The writer's connection; makes the tables of a new ledger."""
    try:
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS)
        connection.execute("PRAGMA busy_timeout = 5000")
        is_new = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not is_new:
            _check_version(connection, file, known)  # before the first setting that would write to a file of somebody else
        settings = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0", f"cache_size = -{PAGE_CACHE_KIB}", "temp_store = MEMORY")
        for setting in settings:
            connection.execute(f"PRAGMA {setting}")
        if is_new:
            _create(connection)
    except sqlite3.Error as problem:
        raise Halted(f"the ledger {file} cannot be opened: {problem}") from problem
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("BEGIN IMMEDIATE")
    for statement in schema.TABLES:
        connection.execute(statement)
    connection.execute(schema.INSERT_POSITION, (_encode_members(Members()), digest.EMPTY))
    connection.execute(schema.SET_META, ("ledger_version", schema.FIRST_VERSION))
    connection.execute("COMMIT")


def _connect_plain(file: Path) -> sqlite3.Connection:
    """For checkpoints. `check_same_thread` off: the thread that opens it also closes it, but `close` may come from another."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 0")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _connect_read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _connect_new(file: Path) -> sqlite3.Connection:
    """For a copy, which is synced as a whole when it is complete and is nothing before."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = OFF")
    return connection


def _check_version(connection: sqlite3.Connection, file: Path, known: CommandSet) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        raise Halted(f"{file} is not a ledger of Igor")
    if why := known.why_unreadable(_version(connection)):
        raise Halted(f"the ledger {file} {why}")


def _version(connection: sqlite3.Connection) -> Any:
    found = connection.execute(schema.GET_META, ("ledger_version",)).fetchone()
    return None if found is None else found[0]


def check_file(path: Path, known: CommandSet | None = None) -> None:
    """That a copy nobody has open is a whole ledger of a version that is known here: each page is looked at. Raises Halted where it is not."""
    _check_header(path, apply.KNOWN if known is None else known)
    try:
        with closing(_connect_copy(path)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as problem:
        raise Halted(f"the snapshot {path} cannot be read: {problem}") from problem
    if verdict != "ok":
        raise Halted(f"the snapshot {path} is damaged: {verdict}")


def _check_header(path: Path, known: CommandSet) -> None:
    """That it is a ledger, and of a version that is known here."""
    try:
        with closing(_connect_copy(path)) as connection:
            _check_version(connection, path, known)
    except sqlite3.Error as problem:
        raise Halted(f"the snapshot {path} cannot be read: {problem}") from problem


def _connect_copy(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def read_members(file: Path) -> Members:
    """Of a ledger that nobody has open, damaged perhaps. As of its last checkpoint."""
    with closing(_connect_copy(file)) as connection:
        return _position(connection)[0].members


def _position(connection: sqlite3.Connection) -> tuple[Applied, Stand]:
    index, term, members, time, last_event, rolling, runs = connection.execute(schema.SELECT_POSITION).fetchone()
    return Applied(index, term, _decode_members(members)), Stand(time, last_event, rolling, runs, _version(connection))
