"""Is a history of reads and writes linearizable? The search of Wing and Gong with Lowe's memory of what was tried, as Knossos and Porcupine do it.

A history is linearizable if every operation can be given one moment between its call and its return such that, in the order of these moments, each
one answers as a register would. An operation whose outcome nobody knows returns never (`ended` is infinite): it may have its moment at any time
after its call, or none. Every register is judged by itself: a history is linearizable if each part of it is (Herlihy and Wing, 1990).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tests.simulation.machine import Verb

STEPS_LIMIT = 1_000_000  # of one search; those of the simulation take a few for each operation


class TooHard(Exception):
    """The search was given up: the history has too many operations at once."""


class Operation(NamedTuple):
    began: float
    ended: float  # infinite: nobody knows what came of it
    key: int
    verb: Verb | None  # None: a read
    value: int = 0  # to write
    expected: int = 0  # by a compare-and-set
    result: Any = None  # of a read the value, of a compare-and-set whether it was done


class _Event:
    """A call or a return, in a list that operations are taken out of and put back into."""

    __slots__ = ("after", "before", "number", "returns")

    def __init__(self, number: int, returns: _Event | None) -> None:
        self.number = number
        self.returns = returns  # of a call; None for a return, and for a call that never returns
        self.before: _Event | None = None
        self.after: _Event | None = None


def offending_key(history: Iterable[Operation]) -> int | None:
    """A register whose operations have no order; None where all is well."""
    by_key: dict[int, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.key, []).append(operation)
    return next((key for key, operations in sorted(by_key.items()) if not is_linearizable(operations)), None)


def step(state: int, operation: Operation) -> tuple[bool, int]:
    """Whether a register that holds `state` answers so, and what it holds then."""
    if operation.verb is None:
        return operation.result == state, state
    if operation.verb == Verb.WRITE:
        return True, operation.value
    done = state == operation.expected
    if math.isinf(operation.ended) or done == operation.result:
        return True, operation.value if done else state
    return False, state


def is_linearizable(operations: Sequence[Operation], state: int = 0) -> bool:
    """Of one register that holds `state` at first."""
    head = _line_up(operations)
    waiting = sum(1 for operation in operations if operation.ended < math.inf)
    taken = 0  # a bit for each operation that has its moment
    tried: set[tuple[int, int]] = set()
    stack: list[tuple[_Event, int]] = []
    event = head.after
    for _ in range(STEPS_LIMIT):
        if not waiting:
            return True
        if event is None or not _is_call(event, operations):  # somebody returns who had no moment yet: take the last one back
            if not stack:
                return False
            event, state = stack.pop()
            taken ^= 1 << event.number
            waiting += operations[event.number].ended < math.inf
            _put_back(event)
            event = event.after
            continue
        fits, after = step(state, operations[event.number])
        key = (taken | 1 << event.number, after)
        if fits and key not in tried:
            tried.add(key)
            stack.append((event, state))
            taken, state = key
            waiting -= operations[event.number].ended < math.inf
            _take_out(event)
            event = head.after
        else:
            event = event.after
    raise TooHard(f"{len(operations)} operations on one register")


def _is_call(event: _Event, operations: Sequence[Operation]) -> bool:
    return event.returns is not None or math.isinf(operations[event.number].ended)


def _line_up(operations: Sequence[Operation]) -> _Event:
    """All calls and returns by time, calls first; what stands before the first."""
    moments: list[tuple[float, int, int, _Event]] = []
    for number, operation in enumerate(operations):
        back = _Event(number, None) if operation.ended < math.inf else None
        moments.append((operation.began, 0, number, _Event(number, back)))
        if back is not None:
            moments.append((operation.ended, 1, number, back))
    head = last = _Event(-1, None)
    for *_, event in sorted(moments):
        last.after, event.before = event, last
        last = event
    return head


def _take_out(call: _Event) -> None:
    for event in (call, call.returns):
        if event is not None:
            assert event.before is not None
            event.before.after = event.after
            if event.after is not None:
                event.after.before = event.before


def _put_back(call: _Event) -> None:
    for event in (call.returns, call):
        if event is not None:
            assert event.before is not None
            event.before.after = event
            if event.after is not None:
                event.after.before = event
