"""Overlap: what becomes of a fire, and when its run may start, while earlier runs of the same job have not ended.

Two questions, asked at two moments. `admit`: a run is about to be made (a fire, or a run on demand): does it exist, does it push another one out,
does it end another one? `start_blocked`: a run exists and wants its first place: may it, or whom does it wait for? The leader asks both before
it proposes, `ledger.apply` asks both again before it obeys. Table of policies: SEMANTICS, "Overlap".

A run holds its job's slot from the moment its first stage is placed (it has *begun*), though its wrapper may wait for the due time; a run that
has not begun is *waiting*. Runs of one job stand in the order of `order_key`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Overlap(StrEnum):
    QUEUE = "queue"
    QUEUE_ONE = "queue_one"
    SKIP = "skip"
    CANCEL = "cancel"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run of the same job that has not ended."""

    run: str
    begun: bool


@dataclass(frozen=True, slots=True)
class Admit:
    """The run is made. `drop`: waiting runs that are recorded `skipped: queue full` for it; `cancel`: runs to be ended for it."""

    drop: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """No run is made; the fire is recorded `skipped` with this reason."""

    reason: str


QUEUE_FULL = "queue full"
CANCELLED_FOR = "cancelled for the next run (overlap: cancel)"


def order_key(scheduled_at: int | None, created_at: int, run: str) -> tuple[int, str]:
    """Runs of a job wait in the order of their scheduled time; one on demand, or of a backfill (`scheduled_at` None), stands where it was created."""
    return (created_at if scheduled_at is None else scheduled_at, run)


def surplus(waiting: int, max_queued: int) -> int:
    """How many waiting runs have to go so that one more may wait."""
    return max(0, waiting + 1 - max(1, max_queued))


def admit(policy: str, earlier: Sequence[Earlier], *, max_queued: int, in_line: int | None = None) -> Admit | Skip:
    """What becomes of a run that is about to be made. `earlier`: all runs of the job that have not ended, in the order of `order_key`.

    Whoever knows how many wait (`in_line`) need not read them all: under `skip` the first of all is enough, under `queue_one` the first that waits,
    under `queue` and `allow` the first `surplus` that wait. `cancel` looks at all.
    """
    waiting = [one.run for one in earlier if not one.begun]
    in_line = len(waiting) if in_line is None else in_line
    match policy:
        case Overlap.SKIP if earlier:
            return Skip(f"run {earlier[0].run} has not ended (overlap: skip)")
        case Overlap.QUEUE_ONE if waiting:
            return Skip(f"run {waiting[0]} is waiting already and stands for it (overlap: queue_one)")
        case Overlap.CANCEL:
            return Admit(cancel=tuple(one.run for one in earlier))
        case Overlap.QUEUE | Overlap.ALLOW:
            return Admit(drop=tuple(waiting[: surplus(in_line, max_queued)]))
    return Admit()


def decision_waits(policy: str, earlier: Sequence[Earlier], *, max_queued: int, in_line: int | None = None) -> bool:
    """Whether a fire that is handed out early must wait for its due time, because an earlier run may end or begin before that.

    `earlier` and `in_line` as in `admit`.
    """
    if not earlier:
        return False
    waiting = sum(not one.begun for one in earlier) if in_line is None else in_line
    match policy:
        case Overlap.SKIP | Overlap.CANCEL:
            return True
        case Overlap.QUEUE_ONE:
            return waiting > 0
    return waiting >= max(1, max_queued)


def backfill_room(policy: str, *, parallel: int, own: int, live: int, waiting: int, max_queued: int) -> int:
    """How many runs of a backfill may be made now. It waits where the policy would skip one or end another for it; others go by as ever.

    `own`: its runs that have not ended, at most `parallel`; `live`: all of the job that have not ended, `waiting`: those of them that have not begun.
    """
    room = parallel - own
    match policy:
        case Overlap.SKIP | Overlap.CANCEL:
            room = min(room, 1 - live)
        case Overlap.QUEUE_ONE:
            room = min(room, 1 - waiting)
        case _:
            room = min(room, max(1, max_queued) - waiting)
    return max(0, room)


def room_for(policy: str, max_parallel: int) -> int:
    """How many runs of a job may be going at once."""
    return max(1, max_parallel) if policy == Overlap.ALLOW else 1


def start_blocked(
    policy: str, *, max_parallel: int, begun: Sequence[str], ahead: Sequence[str], beside: bool = False, going: int | None = None
) -> str | None:
    """Why a run may not start yet, or None where it may.

    `begun`: other runs of the job that have begun and not ended, or the first one where `going` says how many there are; `ahead`: those that wait
    before this one, or the first `room_for` of them. A run made with `--now` (`beside`) waits for nobody, yet others wait for it.
    """
    room = room_for(policy, max_parallel)
    going = len(begun) if going is None else going
    if beside or going + len(ahead) < room:
        return None
    if going < room:
        return f"run {ahead[0]} of the same job is before it (overlap: {policy})"
    if room == 1:
        return f"run {begun[0]} of the same job has not ended (overlap: {policy})"
    return f"{going} runs of the same job are going, as many as max_parallel allows (overlap: allow)"
