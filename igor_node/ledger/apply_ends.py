"""How runs end in the ledger: after their last stage, by a cancel, or without ever having started. Every other apply module comes here for it."""

from __future__ import annotations

from igor_node.definitions.jobs import Job
from igor_node.ledger import schema
from igor_node.ledger.commands import CancelRun, Done, Refused, Result
from igor_node.ledger.schema import attempt_id
from igor_node.ledger.transaction import BrokenInvariant, RunRecord, Transaction
from igor_node.rules.graph import CANCELLED_AGAIN, Node, run_end, settle, spared
from igor_node.rules.states import RunEvent, StageEvent, follow_run, follow_stage
from igor_node.words import RunState, StageState

_STAGE_EVENT = {RunEvent.CANCELLED: StageEvent.CANCELLED, RunEvent.SKIPPED: StageEvent.SKIPPED}


def end_run(tx: Transaction, run: RunRecord, event: RunEvent, reason: str, at: int) -> RunState:
    """The run's end state, once and for all."""
    state = follow_run(run.state, event)
    if state is None:
        raise BrokenInvariant(f"run {run.id} is {run.state} and was to end as {event}")
    ended_at = max(at, run.started_at or run.created_at)
    tx.line(run.job).end(begun=bool(run.begun))
    tx.execute(schema.UPDATE_RUN_ENDED, (state, reason, ended_at, None if state is RunState.SUCCEEDED else state, run.id))
    tx.event("run", job=run.job, run=run.id, state=state, reason=reason, trigger=run.trigger)
    tx.touch("runs")
    return state


def end_waiting_run(tx: Transaction, run: RunRecord, event: RunEvent, reason: str) -> RunState:
    """Ends a run none of whose stages is with a node: as `skipped` or `cancelled`."""
    tx.execute(schema.END_WAITING_STAGES, (str(_STAGE_EVENT[event]), reason, tx.time, run.id))
    tx.touch("stages")
    return end_run(tx, run, event, reason, tx.time)


def advance(tx: Transaction, run: RunRecord, spec: Job, at: int) -> RunState | None:
    """After a stage has ended: starts what may start now, ends what never will, and the run with its last stage. The run's end state, if it ended."""
    nodes = _graph(tx, run, spec)
    steps = settle(nodes, cancelled=run.cancel is not None)
    for step in steps:
        _take_step(tx, run, step.stage, step.event, step.reason, at)
    end = run_end(_graph(tx, run, spec) if steps else nodes, cancel=run.cancel)
    return end_run(tx, run, *end, at) if end is not None else None


def _graph(tx: Transaction, run: RunRecord, spec: Job) -> list[Node]:
    stages = {stage.name: stage for stage in spec.stages}
    nodes = []
    for name, state, reason in tx.all(schema.SELECT_STAGES, run.id):
        stage = stages[name]
        # A run that was cancelled before any command started has nothing to clean up.
        always = stage.always and (run.cancel is None or (run.started_at is not None and spared(always=True, needs=stage.needs, cancel=run.cancel)))
        nodes.append(Node(name, StageState(state), stage.needs, always, stage.allow_failure, reason))
    return nodes


def _take_step(tx: Transaction, run: RunRecord, stage: str, event: StageEvent, reason: str, at: int) -> None:
    state = follow_stage(StageState.WAITING, event)
    if state is StageState.QUEUED:
        tx.execute(schema.UPDATE_STAGE_QUEUED, (state, "", tx.time, 0, run.id, stage))
    else:
        tx.execute(schema.UPDATE_STAGE_ENDED, (state, reason, at, run.id, stage))
    tx.event("stage", job=run.job, run=run.id, stage=stage, state=state, reason=reason)
    tx.touch("stages")


def cancel_run(tx: Transaction, command: CancelRun) -> Result:
    """Ends a run that waits at once; one that is with a node ends when the node says so. `asked`: attempts that are to be ended."""
    run = tx.run(command.run)
    if run is None:
        return Refused("NotFound", f'no run has the id "{command.run}"', "igor runs lists them")
    if run.ended_at is not None:
        return Refused("Conflict", f"run {run.id} has ended already: {run.state}")
    reason = command.reason or (f"cancelled by {tx.actor}" if tx.actor else "cancelled")
    state, asked = ask_to_end(tx, run, reason)
    return Done({"run": run.id, "state": str(state), "asked": asked})


def ask_to_end(tx: Transaction, run: RunRecord, reason: str) -> tuple[str, list[str]]:
    """Cancels a run that has not ended: its state afterwards, and the attempts whose nodes must end them first."""
    open_attempts = tx.all(schema.SELECT_OPEN_ATTEMPTS_OF_RUN, run.id)
    if not open_attempts and run.started_at is None:
        return end_waiting_run(tx, run, RunEvent.CANCELLED, reason), []
    cancel = f"{CANCELLED_AGAIN}: {reason}" if run.cancel is not None else reason
    tx.execute(schema.UPDATE_RUN_CANCEL, (cancel, run.id))
    run = run._replace(cancel=cancel)
    spec = tx.spec(run.job, run.spec_version)
    _end_queued_stages(tx, run, spec)
    ended = advance(tx, run, spec, tx.time)
    if ended is not None:
        return ended, []
    tx.event("run", job=run.job, run=run.id, state=run.state, cancel=cancel)
    tx.touch("runs", "attempts")
    return run.state, [attempt_id(run.id, stage, n) for stage, n, *_ in open_attempts if not _spared(spec, stage, cancel)]


def _spared(spec: Job, stage: str, cancel: str) -> bool:
    return any(spared(always=one.always, needs=one.needs, cancel=cancel) for one in spec.stages if one.name == stage)


def _end_queued_stages(tx: Transaction, run: RunRecord, spec: Job) -> None:
    for name, state, _ in tx.all(schema.SELECT_STAGES, run.id):
        if state == StageState.QUEUED and not (run.started_at is not None and _spared(spec, name, run.cancel or "")):
            tx.execute(schema.UPDATE_STAGE_ENDED, (StageState.CANCELLED, run.cancel, tx.time, run.id, name))
            tx.event("stage", job=run.job, run=run.id, stage=name, state=StageState.CANCELLED)
            tx.touch("stages")
