"""A ledger to play with: every command is one entry with an id and a time of its own, both made without chance."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from igor_node.definitions.jobs import Job, Schedule, Stage, encode_job
from igor_node.ledger import query_runs
from igor_node.ledger.commands import (
    AssignStages,
    Command,
    CreateRun,
    Done,
    Envelope,
    Fire,
    FireRuns,
    Placement,
    PushProject,
    Refused,
    RegisterNode,
    ReportEvents,
    encode_envelope,
)
from igor_node.ledger.ledger import Ledger
from igor_node.ledger.reads import ReadsSync
from igor_node.ledger.versions import CommandSet
from igor_node.stream import AttemptEvent
from igor_node.words import MILLISECOND, SECOND, parse_instant
from raft.interface import Entry, Kind

T = TypeVar("T")
START = parse_instant("2026-11-24T12:00:00Z")
_ALPHABET = "0123456789abcdefghijklmnopqrstuv"


def make_id(at: int, number: int) -> str:
    """An id of words.new_id's form whose part of chance is a number."""
    value = (at // MILLISECOND) << 50 | number
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(95, -1, -5))


def job(
    name: str = "report", project: str = "shop", *, stages: Sequence[Stage] | None = None, schedule: Schedule | None = None, **fields: Any
) -> Job:
    """A job with one stage `main` and a fire each minute, unless told otherwise."""
    one = (Stage(name="main", command="true"),)
    every = Schedule(every_ns=60 * SECOND) if schedule is None else schedule
    return Job(project=project, name=name, schedules=(every,), stages=tuple(stages) if stages is not None else one, **fields)


class Book:
    """Applies commands one by one. `now` is the proposer's clock; `term` that of the entries."""

    def __init__(self, folder: Path, *, now: int = START, known: CommandSet | None = None) -> None:
        self.folder = folder
        self.path = folder / "ledger.sqlite"
        self.heard: list[tuple[int, frozenset[str]]] = []
        self.ledger = Ledger(self.path, lambda index, topics: self.heard.append((index, topics)), known=known)
        self.now = now
        self.term = 1
        self.count = 0
        self.entries: list[Entry] = []
        self.seqs: dict[str, int] = {}

    def new_id(self) -> str:
        self.count += 1
        return make_id(self.now, self.count)

    def entry(self, command: Command, *, id: str | None = None, actor: str = "ann") -> Entry:
        envelope = Envelope(id=id or self.new_id(), at=self.now, actor=actor, command=command)
        return Entry(self.ledger.applied().index + 1, self.term, Kind.COMMAND, encode_envelope(envelope))

    def apply(self, command: Command, *, id: str | None = None, actor: str = "ann") -> Any:
        entry = self.entry(command, id=id, actor=actor)
        self.entries.append(entry)
        return self.ledger.apply([entry])[0]

    def done(self, command: Command, **how: Any) -> Any:
        """The value of a command that must not be refused."""
        result = self.apply(command, **how)
        assert isinstance(result, Done), result
        return result.value

    def refused(self, command: Command, **how: Any) -> Refused:
        result = self.apply(command, **how)
        assert isinstance(result, Refused), result
        return result

    def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        with closing(ReadsSync(self.path)) as reads:
            return reads.query(function)

    def run(self, run: str) -> dict[str, Any]:
        return self.read(lambda connection: query_runs.run(connection, run))

    def sql(self, statement: str, *values: Any) -> list[Any]:
        return self.read(lambda connection: connection.execute(statement, values).fetchall())

    def dump(self) -> list[str]:
        with closing(sqlite3.connect(self.ledger.file)) as connection:
            return list(connection.iterdump())

    def close(self) -> None:
        self.ledger.close()

    # --- what most tests do

    def node(self, name: str = "a", slots: int = 4, **labels: str) -> str:
        self.done(RegisterNode(node=f"node-{name}", name=name, address=f"127.0.0.1:{len(self.entries)}", slots=slots, labels=labels))
        return f"node-{name}"

    def push(self, *jobs: Job, project: str = "shop", **how: Any) -> Any:
        return self.done(PushProject(project=project, jobs=tuple(encode_job(one) for one in jobs), **how))

    def fires(self, *fires: Fire, **how: Any) -> list[Any]:
        """Proposes fires; what was refused of them."""
        value = self.done(FireRuns(term=self.term, fires=fires, **how))
        return [] if value is None else value["refused"]

    def fire(self, job: str = "shop/report", at: int | None = None, *, due_at: int | None = None, outcome: str = "", reason: str = "") -> str:
        """One fire that must be made, due now unless told otherwise; the run."""
        if at is None:
            at = self.now = self.now + MILLISECOND  # later than all that was decided before
        run = self.new_id()
        refused = self.fires(Fire(job=job, run=run, scheduled_at=at, due_at=at if due_at is None else due_at, outcome=outcome, reason=reason))
        assert not refused, refused
        return run

    def create(self, job: str = "shop/report", **how: Any) -> str:
        run = self.new_id()
        self.done(CreateRun(job=job, run=run, **how))
        return run

    def place(self, run: str, stage: str = "main", n: int = 1, node: str = "node-a") -> str:
        """Why the placement is refused, "" where it stands."""
        placement = Placement(run=run, stage=stage, node=node, attempt=f"{run}.{stage}.{n}", renew_hash="hash")
        value = self.done(AssignStages(term=self.term, placements=(placement,)))
        return "" if value is None else value["refused"][0][1]

    def placed(self, run: str, stage: str = "main", n: int = 1, node: str = "node-a") -> str:
        assert self.place(run, stage, n, node) == ""
        return f"{run}.{stage}.{n}"

    def event(self, attempt: str, kind: str, **fields: Any) -> AttemptEvent:
        seq = self.seqs[attempt] = self.seqs.get(attempt, 0) + 1
        return AttemptEvent(attempt=attempt, seq=seq, kind=kind, at=fields.pop("at", self.now), **fields)

    def report(self, *events: AttemptEvent, node: str = "node-a") -> dict[str, Any]:
        return self.done(ReportEvents(node=node, events=events))

    def begin(self, attempt: str, node: str = "node-a") -> None:
        self.report(self.event(attempt, "held"), self.event(attempt, "try_started", try_n=1), node=node)

    def end(self, attempt: str, state: str = "succeeded", *, exit_code: int = 0, node: str = "node-a", **fields: Any) -> dict[str, Any]:
        ended = self.event(attempt, "try_ended", try_n=1, state=state, exit_code=exit_code)
        return self.report(ended, self.event(attempt, "ended", state=state, **fields), node=node)

    def carry_out(self, run: str, state: str = "succeeded", stage: str = "main", n: int = 1, node: str = "node-a", exit_code: int = 0) -> None:
        """Places, begins and ends a stage."""
        attempt = self.placed(run, stage, n, node)
        self.begin(attempt, node)
        self.end(attempt, state, exit_code=exit_code, node=node)
