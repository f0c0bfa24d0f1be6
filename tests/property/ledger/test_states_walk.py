"""The tables of rules/states, walked: every state is reached, every one has a way to an end, and ends are ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igor_node.rules.graph import Node, run_end, settle
from igor_node.rules.states import MACHINES, RUN, STAGE, RunEvent, follow_run, follow_stage, picture
from igor_node.words import ATTEMPT_ENDS, RUN_ENDS, STAGE_ENDS, AttemptState, RunState, StageState, TryState

STATES = {"run": RunState, "stage": StageState, "attempt": AttemptState, "try": TryState}
NOT_YET = {"run": {RunState.WAITING}}  # a run that waits for a person


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_is_reached(machine: str) -> None:
    """From where the machine begins."""
    begins, table = MACHINES[machine]
    reached = set(begins)
    while fresh := {following for (state, _), following in table.items() if state in reached} - reached:
        reached |= fresh
    assert reached == set(STATES[machine]) - NOT_YET.get(machine, set())


@pytest.mark.parametrize("machine, ends", [("run", RUN_ENDS), ("stage", STAGE_ENDS), ("attempt", ATTEMPT_ENDS)])
def test_ends_are_ends_and_every_state_has_a_way_to_one(machine: str, ends: frozenset[str]) -> None:
    """But for `lost` attempts, whose late result may count."""
    begins, table = MACHINES[machine]
    assert {state for state, _ in table} & ends <= {AttemptState.LOST}
    assert all(any(state == one and following in ends for (one, _), following in table.items()) or state in ends for state in begins)
    assert {following for (state, _), following in table.items() if state not in ends} >= ends - set(begins)


@given(st.lists(st.sampled_from(list(RunEvent)), max_size=30), st.sampled_from(MACHINES["run"][0]))
def test_no_walk_leaves_an_end(events: list[RunEvent], begin: RunState) -> None:
    """Whatever happens to a run, its first end is its last state."""
    state, end = begin, begin if begin in RUN_ENDS else None
    for event in events:
        state = follow_run(state, event) or state
        assert end is None or state == end
        end = state if state in RUN_ENDS else end


@pytest.mark.parametrize("machine", MACHINES)
def test_the_picture_shows_every_arrow(machine: str) -> None:
    """Drawn from the table, for the docs."""
    drawn = picture(machine)
    assert drawn.startswith("stateDiagram-v2\n")
    for (state, event), following in MACHINES[machine][1].items():
        line = next(line for line in drawn.splitlines() if line.startswith(f"    {state.value} --> {following.value}:"))
        assert event.value in line
    assert all(f"[*] --> {state.value}" in drawn for state in MACHINES[machine][0])


# --- the graph of stages


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Up to seven stages; each needs some of those before it, in any order of writing."""
    count = draw(st.integers(1, 7))
    nodes = []
    for number in range(count):
        needs = tuple(sorted(draw(st.sets(st.sampled_from([f"s{one}" for one in range(number)]), max_size=3)))) if number else ()
        state = StageState.WAITING if needs else StageState.QUEUED
        nodes.append(Node(f"s{number}", state, needs, draw(st.booleans()), draw(st.booleans())))
    return draw(st.permutations(nodes))


def end_one(nodes: list[Node], name: str, state: StageState) -> list[Node]:
    return [Node(n.name, state, n.needs, n.always, n.allow_failure) if n.name == name else n for n in nodes]


def settled(nodes: list[Node], *, cancelled: bool) -> list[Node]:
    for step in settle(nodes, cancelled=cancelled):
        node = next(node for node in nodes if node.name == step.stage)
        state = follow_stage(node.state, step.event)
        assert state is not None
        nodes = end_one(nodes, step.stage, state)
    return nodes


RESULTS = [StageState.SUCCEEDED, StageState.FAILED, StageState.TIMED_OUT, StageState.LOST, StageState.SKIPPED, StageState.CANCELLED]


@given(graphs(), st.data())
def test_every_graph_comes_to_an_end(nodes: list[Node], data: st.DataObject) -> None:
    """Whatever its stages do: at each moment something can start or all is over, and the run's end is one that its table knows."""
    cancelled = False
    for _ in range(len(nodes)):
        queued = [node.name for node in nodes if node.state is StageState.QUEUED]
        if not queued:
            break
        cancelled = cancelled or data.draw(st.integers(0, 9)) == 0
        nodes = settled(end_one(nodes, data.draw(st.sampled_from(queued)), data.draw(st.sampled_from(RESULTS))), cancelled=cancelled)
    assert all(node.ended for node in nodes)
    end = run_end(nodes, cancel="asked for" if cancelled else None)
    assert end is not None and follow_run(RunState.RUNNING, end[0]) is not None
    if all(node.state is StageState.SUCCEEDED for node in nodes):
        assert end == (RunEvent.SUCCEEDED, "")


@given(graphs())
def test_all_that_succeeds_runs_every_stage(nodes: list[Node]) -> None:
    """No stage is left out when nothing goes wrong."""
    while queued := [node.name for node in nodes if node.state is StageState.QUEUED]:
        nodes = settled(end_one(nodes, queued[0], StageState.SUCCEEDED), cancelled=False)
    assert {node.state for node in nodes} == {StageState.SUCCEEDED}


def test_the_tables_know_no_event_twice() -> None:
    """A pair has one answer; and a stage that never waited is never `not_run`."""
    assert all(state is StageState.WAITING for (state, event), following in STAGE.items() if following is StageState.NOT_RUN)
    assert all(following is not RunState.MISSED for following in RUN.values())
