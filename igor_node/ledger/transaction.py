"""One batch of entries in the making: the connection, the ledger's time, and what is written once at its end.

Every apply function gets this object and the command, and nothing else: what is not here or in the ledger's tables it cannot know, and so every
replica comes to the same result. Events and results are collected and written together when the batch ends, which keeps a command to few
statements. A `BrokenInvariant` is our own mistake found out: it stops the replica before the transaction commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from igor_node.definitions.jobs import Job
from igor_node.ledger import schema
from igor_node.ledger.lines import Line, Lines
from igor_node.ledger.query_jobs import spec_of
from igor_node.ledger.versions import CommandSet
from igor_node.rules.pause import Pause
from raft.interface import Halted

SPECS_CACHED = 10_000  # decoded definitions; the key (job, spec_version) never changes its meaning

LATEST = 2**63 - 1 - 10 * 366 * 86_400 * 10**9  # ns: about the year 2252; what is later than this is no time, and sums with spans still fit

to_json = msgspec.json.Encoder(order="deterministic").encode


class BrokenInvariant(Halted):
    """The ledger is not as it must be, or an entry is not one that this version knows. The replica halts; the text says which."""


class Stand(NamedTuple):
    """Where the ledger stands, as a batch finds and leaves it: what the row `position` holds beside index, term and members."""

    time: int
    last_event: int
    digest: bytes
    runs: int
    version: int


class JobRecord(NamedTuple):
    """A row of `jobs`, as SELECT_JOB gives it."""

    project: str
    version: int
    spec_version: int
    removed_at: int | None
    paused_at: int | None
    paused_until: int | None
    resumed_at: int | None
    decided_until: int
    fence: int
    pause_reason: str

    @property
    def pause(self) -> Pause:
        return Pause(self.paused_at is not None, self.paused_until, self.resumed_at, self.pause_reason)


class RunRecord(NamedTuple):
    """A row of `runs`, as SELECT_RUN gives it."""

    id: str
    job: str
    spec_version: int
    state: str
    reason: str
    scheduled_at: int | None
    due_at: int
    started_at: int | None
    ended_at: int | None
    beside: int
    begun: int
    order_at: int
    cancel: str | None
    trigger: str
    version: int
    created_at: int


class Specs:
    """Definitions decoded once. Only a cache: what it holds is what the table `definitions` says."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Job] = {}

    def get(self, connection: sqlite3.Connection, job: str, spec_version: int) -> Job:
        spec = self._known.get((job, spec_version))
        if spec is None:
            row = connection.execute(schema.SELECT_SPEC, (job, spec_version)).fetchone()
            if row is None:
                raise BrokenInvariant(f"job {job} has no definition of version {spec_version}")
            if len(self._known) >= SPECS_CACHED:
                self._known.clear()
            spec = self._known[job, spec_version] = spec_of(row[0])
        return spec

    def forget(self) -> None:
        self._known.clear()


class Transaction:
    """`time`: the ledger's, which the entry under way has moved already. `term` and `actor`: of that entry. `said`: its events so far."""

    def __init__(self, connection: sqlite3.Connection, specs: Specs, lines: Lines, known: CommandSet, stand: Stand) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.known = known
        self.time, self.last_event, self.digest, self.runs, self.version = stand
        self.term = 0
        self.actor = ""
        self.said: list[tuple[Any, ...]] = []
        self.topics: set[str] = set()  # told to waiters; never iterated here
        self.results: dict[str, bytes] = {}
        self._unwritten: list[tuple[str, bytes]] = []
        self._events: list[tuple[Any, ...]] = []
        self._specs = specs
        self._lines = lines
        self._slots_used: dict[str, int] = {}

    def one(self, statement: str, *values: Any) -> Any:
        """The only row, or None."""
        return self.connection.execute(statement, values).fetchone()

    def all(self, statement: str, *values: Any) -> list[Any]:
        return self.connection.execute(statement, values).fetchall()

    def job(self, job: str) -> JobRecord | None:
        row = self.execute(schema.SELECT_JOB, (job,)).fetchone()
        return None if row is None else JobRecord._make(row)

    def run(self, run: str) -> RunRecord | None:
        row = self.execute(schema.SELECT_RUN, (run,)).fetchone()
        return None if row is None else RunRecord._make(row)

    def spec(self, job: str, spec_version: int) -> Job:
        return self._specs.get(self.connection, job, spec_version)

    def line(self, job: str) -> Line:
        """How many runs of the job have begun and how many wait. Whoever makes, begins, gives back or ends a run counts here."""
        return self._lines.get(self.connection, job)

    def slots_used(self, node: str) -> int:
        """Slots of the node's attempts that have not ended; added up once a batch, then kept by `take_slots`."""
        used = self._slots_used.get(node)
        if used is None:
            used = self._slots_used[node] = int(self.one(schema.SLOTS_USED, node)[0])
        return used

    def take_slots(self, node: str, slots: int) -> None:
        """An attempt of so many slots was placed on the node, or has ended (then negative)."""
        if node in self._slots_used:
            self._slots_used[node] += slots

    def event(
        self,
        kind: str,
        *,
        project: str | None = None,
        job: str | None = None,
        run: str | None = None,
        stage: str | None = None,
        node: str | None = None,
        **data: Any,
    ) -> None:
        """Adds a visible change to the stream of events."""
        self.last_event += 1
        if project is None and job is not None:
            project = job.partition("/")[0]
        event = (self.last_event, self.time, kind, project, job, run, stage, node, self.actor, to_json(data).decode())
        self._events.append(event)
        self.said.append(event)

    def touch(self, *topics: str) -> None:
        self.topics.update(topics)

    @property
    def stand(self) -> Stand:
        return Stand(self.time, self.last_event, self.digest, self.runs, self.version)

    def answer(self, command: str, result: bytes) -> None:
        """Keeps what a command was answered, for whoever asks again."""
        self.results[command] = result
        self._unwritten.append((command, result))

    def write_collected(self) -> None:
        """Events and results so far: when the batch ends, and before a command that looks at their tables.

        Who reads them earlier would see what the batch size makes of them, and batches differ between replicas.
        """
        if self._events:
            self.topics.add("events")
            self.connection.executemany(schema.INSERT_EVENT, self._events)
            self._events.clear()
        if self._unwritten:
            self.connection.executemany(schema.INSERT_RESULT, self._unwritten)
            self._unwritten.clear()


def in_words(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
