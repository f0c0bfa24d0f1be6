"""What the ledger forgets: old ended runs with all that hangs on them, results and keys of commands, events, tokens that
ended.

A job's row is never forgotten, and with it `decided_until`: a fire whose run is pruned is not made again.
"""

from __future__ import annotations

from igor_node.ledger import schema
from igor_node.ledger.apply_staged import forget_stagings
from igor_node.ledger.commands import Done, Prune, Result
from igor_node.ledger.transaction import Transaction
from igor_node.words import SECOND, id_floor

RUNS_PER_PRUNE = 200  # some ms, tens where their index pages must be read from the disk: a command must not hold the Raft thread
ROWS_PER_PRUNE = 2_000  # of results, keys, events and stretches each
KEPT_NS = 24 * 3600 * SECOND  # results and keys at least so long: who asks again within a day gets the first answer


def prune(tx: Transaction, command: Prune) -> Result:
    """How many of each are gone; `more`: there may be others, ask again."""
    tx.write_collected()
    staged = forget_stagings(tx)
    runs = _prune_runs(tx, min(command.runs_before, tx.time), min(command.created_before, tx.time))
    results_before = min(command.results_before, tx.time - KEPT_NS)
    counts = [
        tx.execute(schema.PRUNE_STRETCHES, (min(command.runs_before, tx.time), ROWS_PER_PRUNE)).rowcount,
        tx.execute(schema.PRUNE_RESULTS, (id_floor(results_before), ROWS_PER_PRUNE)).rowcount,
        tx.execute(schema.PRUNE_KEYS, (results_before, ROWS_PER_PRUNE)).rowcount,
        tx.execute(schema.PRUNE_EVENTS, (ROWS_PER_PRUNE, min(command.events_before, tx.time))).rowcount,
        tx.execute(schema.PRUNE_ACTIVITY, (ROWS_PER_PRUNE, min(command.activity_before, tx.time))).rowcount,
        tx.execute(schema.PRUNE_TOKENS, (min(command.runs_before, tx.time), ROWS_PER_PRUNE)).rowcount,
        tx.execute(schema.PRUNE_ENDED_SESSIONS, (tx.time, ROWS_PER_PRUNE)).rowcount,
        tx.execute(schema.PRUNE_BACKFILL_TIMES, (min(command.runs_before, tx.time),)).rowcount,
        tx.execute(schema.PRUNE_BACKFILLS, (min(command.runs_before, tx.time),)).rowcount,
    ]
    if runs or counts[0]:
        before = tx.one(schema.GET_META, "pruned_before")
        tx.execute(schema.SET_META, ("pruned_before", max(command.runs_before, command.created_before, 0 if before is None else before[0])))
        tx.touch("runs")
    more = runs >= RUNS_PER_PRUNE or max(counts) >= ROWS_PER_PRUNE
    return Done({"runs": runs, "stretches": counts[0], "results": counts[1], "keys": counts[2], "events": counts[3], "staged": staged, "more": more})


def _prune_runs(tx: Transaction, ended: int, created: int) -> int:
    # A run ends after it was made, so those to go are among the oldest ids; the newest are not looked at.
    gone = tx.all(schema.PRUNABLE_RUNS, id_floor(max(ended, created)), ended, id_floor(created), RUNS_PER_PRUNE)
    for statement in (schema.DELETE_TRIES, schema.DELETE_ATTEMPTS, schema.DELETE_STAGES, schema.DELETE_RUN):
        tx.connection.executemany(statement, gone)
    tx.runs -= len(gone)
    return len(gone)
