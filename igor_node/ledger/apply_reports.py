"""What nodes report of their attempts, and what is lost with a node: how attempts, and with them stages and runs, go on and end.

An event counts once, by (attempt, seq). What comes again is passed over; a gap is refused and named, so that the node sends from there. An event
that the tables of rules/states do not know in the attempt's state is noted as seen and named `ignored`: it must not block those behind it.

After `lost` a node may still report. The tries are recorded. The end counts where nothing was placed after the loss and the run goes on; else it
is kept as the attempt's `late` result, and the run goes by the next attempt (SEMANTICS, "When a node is lost").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from igor_node.definitions.jobs import Stage
from igor_node.ledger import schema
from igor_node.ledger.apply_ends import advance
from igor_node.ledger.apply_pushes import settle_given_back
from igor_node.ledger.commands import AttemptsLost, DecideLost, Done, Refused, ReportEvents, Result
from igor_node.ledger.schema import attempt_id, split_attempt
from igor_node.ledger.transaction import BrokenInvariant, RunRecord, Transaction
from igor_node.rules.graph import spared
from igor_node.rules.node_loss import Fail, Keep, OnNodeLoss, after_loss
from igor_node.rules.states import AttemptEvent, RunEvent, StageEvent, TryEvent, follow_attempt, follow_run, follow_stage
from igor_node.stream import AttemptEvent as Report
from igor_node.words import SECOND, AttemptState, NodeState, RunState, StageState

FUTURE_NS = 60 * SECOND  # a node's clock that is further ahead of the ledger is not believed
TRIES_LIMIT = 10_000  # of one attempt; a report beyond it is ignored

_STAGE_END = {
    AttemptState.SUCCEEDED: StageEvent.SUCCEEDED,
    AttemptState.FAILED: StageEvent.FAILED,
    AttemptState.TIMED_OUT: StageEvent.TIMED_OUT,
    AttemptState.CANCELLED: StageEvent.CANCELLED,
    AttemptState.SKIPPED: StageEvent.SKIPPED,
    AttemptState.LOST: StageEvent.LOST,
}
_ENDS = {state.value: AttemptEvent(state.value) for state in _STAGE_END}
_TRY_ENDS = frozenset(event.value for event in TryEvent)


class _Row(NamedTuple):
    """SELECT_ATTEMPT: an attempt, with its stage and its run."""

    node: str
    state: str
    reason: str
    started_at: int | None
    ended_at: int | None
    last_seq: int
    revoke: str | None
    late: str | None
    slots: int
    stage_state: str
    stage_attempts: int
    losses: int
    job: str
    spec_version: int
    run_state: str
    due_at: int
    run_started_at: int | None
    run_ended_at: int | None
    cancel: str | None


class _Attempt:
    """One attempt while the events of one command are taken: changed in memory, written once."""

    def __init__(self, tx: Transaction, name: str, key: tuple[str, str, int], row: _Row) -> None:
        self.tx = tx
        self.name = name
        self.run, self.stage, self.n = self.key = key
        self.row = row
        self.state = AttemptState(row.state)
        self.reason = row.reason
        self.started_at = row.started_at
        self.ended_at = row.ended_at
        self.last_seq = row.last_seq
        self.late = row.late
        self.refused = False

    @property
    def is_last(self) -> bool:
        """Nothing of its stage was placed after it."""
        return self.n == self.row.stage_attempts

    def write(self) -> None:
        values = (self.state, self.reason, self.started_at, self.ended_at, self.last_seq, self.late)
        self.tx.execute(schema.UPDATE_ATTEMPT, (*values, *self.key))
        if self.ended_at is not None and self.row.ended_at is None:
            self.tx.take_slots(self.row.node, -self.row.slots)

    def definition(self) -> Stage:
        for stage in self.tx.spec(self.row.job, self.row.spec_version).stages:
            if stage.name == self.stage:
                return stage
        raise BrokenInvariant(f"attempt {self.name} is of a stage that its definition does not name")


def _load(tx: Transaction, name: str) -> _Attempt | None:
    key = split_attempt(name)
    row = None if key is None else tx.one(schema.SELECT_ATTEMPT, *key)
    return None if row is None or key is None else _Attempt(tx, name, key, _Row._make(row))


# --- reports


class _Answer:
    """`upto`: the highest event of each attempt that is committed now; `gaps`: the seq that is missing; `ignored`: [attempt, seq, why]; `unknown`:
    attempts that the ledger has not (any more); `foreign`: those of another node; `late`: results kept beside the run."""

    def __init__(self) -> None:
        self.upto: dict[str, int] = {}
        self.gaps: dict[str, int] = {}
        self.ignored: list[tuple[str, int, str]] = []
        self.unknown: list[str] = []
        self.foreign: list[str] = []
        self.late: list[str] = []

    def value(self) -> dict[str, Any]:
        fields = {"gaps": self.gaps, "ignored": self.ignored, "unknown": self.unknown, "foreign": self.foreign, "late": self.late}
        return {"upto": self.upto, **{name: found for name, found in fields.items() if found}}


def report_events(tx: Transaction, command: ReportEvents) -> Result:
    by_attempt: dict[str, list[Report]] = {}
    for event in command.events:
        by_attempt.setdefault(event.attempt, []).append(event)
    answer = _Answer()
    for name, events in by_attempt.items():
        attempt = _load(tx, name)
        if attempt is None:
            answer.unknown.append(name)
        elif attempt.row.node != command.node:
            answer.foreign.append(name)
        else:
            _take_events(attempt, events, answer)
    tx.touch("runs", "stages", "attempts")
    return Done(answer.value())


def _take_events(attempt: _Attempt, events: Sequence[Report], answer: _Answer) -> None:
    was = attempt.state
    begun = attempt.started_at
    for event in events:
        if event.seq <= attempt.last_seq:
            continue
        if event.seq != attempt.last_seq + 1:
            answer.gaps[attempt.name] = attempt.last_seq + 1
            break
        attempt.last_seq = event.seq
        take = _KINDS.get(event.kind)
        why = f'"{event.kind}" is no kind of event' if take is None else take(attempt, event)
        if why:
            answer.ignored.append((attempt.name, event.seq, why))
    answer.upto[attempt.name] = attempt.last_seq
    if attempt.last_seq == attempt.row.last_seq:
        return
    attempt.write()
    _follow(attempt, was, answer, begun_now=begun is None and attempt.started_at is not None)


def _believed(attempt: _Attempt, at: int) -> int:
    return max(0, min(at, attempt.tx.time + FUTURE_NS))


def _held(attempt: _Attempt, event: Report) -> str:
    state = follow_attempt(attempt.state, AttemptEvent.HELD)
    if state is None:
        return f"the attempt is {attempt.state}"
    attempt.state = state
    return ""


def _try_started(attempt: _Attempt, event: Report) -> str:
    if not 1 <= event.try_n <= TRIES_LIMIT:
        return f"a try has a number from 1 to {TRIES_LIMIT}"
    if attempt.state in (AttemptState.ASSIGNED, AttemptState.HELD):
        attempt.state = AttemptState.RUNNING
    elif attempt.state not in (AttemptState.RUNNING, AttemptState.LOST):
        return f"the attempt is {attempt.state}"
    at = _believed(attempt, event.at)
    if attempt.started_at is None:
        attempt.started_at = at
    attempt.tx.execute(schema.INSERT_TRY, (*attempt.key, event.try_n, "running", at))
    return ""


def _try_ended(attempt: _Attempt, event: Report) -> str:
    if event.state not in _TRY_ENDS:
        return f'"{event.state}" is no end of a try'
    values = (
        event.state, event.reason, _believed(attempt, event.at), event.exit_code, event.signal, event.max_rss_bytes, event.cpu_ns, event.duration_ns,
    )  # fmt: skip
    changed = attempt.tx.execute(schema.END_TRY, (*values, *attempt.key, event.try_n)).rowcount
    return "" if changed else f"there is no try {event.try_n} that goes on"


def _ended(attempt: _Attempt, event: Report) -> str:
    if event.state not in _ENDS:
        return f'"{event.state}" is no end of an attempt'
    reason = event.reason or _reason(attempt, event)
    if attempt.state is AttemptState.LOST:
        return _late(attempt, event, reason)
    state = follow_attempt(attempt.state, _ENDS[event.state])
    if state is None:
        return f"the attempt is {attempt.state}"
    attempt.state, attempt.reason, attempt.ended_at = state, reason, _believed(attempt, event.at)
    if state is AttemptState.LOST:
        attempt.tx.execute(schema.LOSE_TRIES, (reason, attempt.ended_at, *attempt.key))
    return ""


def _reason(attempt: _Attempt, event: Report) -> str:
    """From the last try, where the node gives none: `exit code 3`, `signal 9`."""
    if event.state not in ("failed", "skipped"):
        return ""
    row = attempt.tx.one(schema.LAST_TRY, *attempt.key)
    exit_code, signal = (event.exit_code, event.signal) if row is None or (row[0] is None and row[1] is None) else row
    if signal is not None:
        return f"signal {signal}"
    return "" if exit_code is None else f"exit code {exit_code}"


def _late(attempt: _Attempt, event: Report, reason: str) -> str:
    """The end of an attempt that was lost: it counts where nothing was placed after it and its stage waits for that."""
    state = follow_attempt(attempt.state, _ENDS[event.state])
    attempt.late = event.state
    waits = attempt.is_last and attempt.row.stage_state == StageState.QUEUED and attempt.row.run_ended_at is None
    if waits and state is not None:
        attempt.state, attempt.reason = state, f"{reason} (reported after it was lost)".strip()
        attempt.ended_at = _believed(attempt, event.at)
    return ""


def _revoked(attempt: _Attempt, event: Report) -> str:
    if attempt.state is AttemptState.LOST:
        return ""  # its stage waits for another place already
    state = follow_attempt(attempt.state, AttemptEvent.REVOKED)
    if state is None:
        return f"the attempt is {attempt.state}"
    attempt.state, attempt.ended_at = state, attempt.tx.time
    attempt.reason = event.reason or attempt.row.revoke or ""
    return ""


def _refused(attempt: _Attempt, event: Report) -> str:
    attempt.refused = attempt.row.revoke is None
    return _revoked(attempt, event)


_KINDS = {"held": _held, "try_started": _try_started, "try_ended": _try_ended, "ended": _ended, "revoked": _revoked, "refused": _refused}


# --- what follows for the stage and the run


def _follow(attempt: _Attempt, was: AttemptState, answer: _Answer, *, begun_now: bool) -> None:
    if attempt.late is not None and attempt.row.late is None and attempt.state is AttemptState.LOST:
        answer.late.append(attempt.name)
    if attempt.state is was:
        return
    if was is AttemptState.LOST:
        _run_started(attempt)  # its stage waits in the queue and ends from there
    elif begun_now:
        _stage_started(attempt)
    if attempt.state is AttemptState.REVOKED:
        _stage_given_back(attempt)
    elif attempt.state is AttemptState.LOST:
        _lost_by_its_own_word(attempt)
    elif attempt.ended_at is not None:
        _stage_ended(attempt)


def _stage_started(attempt: _Attempt) -> None:
    """The first try of the attempt: its stage runs."""
    tx, row = attempt.tx, attempt.row
    state = follow_stage(row.stage_state, StageEvent.STARTED)
    if state is None:
        raise BrokenInvariant(f"attempt {attempt.name} started, its stage is {row.stage_state}")
    tx.execute(schema.UPDATE_STAGE_STARTED, (state, attempt.started_at, attempt.run, attempt.stage))
    attempt.row = row._replace(stage_state=state)
    if not _run_started(attempt):
        tx.event("stage", job=row.job, run=attempt.run, stage=attempt.stage, node=row.node, state=state)


def _run_started(attempt: _Attempt) -> bool:
    """The first try of the run: it runs, and its lateness is known. False where it has started before (or this attempt never did)."""
    tx, row, at = attempt.tx, attempt.row, attempt.started_at
    state = follow_run(row.run_state, RunEvent.STARTED)
    if state is None or at is None:
        return False
    tx.execute(schema.UPDATE_RUN_STARTED, (state, "", at, at - row.due_at, attempt.run))
    tx.event("run", job=row.job, run=attempt.run, state=state, node=row.node)
    attempt.row = row._replace(run_state=state, run_started_at=at)
    return True


def _stage_ended(attempt: _Attempt, event: StageEvent | None = None, reason: str | None = None) -> None:
    """The stage ends as its attempt did, unless told otherwise; then the graph goes on."""
    tx, row = attempt.tx, attempt.row
    event = _STAGE_END[attempt.state] if event is None else event
    reason = attempt.reason if reason is None else reason
    state = follow_stage(row.stage_state, event)
    if state is None:
        raise BrokenInvariant(f"attempt {attempt.name} ended as {attempt.state}, its stage is {row.stage_state}")
    at = attempt.ended_at or tx.time
    tx.execute(schema.UPDATE_STAGE_ENDED, (state, reason, at, attempt.run, attempt.stage))
    run = _run(attempt)
    spec = tx.spec(row.job, row.spec_version)
    if len(spec.stages) > 1:
        tx.event("stage", job=row.job, run=attempt.run, stage=attempt.stage, node=row.node, state=state, reason=reason)
    advance(tx, run, spec, at)


def _stage_given_back(attempt: _Attempt) -> None:
    """The node has not started it and never will: what was wanted of it meanwhile happens now, else it waits for another place."""
    tx, row = attempt.tx, attempt.row
    losses = row.losses + attempt.refused
    nobody_has_it = row.run_started_at is None and not tx.all(schema.SELECT_OPEN_ATTEMPTS_OF_RUN, attempt.run)
    if row.cancel is not None and not nobody_has_it and not _is_spared(attempt, row.cancel):
        _stage_ended(attempt, StageEvent.CANCELLED, row.cancel)
    elif attempt.refused and losses >= tx.spec(row.job, row.spec_version).max_attempts:
        _stage_ended(attempt, StageEvent.FAILED, f"refused {losses} times: {attempt.reason}" if losses > 1 else attempt.reason)
    elif nobody_has_it:
        if _run(attempt).begun:
            tx.line(row.job).give_back()
        tx.execute(schema.UPDATE_RUN_BEGUN, (0, attempt.run))
        _queue_again(attempt, attempt.reason, losses)
        settle_given_back(tx, _run(attempt), row.revoke)
    else:
        _queue_again(attempt, attempt.reason, losses)


def _is_spared(attempt: _Attempt, cancel: str) -> bool:
    stage = attempt.definition()
    return spared(always=stage.always, needs=stage.needs, cancel=cancel)


def _queue_again(attempt: _Attempt, reason: str, losses: int) -> None:
    tx, row = attempt.tx, attempt.row
    state = follow_stage(row.stage_state, StageEvent.GIVEN_BACK)
    if state is None:
        raise BrokenInvariant(f"attempt {attempt.name} was given back, its stage is {row.stage_state}")
    tx.execute(schema.UPDATE_STAGE_QUEUED, (state, reason, tx.time, losses, attempt.run, attempt.stage))
    tx.execute(schema.UPDATE_RUN_STATE, (row.run_state, reason, attempt.run))
    tx.event("stage", job=row.job, run=attempt.run, stage=attempt.stage, node=row.node, state=state, reason=reason)


def _run(attempt: _Attempt) -> RunRecord:
    run = attempt.tx.run(attempt.run)
    if run is None:
        raise BrokenInvariant(f"attempt {attempt.name} has no run")
    return run


# --- losses


def attempts_lost(tx: Transaction, command: AttemptsLost) -> Result:
    """`lost`: those that are lost now; `left`: those that had ended, or whose job waits for the node (`on_node_loss: wait`)."""
    if command.term < tx.term:
        return Refused("Conflict", f"decided in term {command.term}, which is over: the term is {tx.term}")
    lost, left = [], []
    for name in command.attempts:
        attempt = _load(tx, name)
        if attempt is not None and attempt.ended_at is None and _lose(attempt, command.reason, command.decision):
            lost.append(name)
        else:
            left.append(name)
    tx.touch("runs", "stages", "attempts")
    return Done({"lost": lost, "left": left})


def decide_lost(tx: Transaction, command: DecideLost) -> Result:
    """`lost`: the attempts that are lost by it. Refused where none waits for its node: what is not waited for decides itself with its lease."""
    run = tx.run(command.run)
    if run is None:
        return Refused("NotFound", f'no run has the id "{command.run}"')
    if command.decision not in (OnNodeLoss.RERUN, OnNodeLoss.FAIL):
        return Refused("Invalid", f'"{command.decision}" decides nothing', "expected rerun or fail")
    lost, spared = [], []
    for stage, n, node, *_ in tx.all(schema.SELECT_OPEN_ATTEMPTS_OF_RUN, command.run):
        attempt = _load(tx, attempt_id(command.run, stage, n))
        assert attempt is not None, "an open attempt has a row"
        if why := _undecidable(attempt, node):
            spared.append(f"stage {stage}: {why}")
            continue
        words = f": {command.reason}" if command.reason else ""
        if _lose(attempt, f"{tx.actor} decided that it is lost{words}", command.decision):
            lost.append(attempt.name)
    if not lost:
        return Refused("Conflict", f"nothing of run {command.run} waits for a lost node", "; ".join(spared) or "it has nothing on any node")
    tx.touch("runs", "stages", "attempts")
    return Done({"run": command.run, "lost": lost})


def _undecidable(attempt: _Attempt, node: str) -> str:
    name, state = attempt.tx.one(schema.SELECT_NODE, node)[0::5][:2]
    if state not in (NodeState.SILENT, NodeState.LOST):
        return f"node {name} is heard; igor cancel ends the run"
    rule = attempt.definition().on_node_loss
    return "" if rule == OnNodeLoss.WAIT else f"its lease decides (on_node_loss: {rule})"


def _lose(attempt: _Attempt, reason: str, decision: str) -> bool:
    tx, row = attempt.tx, attempt.row
    state = follow_attempt(attempt.state, AttemptEvent.LOST)
    if state is None:
        raise BrokenInvariant(f"attempt {attempt.name} is {attempt.state} and has not ended")
    policy = decision or attempt.definition().on_node_loss
    losses = row.losses + 1
    what = after_loss(policy, attempts_made=losses, max_attempts=tx.spec(row.job, row.spec_version).max_attempts)
    if isinstance(what, Keep):
        _wait_for_node(attempt, reason)
        return False
    attempt.state, attempt.reason, attempt.ended_at = state, reason, tx.time
    attempt.write()
    tx.execute(schema.LOSE_TRIES, (reason, tx.time, *attempt.key))
    if row.cancel is not None:
        tx.execute(schema.UPDATE_RUN_CANCEL, (f"{row.cancel}; node silent", attempt.run))
        _stage_ended(attempt, StageEvent.CANCELLED, f"node silent: {reason}")
    elif isinstance(what, Fail):
        _stage_ended(attempt, StageEvent.FAILED, what.reason)
    else:
        _another_attempt(attempt, losses)
    return True


def _lost_by_its_own_word(attempt: _Attempt) -> None:
    """A wrapper ended its command because its lease ran out, and could say so before the leader gave it up: the same follows as if it had not."""
    tx, row = attempt.tx, attempt.row
    losses = row.losses + 1
    what = after_loss(attempt.definition().on_node_loss, attempts_made=losses, max_attempts=tx.spec(row.job, row.spec_version).max_attempts)
    if row.cancel is not None and not _is_spared(attempt, row.cancel):
        _stage_ended(attempt, StageEvent.CANCELLED)
    elif isinstance(what, Keep):  # it was waited for; there is nothing to wait for any more
        _stage_ended(attempt)
    elif isinstance(what, Fail):
        _stage_ended(attempt, StageEvent.FAILED, what.reason)
    else:
        _another_attempt(attempt, losses)


def _another_attempt(attempt: _Attempt, losses: int) -> None:
    tx, row = attempt.tx, attempt.row
    _queue_again(attempt, f"attempt {attempt.n} was lost: {attempt.reason}", losses)
    if row.run_started_at is None and not tx.all(schema.SELECT_OPEN_ATTEMPTS_OF_RUN, attempt.run):
        settle_given_back(tx, _run(attempt), row.revoke)


def _wait_for_node(attempt: _Attempt, reason: str) -> None:
    """`on_node_loss: wait`: the attempt stays as it is, and its run says why nothing happens."""
    tx, row = attempt.tx, attempt.row
    words = f"{reason}; it is waited for (on_node_loss: {OnNodeLoss.WAIT})"
    tx.execute(schema.UPDATE_STAGE, (row.stage_state, words, attempt.run, attempt.stage))
    tx.execute(schema.UPDATE_RUN_STATE, (row.run_state, words, attempt.run))
    tx.event("run", job=row.job, run=attempt.run, state=RunState(row.run_state), reason=words)
