"""Backfills in the ledger: times once, in their order, at most so many at once, by the job's policy, beside what is there."""

from __future__ import annotations

from typing import Any

import pytest

from igor_node.ledger import query_backfills, query_jobs
from igor_node.ledger.commands import BackfillRuns, CancelBackfill, CancelRun, CreateBackfill, Prune
from igor_node.words import SECOND
from tests.unit.ledger.book import Book, job

MINUTE = 60 * SECOND


def past(book: Book, count: int) -> tuple[int, ...]:
    start = book.now // MINUTE * MINUTE - 100 * MINUTE
    return tuple(start + number * MINUTE for number in range(count))


def made(book: Book, count: int = 1, backfill: str = "b1") -> int:
    value = book.done(BackfillRuns(term=book.term, backfill=backfill, runs=tuple(book.new_id() for _ in range(count))))
    return int(value["made"])


def begun(book: Book, count: int = 4, **fields: Any) -> tuple[int, ...]:
    """A backfill of so many times, and a node."""
    book.push(job(**fields))
    book.node(slots=50)
    times = past(book, count)
    book.done(CreateBackfill(backfill="b1", job="shop/report", times=times))
    return times


def shown(book: Book, backfill: str = "b1") -> query_backfills.BackfillRow:
    return book.read(lambda connection: query_backfills.backfill(connection, backfill))


def runs(book: Book) -> list[dict[str, Any]]:
    return sorted((book.run(run) for (run,) in book.read(lambda c: c.execute("SELECT id FROM runs").fetchall())), key=lambda run: run["id"])


def end(book: Book, run: str) -> None:
    attempt = book.placed(run)
    book.begin(attempt)
    book.end(attempt)


def test_one_after_the_other_until_all_are_made(book: Book) -> None:
    times = begun(book, 3)
    for number in range(3):
        assert book.read(query_backfills.steps) == [query_backfills.Step(backfill="b1", runs=1)]
        assert (made(book, 5), made(book, 5) if number < 2 else 0) == (1, 0)
        assert book.read(query_backfills.steps) == []
        end(book, runs(book)[-1]["id"])
    assert [(run["trigger"], run["state"]) for run in runs(book)] == [("backfill", "succeeded")] * 3
    assert (shown(book).state, shown(book).made, shown(book).states) == ("made", 3, {"succeeded": 3})
    assert (shown(book).first, shown(book).last) == (times[0], times[-1])
    assert book.refused(BackfillRuns(term=book.term, backfill="b1", runs=("x",))).error == "Conflict"


def test_so_many_at_once_as_were_asked_for(book: Book) -> None:
    book.push(job())
    book.done(CreateBackfill(backfill="b1", job="shop/report", times=past(book, 5), parallel=3))
    assert book.read(query_backfills.steps)[0].runs == 3
    assert (made(book, 10), made(book, 10)) == (3, 0)


@pytest.mark.parametrize(("overlap", "others", "room"), [("skip", 1, 0), ("cancel", 1, 0), ("queue_one", 2, 0), ("queue", 1, 1), ("allow", 1, 1)])
def test_it_waits_where_the_policy_would_skip_or_cancel_for_it(book: Book, overlap: str, others: int, room: int) -> None:
    """A run of the schedule goes on; under queue_one one waits behind it."""
    begun(book, 2, overlap=overlap)
    first = book.create()
    book.begin(book.placed(first))
    waiting = [book.create() for _ in range(others - 1)]
    assert [step.runs for step in book.read(query_backfills.steps)] == [room] * (room > 0)
    assert made(book) == room
    assert all(book.run(run)["state"] in ("running", "queued") for run in (first, *waiting))


def test_it_leaves_the_records_of_its_times_and_the_schedule_alone(book: Book) -> None:
    """The scheduled run of the same time stays; nothing is decided by it, and the line goes by the time when it was made."""
    begun(book, 1)
    at = book.now = book.now + MINUTE
    scheduled = book.fire(at=at)
    decided = book.read(lambda c: query_jobs.job(c, "shop/report")).decided_until
    book.now += MINUTE
    book.done(CreateBackfill(backfill="b2", job="shop/report", times=(at,)))
    made(book)
    assert made(book, backfill="b2") == 0  # one backfill of a job at a time
    backfilled = runs(book)[-1]
    assert book.read(lambda c: query_jobs.job(c, "shop/report")).decided_until == decided
    assert book.run(scheduled)["state"] == "queued" and backfilled["scheduled_time"] is not None
    assert "is before it" in book.place(backfilled["id"])


def test_what_is_done_is_not_done_again(book: Book) -> None:
    times = begun(book, 3)
    start, stop = times[0], times[-1] + 1
    known = book.read(lambda c: query_backfills.done(c, "shop/report", start, stop))
    assert known == frozenset(times)  # all are to be made
    made(book)
    end(book, runs(book)[-1]["id"])
    made(book)
    book.done(CancelBackfill(backfill="b1"))
    assert book.read(lambda c: query_backfills.done(c, "shop/report", start, stop)) == {times[0]}


def test_a_cancelled_one_makes_no_more_and_ends_what_goes_on(book: Book) -> None:
    begun(book)
    made(book)
    assert book.done(CancelBackfill(backfill="b1", reason="wrong week"))["cancelled"] == 1
    assert [(run["state"], run["reason"]) for run in runs(book)] == [("cancelled", "wrong week")]
    assert (shown(book).state, shown(book).reason) == ("cancelled", "wrong week") and book.read(query_backfills.steps) == []
    assert book.refused(CancelBackfill(backfill="b1")).error == "Conflict"


def test_a_failed_or_cancelled_run_does_not_hold_it_up(book: Book) -> None:
    begun(book, 2)
    made(book)
    book.done(CancelRun(run=runs(book)[-1]["id"]))
    assert made(book) == 1 and shown(book).states == {"cancelled": 1, "queued": 1}


def test_it_ends_with_its_job(book: Book) -> None:
    begun(book)
    book.push(job(name="other"), prune=True)
    assert book.read(query_backfills.steps) == [query_backfills.Step(backfill="b1", runs=0)]
    assert made(book) == 0 and (shown(book).state, shown(book).reason) == ("cancelled", "job removed")


@pytest.mark.parametrize(
    "fields", [{"times": ()}, {"times": (1, 1)}, {"times": (1 << 62,)}, {"times": (-1,)}, {"times": (1,), "parallel": 0}], ids=str
)
def test_what_is_no_backfill(book: Book, fields: dict[str, Any]) -> None:
    book.push(job())
    assert book.refused(CreateBackfill(backfill="b1", job="shop/report", **fields)).error == "Invalid"


def test_old_ones_are_forgotten(book: Book) -> None:
    begun(book)
    book.done(CancelBackfill(backfill="b1"))
    book.now += MINUTE
    book.done(Prune(runs_before=book.now, results_before=0, events_before=0))
    assert book.read(query_backfills.backfills) == [] and book.read(lambda c: c.execute("SELECT count(*) FROM backfill_times").fetchone()) == (0,)
