"""Placement in the ledger: checked again against nodes, slots and overlap, whatever the leader believed; waits carry their reason."""

from __future__ import annotations

import pytest

from igor_node.definitions.jobs import Stage
from igor_node.ledger import query_attempts, query_cluster, query_live, query_pools
from igor_node.ledger.commands import AssignStages, ExplainWaits, NodeChanged, Placement, PushProject, WaitReason
from igor_node.ledger.waiting import waiting as waiting_now
from igor_node.ledger.waiting import waiting_stages
from igor_node.rules.placement import PoolView
from igor_node.words import SECOND
from tests.unit.ledger.book import Book, job

MINUTE = 60 * SECOND


def two_slots(**constraints: str) -> Stage:
    return Stage(name="main", command="true", slots=2, constraints=constraints)


def test_a_placement_makes_an_attempt(book: Book) -> None:
    """The stage is assigned, the fence of the job grows with each attempt, the hub sees all it needs."""
    book.push(job())
    book.node()
    attempts = []
    for expected in (1, 2):
        attempts.append(book.placed(book.create(beside=True)))
        found = book.read(query_attempts.open_attempts)
        assert [one.attempt for one in found] == attempts
        assert found[-1].fence == expected
    assert found[0].lease_ns == job().lease_ns and found[0].renew_hash == "hash"


@pytest.mark.parametrize(
    "state, why",
    [
        pytest.param("silent", "a is silent", id="silent"),
        pytest.param("draining", "a is draining", id="draining"),
        pytest.param("lost", "a is lost", id="lost"),
    ],
)
def test_nothing_goes_to_a_node_that_is_not_up(book: Book, state: str, why: str) -> None:
    """The leader's view may be old."""
    book.push(job())
    book.done(NodeChanged(node=book.node(), state=state))
    assert book.place(book.create()) == why


def test_constraints_are_checked_again(book: Book) -> None:
    """A node without the label is refused."""
    book.push(job(stages=[two_slots(gpu="true")]))
    book.node("a")
    book.node("b", gpu="true")
    run = book.create()
    assert book.place(run) == "a lacks label gpu=true"
    assert book.place(run, node="node-b") == ""


def test_slots_are_never_exceeded(book: Book) -> None:
    """Nor within one command, and an ended attempt gives its slots back."""
    book.push(job(stages=[two_slots()]))
    book.node(slots=5)
    runs = [book.create(beside=True) for _ in range(3)]
    placements = tuple(Placement(run=run, stage="main", node="node-a", attempt=f"{run}.main.1", renew_hash="") for run in runs)
    value = book.done(AssignStages(term=1, placements=placements))
    assert value == {"placed": 2, "refused": [(f"{runs[2]}.main.1", "a is full: 4 of 5 slots taken")]}
    book.begin(f"{runs[0]}.main.1")
    book.end(f"{runs[0]}.main.1")
    assert book.place(runs[2]) == ""
    assert book.read(query_cluster.nodes)[0].used == 4


def pooled(*pools: str) -> Stage:
    return Stage(name="main", command="true", pools=pools)


def test_pools_are_never_exceeded(book: Book) -> None:
    """Nor within one command, nor by a leader that does not know them; an ended attempt gives its slots back. Pools of all projects count."""
    book.push(job(stages=[pooled("shop/db", "infra/disk")]), pools={"db": 2})
    book.push(job(name="other", project="infra", stages=[pooled("infra/disk")]), project="infra", pools={"disk": 3})
    book.node(slots=9)
    runs = [book.create(beside=True) for _ in range(3)]
    placements = tuple(Placement(run=run, stage="main", node="node-a", attempt=f"{run}.main.1", renew_hash="") for run in runs)
    value = book.done(AssignStages(term=1, placements=placements))
    assert value["refused"] == [(f"{runs[2]}.main.1", f"pool shop/db is full: 2 of 2 slots held by run {runs[0]}, run {runs[1]}")]
    assert book.read(query_pools.pools)["infra/disk"] == PoolView(3, tuple(runs[:2]))
    assert book.place(book.create("infra/other", beside=True)) == ""
    assert "pool infra/disk is full: 3 of 3" in book.place(book.create("infra/other", beside=True))
    book.begin(f"{runs[0]}.main.1")
    book.end(f"{runs[0]}.main.1")
    assert book.place(runs[2]) == ""


def test_a_pushed_pool_counts_at_once_and_one_that_is_gone_holds_back(book: Book) -> None:
    book.push(job(stages=[pooled("shop/db")]), pools={"db": 1})
    book.node(slots=9)
    first, second = book.create(beside=True), book.create(beside=True)
    assert book.place(first) == "" and "is full: 1 of 1" in book.place(second)
    assert book.push(job(stages=[pooled("shop/db")]), pools={"db": 1})["unchanged"]
    assert not book.push(job(stages=[pooled("shop/db")]), pools={"db": 2})["unchanged"]
    assert book.place(second) == ""
    book.push(job(stages=[pooled("shop/db")]))
    assert book.place(book.create(beside=True)) == "pool shop/db is not defined"
    assert book.read(query_pools.pools) == {"shop/db": PoolView(None, (first, second))}
    assert book.refused(PushProject(project="shop", jobs=(), pools={"a/b": 1})).error == "Invalid"


@pytest.mark.parametrize(
    "place, why",
    [
        pytest.param({"stage": "none"}, "there is no such stage", id="no such stage"),
        pytest.param({"node": "node-z"}, "there is no such node", id="no such node"),
        pytest.param({"n": 2}, "its next attempt is number 1", id="another number"),
    ],
)
def test_what_cannot_be_placed(book: Book, place: dict[str, object], why: str) -> None:
    """Refused alone, with the reason."""
    book.push(job())
    book.node()
    assert book.place(book.create(), **place) == why  # type: ignore[arg-type]


def test_a_stage_is_placed_once(book: Book) -> None:
    """The second placement of the same stage finds it assigned."""
    book.push(job())
    book.node()
    book.placed(run := book.create())
    assert book.place(run, n=2) == "the stage is assigned"
    book.begin(f"{run}.main.1")
    book.end(f"{run}.main.1")
    assert book.place(run, n=2) == "the run is succeeded"


def test_runs_of_a_job_start_in_their_order(book: Book) -> None:
    """Under `queue` the second waits for the first to begin, then for its end."""
    book.push(job())
    book.node()
    first, second = book.fire(), book.fire()
    assert f"run {first} of the same job is before it" in book.place(second)
    book.begin(attempt := book.placed(first))
    assert f"run {first} of the same job has not ended" in book.place(second)
    book.end(attempt)
    assert book.place(second) == ""


def test_allow_runs_side_by_side_up_to_its_limit(book: Book) -> None:
    """`max_parallel`; past it as `queue`."""
    book.push(job(overlap="allow", max_parallel=2))
    book.node()
    runs = [book.fire() for _ in range(3)]
    assert [book.place(run) for run in runs[:2]] == ["", ""]
    assert "as many as max_parallel allows" in book.place(runs[2])


def test_later_stages_of_a_run_need_no_permission(book: Book) -> None:
    """A run that has begun holds its job's slot until its end, also between its stages."""
    book.push(job(stages=[Stage(name="a", command="x"), Stage(name="b", command="y", needs=("a",))]))
    book.node()
    first, second = book.fire(), book.fire()
    book.carry_out(first, stage="a")
    assert "has not ended" in book.place(second, "a")
    book.carry_out(first, stage="b")
    assert book.run(first)["state"] == "succeeded"
    assert book.place(second, "a") == ""


def test_an_old_term_places_nothing(book: Book) -> None:
    """As with fires."""
    book.term = 2
    assert book.refused(AssignStages(term=1, placements=())).error == "Conflict"


def test_the_waiting_stages_have_all_that_placement_needs(book: Book) -> None:
    """In the order of due time; with why the overlap policy holds them back, and their next attempt."""
    book.push(job(priority=3, stages=[two_slots(zone="eu")]))
    first, second = book.fire(), book.fire()
    future = book.fire(at=book.now + MINUTE)
    waiting = book.read(lambda c: waiting_stages(c, book.now + 5 * SECOND))
    assert [(one.run, one.blocked is None) for one in waiting] == [(first, True), (second, False)]
    one = waiting[0]
    assert (one.attempt, one.slots, one.constraints, one.priority, one.avoid) == (f"{first}.main.1", 2, {"zone": "eu"}, 3, ())
    assert book.read(lambda c: waiting_now(c, book.now + 5 * SECOND).next_due) == book.now + MINUTE
    assert future not in [one.run for one in waiting]


# --- why


def test_whatever_waits_says_why(book: Book) -> None:
    """The stage and its run carry the reason; a run whose time has come is queued then."""
    book.push(job())
    run = book.fire(at=book.now + 5 * SECOND)
    wait = ExplainWaits(waits=(WaitReason(run=run, stage="main", reason="no node can take it: a is full"),))
    assert book.done(wait)["explained"] == 1
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("scheduled", "no node can take it: a is full")
    book.now += 5 * SECOND
    assert book.done(wait)["explained"] == 1
    assert book.run(run)["state"] == "queued"
    assert book.done(wait)["explained"] == 0
    why = book.read(lambda c: query_live.why(c, run))
    assert why.stages == [("main", "queued", "no node can take it: a is full")]


def test_a_placement_takes_the_reason_away(book: Book) -> None:
    """What does not wait any more has no reason to."""
    book.push(job())
    book.node()
    run = book.create()
    book.done(ExplainWaits(waits=(WaitReason(run=run, stage="main", reason="full"), WaitReason(run="0" * 20, stage="x", reason="gone"))))
    book.placed(run)
    assert (book.run(run)["reason"], book.run(run)["stages"][0]["reason"]) == ("", "")
    book.done(ExplainWaits(waits=(WaitReason(run=run, stage="main", reason="too late"),)))
    assert book.run(run)["reason"] == ""


def test_why_names_the_runs_ahead(book: Book) -> None:
    """So that a person sees whom it waits for."""
    book.push(job())
    book.node()
    first, second, third = book.fire(), book.fire(), book.fire()
    book.placed(first)
    why = book.read(lambda c: query_live.why(c, third))
    assert why.ahead == [first, second]
    assert why.blocked is not None and first in why.blocked
