"""What nodes report, in the ledger: each event once, in order; stages and runs follow; losses and late results (SEMANTICS, "When a node is lost")."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.definitions.jobs import Stage
from igor_node.ledger import query_attempts, query_live
from igor_node.ledger.commands import AttemptsLost, CancelRun, DecideLost, NodeChanged, ReportEvents
from igor_node.ledger.waiting import waiting_stages
from igor_node.stream import AttemptEvent
from igor_node.words import SECOND
from tests.unit.ledger.book import Book, job


def lost(book: Book, *attempts: str, **how: str) -> dict[str, Any]:
    return book.done(AttemptsLost(term=book.term, attempts=attempts, reason="node a is silent", **how))


def started(book: Book, *, loss: str = "rerun", **fields: Any) -> tuple[str, str]:
    """A run whose stage is running on node a, and its attempt."""
    book.node("a")
    book.node("b")
    book.push(job(stages=[Stage(name="main", command="true", on_node_loss=loss)], **fields))
    run = book.fire()
    attempt = book.placed(run)
    book.begin(attempt)
    return run, attempt


def attempts_of(book: Book, run: str) -> list[tuple[str, str | None]]:
    return [(one["state"], one["late_result"]) for one in book.run(run)["stages"][0]["attempts"]]


# --- the plain course


def test_lateness_is_the_first_trys_start_less_the_due_time(book: Book) -> None:
    """Measured with the node's own time of the start, not with that of its report."""
    book.push(job())
    book.node()
    run = book.fire(due_at=book.now + SECOND)
    attempt = book.placed(run)
    book.report(book.event(attempt, "try_started", try_n=1, at=book.now + 1_250_000_000))
    assert book.run(run)["lateness_s"] == pytest.approx(0.251)


@pytest.mark.parametrize(
    "state, ends_as, reason",
    [
        pytest.param("succeeded", "succeeded", "", id="succeeded"),
        pytest.param("failed", "failed", "exit code 3", id="failed"),
        pytest.param("timed_out", "timed_out", "", id="timed out"),
        pytest.param("cancelled", "cancelled", "", id="cancelled"),
        pytest.param("skipped", "succeeded", "exit code 3", id="a skip code"),
    ],
)
def test_a_run_ends_as_its_stage_did(book: Book, state: str, ends_as: str, reason: str) -> None:
    """The reason comes from the last try where the node gives none."""
    run, attempt = started(book)
    book.end(attempt, state, exit_code=3)
    assert (book.run(run)["state"], book.run(run)["reason"]) == (ends_as, reason)
    assert book.run(run)["ended_at"] is not None
    assert book.read(query_attempts.open_attempts) == []


def test_retries_are_tries_of_one_attempt(book: Book) -> None:
    """Each with its own end; the run is running all the while."""
    run, attempt = started(book)
    book.report(
        book.event(attempt, "try_ended", try_n=1, state="failed", exit_code=1, max_rss_bytes=7, cpu_ns=2_500_000_000),
        book.event(attempt, "try_started", try_n=2),
    )
    assert book.run(run)["state"] == "running"
    book.report(book.event(attempt, "try_ended", try_n=2, state="failed", signal=9), book.event(attempt, "ended", state="failed"))
    tries = book.run(run)["stages"][0]["attempts"][0]["tries"]
    assert [(one["n"], one["state"], one["exit_code"], one["signal"], one["cpu_s"]) for one in tries] == [
        (1, "failed", 1, None, 2.5),
        (2, "failed", None, 9, None),
    ]
    assert book.run(run)["reason"] == "signal 9"


# --- once, in order


def test_the_same_events_again_change_nothing(book: Book) -> None:
    """They are acknowledged as before."""
    book.push(job())
    book.node()
    run = book.fire()
    attempt = book.placed(run)
    events = (book.event(attempt, "held"), book.event(attempt, "try_started", try_n=1))
    first = book.report(*events)
    before = book.run(run)
    assert book.report(*events) == first == {"upto": {attempt: 2}}
    assert book.run(run) == before


def test_a_gap_is_refused_for_its_attempt_alone(book: Book) -> None:
    """The answer says from where to send again; other attempts go on."""
    book.push(job())
    book.node()
    one, two = book.placed(book.create(beside=True)), book.placed(book.create(beside=True))
    missing = book.event(one, "held")
    value = book.report(book.event(one, "try_started", try_n=1), book.event(two, "held"))
    assert value == {"upto": {one: 0, two: 1}, "gaps": {one: 1}}
    assert book.report(missing)["upto"] == {one: 1}


def test_reports_of_strangers_are_named(book: Book) -> None:
    """An attempt that is not known, and one of another node."""
    book.push(job())
    book.node("a")
    book.node("b")
    attempt = book.placed(book.create())
    value = book.report(book.event(attempt, "held"), book.event("nobody.main.1", "held"), book.event("nonsense", "held"), node="node-b")
    assert (value["foreign"], value["unknown"]) == ([attempt], ["nobody.main.1", "nonsense"])
    assert book.read(query_attempts.open_attempts)[0].state == "assigned"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"kind": "exploded"}, id="no kind"),
        pytest.param({"kind": "ended", "state": "held"}, id="no end"),
        pytest.param({"kind": "try_ended", "try_n": 1, "state": "running"}, id="no end of a try"),
        pytest.param({"kind": "try_ended", "try_n": 7, "state": "failed"}, id="a try that never began"),
        pytest.param({"kind": "try_started", "try_n": 0}, id="a try without a number"),
        pytest.param({"kind": "held"}, id="held after it started"),
        pytest.param({"kind": "revoked"}, id="revoked after it started"),
        pytest.param({"kind": "refused"}, id="refused after it started"),
    ],
)
def test_an_event_that_cannot_be_is_seen_and_ignored(book: Book, event: dict[str, Any]) -> None:
    """It is named, and does not block those behind it."""
    run, attempt = started(book)
    value = book.report(book.event(attempt, **event))
    assert [one[:2] for one in value["ignored"]] == [(attempt, 3)]
    book.end(attempt)
    assert book.run(run)["state"] == "succeeded"


def test_a_node_whose_clock_is_far_ahead_is_not_believed(book: Book) -> None:
    """Nor one that is before 1970: what is written can be read."""
    book.push(job())
    book.node()
    run = book.fire()
    attempt = book.placed(run)
    book.report(book.event(attempt, "try_started", try_n=1, at=2**62), book.event(attempt, "try_ended", try_n=1, state="failed", at=-(2**60)))
    assert book.run(run)["lateness_s"] == 60
    assert book.run(run)["stages"][0]["attempts"][0]["tries"][0]["ended_at"] == "1970-01-01T00:00:00Z"


# --- given back


def test_a_node_that_cannot_run_it_gives_it_back(book: Book) -> None:
    """It is placed elsewhere; after `max_attempts` refusals it has failed."""
    book.node("a")
    book.node("b")
    book.push(job(max_attempts=2))
    run = book.fire()
    book.report(book.event(book.placed(run), "refused", reason="no such user"))
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("queued", "no such user")
    assert book.read(lambda c: waiting_stages(c, book.now))[0].avoid == ("node-a",)
    book.report(book.event(book.placed(run, n=2, node="node-b"), "refused", reason="no such user"), node="node-b")
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("failed", "refused 2 times: no such user")


def test_a_run_that_was_given_back_lets_another_begin(book: Book) -> None:
    """It does not hold its job's slot any more."""
    book.push(job())
    book.node()
    first = book.fire()
    book.report(book.event(book.placed(first), "revoked"))
    assert not book.read(lambda c: query_live.live_runs(c, "shop/report"))[0].begun
    assert book.place(first, n=2) == ""


# --- lost


def test_rerun_makes_the_next_attempt_elsewhere(book: Book) -> None:
    """The stage waits again, avoids the node, and the run goes on under a higher fence."""
    run, attempt = started(book)
    assert lost(book, attempt) == {"lost": [attempt], "left": []}
    assert attempts_of(book, run) == [("lost", None)]
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("running", "attempt 1 was lost: node a is silent")
    assert book.run(run)["stages"][0]["attempts"][0]["tries"][0]["state"] == "lost"
    waiting = book.read(lambda c: waiting_stages(c, book.now))[0]
    assert (waiting.n, waiting.avoid) == (2, ("node-a",))
    book.carry_out(run, n=2, node="node-b")
    assert book.run(run)["state"] == "succeeded"


def test_lost_three_times_is_failed(book: Book) -> None:
    """`max_attempts` in all."""
    run, attempt = started(book)
    for n in (2, 3):
        lost(book, attempt)
        attempt = book.placed(run, n=n, node="node-b")
    lost(book, attempt)
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("failed", "lost 3 times")


def test_fail_ends_the_run_at_once_and_stays_failed(book: Book) -> None:
    """What comes later is kept as the attempt's late result."""
    run, attempt = started(book, loss="fail")
    lost(book, attempt)
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("failed", "lost with its node (on_node_loss: fail)")
    assert book.end(attempt)["late"] == [attempt]
    assert book.run(run)["state"] == "failed"
    assert attempts_of(book, run) == [("lost", "succeeded")]


def test_wait_reruns_nothing_until_a_person_decides(book: Book) -> None:
    """The attempt stays; `decision` is the person's."""
    run, attempt = started(book, loss="wait")
    assert lost(book, attempt) == {"lost": [], "left": [attempt]}
    assert (book.run(run)["state"], attempts_of(book, run)) == ("running", [("running", None)])
    assert "it is waited for" in book.run(run)["reason"]
    lost(book, attempt, decision="rerun")
    assert attempts_of(book, run) == [("lost", None)]
    assert book.place(run, n=2, node="node-b") == ""


@pytest.mark.parametrize("decision, state", [("rerun", "queued"), ("fail", "failed")])
def test_a_person_decides_about_what_waits_for_a_node_that_is_not_heard(book: Book, decision: str, state: str) -> None:
    run, attempt = started(book, loss="wait")
    assert "is heard" in book.refused(DecideLost(run=run, decision=decision)).hint
    book.done(NodeChanged(node="node-a", state="silent", reason="no heartbeat"))
    assert book.refused(DecideLost(run=run, decision="rest")).error == "Invalid"
    assert book.done(DecideLost(run=run, decision=decision, reason="it burnt"))["lost"] == [attempt]
    assert attempts_of(book, run) == [("lost", None)]
    stage = book.run(run)["stages"][0]
    assert stage["state"] == state and book.run(run)["state"] == ("running" if decision == "rerun" else "failed")
    assert "decided that it is lost: it burnt" in str(stage)
    book.end(attempt, exit_code=0)
    assert (book.run(run)["state"] == "succeeded") == (decision == "rerun")  # a late result, as ever
    assert book.refused(DecideLost(run=run, decision=decision)).error == "Conflict"


def test_nobody_decides_about_what_its_lease_decides(book: Book) -> None:
    run, _ = started(book, loss="rerun")
    book.done(NodeChanged(node="node-a", state="lost", reason="no sign of life"))
    assert "its lease decides (on_node_loss: rerun)" in book.refused(DecideLost(run=run, decision="rerun")).hint


def test_a_late_result_counts_while_nothing_was_placed_after_the_loss(book: Book) -> None:
    """The next attempt is dropped; its try is found again."""
    run, attempt = started(book)
    lost(book, attempt)
    book.end(attempt, exit_code=0)
    assert book.run(run)["state"] == "succeeded"
    assert attempts_of(book, run) == [("succeeded", "succeeded")]
    assert book.run(run)["stages"][0]["attempts"][0]["tries"][0]["state"] == "succeeded"
    assert book.place(run, n=2, node="node-b") == "the run is succeeded"


def test_a_late_result_is_only_kept_once_the_next_attempt_is_placed(book: Book) -> None:
    """The run goes by the next attempt."""
    run, attempt = started(book)
    lost(book, attempt)
    following = book.placed(run, n=2, node="node-b")
    assert book.end(attempt)["late"] == [attempt]
    assert book.run(run)["state"] == "running"
    book.begin(following, node="node-b")
    book.end(following, "failed", exit_code=1, node="node-b")
    assert book.run(run)["state"] == "failed"
    assert attempts_of(book, run) == [("lost", "succeeded"), ("failed", None)]


def test_a_whole_late_story_of_a_run_that_the_ledger_never_saw_start(book: Book) -> None:
    """Lost while held, and it ran all the same: the run has its start and its end."""
    book.node()
    book.push(job())
    run = book.fire()
    attempt = book.placed(run)
    lost(book, attempt)
    book.begin(attempt)
    assert book.run(run)["state"] == "queued"
    book.end(attempt)
    assert (book.run(run)["state"], book.run(run)["lateness_s"]) == ("succeeded", 0)


def test_a_late_loss_leaves_the_stage_waiting(book: Book) -> None:
    """The wrapper that ended its process with its lease reports `lost`: the rerun goes on."""
    run, attempt = started(book)
    lost(book, attempt)
    book.end(attempt, "lost")
    assert book.run(run)["stages"][0]["state"] == "queued"


def test_a_loss_that_the_wrapper_reports_itself_is_rerun_as_well(book: Book) -> None:
    """Its lease ran out while the node could reach nobody, and no leader had given it up when the node was back: `rerun` holds all the same."""
    run, attempt = started(book, max_attempts=2)
    book.end(attempt, "lost", reason="its lease ran out")
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("running", "attempt 1 was lost: its lease ran out")
    again = book.placed(run, n=2, node="node-b")
    book.begin(again, node="node-b")
    book.end(again, "lost", reason="its lease ran out", node="node-b")
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("failed", "lost 2 times")


def test_a_fire_that_lost_its_lease_before_it_started_is_rerun(book: Book) -> None:
    """It has not run, so it is not over."""
    book.node("a")
    book.push(job())
    run = book.fire()
    attempt = book.placed(run)
    book.report(book.event(attempt, "held"), book.event(attempt, "ended", state="lost", reason="its lease ran out before it could start"))
    assert book.run(run)["ended_at"] is None
    book.carry_out(run, n=2)
    assert (book.run(run)["state"], attempts_of(book, run)) == ("succeeded", [("lost", None), ("succeeded", None)])


@pytest.mark.parametrize("loss, state", [("wait", "lost"), ("fail", "failed")])
def test_a_loss_that_the_wrapper_reports_is_not_rerun_where_the_job_says_so(book: Book, loss: str, state: str) -> None:
    """What was waited for has ended; what shall fail fails."""
    run, attempt = started(book, loss=loss)
    book.end(attempt, "lost", reason="the machine lost power")
    assert book.run(run)["state"] == state


def test_a_cancelled_run_whose_wrapper_reports_a_loss_is_cancelled(book: Book) -> None:
    """Nothing is rerun that nobody wants."""
    run, attempt = started(book)
    book.done(CancelRun(run=run, reason="not needed"))
    book.end(attempt, "lost", reason="its lease ran out")
    assert book.run(run)["state"] == "cancelled"


def test_what_ended_before_the_loss_is_left_as_it_is(book: Book) -> None:
    """The loss comes too late."""
    run, attempt = started(book)
    book.end(attempt)
    assert lost(book, attempt, "nonsense") == {"lost": [], "left": [attempt, "nonsense"]}
    assert book.run(run)["state"] == "succeeded"


def test_a_cancelled_run_that_is_lost_is_cancelled(book: Book) -> None:
    """`cancelled: node silent`, and nothing is rerun."""
    run, attempt = started(book)
    book.done(CancelRun(run=run, reason="not needed"))
    lost(book, attempt)
    assert (book.run(run)["state"], book.run(run)["reason"]) == ("cancelled", "not needed; node silent")


def test_losses_of_an_old_term_are_refused(book: Book) -> None:
    """As with fires."""
    book.term = 5
    assert book.refused(AttemptsLost(term=4, attempts=(), reason="")).error == "Conflict"


def test_an_integer_that_no_database_holds_is_refused_and_harms_nothing(book: Book) -> None:
    """The batch is done again without that one command: a node cannot halt a cluster."""
    run, attempt = started(book)
    poison = AttemptEvent(attempt=attempt, seq=3, kind="try_ended", at=1, try_n=1, state="failed", exit_code=2**63)
    entries = [book.entry(ReportEvents(node="node-a", events=(poison,)))]
    entries.append(type(entries[0])(entries[0].index + 1, 1, 0, book.entry(CancelRun(run=run)).data))
    results = book.ledger.apply(entries)
    assert (results[0].error, results[1].value["asked"]) == ("Malformed", [attempt])
    book.end(attempt)
