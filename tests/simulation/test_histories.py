"""Four hundred lives of a cluster, with every promise checked after every event. `make soak` lives through twenty thousand."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.checks import Broken
from tests.simulation.history import History
from tests.simulation.linearizable import offending_key
from tests.simulation.machine import Verb
from tests.simulation.world import World

SEEDS = 400
BLOCK = 20
SOAK_SEEDS = 20_000
SOAK_BLOCK = 500
SUFFERED = ("kills", "power cuts", "halts", "logs cut back", "snapshots installed", "lists proposed")


def run(seeds: range) -> Counter[str]:
    """What happened in them. A failure names the promise and prints the one command that replays it."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        history = History(seed)
        try:
            history.run()
        except (Broken, Exception) as problem:
            story = "\n".join(history.world.notes[-30:])
            pytest.fail(f"{type(problem).__name__}: {problem}\nreplay: python -m tests.simulation --seed {seed} -v\n{story}", pytrace=True)
        checks = history.world.checks
        counts += history.world.counts
        counts += Counter(terms=len(checks.leaders), acknowledged=checks.acknowledgements, reads=checks.reads, operations=len(history.operations))
    return counts


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK), ids=lambda first: f"seeds {first}-{first + BLOCK - 1}")
def test_histories_keep_every_promise(first: int):
    counts = run(range(first, first + BLOCK))
    # A simulator that nothing happens in keeps every promise too.
    assert all(counts[kind] > BLOCK // 2 for kind in SUFFERED), counts
    assert counts["terms"] > 5 * BLOCK
    assert counts["acknowledged"] > 400 * BLOCK
    assert counts["reads"] > 50 * BLOCK
    assert counts["operations"] > 100 * BLOCK


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, SOAK_SEEDS, SOAK_BLOCK), ids=lambda first: f"seeds {first}-{first + SOAK_BLOCK - 1}")
def test_thousands_of_histories_keep_every_promise(first: int):
    run(range(first, first + SOAK_BLOCK))


def test_a_history_can_be_replayed_to_the_letter():
    """Two runs of one seed tell the same story, whatever the order of sets and the addresses of objects."""
    first, second = History(3), History(3)
    first.run()
    second.run()
    assert first.world.notes == second.world.notes
    assert first.world.events == second.world.events
    assert first.world.checks.chain == second.world.checks.chain
    assert first.operations == second.operations


def test_nodes_that_start_while_an_alarm_of_their_former_life_is_out_wake_by_themselves():
    """All at once, so that nobody's message wakes another: they stood still for ever, in one of two thousand histories."""
    world = World(7)
    nodes = world.cluster(3)
    world.elect()
    for node in nodes:
        node.die(power=False)
    for node in nodes:
        world.start(node)
        node.wake_at = max(node.wake_at, world.now + 0.01)
    for node in nodes:
        node.die(power=False)
    for node in nodes:
        world.start(node)
    world.elect()


def test_what_clients_saw_is_judged():
    """One read that goes back, among hundreds of operations, is found."""
    history = History(3)
    history.run()
    assert {operation.verb for operation in history.operations} == {None, Verb.WRITE, Verb.COMPARE_AND_SET}
    reads = [operation for operation in history.operations if operation.verb is None and operation.result]
    late = max(reads, key=lambda operation: operation.began)
    early = min((operation for operation in reads if operation.key == late.key), key=lambda operation: operation.ended)
    assert early.result != late.result
    others = [operation for operation in history.operations if operation is not late]
    assert offending_key(others) is None
    assert offending_key([*others, late._replace(result=early.result)]) == late.key
