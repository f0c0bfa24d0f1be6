"""When a node is silent, when an attempt is lost, and what follows: arithmetic on the leader's own monotonic clock.

`leader/watch.py` asks `fallen_silent` and `lost_at`; `ledger.apply` asks `after_loss` when it marks an attempt lost. All times here are nanoseconds
on a clock that never steps (CLOCK_BOOTTIME of the leader); none is a wall clock.

Why `lost_at` is late enough (SEMANTICS: under `rerun` two attempts never run at once). A wrapper counts its lease from the *sending* of the
message whose answer renewed it; the leader counts from a moment that is never earlier: the arrival of that message, its own last hand-out of
the assignment, or the begin of its term. The margin pays for clocks that differ in speed by up to 1 in 1,000 each, and for the time in which
the kernel ends the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from igor_node.words import SECOND, Instant, format_instant, format_span

UNHEARD_AFTER = 3 * SECOND // 2  # a heartbeat is missing
SILENT_AFTER = 5 * SECOND  # five heartbeats
NODE_LOST_AFTER = 180 * SECOND  # a silent node without any attempt: the default lease
MARGIN_SHARE = 500  # 1/500 of the lease: twice the drift of 1 in 1,000
MARGIN_LEAST = 2 * SECOND  # to end a process tree with KILL on a busy machine


class OnNodeLoss(StrEnum):
    RERUN = "rerun"
    WAIT = "wait"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Rerun:
    """The stage is queued again for another attempt."""


@dataclass(frozen=True, slots=True)
class Fail:
    reason: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing is decided until the node is back or a person decides."""


def fallen_silent(heard_at: int, now: int) -> bool:
    return now - heard_at >= SILENT_AFTER


def margin(lease: int) -> int:
    return lease // MARGIN_SHARE + MARGIN_LEAST


def lost_at(lease: int, renewed_at: int, term_began_at: int) -> int:
    """When an attempt may be declared lost: lease and margin after the last renewal or the start of this leader's term, whichever is later."""
    return max(renewed_at, term_began_at) + lease + margin(lease)


def is_lost(on_node_loss: str, lease: int, renewed_at: int, term_began_at: int, now: int) -> bool:
    """`wait` is never lost by itself; `rerun` and `fail` when lease and margin are out."""
    return on_node_loss != OnNodeLoss.WAIT and now >= lost_at(lease, renewed_at, term_began_at)


def unheard_in_words(node: str, unheard: int | None, now: int, lease: int, then: Rerun | Fail | Keep) -> str:
    """Of a node that holds an attempt and is not heard: since when, and what comes of it. `unheard` None: not in this leader's term. `now`: the wall
    clock."""
    if unheard is None:
        since, when = "since the leader changed", f"when its lease of {format_span(lease)} is out"
    else:
        since = f"for {format_span(unheard // SECOND * SECOND)} (since {_second(now - unheard)})"
        when = f"at {_second(now + lost_at(lease, -unheard, -unheard))} at the earliest"
    words = f"node {node} has not been heard from {since}; what runs there goes on without it"
    if isinstance(then, Keep):
        return f"{words} and is waited for (on_node_loss: {OnNodeLoss.WAIT})"
    what = "is made again on another node" if isinstance(then, Rerun) else f"fails: {then.reason}"
    return f"{words} and renews its lease by itself; if it does not, it is lost {when}, and the stage {what}"


def _second(at: int) -> str:
    return format_instant(Instant(at // SECOND * SECOND))


def after_loss(on_node_loss: str, *, attempts_made: int, max_attempts: int) -> Rerun | Fail | Keep:
    """What becomes of the stage whose attempt number `attempts_made` was lost."""
    match on_node_loss:
        case OnNodeLoss.WAIT:
            return Keep()
        case OnNodeLoss.FAIL:
            return Fail("lost with its node (on_node_loss: fail)")
    if attempts_made >= max_attempts:
        return Fail("lost with its node" if attempts_made == 1 else f"lost {attempts_made} times")
    return Rerun()
