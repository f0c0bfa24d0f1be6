"""The judge of histories is judged: small histories with a known verdict, and many random ones against trying every order."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from tests.simulation.linearizable import Operation, is_linearizable, offending_key, step
from tests.simulation.machine import Verb

NEVER = math.inf


def read(began: float, ended: float, value: int, key: int = 0) -> Operation:
    return Operation(began, ended, key, None, result=value)


def write(began: float, ended: float, value: int, key: int = 0) -> Operation:
    return Operation(began, ended, key, Verb.WRITE, value, result=True)


def swap(began: float, ended: float, expected: int, value: int, result: bool | None) -> Operation:
    return Operation(began, ended, 0, Verb.COMPARE_AND_SET, value, expected, result)


@pytest.mark.parametrize(
    "history, well",
    [
        pytest.param([], True, id="nothing happened"),
        pytest.param([read(0, 1, 0)], True, id="a register begins with 0"),
        pytest.param([read(0, 1, 7)], False, id="a value from nowhere"),
        pytest.param([write(0, 1, 1), read(2, 3, 1)], True, id="a read sees the write before it"),
        pytest.param([write(0, 1, 1), read(2, 3, 0)], False, id="a stale read"),
        pytest.param([write(0, 4, 1), read(1, 2, 0), read(2.5, 3, 1)], True, id="during a write both values may be seen, the new one last"),
        pytest.param([write(0, 4, 1), read(1, 2, 1), read(2.5, 3, 0)], False, id="a read that goes back"),
        pytest.param([write(0, NEVER, 1), read(5, 6, 0), read(7, 8, 1)], True, id="an unknown write takes effect late"),
        pytest.param([write(0, NEVER, 1), read(5, 6, 0)], True, id="an unknown write takes no effect"),
        pytest.param([write(5, NEVER, 1), read(1, 2, 1)], False, id="an unknown write has no effect before it was asked for"),
        pytest.param([write(0, NEVER, 1), read(1, 2, 1), write(3, 4, 2), read(5, 6, 1)], False, id="an unknown write takes effect once"),
        pytest.param([swap(0, 1, 0, 5, True), read(2, 3, 5)], True, id="a swap that was done"),
        pytest.param([swap(0, 1, 0, 5, True), swap(2, 3, 0, 6, True)], False, id="two swaps of one value"),
        pytest.param([swap(0, 1, 4, 5, False), read(2, 3, 0)], True, id="a swap that was refused"),
        pytest.param([write(0, 1, 4), swap(2, 3, 4, 5, False)], False, id="a swap refused without a reason"),
        pytest.param([write(0, 1, 4), swap(2, NEVER, 4, 5, None), read(3, 4, 5), read(5, 6, 4)], False, id="an unknown swap is not undone"),
    ],
)
def test_a_small_history(history: list[Operation], well: bool):
    assert is_linearizable(history) == well


def test_each_register_is_judged_by_itself():
    well = [write(0, 1, 1, key=3), read(2, 3, 1, key=3)]
    assert offending_key(well) is None
    assert offending_key([*well, write(0, 1, 1, key=8), read(2, 3, 0, key=8)]) == 8


def has_an_order(operations: list[Operation]) -> bool:
    """By trying every order of every choice of unknown operations."""
    known = [operation for operation in operations if operation.ended < NEVER]
    unknown = [operation for operation in operations if operation.ended == NEVER]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            if any(explains(order) for order in itertools.permutations([*known, *chosen])):
                return True
    return False


def explains(order: tuple[Operation, ...]) -> bool:
    latest, state = -math.inf, 0
    for operation in order:
        latest = max(latest, operation.began)
        fits, state = step(state, operation)
        if not fits or operation.ended < latest:
            return False
    return True


def test_it_agrees_with_trying_every_order():
    """Random histories of up to six operations, of which each verdict is met often."""
    chance = random.Random(1)
    verdicts = []
    for _ in range(1_500):
        operations = []
        for value in range(1, chance.randrange(2, 7)):
            began = chance.randrange(12)
            ended = NEVER if chance.random() < 0.2 else began + chance.randrange(1, 8)
            verb = chance.choice((None, None, Verb.WRITE, Verb.COMPARE_AND_SET))
            if verb is None:
                operations.append(read(began, min(ended, 30), chance.randrange(4)))
            elif verb == Verb.WRITE:
                operations.append(write(began, ended, value))
            else:
                operations.append(swap(began, ended, chance.randrange(3), value, None if ended == NEVER else chance.random() < 0.5))
        verdicts.append(has_an_order(operations))
        assert is_linearizable(operations) == verdicts[-1], operations
    assert 300 < sum(verdicts) < 1_200
