"""Cancelling runs, and the graph of stages as the ledger carries it out (SEMANTICS, "Stages, runs, states")."""

from __future__ import annotations

from igor_node.definitions.jobs import Stage
from igor_node.ledger import query_attempts
from igor_node.ledger.commands import CancelRun
from igor_node.words import SECOND
from tests.unit.ledger.book import Book, job

PIPELINE = [
    Stage(name="fetch", command="a"),
    Stage(name="count", command="b", needs=("fetch",)),
    Stage(name="sum", command="c", needs=("fetch",)),
    Stage(name="send", command="d", needs=("count", "sum")),
    Stage(name="clean", command="e", needs=("send",), always=True),
]


def states(book: Book, run: str) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in book.run(run)["stages"]}


def pipeline(book: Book, **fields: object) -> str:
    book.node()
    book.push(job(stages=PIPELINE, **fields))
    return book.fire()


# --- the graph


def test_stages_follow_their_needs(book: Book) -> None:
    """Two side by side, then the one that needs both, then the clean-up; the run ends with the last."""
    run = pipeline(book)
    book.carry_out(run, stage="fetch")
    assert states(book, run) == {"fetch": "succeeded", "count": "queued", "sum": "queued", "send": "waiting", "clean": "waiting"}
    book.carry_out(run, stage="sum")
    assert states(book, run)["send"] == "waiting"
    book.carry_out(run, stage="count")
    book.carry_out(run, stage="send")
    assert book.run(run)["state"] == "running"
    book.carry_out(run, stage="clean")
    assert book.run(run)["state"] == "succeeded"


def test_behind_a_failed_stage_nothing_runs_but_the_clean_up(book: Book) -> None:
    """`not_run`, and `always` all the same; the run fails with the name of the stage."""
    run = pipeline(book)
    book.carry_out(run, "failed", "fetch", exit_code=4)
    assert states(book, run) == {"fetch": "failed", "count": "not_run", "sum": "not_run", "send": "not_run", "clean": "queued"}
    book.carry_out(run, stage="clean")
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("failed", "stage fetch: exit code 4")
    assert book.run(run)["stages"][1]["reason"] == "stage fetch failed"


def test_allow_failure_is_as_good_as_success(book: Book) -> None:
    """Those behind it start, the run succeeds."""
    book.node()
    book.push(job(stages=[Stage(name="lint", command="a", allow_failure=True), Stage(name="test", command="b", needs=("lint",))]))
    run = book.fire()
    book.carry_out(run, "failed", "lint", exit_code=1)
    book.carry_out(run, stage="test")
    assert book.run(run)["state"] == "succeeded"


def test_a_stage_that_was_skipped_skips_those_behind_it(book: Book) -> None:
    """By one of its skip codes."""
    book.node()
    book.push(job(stages=[Stage(name="look", command="a"), Stage(name="act", command="b", needs=("look",))]))
    run = book.fire()
    book.carry_out(run, "skipped", "look", exit_code=75)
    assert states(book, run) == {"look": "skipped", "act": "skipped"}
    assert book.run(run)["state"] == "succeeded"


# --- cancel


def test_a_run_that_waits_is_cancelled_at_once(book: Book) -> None:
    """Scheduled or queued; the clean-up of something that never began is not run either."""
    run = pipeline(book)
    answer = book.done(CancelRun(run=run, reason="not today"))
    assert answer == {"run": run, "state": "cancelled", "asked": []}
    assert set(states(book, run).values()) == {"cancelled"}
    assert (book.run(run)["reason"], book.run(run)["started_at"]) == ("not today", None)


def test_a_running_run_is_cancelled_when_its_command_has_ended(book: Book) -> None:
    """Until then it is asked for; who asked stands in the reason."""
    book.node()
    book.push(job())
    run = book.fire()
    book.begin(attempt := book.placed(run))
    assert book.done(CancelRun(run=run), actor="bob") == {"run": run, "state": "running", "asked": [attempt]}
    assert book.read(query_attempts.open_attempts)[0].cancel == "cancelled by bob"
    book.end(attempt, "cancelled", exit_code=143)
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("cancelled", "cancelled by bob")


def test_a_command_that_came_through_before_the_cancel_arrived_has_succeeded(book: Book) -> None:
    """What happened is recorded, not what was wished."""
    book.node()
    book.push(job())
    run = book.fire()
    book.begin(attempt := book.placed(run))
    book.done(CancelRun(run=run))
    book.end(attempt)
    assert book.run(run)["state"] == "succeeded"


def test_a_held_attempt_is_revoked_by_a_cancel(book: Book) -> None:
    """The node confirms that it never started."""
    book.node()
    book.push(job())
    run = book.fire(at=book.now + 5 * SECOND)
    attempt = book.placed(run)
    assert book.done(CancelRun(run=run, reason="no"))["asked"] == [attempt]
    book.report(book.event(attempt, "held"), book.event(attempt, "revoked"))
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("cancelled", "no")


def test_after_a_cancel_only_the_clean_up_runs(book: Book) -> None:
    """Queued stages are cancelled, `always` runs when its needs have ended, then the run is cancelled."""
    run = pipeline(book)
    book.carry_out(run, stage="fetch")
    book.begin(attempt := book.placed(run, "count"))
    assert book.done(CancelRun(run=run))["asked"] == [attempt]
    assert states(book, run) == {"fetch": "succeeded", "count": "running", "sum": "cancelled", "send": "cancelled", "clean": "queued"}
    book.end(attempt, "cancelled", exit_code=143)
    assert book.run(run)["state"] == "running"
    book.carry_out(run, stage="clean")
    assert book.run(run)["state"] == "cancelled"


def test_a_second_cancel_ends_the_clean_up_too(book: Book) -> None:
    """Somebody insists."""
    run = pipeline(book)
    book.carry_out(run, stage="fetch")
    book.done(CancelRun(run=run))
    attempt = book.placed(run, "clean")
    assert book.read(query_attempts.open_attempts)[0].cancel is None
    assert book.done(CancelRun(run=run, reason="at once"))["asked"] == [attempt]
    assert book.read(query_attempts.open_attempts)[0].cancel == "cancelled again: at once"
    book.report(book.event(attempt, "revoked"))
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("cancelled", "cancelled again: at once")


def test_a_stage_that_is_given_back_under_a_cancel_does_not_wait_again(book: Book) -> None:
    """While another stage of the run goes on."""
    run = pipeline(book)
    book.carry_out(run, stage="fetch")
    count, total = book.placed(run, "count"), book.placed(run, "sum")
    book.begin(count)
    book.done(CancelRun(run=run))
    book.report(book.event(total, "revoked"))
    assert states(book, run)["sum"] == "cancelled"


def test_an_ended_run_cannot_be_cancelled(book: Book) -> None:
    """A conflict that names its state; an unknown one is not found."""
    run = pipeline(book)
    book.done(CancelRun(run=run))
    assert book.refused(CancelRun(run=run)).error == "Conflict"
    assert book.refused(CancelRun(run="none")).error == "NotFound"
