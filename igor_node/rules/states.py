"""The life of a run, a stage, an attempt and a try, each as one table (state, event) -> state.

`ledger.apply` obeys these tables and knows no other way from one state to the next; a property test walks them; `picture` draws them for the docs.
A pair that is not in a table cannot happen: `follow` answers None, and whoever asked refuses the event or, where it is our own mistake, halts.

    run       one execution of a job. Its end states never change
    stage     waits for its needs, then for a place, then is with a node. May be placed again when a node is lost or gives it back
    attempt   one placement of a stage on a node. The one end that may change is `lost`: a late result counts while nothing was placed after it
    try       one start of the command inside an attempt. `lost` is what the leader believes of a silent node's try; it may turn out otherwise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from igor_node.words import AttemptState, RunState, StageState, TryState


class RunEvent(StrEnum):
    """What happens to a run. `due`: its time has come and it is told why it still waits."""

    DUE = "due"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"


class StageEvent(StrEnum):
    """What happens to a stage. `needs_met`, `not_run`: by the graph; `given_back`: its attempt was revoked, refused or lost, and it waits again."""

    NEEDS_MET = "needs_met"
    PLACED = "placed"
    STARTED = "started"
    GIVEN_BACK = "given_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"
    NOT_RUN = "not_run"


class AttemptEvent(StrEnum):
    """What happens to an attempt: the node's reports, and `lost` by the leader."""

    HELD = "held"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"
    REVOKED = "revoked"


class TryEvent(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"


RUN_BEGINS = (RunState.SCHEDULED, RunState.QUEUED, RunState.SKIPPED, RunState.MISSED)
"""A fire is `scheduled`; a run on demand `queued`; one that never starts begins and ends as `skipped` or `missed`."""
STAGE_BEGINS = (StageState.WAITING, StageState.QUEUED)
ATTEMPT_BEGINS = (AttemptState.ASSIGNED,)
TRY_BEGINS = (TryState.RUNNING,)

_RESULTS = ("succeeded", "failed", "timed_out", "cancelled", "lost")
"""The event of a result is named as the state that it leads to."""
_RUN_RESULTS = {RunEvent(result): RunState(result) for result in _RESULTS}
_STAGE_RESULTS = {StageEvent(result): StageState(result) for result in (*_RESULTS, "skipped")}
_ATTEMPT_RESULTS = {AttemptEvent(result): AttemptState(result) for result in (*_RESULTS, "skipped")}

RUN: Mapping[tuple[RunState, RunEvent], RunState] = {
    (RunState.SCHEDULED, RunEvent.DUE): RunState.QUEUED,
    (RunState.SCHEDULED, RunEvent.STARTED): RunState.RUNNING,
    (RunState.SCHEDULED, RunEvent.SKIPPED): RunState.SKIPPED,
    # A run may end before any command started: cancelled, or its stages could not be started (which `allow_failure` may even forgive).
    **{(RunState.SCHEDULED, event): state for event, state in _RUN_RESULTS.items()},
    (RunState.QUEUED, RunEvent.STARTED): RunState.RUNNING,
    (RunState.QUEUED, RunEvent.SKIPPED): RunState.SKIPPED,
    **{(RunState.QUEUED, event): state for event, state in _RUN_RESULTS.items()},
    **{(RunState.RUNNING, event): state for event, state in _RUN_RESULTS.items()},
}

STAGE: Mapping[tuple[StageState, StageEvent], StageState] = {
    (StageState.WAITING, StageEvent.NEEDS_MET): StageState.QUEUED,
    (StageState.WAITING, StageEvent.NOT_RUN): StageState.NOT_RUN,
    (StageState.WAITING, StageEvent.SKIPPED): StageState.SKIPPED,
    (StageState.WAITING, StageEvent.CANCELLED): StageState.CANCELLED,
    (StageState.QUEUED, StageEvent.PLACED): StageState.ASSIGNED,
    # Straight from the queue: a cancel, a removed job, or a late result of a lost attempt while nothing was placed after it.
    **{(StageState.QUEUED, event): state for event, state in _STAGE_RESULTS.items()},
    (StageState.ASSIGNED, StageEvent.STARTED): StageState.RUNNING,
    (StageState.ASSIGNED, StageEvent.GIVEN_BACK): StageState.QUEUED,
    # A node may fail before its first try (no shell, no such folder) and report only the end.
    **{(StageState.ASSIGNED, event): state for event, state in _STAGE_RESULTS.items() if event is not StageEvent.SUCCEEDED},
    (StageState.RUNNING, StageEvent.GIVEN_BACK): StageState.QUEUED,
    **{(StageState.RUNNING, event): state for event, state in _STAGE_RESULTS.items()},
}

_FROM_THE_BEGIN = {
    AttemptEvent.STARTED: AttemptState.RUNNING,
    AttemptEvent.REVOKED: AttemptState.REVOKED,
    **{event: state for event, state in _ATTEMPT_RESULTS.items() if event is not AttemptEvent.SUCCEEDED},
}

ATTEMPT: Mapping[tuple[AttemptState, AttemptEvent], AttemptState] = {
    (AttemptState.ASSIGNED, AttemptEvent.HELD): AttemptState.HELD,
    **{(begin, event): state for begin in (AttemptState.ASSIGNED, AttemptState.HELD) for event, state in _FROM_THE_BEGIN.items()},
    **{(AttemptState.RUNNING, event): state for event, state in _ATTEMPT_RESULTS.items()},
    # A late result that counts: nothing was placed after the loss.
    **{(AttemptState.LOST, event): state for event, state in _ATTEMPT_RESULTS.items() if event is not AttemptEvent.LOST},
    (AttemptState.LOST, AttemptEvent.REVOKED): AttemptState.REVOKED,
}

TRY: Mapping[tuple[TryState, TryEvent], TryState] = {
    **{(TryState.RUNNING, event): TryState(event.value) for event in TryEvent},
    **{(TryState.LOST, event): TryState(event.value) for event in TryEvent if event is not TryEvent.LOST},
}


def follow_run(state: str, event: RunEvent) -> RunState | None:
    """The run's next state; None where the event cannot happen in this state."""
    return RUN.get((RunState(state), event))


def follow_stage(state: str, event: StageEvent) -> StageState | None:
    return STAGE.get((StageState(state), event))


def follow_attempt(state: str, event: AttemptEvent) -> AttemptState | None:
    return ATTEMPT.get((AttemptState(state), event))


def follow_try(state: str, event: TryEvent) -> TryState | None:
    return TRY.get((TryState(state), event))


MACHINES: Mapping[str, tuple[Sequence[StrEnum], Mapping[Any, StrEnum]]] = {
    "run": (RUN_BEGINS, RUN),
    "stage": (STAGE_BEGINS, STAGE),
    "attempt": (ATTEMPT_BEGINS, ATTEMPT),
    "try": (TRY_BEGINS, TRY),
}


def picture(machine: str) -> str:
    """The state machine as a Mermaid diagram for the docs: `run`, `stage`, `attempt` or `try`. Events between the same two states share an arrow."""
    begins, table = MACHINES[machine]
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), following in table.items():
        arrows.setdefault((state.value, following.value), []).append(event.value)
    lines = ["stateDiagram-v2", *(f"    [*] --> {state.value}" for state in begins)]
    lines += [f"    {state} --> {following}: {', '.join(events)}" for (state, following), events in arrows.items()]
    goes_on = {state.value for state, _ in table}
    ends = dict.fromkeys(state.value for state in (*begins, *table.values()) if state.value not in goes_on)
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in ends)]) + "\n"
