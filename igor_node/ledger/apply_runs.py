"""How runs come into the ledger: fires of schedules, and runs on demand. Both obey the job's overlap policy here, whatever their proposer believed.

A fire exists once: its scheduled time must be later than the job's `decided_until`, which only grows, and a unique index stands behind that. What
a command asks for one job is done in the order of scheduled time; the first thing that is refused stops the job there, so that no fire is ever
passed over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from igor_node.definitions.jobs import Job
from igor_node.ledger import schema
from igor_node.ledger.apply_ends import ask_to_end, end_waiting_run
from igor_node.ledger.commands import CreateRun, Done, Fire, FireRuns, Refused, Result, Stretch
from igor_node.ledger.transaction import LATEST, BrokenInvariant, JobRecord, RunRecord, Transaction, to_json
from igor_node.rules.overlap import CANCELLED_FOR, QUEUE_FULL, Admit, Earlier, Overlap, Skip, admit, decision_waits, order_key, surplus
from igor_node.rules.states import RunEvent
from igor_node.words import SECOND, RunState, StageState, Trigger, format_instant

KEY_KEPT_NS = 24 * 3600 * SECOND  # an idempotency key is good for so long
_OUTCOMES = {"skipped": RunState.SKIPPED, "missed": RunState.MISSED}
Refusal = tuple[str, int, str]  # job, scheduled time, why


class NewRun(NamedTuple):
    """A run that is about to be written. `scheduled_at` None: on demand; of a backfill: the past time for which it is made."""

    id: str
    job: str
    trigger: str
    scheduled_at: int | None
    due_at: int
    params: dict[str, str]
    beside: bool = False


# --- fires


def fire_runs(tx: Transaction, command: FireRuns) -> Result:
    """`refused`: [job, scheduled time, why] of each fire that was not made. `runs`: how many were."""
    if command.term < tx.term:
        return Refused("Conflict", f"decided in term {command.term}, which is over: the term is {tx.term}")
    work: dict[str, list[Fire | Stretch]] = {}
    for stretch in command.stretches:
        work.setdefault(stretch.job, []).append(stretch)
    for fire in command.fires:
        work.setdefault(fire.job, []).append(fire)
    for job in command.decided:
        work.setdefault(job, [])
    refused: list[Refusal] = []
    for job, items in work.items():
        refused += _decide(tx, job, items, command.decided.get(job), command.versions.get(job))
    tx.touch("runs", "stages")  # not "jobs": their definitions are as they were, and the fires loop would read all anew
    return Done({"runs": len(command.fires) - len(refused), "refused": refused} if refused else None)


def _decide(tx: Transaction, job_id: str, items: list[Fire | Stretch], upto: int | None, version: int | None) -> list[Refusal]:
    job = tx.job(job_id)
    if job is None or (why := _stale(job, version)):
        why = "no such job" if job is None else why
        return [(job_id, _first(item), why) for item in items] or [(job_id, upto or 0, why)]
    if len(items) > 1:
        items.sort(key=_first)
    desk = _Desk(tx, job_id, job)
    refused: list[Refusal] = []
    for position, item in enumerate(items):
        if why := desk.take(item):
            refused = [(job_id, _first(other), why if other is item else "a fire before it was refused") for other in items[position:]]
            break
    decided = desk.decided if refused or upto is None else max(desk.decided, min(upto, LATEST))
    if decided > job.decided_until:
        tx.execute(schema.UPDATE_DECIDED, (decided, job_id))
    return refused


def _first(item: Fire | Stretch) -> int:
    return item.scheduled_at if isinstance(item, Fire) else item.first


def _stale(job: JobRecord, version: int | None) -> str:
    """Why the proposer's view of the job is too old, "" where it is not."""
    if job.removed_at is not None:
        return "the job was removed"
    if version is not None and not job.spec_version <= version <= job.version:
        return f"its schedule was read from version {version}, the job is at version {job.version}"
    return ""


class _Desk:
    """One job's fires in one command, and what is decided so far."""

    def __init__(self, tx: Transaction, job_id: str, job: JobRecord) -> None:
        self.tx = tx
        self.job_id = job_id
        self.job = job
        self.spec = tx.spec(job_id, job.spec_version)
        self.decided = job.decided_until

    def take(self, item: Fire | Stretch) -> str:
        """Writes one fire or stretch; why not, where it is refused."""
        first, last = (item.scheduled_at, item.scheduled_at) if isinstance(item, Fire) else (item.first, item.last)
        if not 0 <= last < LATEST or (isinstance(item, Fire) and not 0 <= item.due_at < LATEST):
            return "that is no time"
        if first <= self.decided:
            return f"decided already: the schedule is decided until {format_instant(self.decided)}"
        if item.outcome not in _OUTCOMES and not (isinstance(item, Fire) and item.outcome == ""):
            return f'"{item.outcome}" is no outcome of a fire'
        why = self._fire(item) if isinstance(item, Fire) else self._stretch(item)
        if not why:
            self.decided = last
        return why

    def _fire(self, fire: Fire) -> str:
        new = NewRun(fire.run, self.job_id, Trigger.SCHEDULE, fire.scheduled_at, fire.due_at, {})
        if fire.outcome:
            return write_ended(self.tx, new, self.job, _OUTCOMES[fire.outcome], fire.reason)
        pause = self.job.pause
        if pause.covers(fire.scheduled_at):
            return pause.in_words() if pause.paused else "the job was paused then"
        earlier, in_line = earlier_runs(self.tx, self.job_id, self.spec)
        if fire.due_at > self.tx.time and decision_waits(self.spec.overlap, earlier, max_queued=self.spec.max_queued, in_line=in_line):
            return "an earlier run may end before it is due, so it is decided then"
        answer = admit(self.spec.overlap, earlier, max_queued=self.spec.max_queued, in_line=in_line)
        if isinstance(answer, Skip):
            return write_ended(self.tx, new, self.job, RunState.SKIPPED, answer.reason)
        if why := write_run(self.tx, new, self.job, self.spec):
            return why
        make_room(self.tx, answer)
        return ""

    def _stretch(self, new: Stretch) -> str:
        if not (new.count >= 1 and new.first <= new.last):
            return "a stretch has at least one fire and ends after it begins"
        last = self.tx.one(schema.LAST_STRETCH, self.job_id)
        alike = last is not None and last[3:] == (new.outcome, new.reason)
        if alike and self.tx.one(schema.SELECT_FIRE_AFTER, self.job_id, last[1]) is None:
            self.tx.execute(schema.GROW_STRETCH, (new.last, last[2] + new.count, self.tx.time, self.job_id, last[0]))
        else:
            self.tx.execute(schema.INSERT_STRETCH, (self.job_id, new.first, new.last, new.count, new.outcome, new.reason, self.tx.time))
            self.tx.event("job", job=self.job_id, action=new.outcome, reason=new.reason, first=new.first)
        return ""


# --- runs on demand


def create_run(tx: Transaction, command: CreateRun) -> Result:
    """`known`: the key had made this run before. A policy that skips it makes a run that is `skipped`, and says so in `state`."""
    if command.key is not None and (again := _known(tx, command)):
        return again
    job = tx.job(command.job)
    if job is None or job.removed_at is not None:
        return Refused("NotFound", f'no job is named "{command.job}"', "igor jobs lists them")
    if command.trigger not in tuple(Trigger) or command.trigger == Trigger.SCHEDULE:
        return Refused("Invalid", f'"{command.trigger}" is no trigger of a run on demand')
    spec = tx.spec(command.job, job.spec_version)
    new = NewRun(command.run, command.job, command.trigger, None, tx.time, command.params, command.beside)
    answer = Admit() if command.beside else _admitted(tx, command.job, spec)
    if isinstance(answer, Skip):
        state, why = RunState.SKIPPED, write_ended(tx, new, job, RunState.SKIPPED, answer.reason)
    else:
        state, why = RunState.QUEUED, write_run(tx, new, job, spec)
        if not why:
            make_room(tx, answer)
    if why:
        return Refused("Conflict", why)
    if command.key is not None:
        tx.execute(schema.SET_KEY, (command.key, command.job, command.run, tx.time))
    tx.touch("runs", "stages")
    return Done({"run": command.run, "known": False, "state": str(state)})


def _known(tx: Transaction, command: CreateRun) -> Result | None:
    row = tx.one(schema.SELECT_KEY, command.key)
    if row is None or row[2] < tx.time - KEY_KEPT_NS:
        return None
    if row[0] != command.job:
        return Refused("Conflict", f"this idempotency key made a run of job {row[0]}", "take a new key for each thing that is to be done once")
    run = tx.run(row[1])
    return Done({"run": row[1], "known": True, "state": run.state if run is not None else ""})


# --- what both write


def earlier_runs(tx: Transaction, job: str, spec: Job) -> tuple[list[Earlier], int]:
    """The live runs that rules.overlap.admit looks at under the job's policy, and how many wait in all: a long line is not read."""
    line = tx.line(job)
    if not line.begun and not line.waiting:
        return [], 0
    match spec.overlap:
        case Overlap.CANCEL:
            found = [Earlier(run, begun=bool(begun)) for run, begun, *_ in tx.all(schema.SELECT_LIVE_RUNS, job)]
        case Overlap.SKIP:
            found = [Earlier(run, begun=bool(begun)) for run, begun in tx.all(schema.FIRST_LIVE_RUN, job)]
        case _:
            wanted = 1 if spec.overlap == Overlap.QUEUE_ONE else surplus(line.waiting, spec.max_queued)
            found = [Earlier(run, begun=False) for (run,) in tx.all(schema.FIRST_WAITING_RUNS, job, wanted)] if wanted and line.waiting else []
    return found, line.waiting


def _admitted(tx: Transaction, job: str, spec: Job) -> Admit | Skip:
    earlier, in_line = earlier_runs(tx, job, spec)
    return admit(spec.overlap, earlier, max_queued=spec.max_queued, in_line=in_line)


def write_run(tx: Transaction, new: NewRun, job: JobRecord, spec: Job) -> str:
    """The run with its stages. Those without needs wait for a place at once, the others for their needs. Why not, where it is refused."""
    state = RunState.SCHEDULED if new.due_at > tx.time else RunState.QUEUED
    if why := _insert(tx, new, job, state, "", ended_at=None):
        return why
    write_stages(tx, new.id, spec)
    tx.event("run", project=job.project, job=new.job, run=new.id, state=state, trigger=new.trigger, due_at=new.due_at)
    return ""


def write_stages(tx: Transaction, run: str, spec: Job, placed: Sequence[int] = ()) -> None:
    """`placed`: how often each stage was placed before, where the run was made of another version first."""
    for position, stage in enumerate(spec.stages):
        state = StageState.WAITING if stage.needs else StageState.QUEUED
        before = placed[position] if placed else 0
        tx.execute(schema.INSERT_STAGE, (run, stage.name, position, state, stage.slots, before, None if stage.needs else tx.time))


def write_ended(tx: Transaction, new: NewRun, job: JobRecord, state: RunState, reason: str) -> str:
    """A run that never starts: `skipped` or `missed`. Why not, where it is refused."""
    if why := _insert(tx, new, job, state, reason, ended_at=tx.time):
        return why
    tx.event("run", project=job.project, job=new.job, run=new.id, state=state, reason=reason, trigger=new.trigger)
    return ""


def _insert(tx: Transaction, new: NewRun, job: JobRecord, state: RunState, reason: str, *, ended_at: int | None) -> str:
    fire_at = new.scheduled_at if new.trigger == Trigger.SCHEDULE else None  # others stand where they were made
    order_at = order_key(fire_at, tx.time, new.id)[0]
    trouble = None if ended_at is None else state
    params = to_json(new.params).decode() if new.params else "{}"
    row = (
        new.id, new.job, job.project, job.version, job.spec_version, new.trigger, state, reason, new.scheduled_at, new.due_at, tx.time,
        ended_at, params, int(new.beside), order_at, trouble,
    )  # fmt: skip
    line = tx.line(new.job)  # before the row is written: it may count the table
    try:
        tx.execute(schema.INSERT_RUN, row)
    except sqlite3.IntegrityError:  # the statement alone is undone; nothing else was written for this run yet
        return f"there is a run {new.id}, or one of this scheduled time, already"
    tx.runs += 1
    if ended_at is None:
        line.come()
    return ""


def make_room(tx: Transaction, answer: Admit) -> None:
    """What the overlap policy does to earlier runs for a new one."""
    for run_id in answer.drop:
        end_waiting_run(tx, _live(tx, run_id), RunEvent.SKIPPED, QUEUE_FULL)
    for run_id in answer.cancel:
        run = _live(tx, run_id)
        if run.cancel is None:
            ask_to_end(tx, run, CANCELLED_FOR)


def _live(tx: Transaction, run_id: str) -> RunRecord:
    run = tx.run(run_id)
    if run is None or run.ended_at is not None:
        raise BrokenInvariant(f"run {run_id} was to make room and has ended already")
    return run
