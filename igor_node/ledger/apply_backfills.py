"""Backfills: runs for past times that somebody asks for, beside what the ledger holds of those times, and a few at once.

The times are fixed when it is made. Each run obeys the job's overlap policy as it is when its turn comes; where that would skip it, the backfill
waits.
"""

from __future__ import annotations

from typing import NamedTuple

from igor_node.ledger import schema
from igor_node.ledger.apply_ends import ask_to_end
from igor_node.ledger.apply_runs import NewRun, write_run
from igor_node.ledger.commands import BackfillRuns, CancelBackfill, CreateBackfill, Done, Refused, Result
from igor_node.ledger.transaction import BrokenInvariant, Transaction
from igor_node.rules.overlap import backfill_room
from igor_node.words import Trigger

TIMES_LIMIT = 10_000  # of one backfill
PARALLEL_LIMIT = 1_000
JOB_REMOVED = "job removed"


class _Backfill(NamedTuple):
    """A row of `backfills`, as SELECT_BACKFILL gives it."""

    job: str
    parallel: int
    total: int
    made: int
    state: str
    reason: str
    ended_at: int | None


def create_backfill(tx: Transaction, command: CreateBackfill) -> Result:
    job = tx.job(command.job)
    if job is None or job.removed_at is not None:
        return Refused("NotFound", f'no job is named "{command.job}"', "igor jobs lists them")
    if not 1 <= len(command.times) <= TIMES_LIMIT or not 1 <= command.parallel <= PARALLEL_LIMIT:
        return Refused("Invalid", f"a backfill has 1 to {TIMES_LIMIT} times, and 1 to {PARALLEL_LIMIT} at once")
    if not all(0 <= at <= tx.time for at in command.times) or len(set(command.times)) < len(command.times):
        return Refused("Invalid", "the times of a backfill are past ones, each once")
    if tx.one(schema.SELECT_BACKFILL, command.backfill) is not None:
        return Refused("Conflict", f"there is a backfill {command.backfill} already")
    row = (command.backfill, command.job, command.parallel, len(command.times), command.reason, tx.actor, tx.time)
    tx.execute(schema.INSERT_BACKFILL, row)
    for n, at in enumerate(command.times):
        tx.execute(schema.INSERT_BACKFILL_TIME, (command.backfill, n, at))
    _say(tx, command.backfill, command.job, "created")
    return Done({"backfill": command.backfill, "total": len(command.times)})


def backfill_runs(tx: Transaction, command: BackfillRuns) -> Result:
    """`made`: how many. None where the policy has no room for one now."""
    if command.term < tx.term:
        return Refused("Conflict", f"decided in term {command.term}, which is over: the term is {tx.term}")
    found = _open(tx, command.backfill)
    if isinstance(found, Refused):
        return found
    job = tx.job(found.job)
    if job is None:
        raise BrokenInvariant(f"backfill {command.backfill} is of job {found.job}, which has no row")
    if job.removed_at is not None:
        _end(tx, command.backfill, found, "cancelled", JOB_REMOVED)
        return Done({"made": 0})
    spec = tx.spec(found.job, job.spec_version)
    line = tx.line(found.job)
    room = backfill_room(
        spec.overlap, parallel=found.parallel, own=int(tx.one(schema.LIVE_BACKFILL_RUNS, found.job)[0]), live=line.begun + line.waiting,
        waiting=line.waiting, max_queued=spec.max_queued,
    )  # fmt: skip
    made = 0
    for run in command.runs[: min(room, found.total - found.made)]:
        n = found.made + made
        (scheduled_at,) = tx.one(schema.SELECT_BACKFILL_TIME, command.backfill, n)
        if why := write_run(tx, NewRun(run, found.job, Trigger.BACKFILL, scheduled_at, tx.time, {}), job, spec):
            return Refused("Conflict", why)
        tx.execute(schema.SET_BACKFILL_RUN, (run, command.backfill, n))
        made += 1
    found = found._replace(made=found.made + made)
    if found.made == found.total:
        _end(tx, command.backfill, found, "made", found.reason)
    elif made:
        tx.execute(schema.UPDATE_BACKFILL, (found.made, found.state, found.reason, None, command.backfill))
    tx.touch("runs", "stages", "backfills")
    return Done({"made": made})


def cancel_backfill(tx: Transaction, command: CancelBackfill) -> Result:
    """`cancelled`: how many of its runs had not ended."""
    row = tx.one(schema.SELECT_BACKFILL, command.backfill)
    if row is None:
        return Refused("NotFound", f'no backfill has the id "{command.backfill}"')
    found = _Backfill._make(row)
    runs = [run for (run,) in tx.all(schema.LIVE_RUNS_OF_BACKFILL, command.backfill)]
    if found.ended_at is not None and not runs:
        return Refused("Conflict", f"backfill {command.backfill} has ended already: {found.state}")
    reason = command.reason or (f"cancelled by {tx.actor}" if tx.actor else "cancelled")
    if found.ended_at is None:
        _end(tx, command.backfill, found, "cancelled", reason)
    for run_id in runs:
        run = tx.run(run_id)
        if run is not None and run.ended_at is None:
            ask_to_end(tx, run, reason)
    tx.touch("runs", "stages")
    return Done({"backfill": command.backfill, "cancelled": len(runs)})


def _open(tx: Transaction, backfill: str) -> _Backfill | Refused:
    row = tx.one(schema.SELECT_BACKFILL, backfill)
    if row is None:
        return Refused("NotFound", f'no backfill has the id "{backfill}"')
    found = _Backfill._make(row)
    return found if found.ended_at is None else Refused("Conflict", f"backfill {backfill} has ended already: {found.state}")


def _end(tx: Transaction, backfill: str, found: _Backfill, state: str, reason: str) -> None:
    tx.execute(schema.UPDATE_BACKFILL, (found.made, state, reason, tx.time, backfill))
    _say(tx, backfill, found.job, state)


def _say(tx: Transaction, backfill: str, job: str, action: str) -> None:
    tx.event("backfill", job=job, backfill=backfill, action=action)
    tx.touch("backfills")
