"""Three hundred lives of a cluster, sixty virtual seconds each, with every promise checked after every event."""

from __future__ import annotations

import pytest

from tests.simulation.history import History

SEEDS = 300
BLOCK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK), ids=lambda first: f"seeds {first}-{first + BLOCK - 1}")
def test_histories_keep_every_promise(first: int):
    """A failure names the promise and prints the one command that replays it."""
    suffered = {"kills": 0, "power cuts": 0, "logs cut back": 0, "snapshots installed": 0}
    terms = acknowledged = reads = 0
    for seed in range(first, first + BLOCK):
        history = History(seed)
        try:
            history.run()
        except BaseException as problem:
            story = "\n".join(history.world.notes[-30:])
            pytest.fail(f"{type(problem).__name__}: {problem}\nreplay: python -m tests.simulation --seed {seed} -v\n{story}", pytrace=True)
        world = history.world
        suffered = {kind: count + world.counts[kind] for kind, count in suffered.items()}
        terms += len(world.checks.leaders)
        acknowledged += world.checks.acknowledgements
        reads += world.checks.reads
    # A simulator that nothing happens in keeps every promise too.
    assert all(count > BLOCK for count in suffered.values()), suffered
    assert terms > 5 * BLOCK
    assert acknowledged > 500 * BLOCK
    assert reads > 10 * BLOCK


def test_a_history_can_be_replayed_to_the_letter():
    """Two runs of one seed tell the same story, whatever the order of sets and the addresses of objects."""
    first, second = History(3), History(3)
    first.run()
    second.run()
    assert first.world.notes == second.world.notes
    assert first.world.events == second.world.events
    assert first.world.checks.chain == second.world.checks.chain
