"""Overlap: each row of SEMANTICS' table, at the moment a run is made and at the moment it wants to start."""

from __future__ import annotations

import pytest

from igor_node.rules.overlap import Admit, Earlier, Skip, admit, decision_waits, order_key, start_blocked

GOING = Earlier("r1", begun=True)
WAITS = Earlier("r2", begun=False)
ALSO_WAITS = Earlier("r3", begun=False)


@pytest.mark.parametrize(
    ("policy", "earlier", "outcome"),
    [
        pytest.param("queue", [], Admit(), id="nothing is going: a run"),
        pytest.param("skip", [], Admit(), id="skip with nothing going: a run"),
        pytest.param("queue", [GOING, WAITS], Admit(), id="a queue grows"),
        pytest.param("queue", [GOING, WAITS, ALSO_WAITS], Admit(drop=("r2",)), id="a full queue skips its oldest"),
        pytest.param("queue_one", [GOING], Admit(), id="queue_one keeps one waiting"),
        pytest.param(
            "queue_one", [GOING, WAITS], Skip("run r2 is waiting already and stands for it (overlap: queue_one)"), id="a further one is skipped"
        ),
        pytest.param("skip", [GOING], Skip("run r1 has not ended (overlap: skip)"), id="skip"),
        pytest.param("cancel", [GOING, WAITS], Admit(cancel=("r1", "r2")), id="cancel ends all earlier ones"),
        pytest.param("allow", [GOING, WAITS], Admit(), id="allow"),
        pytest.param("allow", [GOING, WAITS, ALSO_WAITS], Admit(drop=("r2",)), id="allow past its bound is a queue"),
    ],
)
def test_what_becomes_of_a_new_run(policy, earlier, outcome):
    """With max_queued 2."""
    assert admit(policy, earlier, max_queued=2) == outcome


@pytest.mark.parametrize(
    ("policy", "earlier", "waits"),
    [
        ("queue", [], False),
        ("skip", [], False),
        ("queue", [GOING], False),
        ("queue", [GOING, WAITS, ALSO_WAITS], True),
        ("queue_one", [GOING], False),
        ("queue_one", [GOING, WAITS], True),
        ("skip", [GOING], True),
        ("cancel", [GOING], True),
        ("allow", [GOING, WAITS], False),
    ],
)
def test_a_decision_that_may_change_waits_for_the_due_time(policy, earlier, waits):
    """Where an earlier run still holds the job's slot the decision waits for the due time."""
    assert decision_waits(policy, earlier, max_queued=2) is waits


@pytest.mark.parametrize(
    ("policy", "begun", "ahead", "beside", "why"),
    [
        pytest.param("queue", [], [], False, None, id="free"),
        pytest.param("queue", ["r1"], [], False, "run r1 of the same job has not ended", id="behind one that goes"),
        pytest.param("queue", [], ["r2"], False, "run r2 of the same job is before it", id="in order of scheduled time"),
        pytest.param("skip", ["r1"], [], False, "run r1 of the same job has not ended", id="one at a time under skip too"),
        pytest.param("queue", ["r1"], ["r2"], True, None, id="--now starts beside"),
        pytest.param("allow", ["r1"], [], False, None, id="side by side"),
        pytest.param("allow", ["r1", "r2"], [], False, "2 runs of the same job are going", id="up to max_parallel"),
        pytest.param("allow", ["r1"], ["r2"], False, "run r2 of the same job is before it", id="allow keeps the order at its bound"),
    ],
)
def test_whether_a_waiting_run_may_start(policy, begun, ahead, beside, why):
    """With max_parallel 2."""
    answer = start_blocked(policy, max_parallel=2, begun=begun, ahead=ahead, beside=beside)
    assert answer is None if why is None else answer is not None and answer.startswith(why)


def test_runs_wait_in_the_order_of_scheduled_time_and_one_on_demand_where_it_was_created():
    assert sorted([order_key(30, 1, "a"), order_key(None, 20, "b"), order_key(10, 5, "c")]) == [(10, "c"), (20, "b"), (30, "a")]
