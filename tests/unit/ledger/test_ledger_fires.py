"""Fires and runs on demand in the ledger: a fire exists once, nothing is passed over, the overlap policy is obeyed (SEMANTICS, "Overlap")."""

from __future__ import annotations

import pytest

from igor_node.definitions.jobs import Stage
from igor_node.ledger import query_attempts, query_jobs, query_runs
from igor_node.ledger.commands import CreateRun, Fire, FireRuns, PauseJobs, Stretch
from igor_node.words import SECOND
from tests.unit.ledger.book import START, Book, job

MINUTE = 60 * SECOND
JOB = "shop/report"


def fire(book: Book, at: int, **fields: object) -> Fire:
    return Fire(job=JOB, run=book.new_id(), scheduled_at=at, due_at=at, **fields)  # type: ignore[arg-type]


def decided_until(book: Book) -> int:
    return book.read(lambda c: query_jobs.job(c, JOB)).decided_until


def test_a_fire_in_the_lookahead_is_scheduled_and_a_late_one_queued(book: Book) -> None:
    """What is not due yet is `scheduled`; its stages without needs wait for a place from the start."""
    book.push(job(stages=[Stage(name="a", command="x"), Stage(name="b", command="y", needs=("a",))]))
    book.now += MINUTE
    late, early = book.fire(at=START + 1), book.fire(at=book.now + 5 * SECOND)
    assert [book.run(run)["state"] for run in (late, early)] == ["queued", "scheduled"]
    assert [stage["state"] for stage in book.run(early)["stages"]] == ["queued", "waiting"]
    assert book.run(early)["trigger"] == "schedule"


def test_a_fire_exists_once(book: Book) -> None:
    """The same scheduled time again is refused, under another id and by another leader too."""
    book.push(job())
    book.fire(at=START + MINUTE)
    book.term = 2
    refused = book.fires(fire(book, START + MINUTE))
    assert refused == [(JOB, START + MINUTE, "decided already: the schedule is decided until 2026-11-24T12:01:00Z")]
    assert book.sql("SELECT count(*) FROM runs") == [(1,)]


def test_decided_until_moves_with_fires_and_by_itself(book: Book) -> None:
    """It is the last fire, or later where the command says so; it never goes back."""
    book.push(job())
    book.fire(at=START + MINUTE)
    assert decided_until(book) == START + MINUTE
    assert book.done(FireRuns(term=1, decided={JOB: START + 5 * MINUTE})) is None
    assert decided_until(book) == START + 5 * MINUTE
    book.done(FireRuns(term=1, decided={JOB: START}))
    assert decided_until(book) == START + 5 * MINUTE


def test_a_refused_fire_stops_its_job_and_no_other(book: Book) -> None:
    """Those before it stand, those after it are refused with it, `decided_until` stays at the last that stands."""
    book.push(job(overlap="skip"), job("other"))
    ok, waits, after = fire(book, START + 1), fire(book, START + MINUTE), fire(book, START + 2 * MINUTE)
    other = Fire(job="shop/other", run=book.new_id(), scheduled_at=START + 1, due_at=START + 1)
    value = book.done(FireRuns(term=1, fires=(ok, waits, after, other), decided={JOB: START + 9 * MINUTE, "shop/other": START + 9 * MINUTE}))
    assert [(at, why) for _, at, why in value["refused"]] == [
        (START + MINUTE, "an earlier run may end before it is due, so it is decided then"),
        (START + 2 * MINUTE, "a fire before it was refused"),
    ]
    assert value["runs"] == 2
    assert decided_until(book) == START + 1
    assert book.read(lambda c: query_jobs.job(c, "other")).decided_until == START + 9 * MINUTE


@pytest.mark.parametrize(
    "versions, why",
    [
        pytest.param({JOB: 1}, "its schedule was read from version 1, the job is at version 3", id="older than its last change"),
        pytest.param({JOB: 2}, None, id="of its last change"),
        pytest.param({JOB: 3}, None, id="of the project's version"),
        pytest.param({JOB: 4}, "its schedule was read from version 4, the job is at version 3", id="from the future"),
    ],
)
def test_a_schedule_that_was_read_before_a_push_is_refused(book: Book, versions: dict[str, int], why: str | None) -> None:
    """The definition must be the one in force; another job's change does not matter."""
    book.push(job(), job("other"))
    book.push(job(description="new"), job("other"))
    book.push(job(description="new"), job("other", description="new"))
    refused = book.fires(fire(book, START + MINUTE), versions=versions)
    assert [one[2] for one in refused] == ([] if why is None else [why])


def test_an_old_term_decides_nothing(book: Book) -> None:
    """A leader that was deposed between its decision and its entry is refused as a whole."""
    book.push(job())
    book.term = 3
    assert book.refused(FireRuns(term=2, fires=(fire(book, START + MINUTE),))).error == "Conflict"


def test_times_that_are_none_are_refused(book: Book) -> None:
    """Neither before 1970 nor after what nanoseconds can say."""
    book.push(job())
    assert book.fires(fire(book, 2**62 * 3 // 2 + 2**61))[0][2] == "that is no time"
    assert book.fires(Fire(job=JOB, run=book.new_id(), scheduled_at=START + 1, due_at=-5))[0][2] == "that is no time"


@pytest.mark.parametrize("outcome", ["skipped", "missed"])
def test_a_fire_that_gets_no_run_is_recorded_with_its_reason(book: Book, outcome: str) -> None:
    """It has no stages, has ended at once and is found under its time."""
    book.push(job())
    run = book.fire(at=START + MINUTE, outcome=outcome, reason="because")
    shown = book.run(run)
    assert (shown["state"], shown["reason"], shown["stages"]) == (outcome, "because", [])
    assert shown["ended_at"] is not None
    assert book.read(lambda c: query_runs.find_run(c, "report@2026-11-24T12:01:00Z")) == run


def test_an_unknown_outcome_is_refused(book: Book) -> None:
    """Only skipped and missed are outcomes without a run."""
    book.push(job())
    assert book.fires(fire(book, START + MINUTE, outcome="forgotten"))[0][2] == '"forgotten" is no outcome of a fire'


# --- stretches


def stretch(first: int, last: int, count: int, outcome: str = "missed", reason: str = "no leader") -> Stretch:
    return Stretch(job=JOB, first=START + first * MINUTE, last=START + last * MINUTE, count=count, outcome=outcome, reason=reason)


def stretches(book: Book) -> list[tuple[int, int, int, str, str]]:
    found = book.sql("SELECT first, last, count, outcome, reason FROM stretches ORDER BY first")
    return [((first - START) // MINUTE, (last - START) // MINUTE, *rest) for first, last, *rest in found]


def test_a_stretch_grows_while_nothing_comes_between(book: Book) -> None:
    """The same outcome and reason, no run since: one row."""
    book.push(job())
    book.done(FireRuns(term=1, stretches=(stretch(1, 10, 10),)))
    book.done(FireRuns(term=1, stretches=(stretch(11, 12, 2),)))
    assert stretches(book) == [(1, 12, 12, "missed", "no leader")]
    assert decided_until(book) == START + 12 * MINUTE


@pytest.mark.parametrize(
    "between, then",
    [
        pytest.param(True, stretch(4, 5, 2), id="a run in between"),
        pytest.param(False, stretch(4, 5, 2, reason="other"), id="another reason"),
        pytest.param(False, stretch(4, 5, 2, outcome="skipped"), id="another outcome"),
    ],
)
def test_a_stretch_of_something_else_begins_anew(book: Book, between: bool, then: Stretch) -> None:
    """A record never covers a fire that had a run, nor two outcomes."""
    book.push(job())
    book.done(FireRuns(term=1, stretches=(stretch(1, 2, 2),)))
    if between:
        book.fire(at=START + 3 * MINUTE)
    book.done(FireRuns(term=1, stretches=(then,)))
    assert len(stretches(book)) == 2


def test_stretches_and_fires_of_one_command_are_taken_in_order_of_time(book: Book) -> None:
    """A gap: some missed, the latest run."""
    book.push(job())
    book.now += 10 * MINUTE
    value = book.done(FireRuns(term=1, stretches=(stretch(1, 8, 8),), fires=(fire(book, START + 9 * MINUTE),), decided={JOB: START + 9 * MINUTE}))
    assert value is None
    assert decided_until(book) == START + 9 * MINUTE


@pytest.mark.parametrize(
    "bad", [stretch(2, 1, 1), stretch(1, 2, 0), stretch(1, 2, 1, outcome="")], ids=["ends before it begins", "of none", "no outcome"]
)
def test_a_stretch_that_is_none_is_refused(book: Book, bad: Stretch) -> None:
    """A record must say something."""
    book.push(job())
    assert len(book.done(FireRuns(term=1, stretches=(bad,)))["refused"]) == 1
    assert stretches(book) == []


def test_a_stretch_of_a_paused_job_is_taken(book: Book) -> None:
    """While paused there is one record of the span, not one a fire."""
    book.push(job())
    book.done(PauseJobs(jobs=(JOB,)))
    book.done(FireRuns(term=1, stretches=(stretch(1, 2, 2, "skipped", "paused"),)))
    assert stretches(book) == [(1, 2, 2, "skipped", "paused")]


# --- overlap


def test_skip(book: Book) -> None:
    """A fire that comes while an earlier run goes on is recorded skipped, and says which run that was."""
    book.push(job(overlap="skip"))
    first = book.fire()
    second = book.fire()
    assert book.run(second)["state"] == "skipped"
    assert first in book.run(second)["reason"]


def test_skip_makes_a_run_on_demand_a_skipped_one(book: Book) -> None:
    """It obeys the same policy, and the answer says so."""
    book.push(job(overlap="skip"))
    book.fire()
    assert book.done(CreateRun(job=JOB, run=book.new_id()))["state"] == "skipped"


def test_queue_skips_the_oldest_past_max_queued(book: Book) -> None:
    """`skipped: queue full`, and the newest waits."""
    book.push(job(max_queued=2))
    book.node()
    running = book.fire()
    book.begin(book.placed(running))
    waiting = [book.fire() for _ in range(3)]
    assert [book.run(run)["state"] for run in waiting] == ["skipped", "queued", "queued"]
    assert book.run(waiting[0])["reason"] == "queue full"
    assert book.run(running)["state"] == "running"


def test_queue_one_keeps_the_first_that_waits(book: Book) -> None:
    """A further fire is skipped and names the run that stands for it."""
    book.push(job(overlap="queue_one"))
    book.node()
    book.begin(book.placed(book.fire()))
    waiting, further = book.fire(), book.fire()
    assert (book.run(waiting)["state"], book.run(further)["state"]) == ("queued", "skipped")
    assert waiting in book.run(further)["reason"]


def test_cancel_ends_the_earlier_run_and_waits_for_its_end(book: Book) -> None:
    """The earlier one is asked to end; the new one starts when that is recorded."""
    book.push(job(overlap="cancel"))
    book.node()
    earlier = book.fire()
    book.begin(attempt := book.placed(earlier))
    later = book.fire()
    assert book.read(query_attempts.open_attempts)[0].cancel == "cancelled for the next run (overlap: cancel)"
    assert "has not ended" in book.place(later)
    book.end(attempt, "cancelled", exit_code=143)
    assert book.run(earlier)["state"] == "cancelled"
    book.carry_out(later)
    assert book.run(later)["state"] == "succeeded"


def test_cancel_ends_a_waiting_run_at_once(book: Book) -> None:
    """It never started."""
    book.push(job(overlap="cancel"))
    first, second = book.fire(), book.fire()
    assert (book.run(first)["state"], book.run(second)["state"]) == ("cancelled", "queued")


# --- runs on demand


def test_a_run_on_demand_is_queued_with_its_params(book: Book) -> None:
    """Params are given checked; it has no scheduled time and is due at once."""
    book.push(job())
    shown = book.run(book.create(params={"day": "2026-11-24"}))
    assert (shown["state"], shown["params"], shown["scheduled_time"], shown["trigger"]) == ("queued", {"day": "2026-11-24"}, None, "manual")


def test_a_key_makes_one_run(book: Book) -> None:
    """Asked again with the same key, the answer is the first run; after 24 h the key is free."""
    book.push(job(), job("other"))
    first = book.done(CreateRun(job=JOB, run=(run := book.new_id()), key="k"))
    again = book.done(CreateRun(job=JOB, run=book.new_id(), key="k"))
    assert (first["known"], again["known"], again["run"]) == (False, True, run)
    assert book.refused(CreateRun(job="shop/other", run=book.new_id(), key="k")).error == "Conflict"
    book.now += 25 * 3600 * SECOND
    assert not book.done(CreateRun(job=JOB, run=book.new_id(), key="k"))["known"]


@pytest.mark.parametrize(
    "command, error",
    [
        pytest.param(CreateRun(job="shop/none", run="0" * 20), "NotFound", id="no such job"),
        pytest.param(CreateRun(job=JOB, run="0" * 20, trigger="schedule"), "Invalid", id="a fire is no run on demand"),
        pytest.param(CreateRun(job=JOB, run="0" * 20, trigger="whim"), "Invalid", id="no trigger"),
    ],
)
def test_what_cannot_be_created(book: Book, command: CreateRun, error: str) -> None:
    """Refused with the error that the API maps to its status."""
    book.push(job())
    assert book.refused(command).error == error


def test_an_id_is_used_once(book: Book) -> None:
    """Two runs never share an id; the refused one leaves nothing."""
    book.push(job())
    run = book.create()
    assert book.refused(CreateRun(job=JOB, run=run, key="k")).error == "Conflict"
    assert book.sql("SELECT count(*) FROM keys") == [(0,)]


def test_now_starts_beside_an_earlier_run_but_is_waited_for(book: Book) -> None:
    """`--now`: beside whatever goes on; the next fire waits for it too."""
    book.push(job(overlap="skip"))
    book.node()
    book.begin(book.placed(book.fire()))
    beside = book.create(beside=True)
    assert book.place(beside) == ""
    assert book.run(book.fire())["state"] == "skipped"
